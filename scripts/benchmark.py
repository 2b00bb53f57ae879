"""Ratios of two speeds measured in turn in one run, which a noisy machine cannot spoil.

    python scripts/benchmark.py epoch --data_dir data/train --resize 128 96
    python scripts/benchmark.py layouts --data_dir data/train --resize 128 96
    python scripts/benchmark.py memory --device cpu --data_dir data/train --resize 128 96

epoch    images/s of a training epoch over images/s of the bare step (forward, backward,
         optimizer) of the same model on one batch that lies in memory
layouts  seconds of an epoch of three attribute models, decoding included once, over those of
         the 18-class model, decoding included too
memory   images/s of an epoch on a CPU in a process that keeps freed memory, as train.py does, over
         those in one that returns it to the kernel

Flags after the first word are those of train.py.
"""

import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import options
from common import devices
from common.errors import UserError, run_command
from training.loop import train_epoch
from training.run import make_tasks, open_run, train_valid_rows

ROUNDS = 5


def tasks_of(argv, folder):
    """(tasks, seconds to open their run, decoding included) of a hold-out run in `folder`."""
    args = options.parse_args([*argv, "--model_dir", str(folder)])
    device = devices.pick_device(args.device)
    start = time.perf_counter()
    run = open_run(args, device)
    seconds = time.perf_counter() - start
    return make_tasks(run, 0, *train_valid_rows(run, 0)), seconds


def bare_step(task, images, targets):
    """One forward, backward and optimizer step, nothing else."""
    with task.autocast:
        logits = task.network(images)
    sum(task.criteria[head](logits[head], targets[head]) for head in task.heads).backward()
    task.optimizer.step()
    task.optimizer.zero_grad()


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def epoch(argv):
    """Rounds of some bare steps, then an epoch, then the bare steps again."""
    with tempfile.TemporaryDirectory() as folder:
        (task, *_), _ = tasks_of(argv, folder)
        size = task.options["batch_size"]
        height, width = task.options["resize"]
        images = torch.randn(size, 3, height, width, device=task.device)
        if task.options["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        targets = {
            head: torch.from_numpy(task.data.targets[head][:size]).to(task.device)
            for head in task.heads
        }

        def bare(steps):
            task.network.train()
            synchronize(task.device)
            start = time.perf_counter()
            for _ in range(steps):
                bare_step(task, images, targets)
            synchronize(task.device)
            return steps * size / (time.perf_counter() - start)

        bare(3)
        steps = max(10, len(task.data.train) // size // 2)
        ratios = []
        for _ in range(ROUNDS):
            before = bare(steps)
            speed = train_epoch(task, lambda: False)["images_per_s"]
            around = (before + bare(steps)) / 2
            ratios.append(speed / around)
            print(f"epoch {speed:.1f} images/s, bare step {around:.1f} images/s: {ratios[-1]:.3f}")
        print(f"epoch over bare step: median {statistics.median(ratios):.3f} of {ROUNDS} rounds")


def layouts(argv):
    """Epochs of the joint and the split layout in turn, each with its share of the decoding."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache")
        argv = [*argv, "--cache_dir", str(cache)]
        joint, decoding_joint = tasks_of(argv, folder)
        shutil.rmtree(cache)
        split, decoding_split = tasks_of([*argv, "--split_heads"], folder)
        ratios = []
        for _ in range(ROUNDS):
            seconds = []
            for tasks, decoding in ((joint, decoding_joint), (split, decoding_split)):
                start = time.perf_counter()
                for task in tasks:
                    task.run_epoch(lambda: False)
                seconds.append(decoding + time.perf_counter() - start)
            ratios.append(seconds[1] / seconds[0])
            print(f"joint {seconds[0]:.1f} s, split {seconds[1]:.1f} s: {ratios[-1]:.3f}")
        print(f"split over joint: median {statistics.median(ratios):.3f} of {ROUNDS} rounds")


def memory(argv):
    """Epochs in processes with and without devices.keep_memory(), in turn."""
    ratios = []
    for _ in range(ROUNDS):
        speeds = []
        for kept in (False, True):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                speeds.append(pool.submit(one_epoch, argv, kept).result())
        ratios.append(speeds[1] / speeds[0])
        print(f"returned {speeds[0]:.1f}, kept {speeds[1]:.1f} images/s: {ratios[-1]:.3f}")
    print(f"kept over returned: median {statistics.median(ratios):.3f} of {ROUNDS} rounds")


def one_epoch(argv, kept):
    """images/s of the second epoch of this process."""
    if not kept:
        devices.keep_memory = lambda: None
    with tempfile.TemporaryDirectory() as folder:
        (task, *_), _ = tasks_of(argv, folder)
        return [train_epoch(task, lambda: False)["images_per_s"] for _ in range(2)][1]


WHAT = {"epoch": epoch, "layouts": layouts, "memory": memory}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in WHAT:
        raise UserError(f"give one of {', '.join(WHAT)} first, then flags of train.py")
    WHAT[argv[0]](argv[1:])


if __name__ == "__main__":
    run_command(main)
