"""What scripts/benchmark.py measures: how, and the table of its rows.

A measure takes a Bench and a number of people, prepares, and returns functions without arguments,
each of which does its thing once and returns a speed, a time or a size: ours, and what it is
compared with, if anything.
"""

import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path

import customary
import cv2
import numpy as np
import pandas as pd
import torch

import options
from background import matte, rembg_net
from common import devices
from common.files import HOME
from common.processes import cores
from dataset import find_images
from experiment import comparison
from photos import store
from photos.reading import read_photo
from photos.views import build_views
from training.loop import train_epoch
from training.run import make_tasks, open_run

COMMANDS = ("train.py", "inference.py", "preprocess.py", "report.py", "tune.py", "demo.py")
PHOTOS = 7  # of a person
MEMORY = """import runpy, sys; sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])"""
cv2.setNumThreads(1)  # the pools below have the cores already


class Bench:
    """What all measures share: the flags of benchmark.py, a folder for what they write, photos."""

    def __init__(self, args, folder):
        self.args, self.folder, self.numbers = args, Path(folder), itertools.count()
        self.device = devices.pick_device(args.device)
        self.source = args.data_dir or self.folder / "drawn/train"
        if not args.data_dir:
            command("demo.py", "--out", self.folder / "drawn", "--people", 60, "--eval_people", 1)

    def fresh(self):
        """A folder that is not there yet."""
        return self.folder / str(next(self.numbers))

    def people(self, people):
        """A train folder of so many people: links to the source's, again and again."""
        folder = self.folder / f"people{people}"
        if not folder.exists():
            known = pd.read_csv(self.source / "train.csv", dtype=str)
            table = known.iloc[np.arange(people) % len(known)]
            names = [f"person{number:07d}" for number in range(people)]
            (folder / "images").mkdir(parents=True)
            for name, path in zip(names, table.path, strict=True):
                (folder / "images" / name).symlink_to((self.source / "images" / path).resolve())
            table.assign(id=names, path=names).to_csv(folder / "train.csv", index=False)
        return folder

    def flags(self, people, *more):
        """Flags of train.py for a run with random weights, which are as fast as any."""
        args = self.args
        flags = ["--data_dir", self.people(people), "--model_dir", self.fresh(), "--epochs", 1]
        flags += ["--cache_dir", self.folder / "cache", "--device", args.device]
        flags += ["--model", args.model, "--weights", "none", "--resize", *args.resize]
        return [str(flag) for flag in [*flags, "--batch_size", args.batch_size, *more]]

    def customary(self, people, epochs=1):
        """The words of customary.py for the same."""
        words = ["scripts/customary.py", self.people(people), self.fresh(), self.args.model]
        return [*words, *self.args.resize, self.args.batch_size, epochs]

    def tasks(self, people, *more):
        """The Tasks of a hold-out run with these flags()."""
        run = open_run(options.parse_args(self.flags(people, *more)), self.device)
        return make_tasks(run, 0)

    @cached_property
    def trained(self):
        """The folder of a finished run."""
        home = self.fresh()
        command("train.py", *self.flags(24, "--model_dir", home))
        return home / "exp"


def output(*words, **how):
    """What a command of Python prints."""
    how = {"check": True, "stdout": subprocess.PIPE, "text": True, "cwd": HOME} | how
    how["env"] = os.environ | {"TQDM_DISABLE": "1"}
    return subprocess.run([sys.executable, *map(str, words)], **how).stdout


def command(*words, **how):
    """Seconds of a command of Python, its start included."""
    return seconds(lambda: output(*words, **how))


def memory(*words):
    """Most MB resident in a command of Python."""
    return int(output("-c", MEMORY, *words).split()[-1]) / 1024


def seconds(work):
    """How long work() takes, what it started on a GPU included."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def speed(count, work):
    """A function that returns how many a second work() does, which does so many."""
    return lambda: count / seconds(work)


def train(tasks):
    """An epoch of each; returns the number of images."""
    for task in tasks:
        train_epoch(task)
    return sum(len(task.data.train) for task in tasks)


def epoch(bench, people, flags=()):
    """Images/s of an epoch of all models of a run, and of forward, backward and optimizer step."""
    tasks = bench.tasks(people, *flags)
    count = train(tasks)  # warms up
    return speed(count, partial(train, tasks)), bare_steps(tasks)


def bare_steps(tasks):
    """A function that returns the images/s of bare training steps, of each task on one batch."""
    size = tasks[0].options["batch_size"]
    batches = [task.draw_samples().batch(slice(0, size)) for task in tasks]
    steps = max(5, len(tasks[0].data.train) // size // 2)

    def work():
        for task, (images, _, targets) in zip(tasks, batches, strict=True):
            task.train_mode()
            for _ in range(steps):
                with task.autocast:
                    logits = task.network(images)
                task.loss(logits, targets, len(images)).backward()
                task.optimizer.step()
                task.optimizer.zero_grad()

    return speed(steps * sum(len(images) for images, *_ in batches), work)


def first_epoch(bench, people):
    """Images/s from the photos' files to the end of the first epoch, and of bare steps."""
    known = bench.tasks(people)
    count = len(known[0].data.train)
    ours = speed(count, lambda: train(bench.tasks(people, "--cache_dir", bench.fresh())))
    return ours, bare_steps(known)


def customary_epoch(bench, people):
    """Images/s of an epoch, ours and that of customary.py."""
    args, parts = bench.args, customary.build(bench.args.model, bench.device)
    loader, _ = customary.loaders(bench.people(people), args.resize, args.batch_size, cores())
    work = partial(customary.train_epoch, *parts, loader, bench.device)
    return epoch(bench, people)[0], speed(len(loader) * args.batch_size, work)


def training(bench, people, of):
    """`of` (command or memory) train.py for an epoch, nothing cached, and of customary.py."""
    return (
        lambda: of("train.py", *bench.flags(people, "--cache_dir", bench.fresh())),
        lambda: of(*bench.customary(people)),
    )


def predicting(bench, people, cache=None):
    """The words of a command that predicts photos, from their files if there is no cache."""
    words = ["inference.py", "--model_dir", bench.trained, "--device", bench.args.device]
    words += ["--images", bench.people(people), "--output_dir", bench.fresh()]
    return [*words, "--cache_dir", cache or bench.fresh()]


def bare_forward(bench, people):
    """A function that returns the images/s of the model on a batch that lies in memory."""
    [task] = bench.tasks(24)
    images, *_ = task.draw_samples().batch(slice(0, bench.args.batch_size))
    model, steps = task.model.eval(), max(2, PHOTOS * people // len(images) // 4)

    @torch.inference_mode()
    def work():
        for _ in range(steps):
            with task.autocast:
                model(images)

    work()  # warms up
    return speed(steps * len(images), work)


def inference(bench, people):
    """Images/s of inference.py from start to end, and of the bare forward."""
    forward, count = bare_forward(bench, people), PHOTOS * people
    return lambda: count / command(*predicting(bench, people)), forward


def inference_start(bench, people):
    """Seconds of inference.py, the store being there, beyond `import torch` and the forward."""
    forward, cache = bare_forward(bench, people), bench.fresh()
    command(*predicting(bench, people, cache))

    def ours():
        bare = command("-c", "import torch") + PHOTOS * people / forward()
        return command(*predicting(bench, people, cache)) - bare

    return [ours]


def inference_memory(bench, people):
    """Most MB resident in inference.py, and in customary.py where it only predicts."""
    words = bench.customary(24, epochs=0)
    return lambda: memory(*predicting(bench, people)), lambda: memory(*words)


def pixel_store(bench, people):
    """Photos/s of the store, and of bare decoding and resizing on all cores."""
    root, names = find_images(bench.people(people))
    views = build_views("none", "mean", "none", bench.args.resize)

    def bare(name):
        photo = cv2.imread(str(root / name), cv2.IMREAD_COLOR_RGB)
        cv2.resize(photo, bench.args.resize[::-1], interpolation=cv2.INTER_AREA)

    ours = speed(len(names), lambda: store.load(root, names, views, bench.fresh()))
    return ours, speed(len(names), lambda: shared(bare, names, cores()))


def shared(work, items, workers):
    """Calls work(item) in so many threads."""
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, items))


def mattes(bench, people, method):
    """A function that returns the photos/s of background removal."""
    root, names = find_images(bench.people(people))
    matting = partial(matte.Matting, device="cpu")
    return speed(len(names), lambda: matte.ensure(root, names, method, matting(bench.fresh())))


def rembg(bench, people):
    """Photos/s of u2netp, and of bare runs of the network by the faster setting of threads."""
    model, photo = rembg_net.find_model("u2netp"), np.zeros((1, 3, 320, 320), np.float32)

    def runs(workers, threads, count):
        net = rembg_net.open_net(model, "cpu", threads).session
        run = partial(net.run, None, {net.get_inputs()[0].name: photo})
        run()  # warms up
        return count / seconds(lambda: shared(lambda _: run(), range(count), workers))

    best = max([(1, cores()), (cores(), 1)], key=lambda setting: runs(*setting, 6))
    return mattes(bench, people, "rembg"), lambda: runs(*best, PHOTOS * people)


def grabcut(bench, people):
    """Photos/s of our GrabCut, and of cv2.grabCut as it is usually called."""
    root, names = find_images(bench.people(people))
    few = [read_photo(root / name) for name in names[:: max(1, len(names) // 2)]]

    def work():
        for photo in few:
            height, width = photo.shape[:2]
            box = (width // 20, height // 20, width * 9 // 10, height * 9 // 10)
            labels, models = np.zeros((height, width), np.uint8), np.zeros((2, 1, 65))
            cv2.grabCut(photo, labels, box, *models, 5, cv2.GC_INIT_WITH_RECT)

    return mattes(bench, people, "grabcut"), speed(len(few), work)


def two_runs(bench, people):
    """Seconds of the comparison of two runs with 2,000 draws."""
    persons, rng = np.repeat(np.arange(people), PHOTOS), np.random.default_rng(0)
    labels, *both = rng.integers(0, 18, (3, len(persons)))
    return [lambda: seconds(lambda: comparison.compare(labels, persons, *both))]


def answers(bench, people):
    """Mean seconds until a command has answered --help or a wrong flag; of Python's own start."""
    quiet = {"check": False, "stderr": subprocess.DEVNULL}

    def ours():
        return np.mean([command(c, f, **quiet) for c in COMMANDS for f in ("--help", "--none")])

    return ours, lambda: command("-c", "import argparse, numpy")


RESNET, SPLIT = (partial(epoch, flags=f) for f in (["--model", "resnet50"], ["--split_heads"]))
# {name: (measure, people, unit of its values, what it is compared with, ratio to reach)}
ROWS = {
    "epoch": (epoch, 421, "images/s", "bare step, same precision", 0.97),
    "epoch_resnet50": (RESNET, 160, "images/s", "bare step, same precision", 0.97),
    "epoch_first": (first_epoch, 421, "images/s", "bare step", 0.85),
    "epoch_split": (SPLIT, 160, "images/s", "bare steps of three models", 0.97),
    "epoch_customary": (customary_epoch, 160, "images/s", "customary loop", 2),
    "command": (partial(training, of=command), 80, "s", "customary script", 0.5),
    "inference": (inference, 1800, "images/s", "bare forward, inference_mode", 0.9),
    "inference_start": (inference_start, 120, "s", "", 1.3),
    "rembg": (rembg, 20, "photos/s", "bare runs of onnxruntime", 0.92),
    "grabcut": (grabcut, 40, "photos/s", "cv2.grabCut, full size, 5 iterations", 60),
    "store": (pixel_store, 120, "photos/s", "cv2.imread, cv2.resize, all cores", 0.85),
    "comparison": (two_runs, 2700, "s", "", 2),
    "help": (answers, 0, "s", "import argparse, numpy", 5),
    "memory": (partial(training, of=memory), 421, "MB", "customary script", 1.3),
    "memory_inference": (inference_memory, 1800, "MB", "customary script, predicting", 1.3),
}
