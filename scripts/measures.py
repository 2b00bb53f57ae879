"""What scripts/benchmark.py measures: ours, and the bare thing that ours is made of.

Each function takes a Bench and a number of people, prepares, and returns (ours, other): two
functions without arguments, each of which does its thing once and returns a speed, a time or a
size. `other` is None where there is nothing to compare with.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import customary
import cv2
import numpy as np
import torch
from bench import command, seconds

from background import matte, rembg_net
from common.processes import cores
from experiment import comparison
from experiment.predictions import precision
from labels import CLASSES
from model import load_model
from photos import store
from photos.reading import read_photo
from photos.views import build_views
from training.loop import train_epoch

COMMANDS = ("train", "inference", "preprocess", "report", "tune", "demo")
PHOTOS = 7  # of a person
# The plain loop: a model, a batch, and an optimizer if it trains. Flags: model H W batch train.
PLAIN = """
import sys, timm, torch
height, width, count, training = map(int, sys.argv[2:])
model = timm.create_model(sys.argv[1], num_classes=18)
photos, labels = torch.randn(count, 3, height, width), torch.zeros(count, dtype=torch.long)
optimizer = torch.optim.AdamW(model.parameters()) if training else None
model.train(bool(training))
for _ in range(5):
    with torch.inference_mode(not training):
        logits = model(photos)
    if training:
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
"""


# ---- training


def epoch(bench, people, flags=(), model=None):
    """images/s of an epoch of all models of a run, and of as many bare steps of each."""
    tasks = bench.tasks(people, *flags, model=model)
    bare = bare_steps(tasks)
    count = sum(len(task.data.train) for task in tasks)

    def ours():
        return count / seconds(lambda: [train_epoch(task, never) for task in tasks], bench.device)

    ours()  # warms up
    return ours, bare


def bare_steps(tasks):
    """A function that returns the images/s of forward, backward and optimizer step, nothing else,
    of each task on one batch that lies on the device.
    """
    size = tasks[0].options["batch_size"]
    batches = [task.draw_samples().batch(slice(0, size)) for task in tasks]
    steps = max(5, len(tasks[0].data.train) // size // 2)

    def work():
        for task, (images, _, targets) in zip(tasks, batches, strict=True):
            task.train_mode()
            for _ in range(steps):
                with task.autocast:
                    logits = task.network(images, targets.get("given"))
                task.loss(logits, targets, len(images)).backward()
                task.optimizer.step()
                task.optimizer.zero_grad()

    count = steps * sum(len(images) for images, *_ in batches)
    return lambda: count / seconds(work, tasks[0].device)


def never():
    """Nobody asks to stop."""
    return False


def split_epoch(bench, people):
    """images/s of an epoch of three models, and of the bare steps of the three."""
    return epoch(bench, people, ["--split_heads"])


def first_epoch(bench, people):
    """images/s of all from the photos' files to the end of the first epoch; bare steps."""

    def ours():
        cold = bench.fresh()
        start = time.perf_counter()
        [task] = bench.tasks(people, cache_dir=cold)
        train_epoch(task, never)
        return len(task.data.train) / (time.perf_counter() - start)

    return ours, bare_steps(bench.tasks(people))


def customary_epoch(bench, people):
    """images/s of an epoch, ours and that of customary.py."""
    args = bench.args
    loader, _ = customary.loaders(bench.people(people), args.resize, args.batch_size, cores())
    parts = customary.build(bench.model, bench.device)

    def other():
        work = partial(customary.train_epoch, *parts, loader, bench.device)
        return len(loader) * args.batch_size / seconds(work, bench.device)

    return epoch(bench, people)[0], other


def one_epoch(bench, people):
    """Seconds of a command that trains one epoch, from start to end, nothing cached; customary."""

    def other():
        flags = ["--data_dir", bench.people(people), "--model_dir", bench.fresh()]
        flags += ["--model", bench.model, "--batch_size", bench.args.batch_size]
        return command("scripts/customary.py", *flags, "--resize", *bench.args.resize)[0]

    return lambda: command("train.py", *bench.flags(people, cache_dir=bench.fresh()))[0], other


def training_memory(bench, people):
    """Most MB resident in training, and in the plain loop."""
    return lambda: command("train.py", *bench.flags(people))[1], plain_memory(bench, True)


def plain_memory(bench, training):
    args = bench.args
    flags = [bench.model, *args.resize, args.batch_size, int(training)]
    return lambda: command("-c", PLAIN, *flags)[1]


# ---- inference


def inference_command(bench, people, cold=False):
    """The words of a command that predicts photos, from their files if `cold`, to a csv."""
    words = ["inference.py", "--model_dir", bench.trained(), "--device", bench.args.device]
    words += ["--data_dir", bench.photos(people)[0], "--output_dir", bench.fresh()]
    return [*words, "--cache_dir", bench.fresh() if cold else bench.folder / "cache"]


def bare_forward(bench, people):
    """A function that returns the seconds of the model on so many photos that lie in memory."""
    model, info = load_model(bench.trained() / "fold0/label/best.safetensors", bench.device)
    size = bench.args.batch_size
    images = torch.randn(size, 3, *info.size, device=bench.device)
    if info.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    autocast, _ = precision(info.amp, bench.device)
    steps = max(2, PHOTOS * people // size // 4)  # a quarter is enough to know

    @torch.inference_mode()
    def work():
        for _ in range(steps):
            with autocast:
                model(images)

    work()  # warms up
    return lambda: seconds(work, bench.device) / (steps * size) * PHOTOS * people


def inference(bench, people, cold=False):
    """images/s of inference.py from start to end, and of the bare forward."""
    forward, count = bare_forward(bench, people), PHOTOS * people
    command(*inference_command(bench, people))  # so that the store is there

    def ours():
        return count / command(*inference_command(bench, people, cold))[0]

    return ours, lambda: count / forward()


def inference_start(bench, people):
    """Seconds of inference.py besides the bare forward, the store being there; of import torch."""
    forward = bare_forward(bench, people)
    command(*inference_command(bench, people))

    def ours():
        return command(*inference_command(bench, people))[0] - forward()

    return ours, lambda: command("-c", "import torch")[0]


def inference_memory(bench, people):
    """Most MB resident in inference, and in the plain loop."""

    def ours():
        return command(*inference_command(bench, people))[1]

    return ours, plain_memory(bench, False)


# ---- photos


@contextmanager
def one_thread():
    """OpenCV's functions on one thread: a pool has the cores already."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def pixel_store(bench, people):
    """Photos/s of the store, and of bare decoding and resizing on all cores."""
    _, root, names = bench.photos(people)
    height, width = bench.args.resize
    views = build_views("none", "mean", "none", (height, width))
    files = [np.fromfile(root / name, np.uint8) for name in names]

    def bare(data):
        photo = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)

    def ours():
        return len(names) / seconds(lambda: store.load(root, names, views, bench.fresh()))

    def other():
        with one_thread(), ThreadPoolExecutor(cores()) as pool:
            return len(files) / seconds(lambda: list(pool.map(bare, files)))

    return ours, other


def mattes(bench, people, method):
    """A function that returns the photos/s of background removal."""
    _, root, names = bench.photos(people)

    def ours():
        how = matte.Matting(bench.fresh(), device="cpu")
        return len(names) / seconds(lambda: matte.ensure(root, names, method, how))

    return ours


def rembg(bench, people):
    """Photos/s of u2netp, and of bare runs of the network by the faster setting of threads."""
    model, count = rembg_net.find_model("u2netp"), PHOTOS * people
    photo = np.random.default_rng(0).normal(size=(1, 3, 320, 320)).astype(np.float32)

    def runs(workers, threads, count):
        """Runs a second of a network that so many workers share, each run on so many threads."""
        net = rembg_net.open_net(model, "cpu", threads).session
        run = partial(net.run, None, {net.get_inputs()[0].name: photo})
        run()  # warms up
        with ThreadPoolExecutor(workers) as pool:
            return count / seconds(
                lambda: [job.result() for job in map(pool.submit, [run] * count)]
            )

    best = max([(1, cores()), (cores(), 1)], key=lambda setting: runs(*setting, 6))
    return mattes(bench, people, "rembg"), lambda: runs(*best, count)


def grabcut(bench, people):
    """Photos/s of our GrabCut, and of cv2.grabCut as it is usually called."""
    _, root, names = bench.photos(people)
    few = [read_photo(root / name) for name in names[:: max(1, len(names) // 2)]]

    def other():
        return len(few) / seconds(lambda: [rectangle_cut(photo) for photo in few])

    return mattes(bench, people, "grabcut"), other


def rectangle_cut(photo):
    """A rectangle, the full resolution, five iterations."""
    height, width = photo.shape[:2]
    labels, models = np.zeros((height, width), np.uint8), (np.zeros((1, 65)), np.zeros((1, 65)))
    box = (width // 20, height // 20, width * 9 // 10, height * 9 // 10)
    cv2.grabCut(photo, labels, box, *models, 5, cv2.GC_INIT_WITH_RECT)


# ---- runs and commands


def two_runs(bench, people):
    """Seconds of the comparison of two runs with 2,000 draws."""
    rng, persons = np.random.default_rng(0), np.repeat(np.arange(people), PHOTOS)
    labels, first, second = rng.integers(0, CLASSES, (3, len(persons)))
    return lambda: seconds(lambda: comparison.compare(labels, persons, first, second)), None


def helped(bench, people):
    """Mean seconds until a command has answered --help, and those of Python's own start."""
    return answered("--help", 0)


def refused(bench, people):
    """Mean seconds until a command has refused a wrong flag, and those of Python's own start."""
    return answered("--none_such", 2)


def answered(flag, code):
    def ours():
        return np.mean([command(f"{name}.py", flag, code=code)[0] for name in COMMANDS])

    return ours, lambda: command("-c", "import argparse, numpy")[0]
