"""What scripts/benchmark.py measures: how, and the table of its rows."""

import subprocess
import sys
import tempfile
import time
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import customary
import cv2
import numpy as np
import pandas as pd
import torch

import options
from background import matte, rembg_net
from common import devices
from common.errors import UserError
from common.files import HOME
from common.processes import cores
from dataset import find_images
from experiment.comparison import compare
from photos import store
from photos.views import build_views
from training.loop import train_epoch
from training.run import make_tasks, open_run

COMMANDS = ("train.py", "inference.py", "preprocess.py", "report.py", "tune.py", "demo.py")
PHOTOS = 7  # of a person
MEMORY = """import runpy, sys; sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])"""
cv2.setNumThreads(1)  # the pools below have the cores already


def output(*words, code=0):
    """What a command of Python prints; UserError unless it ends with this exit code."""
    words = [sys.executable, *map(str, words)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=HOME)
    if done.returncode != code:
        raise UserError(done.stderr.strip().rpartition("\n")[2])
    return done.stdout


def memory(*words):
    """Most MB resident in a command of Python."""
    return int(output("-c", MEMORY, *words).split()[-1]) / 1024


def command(*words, **how):
    """Seconds of a command of Python, its start included."""
    return seconds(partial(output, *words, **how))


def seconds(work):
    """How long work() takes, what it started on a GPU included."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def speed(count, work, times=1):
    """A function that returns how many a second work() does, which does so many each time."""
    return lambda: count * times / seconds(lambda: [work() for _ in range(times)])


def train(tasks):
    """An epoch of each; returns the number of images."""
    for task in tasks:
        train_epoch(task)
    return sum(len(task.data.train) for task in tasks)


def bare(tasks, count, steps=True):
    """A function that returns the images/s of bare training steps, or forwards, of each task on one
    batch, of about `count` images in all.
    """
    size = tasks[0].options["batch_size"]
    batches = [task.draw_samples().batch(slice(0, size)) for task in tasks]

    def work():
        for task, (images, _, targets) in zip(tasks, batches, strict=True):
            with torch.inference_mode(not steps), task.autocast:
                logits = task.network(images)
            if steps:
                task.loss(logits, targets, len(images)).backward()
                task.optimizer.step()
                task.optimizer.zero_grad()

    work()  # warms up
    return speed(sum(len(images) for images, *_ in batches), work, max(5, count // size))


class Bench:
    """What is measured, and what that shares: the flags, a folder for what is written, photos.

    The methods in ROWS take a number of people, prepare, and return functions without arguments,
    which do a thing once and return a speed, a time or a size: ours, then its rival, if any.
    """

    def __init__(self, args, folder):
        self.args, self.folder = args, Path(folder)
        self.device = devices.pick_device(args.device)
        self.of = args.model, self.device, *args.resize, args.batch_size  # for customary.py
        self.source = args.data_dir or self.folder / "drawn/train"
        if not args.data_dir:
            output("demo.py", "--out", self.folder / "drawn", "--people", 60, "--eval_people", 1)

    def fresh(self):
        """A path where nothing is yet."""
        return Path(tempfile.mkdtemp(dir=self.folder), "new")

    def data(self, people):
        """A train folder of so many people: links to the source's, again and again."""
        folder = self.folder / f"people{people}"
        if not folder.exists():
            known = pd.read_csv(self.source / "train.csv", dtype=str)
            table = known.iloc[np.arange(people) % len(known)]
            names = [f"person{number}" for number in range(people)]
            (folder / "images").mkdir(parents=True)
            for name, path in zip(names, table.path, strict=True):
                (folder / "images" / name).symlink_to((self.source / "images" / path).resolve())
            table.assign(path=names).to_csv(folder / "train.csv", index=False)
        return folder

    def flags(self, people):
        """Flags of train.py for a run with random weights, which are as fast as any."""
        args = self.args
        flags = ["--data_dir", self.data(people), "--model_dir", self.fresh(), "--epochs", 1]
        flags += ["--cache_dir", self.fresh(), "--device", args.device, "--model", args.model]
        flags += ["--weights", "none", "--resize", *args.resize, "--batch_size", args.batch_size]
        return [str(flag) for flag in flags]

    def tasks(self, people, flags=()):
        """The Tasks of a hold-out run with these flags."""
        args = options.parse_args([*self.flags(people), *flags])
        return make_tasks(open_run(args, self.device), 0)

    def predicting(self, people):
        """The words of a command that predicts photos, from their files the first time."""
        run = self.folder / "run"
        if not run.exists():
            output("train.py", *self.flags(24), "--model_dir", self.folder, "--name", run.name)
        words = ["inference.py", "--model_dir", run, "--images", self.data(people)]
        words += ["--output_dir", self.fresh(), "--cache_dir", self.fresh()]
        return [*words, "--device", self.args.device]

    def bare_forward(self, people):
        """A function that returns the images/s of the model on a batch that lies in memory."""
        [task] = self.tasks(24)
        task.network.eval()
        return bare([task], PHOTOS * people // 4, steps=False)

    def epoch(self, people, flags=()):
        """Images/s of an epoch of all models of a run, and of forward, backward, optimizer step."""
        tasks = self.tasks(people, flags)
        count = train(tasks)  # warms up
        return speed(count, partial(train, tasks)), bare(tasks, count // len(tasks) // 2)

    def epoch_first(self, people):
        """Images/s from the photos' files to the end of the first epoch, and of bare steps."""
        known = self.tasks(people)
        count = len(known[0].data.train)
        return speed(count, lambda: train(self.tasks(people))), bare(known, count // 2)

    def epoch_customary(self, people):
        """Images/s of an epoch, ours and that of customary.py."""
        model, optimizer, loader, _ = customary.prepare(self.data(people), *self.of)
        work = partial(customary.train_epoch, model, optimizer, loader, self.device)
        return self.epoch(people)[0], speed(len(loader) * self.args.batch_size, work)

    def training(self, people, of):
        """`of` (command or memory) train.py for an epoch, nothing cached, and of customary.py."""
        theirs = ["scripts/customary.py", self.data(people), self.fresh(), 1, *self.of]
        return lambda: of("train.py", *self.flags(people)), lambda: of(*theirs)

    def inference(self, people):
        """Images/s of inference.py from start to end, and of the bare forward."""
        count, forward = PHOTOS * people, self.bare_forward(people)
        return lambda: count / command(*self.predicting(people)), forward

    def inference_start(self, people):
        """Seconds of inference.py, the store being there, beyond `import torch` and the forward."""
        count, forward, words = PHOTOS * people, self.bare_forward(people), self.predicting(people)
        output(*words)
        return [lambda: command(*words) - command("-c", "import torch") - count / forward()]

    def inference_memory(self, people):
        """Most MB resident in inference.py, and in customary.py where it only predicts."""
        theirs = ["scripts/customary.py", self.data(24), self.fresh(), 0, *self.of]
        return lambda: memory(*self.predicting(people)), lambda: memory(*theirs)

    def store(self, people):
        """Photos/s of the store, and of bare decoding and resizing on all cores."""
        root, names = find_images(self.data(people))
        views = build_views("none", "mean", "none", self.args.resize)

        def decode(name):
            photo = cv2.imread(str(root / name), cv2.IMREAD_COLOR_RGB)
            cv2.resize(photo, self.args.resize[::-1], interpolation=cv2.INTER_AREA)

        ours = speed(len(names), lambda: store.load(root, names, views, self.fresh()))
        return ours, speed(len(names), lambda: ThreadPool(cores()).map(decode, names, 1))

    def mattes(self, people, method):
        """A function that returns the photos/s of background removal."""
        root, names = find_images(self.data(people))
        matting = partial(matte.Matting, device="cpu")
        return speed(len(names), lambda: matte.ensure(root, names, method, matting(self.fresh())))

    def rembg(self, people):
        """Photos/s of u2netp, and of bare runs of the network by the faster setting of threads."""
        model, photo = rembg_net.find_model("u2netp"), np.zeros((1, 3, 320, 320), np.float32)

        def runs(workers, threads, count):
            net = rembg_net.open_net(model, "cpu", threads).session
            run = partial(net.run, None)
            photos = [{net.get_inputs()[0].name: photo}] * count
            run(photos[0])  # warms up
            return count / seconds(lambda: ThreadPool(workers).map(run, photos, 1))

        best = max([(1, cores()), (cores(), 1)], key=lambda setting: runs(*setting, 6))
        return self.mattes(people, "rembg"), lambda: runs(*best, PHOTOS * people)

    def grabcut(self, people):
        """Photos/s of our GrabCut, and of cv2.grabCut as it is usually called."""
        root, names = find_images(self.data(people))
        few = [cv2.imread(str(root / name)) for name in names[:: max(1, len(names) // 2)]]

        def work():
            for photo in few:
                height, width = photo.shape[:2]
                box = (width // 20, height // 20, width * 9 // 10, height * 9 // 10)
                cv2.grabCut(photo, None, box, None, None, 5, cv2.GC_INIT_WITH_RECT)

        return self.mattes(people, "grabcut"), speed(len(few), work)

    def comparison(self, people):
        """Seconds of the comparison of two runs with 2,000 draws."""
        persons, rng = np.repeat(np.arange(people), PHOTOS), np.random.default_rng(0)
        labels, *both = rng.integers(0, 18, (3, len(persons)))
        return [partial(seconds, lambda: compare(labels, persons, *both))]

    def help(self, _):
        """Mean seconds until a command has answered --help or a wrong flag; of Python's start."""
        codes = {"--help": 0, "--none": 2}
        asked = [partial(command, c, f, code=codes[f]) for c in COMMANDS for f in codes]
        theirs = partial(command, "-c", "import argparse, numpy")
        return lambda: np.mean([ask() for ask in asked]), theirs


RESNET = partial(Bench.epoch, flags=["--model", "resnet50"])
SPLIT = partial(Bench.epoch, flags=["--split_heads"])
# {name: (measure, people, unit of its values, what it is compared with, ratio to reach)}
ROWS = {
    "epoch": (Bench.epoch, 421, "images/s", "bare step, same precision", 0.97),
    "epoch_resnet50": (RESNET, 160, "images/s", "bare step, same precision", 0.97),
    "epoch_first": (Bench.epoch_first, 421, "images/s", "bare step", 0.85),
    "epoch_split": (SPLIT, 160, "images/s", "bare steps of three models", 0.97),
    "epoch_customary": (Bench.epoch_customary, 160, "images/s", "customary loop", 2),
    "command": (partial(Bench.training, of=command), 80, "s", "customary script", 0.5),
    "inference": (Bench.inference, 1800, "images/s", "bare forward, inference_mode", 0.9),
    "inference_start": (Bench.inference_start, 120, "s", "", 1.3),
    "rembg": (Bench.rembg, 20, "photos/s", "bare runs of onnxruntime", 0.92),
    "grabcut": (Bench.grabcut, 40, "photos/s", "cv2.grabCut, full size, 5 iterations", 60),
    "store": (Bench.store, 120, "photos/s", "cv2.imread, cv2.resize, all cores", 0.85),
    "comparison": (Bench.comparison, 2700, "s", "", 2),
    "help": (Bench.help, 0, "s", "import argparse, numpy", 5),
    "memory": (partial(Bench.training, of=memory), 421, "MB", "customary script", 1.3),
    "memory_inference": (Bench.inference_memory, 1800, "MB", "customary script, predicting", 1.3),
}
