"""Random commands over one data folder and one folder of runs, stopped at random by signals.

At the end every run that was begun resumes to the bytes of its twin, which was never stopped;
every file is whole, the photos are untouched, and nothing is left behind.
"""

import random
import signal
import time
from collections import Counter

from harness import case, engine
from harness.folder import TRAIN, bytes_of, copy

TRAINS = {
    "a": "--k_fold 2 --epochs 2", "b": "--split_heads --bg none mask=none+grabcut --epochs 2",
    "c": "--shared_backbone --mixup --epochs 3", "d": "--ema 0.9 --drop_rate 0.2 --epochs 3",
    "e": "--bg grabcut --bg_fill random --epochs 2", "f": "--k_fold 3 --weighted_sampler",
    "g": "--early_stop 2 --epochs 3", "h": "--val_ratio 0 --epochs 2",
    "i": "--accumulate 3 --epochs 3",
    "j": "--bg none+grabcut --crop person --scheduler plateau --epochs 3",
    "k": "--age_mse --epochs 3 --seed 1",
    "l": "--accumulate 2 --clip_grad --epochs 3 --seed 2",
}  # fmt: skip
SAME = ("oof.csv", "folds.csv", "fold*/oof.csv", "fold*/*/best.*")
OTHERS = (
    ("inference", "--model_dir runs/joint --save_probs"),
    ("inference", "--model_dir runs/joint runs/split --output_dir output2"),
    ("inference", "--oof runs/oof --model_dir runs/joint"),
    ("preprocess", "--limit 99 --matte_dir m"), ("preprocess", "--data_dir data/eval"),
    ("preprocess", "--limit 30 --matte_dir m --overwrite"),
    ("report", "--model_dir runs/joint"), ("report", ""), ("demo", "--out drawn"),
    ("tune", "--trials 3"),
)  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDS = (0, 130, -signal.SIGKILL, -signal.SIGTERM)
BUSY = ("another process", "not finished", "no oof.csv", "was drawn", "not a run", "two runs")


def soak(template, place, count, seed=0):
    """(what was done in words, complaints)."""
    chance, home = random.Random(seed), place / "case"
    copy(template, home)
    before = case.snapshot(home)
    box = engine.Box(home, place / "logs")
    complaints = twins(box)
    start, ended, sent, running = time.monotonic(), Counter(), Counter(), []
    for number in range(count):
        running.append(box.start(*choose(chance, box)))
        time.sleep(chance.uniform(0.0, 0.6))
        if chance.random() < 0.7 and not running[-1].poll():
            kind = chance.choice(SIGNALS)
            running[-1].signal(kind)
            sent[kind.name] += 1
        while len(running) > 1 or (running and number == count - 1):
            done = running.pop(0).wait()
            ended[done.code] += 1
            complaints += judged(done)
    complaints += finished(box)
    complaints += left(home, before)
    said = [
        f"{count} commands in {time.monotonic() - start:.0f} s",
        f"{sum(len(runs_of(box, name)) for name in TRAINS)} runs as their twins",
        "signals: " + ", ".join(f"{n} {name}" for name, n in sent.items()),
        "exit codes: " + ", ".join(f"{n} of {code}" for code, n in sorted(ended.items())),
        f"slowest {max(one.done.seconds for one in box.started):.1f} s",
        f"largest memory {max(one.done.memory for one in box.started):.0f} MB",
    ]
    return "; ".join(said), complaints


def twins(box):
    """Trains each run of TRAINS undisturbed, in `twins`."""
    found = []
    for name, words in TRAINS.items():
        done = box.run("train", f"{TRAIN} --model_dir twins --name {name} {words}")
        found += engine.works().complaints(done)
    return found


def choose(chance, box):
    """(command, words) of a run that begins or goes on, or of another command."""
    if chance.random() < 0.4:
        command, argv = chance.choice(OTHERS)
        return command, case.words_of(command, argv)
    return "train", begin_or_go_on(box, chance.choice(list(TRAINS)))


def runs_of(box, name):
    """The runs of one entry of TRAINS that have begun: runs/a, runs/a2, runs/a3 ..."""
    found = [box.path("runs", name), *box.folder.glob(f"runs/{name}[0-9]*")]
    return [run for run in found if (run / "config.json").exists()]


def begin_or_go_on(box, name):
    for run in runs_of(box, name):
        if not (run / "metrics.json").exists():
            return f"--resume runs/{run.name}"
    return f"{TRAIN} --name {name} {TRAINS[name]}"


def judged(done):
    """A command ends well, by its signal, or says in one line that another one is at it."""
    if "Traceback" in done.err + done.out:
        return [f"traceback: {done}"]
    busy = done.code == 2 and any(word in done.err for word in BUSY)
    return [] if done.code in ENDS or busy else [f"ends with {done}"]


def finished(box):
    """Takes all to its end; what differs from the twins."""
    found = []
    for name in TRAINS:
        if not runs_of(box, name):
            found += engine.works().complaints(box.run("train", begin_or_go_on(box, name)))
        wanted = bytes_of(box.path("twins", name), SAME)
        for run in runs_of(box, name):
            done = box.run("train", f"--resume runs/{run.name}")
            found += [f"{run.name}: {c}: {done}" for c in engine.works().complaints(done)]
            ours = bytes_of(run, SAME)
            names = [n for n in wanted.keys() | ours.keys() if wanted.get(n) != ours.get(n)]
            found += [f"{run.name}: {n} is not its twin's" for n in names]
    for command, argv in OTHERS:
        done = box.run(command, case.words_of(command, argv))
        found += [f"{c}: {done}" for c in engine.works().complaints(done)]
    return found


def left(home, before):
    """What is lost, not whole, or left behind."""
    patterns = sum(case.MAY_CHANGE.values(), ())
    found = case.lost(home, before, patterns) + case.halves(home, before)
    return found + case.left_running()
