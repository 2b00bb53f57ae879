"""Faults while a command runs: killed, a full disk, read-only, damaged, deleted, two at once."""

import errno
import os
import signal
import time

from harness import stories
from harness.case import Case, without_rights, words_of
from harness.engine import error, error_or_works, works
from harness.folder import TRAIN, remove_path, replace

CASES = []
RUN = ("runs/new/oof.csv", "runs/new/folds.csv", "runs/new/fold*/*/best.safetensors")
# What each command runs here, and the files that must come out the same.
COMMANDS = {
    "train": (f"{TRAIN} --name new --k_fold 2 --epochs 3", RUN),
    "train split": (f"{TRAIN} --name new --split_heads --bg none+grabcut --matte_dir m --epochs 2",
        RUN),
    "inference": (words_of("inference", "--save_probs"), ("output/*.csv",)),
    "preprocess": (words_of("preprocess", "--matte_dir m --limit 99"),
        ("m/*/*/*.png", "m/*/*.csv")),
    "demo": (words_of("demo", "--out new"), ("new/*.csv", "new/*/*.csv", "new/*/images/*/*.jpg")),
    "tune": (words_of("tune", "--trials 2"), ("runs/tune/trial*/oof.csv",)),
    "report": (words_of("report", "--model_dir runs/joint"), ("report_tables/*.csv",)),
}  # fmt: skip


def add(name, function, **more):
    more = {
        "changes": ("runs/half/*", "runs/new/*", "cache/*", "tune.db*", "data/*/rejected.csv")
    } | more
    CASES.append(Case(f"faults: {name}", "faults", story=function, **more))


# ---- stopped by a signal at a random moment, again and again, until it gets to its end

for what, (argv, names) in COMMANDS.items():
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        for seed in range(3 if what.startswith("train") else 2 if what != "report" else 1):
            add(f"{what} stopped by {number.name}, {seed}",
                stories.stopped(what.split()[0], argv, names, number, seed))  # fmt: skip


# ---- no room, no rights

FULL = {
    "train": "runs",
    "train split": "m",
    "inference": "output",
    "preprocess": "m",
    "tune": "runs",
}
for what, place in FULL.items():
    argv, names = COMMANDS[what]
    for room in (4, 64, 256, 1024):
        add(
            f"a full disk of {room} kB, {what}",
            stories.full_disk(what.split()[0], argv, place, room, names),
        )
for what in ("train", "inference"):
    for room in (4, 64, 200):
        argv, names = COMMANDS[what]
        add(f"a full disk of {room} kB for the cache, {what}",
            stories.full_disk(what, argv, "cache", room, names))  # fmt: skip
for name, argv in {"report": words_of("report", "--model_dir runs/joint --out full/page.html"),
                   "demo": words_of("demo", "--out full/new"),
                   "tune": words_of("tune", "--storage sqlite:///full/tune.db"),
                   }.items():  # fmt: skip
    for room in (4, 64):
        add(
            f"a full disk of {room} kB for its output, {name}",
            stories.full_disk(name, argv, "full", room, ()),
        )


def read_only(command, argv, place):
    def story(box):
        box.path(place).mkdir(exist_ok=True)
        box.path(place).chmod(0o555)
        done = box.run(command, argv, before=without_rights)
        return error(place, "[Pp]ermission|cannot write|not writable").complaints(done)

    return story


for what, place in FULL.items():
    add(f"no right to write, {what}", read_only(what.split()[0], COMMANDS[what][0], place))
for what in ("train", "inference"):
    add(f"no right to write the cache, {what}", read_only(what, COMMANDS[what][0], "cache"))
add("no right to write, report", read_only("report", words_of("report", "--out ro/x.html"), "ro"))
add("no right to write, demo", read_only("demo", words_of("demo", "--out ro/x"), "ro"))


# ---- a cached store that is damaged between two commands, or while one runs

DAMAGE = {
    "cut off": lambda p: replace(p, p.read_bytes()[: len(p.read_bytes()) // 2]),
    "a byte short": lambda p: replace(p, p.read_bytes()[:-1]),
    "empty": lambda p: replace(p, b""),
    "garbage": lambda p: replace(p, os.urandom(5000)),
    "flipped in a pixel": lambda p: stories.flip_byte(p, 0.5),
    "flipped in its last pixel": lambda p: stories.flip_byte(p, 0.99999),
    "flipped in its header": lambda p: stories.flip_byte(p, 0.0001),
    "of zeros": lambda p: replace(p, bytes(p.stat().st_size)),
    "missing": remove_path,
    "a folder": lambda p: (remove_path(p), p.mkdir()),
    "longer": lambda p: replace(p, p.read_bytes() + b"x"),
}
for name, damage in DAMAGE.items():
    for suffix in ("npy", "json"):
        if suffix == "json" and "pixel" in name:
            continue
        for command in ("inference", "train"):
            add(
                f"the cached {suffix} is {name}, {command}",
                stories.damaged(command, suffix, damage),
            )
for text in (
    "null",
    "[]",
    "{}",
    '{"broken": 3}',
    '{"broken": {"x": "y"}}',
    '{"broken": {"9999": "y"}}',
):
    add(
        f"the cached json is {text}",
        stories.damaged("inference", "json", lambda p, t=text: replace(p, t)),
    )


# ---- deleted while it runs


def deleted(pattern, expected, argv=f"{TRAIN} --name new --k_fold 2 --epochs 40", **more):
    """Removes files of a training that has saved its first state."""

    def story(box):
        running = stories.in_training(box, argv)
        for path in box.folder.glob(pattern):
            remove_path(path)
        done = running.wait()
        return expected.complaints(done)

    return story


add("folds.csv deleted in training", deleted("runs/new/folds.csv", error(r"folds\.csv")))
add(
    "config.json deleted in training",
    deleted("runs/new/config.json", error_or_works(r"config\.json")),
)
add("last.pt deleted in training", deleted("runs/new/fold0/*/last.pt", error_or_works(r"last\.pt")))
add(
    "best.safetensors deleted in training",
    deleted("runs/new/fold0/*/best.safetensors", error_or_works("best")),
)
add(
    "the run deleted in training",
    deleted("runs/new", error_or_works("runs/new|folds.csv|config.json")),
)
add("the cache deleted in training", deleted("cache", works("macro F1")))
add(
    "photos deleted in training",
    deleted("data/train/images", works("macro F1")),
    changes=("data/train/*", "*"),
)
add("the cache cut off in training", stories.cut_off_in_training)
add("a fold's metrics deleted before the last", stories.metrics_deleted)


# ---- two at once

TWICE = {
    "train, one name": ("train", f"{TRAIN} --name new", f"{TRAIN} --name new", works(), works()),
    "train, two folds": ("train", f"{TRAIN} --name new --k_fold 2 --fold 0",
        f"{TRAIN} --name new --k_fold 2 --fold 1", works(), works()),
    "train, one fold": ("train", f"{TRAIN} --name new --k_fold 2 --fold 0 --epochs 9",
        f"{TRAIN} --name new --k_fold 2 --fold 0 --epochs 9", works(),
        error_or_works("another process")),
    "resume": ("train", "--resume runs/half", "--resume runs/half", works(),
        error_or_works("another process")),
    "preprocess": ("preprocess", *[words_of("preprocess", "--matte_dir m --limit 99")] * 2, works(),
        works()),
    "preprocess --overwrite": ("preprocess",
        *[words_of("preprocess", "--matte_dir m --limit 99 --overwrite")] * 2, works(), works()),
    "inference": ("inference", *[words_of("inference", "--save_probs")] * 2, works(), works()),
    "demo": ("demo", *[words_of("demo", "--out new")] * 2, works(), works()),
    "demo, other flags": ("demo", words_of("demo", "--out new"),
        words_of("demo", "--out new --seed 5"), works(), error("--out|--seed")),
    "report": ("report", *[words_of("report", "--model_dir runs/joint")] * 2, works(), works()),
    "tune": ("tune", *[words_of("tune", "--trials 2")] * 2, works(), works()),
}  # fmt: skip
for name, (command, first, second, *expected) in TWICE.items():
    for delay in (0.0, 0.15):
        add(
            f"two at once: {name}, {delay} s apart",
            stories.twice(command, (first, second), expected, delay),
        )


# ---- the world around: pipes, streams, folders, clocks


def around(name, command, argv, before, expected, **more):
    CASES.append(
        Case(f"faults: {name}", "faults", command, argv, None, expected, before=before, **more)
    )


def no_replace():
    """From the third rename on the disk is full."""
    import pathlib

    real, count = pathlib.Path.replace, [0]

    def replace(self, target):
        count[0] += 1
        if count[0] > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, target)

    pathlib.Path.replace = replace


def closed_input():
    os.close(0)


def long_ago():
    real = time.time
    time.time = lambda: real() - 10**9


for name, before in {"stdin is closed": closed_input, "the clock is wrong": long_ago,
                     "an ASCII locale": lambda: os.environ.update(LC_ALL="C", LANG="C"),
                     "no HOME": lambda: os.environ.pop("HOME", None),
                     "a file mask of 077": lambda: os.umask(0o077)}.items():  # fmt: skip
    for command in ("train", "inference"):
        around(f"{name}, {command}", command, "", before, works())
add("no room from the third rename on",
    lambda box: error("No space").complaints(
        box.run("train", f"{TRAIN} --name new", no_replace)))  # fmt: skip
