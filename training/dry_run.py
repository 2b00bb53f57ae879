"""--dry_run: all that a run would refuse, its first batches as a picture, its cost."""

import math
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn.functional import one_hot

import options
from common import devices
from common.errors import UserError
from common.files import atomic, check_writable
from common.processes import counted, duration, progress, say, world_size
from experiment.results import import_wandb
from training import checkpoint, run
from training.loop import Diverged, steps_of
from training.teaching import NAMES

PICTURE, SHOWN = "dry_run.png", 24  # of so many photos of each batch
STEPS = 30  # on one batch


def dry_run(argv, parse_args):
    """Tries the run of a command line without making its folder; says what it is and would cost,
    writes PICTURE. parse_args: that of train.py. UserError for all that the run would refuse.
    """
    trial = _resolve(argv, parse_args)
    seconds, state, kept, rows, folds = 0, 0, 0, [], len(trial.data)
    with tempfile.TemporaryDirectory() as folder:
        for task in run.make_tasks(replace(trial, folder=Path(folder)), next(iter(trial.data))):
            say(f"{task.name}: {task.describe()}")
            images, _, targets = task.draw_samples().batch(slice(0, task.options["batch_size"]))
            rows.append(_picture(task, images, targets))
            seconds += folds * _fit(task, images, targets)
            checkpoint.save_state(task)
            state += (task.folder / "last.pt").stat().st_size
            kept += folds * sum(value.nbytes for value in task.model.state_dict().values())
    gpu = trial.device.type == "cuda" and torch.cuda.max_memory_allocated(trial.device) / 1e9
    unit = 1e9 if sys.platform == "darwin" else 1e6  # macOS counts bytes, Linux kilobytes
    memory = gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    each = counted(folds, "fold") + " one after the other" * (run.workers_of(trial.options) > 1)
    say(
        f"the run: about {duration(seconds)} for {each}, {memory:.1f} GB of "
        f"memory, {(kept + state) / 1e6:.0f} MB of disk and {kept / 1e6:.0f} MB once it is done"
    )
    with atomic(Path(PICTURE)) as temporary:
        cv2.imencode(".png", np.vstack(rows)[..., ::-1])[1].tofile(temporary)
    say(f"{PICTURE}: the first batch of each model; are photos and labels what you expect?")


def _resolve(argv, parse_args):
    """The training.run.Run, without a folder; says all problems, a line each, and a UserError."""
    problems, good, parser = [], [], options.make_parser()

    def noting(call, *words):
        try:
            return call(*words)
        except UserError as error:
            problems.append(str(error))

    begins = [k for k, word in enumerate(argv) if word.startswith("--")] + [len(argv)]
    for low, high in zip([0, *begins], begins, strict=False):
        good += argv[low:high] if noting(parser.parse_args, argv[low:high]) else []
    known = noting(parse_args, good)
    args = known or parser.parse_args(good)
    problems += options.problems(args)
    problems += ["--dry_run is for one process: leave out torchrun"] * (world_size() > 1)
    noting(check_writable, "--model_dir", args.model_dir)
    noting(check_writable, "--cache_dir", args.cache_dir)
    noting(import_wandb, args.wandb)
    device = noting(devices.pick_device, args.device)
    for task, chosen in options.tasks_of(args).items():
        noting(run.check_models, args, {task: chosen}, min(args.fold or [0]))
    if not problems:
        found = noting(run.resolve, args, device)
    elif known or not (args.resume or args.from_run or args.config):  # which say where the data lie
        noting(run.read_inputs, args)
    if problems := [*dict.fromkeys(problems)]:
        for number, problem in enumerate(problems, 1):
            say(f"{number}. {problem}")
        raise UserError(f"{counted(len(problems), 'problem')} to solve first")
    return found


def _fit(task, images, targets):
    """Fits one batch and says whether its loss falls; the seconds that a fold of the task takes."""
    task.network.train()
    losses, start = [], 0.0
    for step in progress(range(STEPS), desc=f"{task.name}: fits one batch"):
        start = time.perf_counter() if step == 2 else start  # the first steps are slower
        with task.autocast:
            logits = task.network(images)
        loss = task.loss(logits, targets, len(images))
        task.scaler.scale(loss).backward()
        task.update()
        losses.append(float(loss.detach()))
    a_step = (time.perf_counter() - start) / (STEPS - 2)
    told = f"the loss of one batch goes from {losses[0]:.3f} to {losses[-1]:.3f}"
    if not math.isfinite(losses[-1]):
        raise Diverged(task.name, told)
    still = ": it does NOT fall; check --lr and labels" * (losses[-1] >= 0.9 * losses[0])
    say(f"{task.name}: {told} in {STEPS} steps{still}")
    start, batch, samples = time.perf_counter(), task.options["batch_size"], task.draw_samples()
    samples.batch(slice(0, batch))
    epoch = (a_step + time.perf_counter() - start) * len(steps_of(samples.count, batch))
    valid = len(task.data.valid) * task.data.pixels.views / batch * a_step / 3  # forward alone
    return task.options["epochs"] * (epoch + valid)


def _picture(task, images, targets):
    """uint8 (H, W, 3) RGB: the photos of a batch as the model sees them, their labels below."""
    cells = []
    for k in range(min(SHOWN, len(images))):
        photo = images[k] * task.std[:, None, None] + task.mean[:, None, None]
        photo = (photo.clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy()
        cell = np.zeros((164 + 16 * len(task.heads), 120, 3), np.uint8)
        cell[:160] = cv2.resize(photo, (120, 160), interpolation=cv2.INTER_AREA)
        for line, head in enumerate(task.heads):
            label, names = targets[head][k].cpu(), NAMES[head]
            shares = label if label.dim() else one_hot(label, len(names))  # photos may be mixed
            words = [f"{names[code]} {shares[code]:.1f}" for code in shares.nonzero().flatten()]
            text, place = " ".join(words).removesuffix(" 1.0"), (2, 173 + 16 * line)
            cv2.putText(cell, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255,) * 3, 1)
        cells.append(cell)
    cells += [np.zeros_like(cells[0])] * (-len(cells) % 8)
    return np.vstack([np.hstack(cells[k : k + 8]) for k in range(0, len(cells), 8)])
