"""Kills a command again and again at random moments, until one attempt gets to its end.

    python tests/kill.py train      a split run of two folds, against one that was left alone
    python tests/kill.py preprocess the mattes of a folder, likewise
    python tests/kill.py writes     a small run, killed once after each file that it writes

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

import demo
import preprocess
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


def attempt(command, words, kill_after=None, number=signal.SIGKILL, writes=0):
    """Runs command(words) in a forked process; its exit status, negative for a signal.

    It is killed after kill_after seconds, or after so many writes, if it has not ended by then.
    """
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
        try:
            if writes:
                die_after_writes(writes)
            command(words)
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


def killed_run(command, first, again, kills, seconds, seed):
    """Kills `kills` attempts after 0.1 to `seconds` s each, alternating SIGKILL and SIGTERM."""
    chance, words, count = random.Random(seed), first, 0
    while count < kills:
        number = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)[count % 3]
        status = attempt(command, words, chance.uniform(0.1, seconds), number)
        if status == 0:
            break
        if status not in (-number, 130):
            sys.exit(f"an attempt ended with {status}")
        count += 1
        words = again()
    else:
        status = attempt(command, words)
    if status:
        sys.exit(f"the last attempt ended with {status}")
    return count


SMALL = "--resize 32 24 --model test_efficientnet --weights none --batch_size 16"
SPLIT = "--split_heads --k_fold 2 --epochs 3 --ema 0.9 --drop_rate 0.2 --mixup"
DRAWN = "--people 24 --eval_people 1 --size 128 96"


def kill_train(folder, data, kills, seed):
    words = ["--data_dir", str(data), "--cache_dir", str(folder / "cache"), *SMALL.split()]
    words += [*SPLIT.split(), "--model_dir"]
    whole, broken = folder / "whole", folder / "broken"
    start = time.monotonic()
    if attempt(train.main, [*words, str(whole)]):
        sys.exit("the run that was left alone failed")
    seconds = (time.monotonic() - start) / 3
    again = lambda: go_on(broken) or [*words, str(broken)]  # noqa: E731
    count = killed_run(train.main, [*words, str(broken)], again, kills, seconds, seed)
    return count, compare_runs(whole / "exp", broken / "exp")


def go_on(place):
    """The words that go on with the run in `place`; None if it is not begun."""
    return ["--resume", str(place / "exp")] if (place / "exp/config.json").exists() else None


def kill_writes(folder, data, *_):
    words = ["--data_dir", str(data), "--cache_dir", str(folder / "cache"), *SMALL.split()]
    words += ["--epochs", "2", "--model_dir"]
    if attempt(train.main, [*words, str(folder / "whole")]):
        sys.exit("the run that was left alone failed")
    different, count = set(), 1
    while attempt(train.main, [*words, str(place := folder / f"broken{count}")], writes=count):
        if attempt(train.main, go_on(place) or [*words, str(place)]):
            sys.exit(f"killed after {count} writes it did not go on")
        for name in compare_runs(folder / "whole/exp", place / "exp"):
            different.add(f"{name} after {count} writes")
        count += 1
    return count - 1, sorted(different)


def kill_preprocess(folder, data, kills, seed):
    def words(name):
        return ["--data_dir", str(data), "--bg", "grabcut", "--matte_dir", str(folder / name)]

    start = time.monotonic()
    if attempt(preprocess.main, words("whole")):
        sys.exit("the folder that was left alone failed")
    seconds = (time.monotonic() - start) / 3
    again = lambda: words("broken")  # noqa: E731
    count = killed_run(preprocess.main, words("broken"), again, kills, seconds, seed)
    ours, theirs = (
        {
            p.relative_to(folder / name): p.read_bytes()
            for p in (folder / name).rglob("*.*")
            if p.suffix in (".png", ".csv") and p.name != "preview.png"
        }
        for name in ("whole", "broken")
    )
    return count, [str(name) for name in ours.keys() | theirs if ours.get(name) != theirs.get(name)]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("train", "preprocess", "writes"))
    parser.add_argument("--kills", type=int, default=8, help="kills at most (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        demo.main([*DRAWN.split(), "--out", str(folder / "data")])
        kill = {"train": kill_train, "preprocess": kill_preprocess, "writes": kill_writes}
        kill = kill[args.command]
        count, different = kill(folder, folder / "data/train", args.kills, args.seed)
    print(f"{args.command}: killed {count} times; differing: {', '.join(different) or 'nothing'}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
