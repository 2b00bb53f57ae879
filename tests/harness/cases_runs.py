"""Run folders edited by hand, cut off or mixed up: every key of every file, by every reader."""

import io
import json
import os
import pickle
import struct

import numpy as np
import torch

import options
from harness.case import Case, same_answers
from harness.engine import error, error_or_works, works
from harness.folder import (
    all_of,
    cell,
    change,
    duplicate,
    fifo,
    flip,
    lines,
    mkdir,
    remove,
    set_header,
    set_json,
    truncate,
    write,
)

CASES = []
HALF, JOINT = "runs/half", "runs/joint"
FOLD = f"{JOINT}/fold0"
BEST, TENSORS = f"{FOLD}/label/best.json", f"{FOLD}/label/best.safetensors"
STATE = f"{HALF}/fold0/label/last.pt"
# How each command reads a run: (words, run).
RESUME = ("train", f"--resume {HALF}", HALF)
PREDICT = ("inference", "--save_probs", JOINT)
SCORE = ("inference", "--oof runs/oof", JOINT)
DECIDE = ("inference", "--decision prior", JOINT)
REPORT = ("report", f"--model_dir {JOINT}", JOINT)


def add(name, reader, prepare, expected):
    command, argv, run = reader
    prepare = prepare(run) if callable(prepare) and prepare.__name__ == "of" else prepare
    then = same_answers("joint") if reader == PREDICT else None
    name = f"runs: {name}, {' '.join([command, *argv.split()[:1]])}"
    CASES.append(Case(name, "runs", command, argv, prepare, expected, then=then))


def of(spoil, file):
    """What spoils this file of whatever run a command reads."""

    def of(run):
        return spoil(f"{run}/{file}")

    return of


def with_json(keys, value):
    return lambda path: set_json(path, keys, value)


# ---- config.json

for name, data in {"empty": b"", "cut off": b'{"options": {', "a list": b"[1]", "null": b"null",
                   "an empty object": b"{}", "binary": b"\xff\xfe\x00", "text": b'"x"',
                   "deep": b"[" * 50_000}.items():  # fmt: skip
    for reader in (RESUME, PREDICT, REPORT, SCORE):
        add(f"config.json is {name}", reader, of(lambda p, d=data: write(p, d), "config.json"),
            error("config.json"))  # fmt: skip
for name, spoil in {"missing": remove, "a folder": mkdir, "a FIFO": fifo}.items():
    for reader in (RESUME, PREDICT, REPORT):
        add(f"config.json is {name}", reader, of(spoil, "config.json"), error("config.json"))
WRONG = {  # keys of config.json: values of another kind; ... removes the key
    "layout": (..., "x", 3, None, ["joint"], "split"),
    "options": (..., [], "x", None, {}),
    "data": (..., [], "x", None, {}),
    "data/fingerprint": (..., 3, None, "0"),
    "data/files": (..., [], "x"),
    "tasks": (..., [], "x"),
    "seed": (..., "x", -1),
}
STRICT = ("layout", "options", "data")  # no command can do without
for key, values in WRONG.items():
    for value in values:
        said = "removed" if value is ... else json.dumps(value)
        for reader in (RESUME, PREDICT, REPORT):
            strict = key in STRICT and value not in ("split", {})
            says = (r"config\.json|run with another|was begun by|other photos", key.split("/")[-1])
            expected = error(says[0]) if strict else error_or_works(says[0])
            add(f"config.json {key} is {said}", reader, of(with_json(key, value), "config.json"),
                expected)  # fmt: skip
BAD_OPTION = {"bad": [1]}
for option in options.ROWS:
    runtime = option in options.RUNTIME_FLAGS
    wrong = of(with_json(f"options/{option}", BAD_OPTION), "config.json")
    # --fold, --resume and --device are of a call, not of the run.
    named = error_or_works("config.json|" + option) if runtime else error("config.json", option)
    add(f"config.json option {option} is {json.dumps(BAD_OPTION)}", RESUME, wrong, named)
    if not runtime:
        gone = of(with_json(f"options/{option}", ...), "config.json")
        add(f"config.json option {option} is removed", RESUME, gone, error(option))
for option, value in {
    "k_fold": 3, "val_ratio": 0.5, "seed": 7, "seed ": -1, "k_fold ": "2", "split_heads": True,
    "lr": {"": -1}, "lr ": {"": "1e-3"}, "lr  ": {}, "lr   ": 0.1, "epochs": {"": 1},
    "epochs ": {"": 2.5},
    "epochs  ": {"": True}, "resize": {"": [32]}, "resize ": {"": 32}, "resize  ": {"": [32, -1]},
    "model": {"": "nosuch"}, "model ": {"": 3}, "criterion": {"": "x"}, "bg": {"": "x"},
    "crop": {"": None},
    "batch_size": {"": 0}, "lr    ": {"": 1e-3, "hair": 1}, "lr     ": {"": 1e999},
    "scheduler": {"": "x"},
    "nosuch": 1, "keep": {"": "first"}, "on_error": "x", "data_dir": 3, "data_dir ": "nosuch",
}.items():  # fmt: skip
    known = option.strip()
    expected = error(
        known
        if known not in ("data_dir", "seed", "k_fold", "val_ratio")
        else "nosuch|config.json|seed|fold|val_ratio|data_dir"
    )
    if known in ("nosuch", "epochs", "k_fold", "val_ratio"):
        expected = error_or_works("config.json|nosuch|epochs|folds.csv|k_fold|val_ratio")
    add(f"config.json option {known} is {json.dumps(value)}", RESUME,
        of(with_json(f"options/{known}", value), "config.json"), expected)  # fmt: skip


# ---- folds.csv

FOLDS = {
    "empty": lambda p: write(p, b""),
    "a header alone": lambda p: lines(p, lambda r: r[:1]),
    "binary": lambda p: write(p, bytes(range(256))),
    "garbage": lambda p: write(p, "hello\nworld\n"),
    "without fold": lambda p: lines(p, lambda r: [row.split(",")[0] for row in r]),
    "without person": lambda p: lines(p, lambda r: [row.split(",")[1] for row in r]),
    "without two people": lambda p: lines(p, lambda r: [r[0], *r[3:]]),
    "with a person twice": lambda p: lines(p, lambda r: [*r, r[1]]),
    "with a stranger": lambda p: lines(p, lambda r: [*r, "nobody,0"]),
    "with a stranger for a person": lambda p: cell(p, 2, "person", "nobody"),
    "with fold x": lambda p: cell(p, 2, "fold", "x"),
    "with fold 1.5": lambda p: cell(p, 2, "fold", "1.5"),
    "with fold -5": lambda p: cell(p, 2, "fold", "-5"),
    "with fold 99": lambda p: cell(p, 2, "fold", "99"),
    "with fold nan": lambda p: cell(p, 2, "fold", ""),
    "all of fold -1": lambda p: lines(p,
        lambda r: [r[0], *(x.split(",")[0] + ",-1" for x in r[1:])]),
    "all of fold 0": lambda p: lines(p, lambda r: [r[0], *(x.split(",")[0] + ",0" for x in r[1:])]),
    "missing": remove, "a folder": mkdir, "a FIFO": fifo,
}  # fmt: skip
for name, spoil in FOLDS.items():
    for reader in (RESUME, SCORE):
        add(f"folds.csv is {name}", reader, of(spoil, "folds.csv"), error("folds.csv"))
    if "people" not in name and "person" not in name and "stranger" not in name:
        add(
            f"folds.csv is {name}",
            PREDICT,
            of(spoil, "folds.csv"),
            error_or_works("folds.csv|fold99|fold 99"),
        )
    add(f"folds.csv is {name}", REPORT, of(spoil, "folds.csv"), error_or_works("folds.csv"))


# ---- oof.csv

OOF = {
    "empty": lambda p: write(p, b""),
    "a header alone": lambda p: lines(p, lambda r: r[:1]),
    "binary": lambda p: write(p, bytes(range(256))),
    "without a row": lambda p: lines(p, lambda r: [*r[:4], *r[5:]]),
    "half": lambda p: lines(p, lambda r: r[: len(r) // 2]),
    "cut off": truncate,
    "with a row twice": lambda p: lines(p, lambda r: [*r, r[1]]),
    "missing": remove, "a folder": mkdir, "a FIFO": fifo,
} | {
    f"without {column}": lambda p, c=column: lines(p, lambda r: [
        ",".join(v for v, n in zip(row.split(","), r[0].split(","), strict=True) if n != c)
        for row in r
    ]) for column in ("image", "person", "fold", "label", "p0", "p17")
} | {
    f"with {column} {value}": lambda p, c=column, v=value: cell(p, 2, c, v)
    for column, values in {
        "p0": ("-5", "50", "nan", "inf", "x", "", "1.5", "0.99"),
        "label": ("18", "-1", "x", "", "1.5"),
        "fold": ("99", "-1", "x", "", "0.5"), "person": ("nobody", ""), "image": ("nosuch.jpg", ""),
    }.items() for value in values
}  # fmt: skip
for name, spoil in OOF.items():
    for reader in (REPORT, DECIDE):
        add(f"oof.csv is {name}", reader, of(spoil, "oof.csv"), error("oof.csv"))
FLAT = lines(f"{JOINT}/oof.csv",
    lambda r: [r[0],
        *[",".join([*x.split(",")[:4], *["0.0555556"] * 18]) for x in r[1:]]])  # fmt: skip
add(
    "oof.csv has other probabilities than metrics.json", REPORT, FLAT, error("oof.csv|metrics.json")
)
add("oof.csv is that of another run", REPORT, duplicate("runs/joint2/oof.csv", f"{JOINT}/oof.csv"),
    error("oof.csv"))  # fmt: skip


# ---- metrics.json

METRICS = {
    "empty": b"",
    "a list": b"[1]",
    "an empty object": b"{}",
    "cut off": b'{"macro_f1": ',
    "null": b"null",
}
for name, data in METRICS.items():
    for reader in (REPORT, SCORE):
        add(f"metrics.json is {name}", reader, of(lambda p, d=data: write(p, d), "metrics.json"),
            error_or_works("metrics.json"))  # fmt: skip
    add(f"metrics.json of a fold is {name}", ("train", f"--resume {JOINT}", JOINT),
        of(lambda p, d=data: write(p, d), "fold0/metrics.json"), error("metrics.json"))  # fmt: skip
for key, value in {"macro_f1": "x", "macro_f1 ": None, "macro_f1  ": 0.99, "last_epoch": [],
    "last_epoch ": None,
                   "last_epoch/macro_f1": "x", "folds": "x", "support": 3}.items():  # fmt: skip
    add(f"metrics.json {key.strip()} is {value}", REPORT,
        of(with_json(key.strip(), value), "metrics.json"),
        error_or_works("metrics.json"))  # fmt: skip


# ---- best.json and the weights, which say the same of a model

with_size = {"size": [16, 16], "model": "resnet10t", "heads": ["mask"], "mean": [0, 0, 0],
    "std": [0, 0, 0],
             "bg": "grabcut", "crop": "center", "epoch": 9, "amp": "bf16", "years": True,
             "bg_fill": "black"}  # fmt: skip
for key, value in with_size.items():
    add(f"best.json {key} is {value}", PREDICT, set_json(BEST, key, value),
        error_or_works("best.json|best.safetensors"))  # fmt: skip
for key in ("model", "heads", "size", "mean", "std", "bg", "crop", "mattes"):
    for value in (..., None, "x", [1], 3):
        said = "removed" if value is ... else json.dumps(value)
        add(f"best.json {key} is {said}", PREDICT, set_json(BEST, key, value),
            error_or_works("best.json|best.safetensors"))  # fmt: skip

        def edit(header, key=key, value=value):
            info = json.loads(header["info"])
            info.pop(key)
            header["info"] = json.dumps(info if value is ... else info | {key: value})

        if said in ("removed", "3"):
            add(f"the weights say {key} is {said}", PREDICT, set_header(TENSORS, edit),
                error("best.safetensors|best.json"))  # fmt: skip
for name, data in {
    "empty": b"",
    "a list": b"[1]",
    "cut off": b'{"size": [',
    "null": b"null",
}.items():
    add(f"best.json is {name}", PREDICT, write(BEST, data), error_or_works("best.json"))
add("best.json is missing", PREDICT, remove(BEST), error_or_works("best.json"))
for name, edit in {"info": lambda h: h.pop("info", 0), "JSON": lambda h: h.update(info="{"),
                   "an object": lambda h: h.update(info="[1]")}.items():  # fmt: skip
    add(
        f"the weights have no {name}", PREDICT, set_header(TENSORS, edit), error("best.safetensors")
    )
HUGE = struct.pack("<Q", 2**60) + b"{}"
for name, spoil in {
    "empty": write(TENSORS, b""), "garbage": write(TENSORS, os.urandom(3000)),
    "cut off": truncate(TENSORS),
    "a byte short": truncate(TENSORS, 0.99999), "missing": remove(TENSORS),
    "a folder": mkdir(TENSORS), "a FIFO": fifo(TENSORS),
    "a header of 2**60 bytes": write(TENSORS, HUGE), "a flipped byte": flip(TENSORS, 0.5),
    "a flipped byte at its end": flip(TENSORS, 0.999),
    "a flipped byte in its header": flip(TENSORS, 0.001),
    "those of fold 1": duplicate(f"{JOINT}/fold1/label/best.safetensors", TENSORS),
    "those of another task": duplicate("runs/split/fold0/mask/best.safetensors", TENSORS),
    "NaN": change(TENSORS, lambda data: data[:-4000] + np.full(1000, np.nan, np.float32).tobytes()),
}.items():  # fmt: skip
    add(f"the weights are {name}", PREDICT, spoil, error("best.safetensors"))
add("a fold is missing", PREDICT, remove(f"{JOINT}/fold1"), error("fold1"))
add("a fold is empty", PREDICT, all_of(remove(f"{JOINT}/fold1"), mkdir(f"{JOINT}/fold1")),
    error("fold1"))  # fmt: skip
add("a fold of metrics alone", PREDICT, remove(f"{JOINT}/fold1/label"), error("fold1"))


# ---- last.pt


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def edited(edit):
    def do(data):
        state = torch.load(io.BytesIO(data), weights_only=True)
        edit(state)
        return saved(state)

    return change(STATE, do)


for name, spoil in {
    "empty": write(STATE, b""), "garbage": write(STATE, os.urandom(3000)),
    "cut off": truncate(STATE),
    "a byte short": truncate(STATE, 0.99999), "a folder": mkdir(STATE), "a FIFO": fifo(STATE),
    "text": write(STATE, "hello"),
    "a list": write(STATE, saved([1, 2])), "an empty state": write(STATE, saved({})),
    "a tensor": write(STATE, saved(torch.zeros(3))),
    "a plain pickle": write(STATE, pickle.dumps({"model": {}})),
    "weights": duplicate(TENSORS, STATE),
    "a flipped byte": flip(STATE, 0.5), "a flipped byte at its end": flip(STATE, 0.999),
    "a flipped byte in its head": flip(STATE, 0.0005),
}.items():  # fmt: skip
    add(f"last.pt is {name}", RESUME, spoil, error(r"last\.pt", "remove|train it again"))
for key in ("model", "optimizer", "epoch", "history", "best", "predictions", "updates"):
    add(f"last.pt without {key}", RESUME, edited(lambda s, k=key: s.pop(k)), error(r"last\.pt"))
    add(
        f"last.pt with text for {key}",
        RESUME,
        edited(lambda s, k=key: s.update({k: "x"})),
        error(r"last\.pt"),
    )
add("last.pt of epoch 99", RESUME, edited(lambda s: s.update(epoch=99)), error(r"last\.pt"))
add("last.pt with NaN weights", RESUME,
    edited(lambda s: [v.fill_(float("nan")) for v in s["model"].values() if v.is_floating_point()]),
    error(r"last\.pt|not finite|nan"))  # fmt: skip
add("last.pt is missing", RESUME, remove(STATE), works("macro F1"))
add("nothing is spoilt", RESUME, None, works("macro F1"))
for reader in (PREDICT, SCORE, DECIDE, REPORT):
    add("nothing is spoilt", reader, None, works())
