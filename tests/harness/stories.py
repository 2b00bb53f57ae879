"""Stories of faults: several commands over one folder, and what must be the same at their end."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

from harness.case import Skip, broken, words_of
from harness.engine import Expected, error_or_works, own_mounts, works
from harness.folder import TRAIN, bytes_of, replace

MOST = 40  # stops of one command, after which it may run to its end


def again(command, argv, box):
    """The words with which a stopped command goes on."""
    started = command == "train" and box.path("runs/new/config.json").exists()
    return "--resume runs/new" if started else argv


def remember(box, names):
    """The bytes that must come out, and the folder without them, as before."""
    wanted = bytes_of(box.folder, names)
    for place in ("runs/new", "output", "m", "new", "cache", "report_tables", "runs/tune", "full"):
        subprocess.run(["rm", "-rf", box.path(place)], check=True)
    for path in [*box.folder.glob("tune.db*"), *box.folder.glob("report*.html")]:
        path.unlink()
    return wanted


def differing(box, names, wanted):
    found = bytes_of(box.folder, names)
    different = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    return [f"other bytes than undisturbed: {different[0]}"] if different else []


def stopped(command, argv, names, number, seed):
    """Stopped again and again at random moments, it ends with the bytes of its twin."""

    def story(box):
        twin = box.run(command, argv)
        complaints, chance = works().complaints(twin), random.Random(seed)
        wanted = remember(box, names)
        for _ in range(MOST):
            running = box.start(command, again(command, argv, box))
            time.sleep(chance.uniform(0.0, 1.1) * twin.seconds)
            running.signal(number)
            done = running.wait()
            if done.code == 0:
                break
            if done.code not in (-number, 130, -signal.SIGTERM) or "Traceback" in done.err:
                complaints.append(f"stopped, it ends with {done.code}")
            if number != signal.SIGKILL:
                left = [p for p in box.folder.rglob(".*.tmp") if number == signal.SIGINT]
                complaints += [f"left behind: {path.name}" for path in left[:1]]
        else:
            complaints += works().complaints(box.run(command, again(command, argv, box)))
        return complaints[:4] + differing(box, names, wanted)

    return story


def full_disk(command, argv, place, room, names):
    """On a disk with so little room it says so; with room again it ends as its twin."""

    def story(box):
        wanted = {}
        if names:
            box.run(command, argv)
            wanted = remember(box, names)
        aim = box.path(place)
        kept = box.path(f"{place}.kept")
        if aim.exists():
            aim.rename(kept)
        aim.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={room}k", "tmpfs", str(aim)]
        if not own_mounts() or subprocess.run(mount, capture_output=True).returncode:
            raise Skip("no right to mount a small disk")
        try:
            if kept.exists() and place != "runs":
                subprocess.run(f"cp -a {kept}/. {aim}/ 2>/dev/null", shell=True)
            done = box.run(command, argv)
            complaints = error_or_works("No space|disk", place).complaints(done)
            if done.code:
                for path in aim.rglob("*"):
                    if path.is_file() and (fault := broken(path)):
                        complaints.append(f"not whole: {path.name}: {fault}")
                left = [p.name for p in aim.rglob("*.tmp")]
                complaints += [f"left behind: {left[0]}"] if left else []
                subprocess.run(["mount", "-o", "remount,size=200m", str(aim)], check=True)
                more = again(command, argv, box)
                complaints += works().complaints(box.run(command, more))
            if names and place not in names[0]:
                complaints += differing(box, names, wanted)
            return complaints
        finally:
            subprocess.run(["umount", "-l", str(aim)], capture_output=True)
            aim.rmdir()
            if kept.exists():
                kept.rename(aim)

    return story


def flip_byte(path, place):
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x55
    replace(path, bytes(data))


def damaged(command, suffix, damage):
    """A damaged cache is made again, or refused; no other answer comes out of it."""
    argv = words_of(command, "--save_probs" if command == "inference" else "--name new")
    names = ("output/*.csv",) if command == "inference" else ("runs/new*/oof.csv",)

    def story(box):
        complaints = works().complaints(box.run(command, argv))
        wanted = {Path(name).name: data for name, data in bytes_of(box.folder, names).items()}
        subprocess.run(["rm", "-rf", box.path("runs/new"), box.path("output")], check=True)
        for path in box.folder.glob(f"cache/*.{suffix}"):
            damage(path)
        done = box.run(command, argv)
        complaints += error_or_works(rf"\.{suffix}|cache").complaints(done)
        found = {Path(name).name: data for name, data in bytes_of(box.folder, names).items()}
        if done.code == 0 and found != wanted:
            complaints.append("exit 0 with other answers than with the whole cache")
        if done.code:  # the next one must not die of it too
            for path in [p for p in box.folder.glob("cache/*") if p.is_dir()]:
                path.rmdir()  # which only its owner may
            complaints += works().complaints(box.run(command, argv))
        return complaints

    return story


def in_training(box, argv):
    """A training that has saved its first state."""
    running = box.start("train", argv)
    while not list(box.folder.glob("runs/new/fold0/*/last.pt")):
        if running.poll():
            raise RuntimeError(f"the training has ended: {running.done}")
        time.sleep(0.005)
    return running


def cut_off_in_training(box):
    """A store that loses its end while it is read: no crash of the process."""
    running = in_training(box, f"{TRAIN} --name new --k_fold 2 --epochs 40")
    for path in box.folder.glob("cache/*.npy"):
        os.truncate(path, 1000)
    complaints = error_or_works(r"\.npy|cache").complaints(running.wait())
    return complaints + works().complaints(box.run("train", "--resume runs/new"))


def metrics_deleted(box):
    """A fold whose scores are gone is finished again, to the same bytes."""
    argv = f"{TRAIN} --name new --k_fold 2"
    box.run("train", argv)
    wanted = bytes_of(box.folder, ("runs/new/oof.csv",))
    box.path("runs/new/fold1/metrics.json").unlink()
    done = box.run("train", "--resume runs/new")
    return works().complaints(done) + differing(box, ("runs/new/oof.csv",), wanted)


def twice(command, argvs, expected, delay):
    """Two at once: each ends as it ought to, and files are whole.

    Which of the two comes first is chance: the expectations hold in one order or the other.
    """

    def story(box):
        running = []
        for argv in argvs:
            running.append(box.start(command, argv))
            time.sleep(delay)
        ended = [one.wait() for one in running]
        orders = (expected, list(reversed(expected)))
        found = [
            [c for e, done in zip(order, ended, strict=True) for c in complaints(e, done)]
            for order in orders
        ]
        return min(found, key=len)

    return story


def complaints(expected: Expected, done):
    return expected.complaints(done)
