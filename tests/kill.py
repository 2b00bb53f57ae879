"""Kills a command again and again at random moments, until one attempt gets to its end.

    python tests/kill.py train      a split run of two folds, against one that was left alone
    python tests/kill.py preprocess the mattes of a folder, likewise

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


def attempt(command, words, kill_after=None, number=signal.SIGKILL):
    """Runs command(words) in a forked process; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
        try:
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


def kill_train(folder, data, kills, seed):
    words = [
        "--data_dir",
        str(data),
        "--cache_dir",
        str(folder / "cache"),
        "--split_heads",
        "--k_fold",
        "2",
        "--epochs",
        "3",
        "--resize",
        "32",
        "24",
        "--model",
        "test_efficientnet",
        "--weights",
        "none",
        "--ema",
        "0.9",
        "--drop_rate",
        "0.2",
        "--mixup",
        "--batch_size",
        "16",
        "--model_dir",
    ]
    whole, broken = folder / "whole", folder / "broken"
    start = time.monotonic()
    if attempt(train.main, [*words, str(whole)]):
        sys.exit("the run that was left alone failed")
    seconds = (time.monotonic() - start) / 3

    def again():
        started = (broken / "exp/config.json").exists()
        return ["--resume", str(broken / "exp")] if started else [*words, str(broken)]

    count = killed_run(train.main, [*words, str(broken)], again, kills, seconds, seed)
    return count, compare_runs(whole / "exp", broken / "exp")


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
    parser.add_argument("command", choices=("train", "preprocess"))
    parser.add_argument("--kills", type=int, default=8, help="kills at most (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        demo.main(
            [
                "--out",
                str(folder / "data"),
                "--people",
                "24",
                "--eval_people",
                "1",
                "--size",
                "128",
                "96",
            ]
        )
        kill = kill_train if args.command == "train" else kill_preprocess
        count, different = kill(folder, folder / "data/train", args.kills, args.seed)
    print(f"{args.command}: killed {count} times; differing: {', '.join(different) or 'nothing'}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
