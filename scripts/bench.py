"""What the measures of benchmark.py share: photos, flags and folders, commands and clocks."""

import csv
import itertools
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

import options
from common import devices
from common.errors import UserError
from common.files import HOME
from dataset import find_images
from training.run import make_tasks, open_run, train_valid_rows


class Bench:
    """What all measures share: the flags of benchmark.py, a folder for what they write, photos."""

    def __init__(self, args, folder):
        self.args, self.folder, self.numbers = args, Path(folder), itertools.count()
        self.device, self.model = devices.pick_device(args.device), args.models[0]
        self.source = args.data_dir or self.drawn()
        self.trained = cache(self.train)  # once, where a row needs it

    def drawn(self):
        """The train folder of a drawn competition, which is kept for the next time."""
        people = max(24, min(120, round(421 * self.args.scale)))
        out = HOME / "data" / f"benchmark{people}"
        command("demo.py", "--out", out, "--people", people, "--eval_people", 1)
        return out / "train"

    def scaled(self, people):
        """So many people times --scale, but enough to hold one out; none stay none."""
        return max(5, round(people * self.args.scale)) if people else 0

    def fresh(self):
        """A folder that is not there yet."""
        return self.folder / str(next(self.numbers))

    def people(self, people):
        """A train folder of so many people: links to the source's, again and again."""
        folder = self.folder / f"people{people}"
        if not folder.exists():
            images, home = self.source / "images", folder / "images"
            home.mkdir(parents=True)
            with (self.source / "train.csv").open(newline="", encoding="utf-8-sig") as file:
                known = list(csv.DictReader(file))
            with (folder / "train.csv").open("w", newline="") as file:
                table = csv.DictWriter(file, known[0])
                table.writeheader()
                for number, row in zip(range(people), itertools.cycle(known), strict=False):
                    name = f"person{number:07d}"
                    (home / name).symlink_to((images / row["path"]).resolve())
                    table.writerow(row | {"id": name, "path": name})
        return folder

    def photos(self, people):
        """(folder, root, names): the photos of so many people as those of an eval folder."""
        folder = self.people(people)
        root, names = find_images(folder)
        if not (folder / "info.csv").exists():
            (folder / "info.csv").write_text("\n".join(["ImageID", *names, ""]))
        return folder, root, names

    def flags(self, people, *more, model=None, cache_dir="cache"):
        """Flags of train.py for a run with random weights, which are as fast as any."""
        args = self.args
        flags = ["--data_dir", self.people(people), "--model_dir", self.fresh(), "--epochs", 1]
        flags += ["--cache_dir", self.folder / cache_dir, "--device", args.device]
        flags += ["--model", model or self.model, "--weights", "none"]
        flags += ["--resize", *args.resize, "--batch_size", args.batch_size, *more]
        return [str(flag) for flag in flags]

    def tasks(self, people, *more, **how):
        """The Tasks of a hold-out run with these flags()."""
        run = open_run(options.parse_args(self.flags(people, *more, **how)), self.device)
        return make_tasks(run, 0, *train_valid_rows(run, 0))

    def train(self):
        """The folder of a finished run of the first model."""
        flags = self.flags(24, "--name", "run")
        command("train.py", *flags)
        return Path(flags[flags.index("--model_dir") + 1], "run")


def command(*words, code=0):
    """(seconds, MB, own MB) of a command from start to end: the most that was resident, and the
    most of it that the kernel cannot take back, as it can the pages of files.
    """
    sizes = {"VmHWM": 0, "RssAnon": 0}

    def watch():
        with suppress(OSError):  # the process has ended
            while process.poll() is None:
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    key, _, value = line.partition(":")
                    if key in sizes:
                        sizes[key] = max(sizes[key], int(value.split()[0]) / 1024)
                time.sleep(0.02)

    environment = os.environ | {"TQDM_DISABLE": "1"}
    words = [sys.executable, *map(str, words)]
    start = time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(words, cwd=HOME, env=environment, **pipes)
    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    watcher.join()
    if process.returncode != code:
        raise UserError(f"{' '.join(words[1:])} ended with {process.returncode}: {output[-500:]}")
    return seconds, *sizes.values()


def seconds(work, device=None):
    """How long work() takes, what it started on a GPU included."""
    wait = torch.cuda.synchronize if device and device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start
