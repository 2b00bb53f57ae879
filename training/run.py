"""A run in training: what all of its parts share, opened once; its folds, trained one by one."""

from argparse import Namespace
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import model as models
import options
from background import matte
from background.pixels import open_pixels
from common.errors import UserError
from common.files import locked
from common.processes import rank, say, world_size
from dataset import Data, Table, read_train, split_people
from experiment import reader, results, run_folder
from labels import LAYOUTS
from photos.views import build_views
from training import arithmetic, distributed, optimization, teaching
from training.loop import Stopped
from training.task import Task


@dataclass(frozen=True)
class Run:
    """One run of train.py.

    options: the Namespace of options.py; tasks: {task: its own options}, resolved; folder: of the
    run; table: its photos; labels: what they are taught; pixels: {task: photos.store.Pixels} of the
    photos of `labels`; mattes: {method: what the mattes are made with}.
    """

    options: Namespace
    tasks: dict
    folder: Path
    table: Table
    labels: teaching.Labels
    pixels: dict
    mattes: dict
    device: torch.device

    def heads_of(self, task):
        """The heads of a task's model."""
        return LAYOUTS[options.layout_of(self.options)][task]


def open_run(args, device):
    """The Run of these options. All that can be wrong is found before its folder is made."""
    tasks = options.tasks_of(args)
    table = read_train(args.data_dir)
    for note in table.notes:
        say(f"{args.data_dir}: {note}")
    labels = teaching.read(args, table)
    new = not run_folder.find_run(args, table)
    if new:
        check_models(args, tasks, table)
    pixels, mattes = _open_pixels(args, tasks, labels, device)
    _check_readable(args, table, pixels)
    if new and rank() == 0:
        tasks = arithmetic.choose(args, tasks, device, len(table.frame))
    folder = run_folder.make_run(args, table, tasks)
    tasks = arithmetic.recorded(folder, tasks, device)
    say(f"run {folder}")
    return Run(args, tasks, folder, table, labels, pixels, mattes, device)


def check_names(args):
    """UserError for a model or an optimizer that timm does not have."""
    for name in args.model.values():
        models.check_name(name)
    for name in args.optimizer.values():
        optimization.check_optimizer(name)


def check_models(args, tasks, table):
    """UserError if a model of the run cannot be built, frozen, optimized or normalized as asked."""
    check_names(args)
    heads, checked = LAYOUTS[options.layout_of(args)], []
    names = ("resize", "weights", "freeze", "optimizer", "drop_path", "layer_decay", "batch_size")
    for task, chosen in tasks.items():
        wanted = [chosen[name] for name in ("model", *names)]
        if wanted not in checked:
            checked.append(wanted)
            size, weights, freeze, _, drop_path, *_ = wanted[1:]
            model = models.create(chosen["model"], heads[task], size, weights, drop_path=drop_path)
            optimization.freeze(model.backbone, freeze)
            optimization.make_optimizer(model, chosen)
            if distributed.normalizes_batches(model, chosen):
                _check_batches(args, chosen, table)


def _check_batches(args, chosen, table):
    """UserError if a fold would train batches too small for batch normalization."""
    folds = split_people(table.frame, args.seed, args.k_fold, args.val_ratio)
    held_out = table.frame.person.map(folds.set_index("person").fold).value_counts()
    fewest = len(table.frame) - held_out[held_out.index >= 0].max() if args.val_ratio else 2
    least = max(2, world_size())
    if min(chosen["batch_size"], fewest) < least:
        raise UserError(
            f"--batch_size {chosen['batch_size']} with {fewest} training photos: "
            f"{chosen['model']} normalizes over the batch, which takes {least} photos or more"
        )


def _check_readable(args, table, pixels):
    """UserError if a fold has nobody left to train or to validate, since photos are unreadable."""
    broken = {row for one in pixels.values() for row in one.broken}
    folds = split_people(table.frame, args.seed, args.k_fold, args.val_ratio)
    fold_of = table.frame.person.map(folds.set_index("person").fold)
    readable = fold_of[[row not in broken for row in range(len(fold_of))]]
    known = {*folds.fold} - {-1} or {0}
    for fold in sorted(known.intersection(args.fold or known)):
        for word, rows in ("train on", readable != fold), ("validate", readable == fold):
            if not rows.any() and (args.val_ratio or args.k_fold or word == "train on"):
                raise UserError(
                    f"{args.data_dir}: nobody is left to {word} in fold {fold}, since photos are "
                    "unreadable; restore them"
                )


def _open_pixels(args, tasks, labels, device):
    """({task: Pixels}, {method: what its mattes are made with}); equal views share one store."""
    matting = matte.Matting(args.matte_dir, args.rembg_model, on_error=args.on_error)
    opened, pixels, mattes = {}, {}, {}
    for task, chosen in tasks.items():
        views = build_views(*(chosen[name] for name in ("bg", "bg_fill", "crop", "resize")))
        if views not in opened:
            opened[views] = open_pixels(labels.sources, views, matting, args.cache_dir, device)
        pixels[task], made = opened[views]
        mattes |= made
    names = labels.names
    for name in sorted({names[i] for one in pixels.values() for i in one.broken}):
        say(f"left out, unreadable: {name}")
    return pixels, mattes


# ---- folds


def train_fold(run, fold, stopping, on_epoch=None):
    """Trains one fold of a Run and writes its predictions and scores.

    stopping: a function without arguments, true once the run should stop; on_epoch: as of
    train.main. Stopped is raised with the state saved; UserError if another process trains it.
    """
    place = reader.fold_folder(run.folder, fold)
    with locked(place / ".lock", wait=False) if rank() == 0 else nullcontext(True) as free:
        if not free:
            raise UserError(f"{place} is being trained by another process; leave it to it")
        train, valid = train_valid_rows(run, fold)
        tasks = make_tasks(run, fold, train, valid)
        truth = run.labels.truth["label"][valid]
        with closing(results.Logger(place, tasks, run.options)) as logger:
            while waiting := [task for task in tasks if not task.finished]:
                epoch = min(task.epoch for task in waiting)
                for task in waiting:
                    if task.epoch == epoch:
                        task.run_epoch(stopping)
                        logger.add(task)
                score = results.report_epoch(place, fold, epoch, tasks, truth)
                logger.add_score(epoch, score)
                if on_epoch and score is not None:
                    on_epoch(fold, epoch, score)
                if stopping():
                    raise Stopped
            if rank() == 0:
                results.finish_fold(place, fold, run.table.frame.iloc[valid], tasks, logger)


def train_valid_rows(run, fold):
    """(train, valid): int64 rows of the run's table in a fold, without unreadable photos."""
    people = run.table.frame.person
    fold_of = people.map(reader.read_folds(run.folder).set_index("person").fold).to_numpy()
    readable = np.ones(len(people), bool)
    for pixels in run.pixels.values():
        readable[[row for row in pixels.broken if row < len(people)]] = False  # later ones: eval
    train = np.flatnonzero(readable & (fold_of != fold))
    if not len(train):
        raise UserError(f"{run.folder} fold {fold}: nobody is left to train on")
    return train, np.flatnonzero(readable & (fold_of == fold))


def make_tasks(run, fold, train, valid):
    """The Tasks of a fold, each where its saved state left it.

    train, valid: int64 rows of the table.
    """
    labels = run.labels.of_fold(fold)
    tasks = []
    for name in run.tasks:
        pixels = run.pixels[name]
        rows = labels.rows(train, run.heads_of(name), pixels.broken)
        data = Data(pixels, labels.names, rows, valid, labels.targets, labels.truth)
        tasks.append(Task(run, fold, name, data))
    return tasks
