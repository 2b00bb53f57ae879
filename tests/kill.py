"""Kills a training again and again at random moments, until one attempt gets to its end.

    python tests/kill.py train data/demo/train     a split run of two folds
    python tests/kill.py writes data/demo/train    a small run, once after each file that it writes

Each is compared with one that was left alone.

Prints how often it killed, and exits with 1 if any byte differs that should not.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a thread pool would not survive the fork
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import torch
from helpers import compare_runs

import train

cv2.setNumThreads(1)
torch.set_num_threads(1)


def die_after_writes(count):
    """Kills this process right after its `count`-th rename of a file that was written."""
    left, rename = [count], Path.replace

    def replace(path, target):
        rename(path, target)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    Path.replace = replace


def attempt(words, kill_after=None, number=signal.SIGKILL, writes=0):
    """Trains in a forked process; its exit status, negative for a signal.

    It is killed after kill_after seconds, or after so many writes, if it has not ended by then.
    """
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
        try:
            if writes:
                die_after_writes(writes)
            train.main(words)
            status = 0
        except SystemExit as stop:
            status = stop.code
        finally:
            os._exit(status)
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


SMALL = "--resize 32 24 --model test_efficientnet --weights none --batch_size 64"
SPLIT = "--split_heads --k_fold 2 --epochs 3 --ema 0.9 --drop_rate 0.2 --mixup"


def kill_train(folder, data, kills, seed):
    """Kills `kills` attempts at random moments, alternating SIGKILL and SIGTERM."""
    words = ["--data_dir", str(data), "--cache_dir", str(folder / "cache"), *SMALL.split()]
    words += [*SPLIT.split(), "--model_dir"]
    whole, broken = folder / "whole", folder / "broken"
    start = time.monotonic()
    if attempt([*words, str(whole)]):
        sys.exit("the run that was left alone failed")
    seconds = (time.monotonic() - start) / 3
    chance, count, status = random.Random(seed), 0, None
    while status != 0 and count < kills:
        number = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)[count % 3]
        again = go_on(broken) or [*words, str(broken)]
        status = attempt(again, chance.uniform(0.1, seconds), number)
        if status not in (0, -number, 130):
            sys.exit(f"an attempt ended with {status}")
        count += status != 0
    if status and attempt(go_on(broken) or [*words, str(broken)]):
        sys.exit("the last attempt failed")
    return count, compare_runs(whole / "exp", broken / "exp")


def go_on(place):
    """The words that go on with the run in `place`; None if it is not begun."""
    return ["--resume", str(place / "exp")] if (place / "exp/config.json").exists() else None


def kill_writes(folder, data, *_):
    words = ["--data_dir", str(data), "--cache_dir", str(folder / "cache"), *SMALL.split()]
    words += ["--epochs", "2", "--model_dir"]
    if attempt([*words, str(folder / "whole")]):
        sys.exit("the run that was left alone failed")
    different, count = set(), 1
    while attempt([*words, str(place := folder / f"broken{count}")], writes=count):
        if attempt(go_on(place) or [*words, str(place)]):
            sys.exit(f"killed after {count} writes it did not go on")
        for name in compare_runs(folder / "whole/exp", place / "exp"):
            different.add(f"{name} after {count} writes")
        count += 1
    return count - 1, sorted(different)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("train", "writes"))
    parser.add_argument("data_dir", help="the people of demo.py, for one")
    parser.add_argument("--kills", type=int, default=8, help="kills at most (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    args = parser.parse_args(argv)
    kill = {"train": kill_train, "writes": kill_writes}[args.command]
    with tempfile.TemporaryDirectory() as folder:
        count, different = kill(Path(folder), args.data_dir, args.kills, args.seed)
    print(f"{args.command}: killed {count} times; differing: {', '.join(different) or 'nothing'}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
