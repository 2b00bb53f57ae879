"""One fold of a run: its tasks trained together, epoch by epoch."""

from contextlib import closing, nullcontext

import numpy as np

from common.errors import UserError
from common.files import locked
from common.processes import rank
from dataset import Data
from experiment import reader, results
from training.loop import Stopped
from training.task import Task


def train_fold(run, fold, stopping, on_epoch=None):
    """Trains one fold of a training.run.Run and writes its predictions and scores.

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
        with closing(results.TensorBoardLogger(place, tasks)) as logger:
            while waiting := [task for task in tasks if not task.finished]:
                epoch = min(task.epoch for task in waiting)
                for task in waiting:
                    if task.epoch == epoch:
                        task.run_epoch(stopping)
                        logger.add(task)
                score = results.report_epoch(place, fold, epoch, tasks, truth)
                if on_epoch and score is not None:
                    on_epoch(fold, epoch, score)
                if stopping():
                    raise Stopped
        if rank() == 0:
            results.finish_fold(place, fold, run.table.frame.iloc[valid], tasks)


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
    for name, heads in run.tasks.items():
        pixels = run.pixels[name]
        rows = labels.rows(train, heads, pixels.broken)
        data = Data(pixels, labels.names, rows, valid, labels.targets, labels.truth)
        tasks.append(Task(run, fold, name, data))
    return tasks
