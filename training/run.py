"""A run in training: what its parts share, resolved once; its folds, one by one or side by side."""

import io
from argparse import Namespace
from collections import Counter
from contextlib import ExitStack, closing, redirect_stdout
from dataclasses import dataclass, field, replace
from itertools import count, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import options
from background import matte
from background.pixels import open_pixels
from common import devices
from common.errors import UserError
from common.files import locked
from common.processes import cores, counted, rank, say, side_by_side, world_size
from dataset import Data, Table, read_train, split_people
from experiment import reader, results, run_folder
from model import check_name, check_patches
from photos.views import build_views
from training import arithmetic, checkpoint, distributed, optimization, teaching
from training.loop import Pace, steps_of
from training.task import Task, build


@dataclass(frozen=True)
class Run:
    """One run of train.py, its input read and checked."""

    options: Namespace
    tasks: dict  # of options.tasks_of()
    table: Table
    folds: pd.DataFrame  # (person, fold)
    data: dict  # {fold: {task: dataset.Data}} of the folds that are asked for
    mattes: dict  # {method: what the mattes are made with}
    device: torch.device
    config: dict  # its config.json
    folder: Path = None  # once it is made
    pace: Pace = field(default_factory=Pace)


def open_run(args, device):
    """The Run of these options. All that can be wrong is found before its folder is made."""
    if workers_of(args) > 1:
        share = max(1, cores() // workers_of(args))
        torch.set_num_threads(min(share, torch.get_num_threads()))
    run = resolve(args, device)
    folder, tasks = run_folder.make_run(run.config, run.folds, run.folder), {}
    said = reader.read_config(folder).get("tasks", {})
    for task, of in run.tasks.items():  # in the arithmetic that was chosen when the run was made
        tasks[task] = of | arithmetic.usual(of | said.get(task, {}), device)
    return replace(run, folder=folder, tasks=tasks)


def workers_of(args):
    """How many processes train what is asked for."""
    folds = len(args.fold or ()) or args.k_fold or 1
    return min(args.workers, folds * len(options.tasks_of(args)))


def resolve(args, device):
    """The Run, with the folder of one to go on with; UserError for all that can be wrong."""
    table, folds, labels = read_inputs(args)
    tasks = options.tasks_of(args)
    config = run_folder.describe(args, tasks, table)
    known = run_folder.find_run(config, folds)
    last = max(args.k_fold, 1) - 1
    chosen = sorted({*(args.fold or range(last + 1))})
    if chosen[-1] > last:
        raise UserError(f"--fold {chosen[-1]}: the run has the folds 0 to {last}")
    if args.init_from and not known:
        _check_source(args, folds, chosen)
    normalizing = () if known else check_models(args, tasks, chosen[0])
    pixels, mattes = _open_pixels(args, tasks, table, device)
    run = Run(args, tasks, table, folds, {}, mattes, device, config, known)
    for fold in chosen:
        run.data[fold] = _data_of_fold(run, fold, labels, pixels)
        for task in normalizing:
            _check_batches(tasks[task], run.data[fold][task])
    if not known and rank() == 0:
        config["tasks"] = arithmetic.choose(tasks, device, args.cache_dir, run.data[chosen[0]])
    return replace(run, tasks=config["tasks"])


def read_inputs(args):
    """(dataset.Table, frame (person, fold), teaching.Labels) of a run, its files checked."""
    table = read_train(args.data_dir)
    for note in table.notes:
        say(f"{args.data_dir}: {note}")
    folds = split_people(table.frame, args.seed, args.k_fold, args.val_ratio)
    return table, folds, teaching.read(args, table, folds)


def check_names(args):
    """UserError for a model or an optimizer that timm does not have."""
    for name in args.model.values():
        check_name(name)
    for name in args.optimizer.values():
        optimization.check_optimizer(name)


def _check_source(args, folds, chosen):
    """UserError unless the run of --init_from holds out these people and has these folds."""
    source = args.init_from
    if reader.read_config(source)["layout"] != options.layout_of(args):
        raise UserError(f"--init_from {source} has another layout: use the same models")
    if (folds.fold >= 0).any() and not reader.read_folds(source).equals(folds):
        raise UserError(
            f"--init_from {source} holds out other people, so that it would know the answers: give "
            "its --seed, --k_fold, --val_ratio and data"
        )
    for fold in chosen:
        if not reader.finished(source, fold):
            raise UserError(f"--init_from {source}: its fold {fold} is not finished")


def check_models(args, tasks, fold):
    """Tasks whose models normalize over a batch; UserError if one cannot be built or optimized."""
    normalizing, known = [], {}
    for task, chosen in tasks.items():
        names = ("model", "resize", "weights", "optimizer", "drop_path")
        source = args.init_from
        start = source and reader.fold_folder(source, fold, task, "best.safetensors")
        wanted = repr([start, *(chosen[name] for name in names)])
        if wanted not in known:
            model = build(chosen, start)
            check_patches(model, chosen["model"], chosen["resize"])
            optimization.make_optimizer(model, chosen)
            known[wanted] = distributed.normalizes_batches(model)
        normalizing += [task] * known[wanted]
    return normalizing


def _check_batches(chosen, data):
    """UserError if a fold would train batches too small for batch normalization."""
    photos, least = len(data.train) * data.pixels.views, max(2, world_size())
    if photos // len(steps_of(photos, chosen["batch_size"])) < least:
        raise UserError(
            f"--batch_size {chosen['batch_size']} with {photos} training photos: "
            f"{chosen['model']} normalizes over the batch, which takes {least} photos or more"
        )


def _open_pixels(args, tasks, table, device):
    """({task: Pixels}, {method: what its mattes are made with}); equal views share one store."""
    matting = matte.Matting(args.matte_dir, args.rembg_model, on_error=args.on_error)
    pixels, mattes, opened, names = {}, {}, {}, list(table.frame.image)
    source = table.root, names
    for task, chosen in tasks.items():
        views = build_views(*(chosen[name] for name in ("bg", "bg_fill", "crop", "resize")))
        if views not in opened:
            opened[views] = open_pixels(source, views, matting, args.cache_dir, device)
        pixels[task], made = opened[views]
        mattes |= made
    for name in sorted({names[row] for one in pixels.values() for row in one.broken}):
        say(f"left out, unreadable: {name}")
    return pixels, mattes


def _data_of_fold(run, fold, labels, pixels):
    """{task: dataset.Data} of the readable photos; UserError if nobody is left in a part."""
    people = run.table.frame.person
    own = people.map(run.folds.set_index("person").fold).to_numpy() == fold
    broken = {row for one in pixels.values() for row in one.broken}
    readable = ~np.isin(np.arange(len(people)), list(broken))
    train, valid = np.flatnonzero(readable & ~own), np.flatnonzero(readable & own)
    for word, rows in ("train on", train), ("validate", valid):
        if not len(rows) and (word == "train on" or own.any()):
            raise UserError(
                f"{run.options.data_dir}: nobody is left to {word} in fold {fold}, since photos "
                "are unreadable; restore them"
            )
    names, given = list(run.table.frame.image), (valid, labels.targets, labels.truth)
    return {
        task: Data(pixels[task], names, labels.rows(train, chosen["heads"]), *given)
        for task, chosen in run.tasks.items()
    }


# ---- folds


def train_folds(run, on_epoch=None):
    """Trains the folds of a Run that are not finished; on_epoch: as of train.main."""
    done = [fold for fold in run.data if reader.finished(run.folder, fold)]
    if done:
        say(f"finished already: fold {', '.join(map(str, done))}")
    for fold in done:
        del run.data[fold]
        if rank() == 0:  # of a process that was killed just before
            checkpoint.forget_states(reader.fold_folder(run.folder, fold))
    # Folds are trained whole, or with --workers each task by itself where whole folds would leave
    # a worker without one.
    alone = len(run.data) % workers_of(run.options)
    jobs = [*product(run.data, [(name,) for name in run.tasks] if alone else [(*run.tasks,)])]
    with ExitStack() as locks:
        for fold in run.data if rank() == 0 else ():
            place = reader.fold_folder(run.folder, fold)
            if not locks.enter_context(locked(place / ".lock", wait=False)):
                raise UserError(f"{place} is being trained by another process; wait for its end")
        if workers_of(run.options) > 1:
            _train_side_by_side(run, jobs, on_epoch)
        for k in range(len(jobs)):
            _train(run, jobs[k:], on_epoch)


def _train_side_by_side(run, jobs, on_epoch):
    """Does the jobs, all of them, in `--workers` processes that go on with this run."""
    folds, ended = [*run.data], Counter()
    run.data.clear()  # perhaps on the GPU
    torch.cuda.empty_cache()
    gpus = torch.cuda.device_count() if run.options.device in ("auto", "cuda") else 0
    given = []
    for k in range(min(workers_of(run.options), len(jobs))):
        own = {"resume": str(run.folder), "fold": folds}
        own |= {"device": f"cuda:{k % gpus}"} if gpus else {}
        given.append((Namespace(**vars(run.options) | own), torch.get_num_threads(), k == 0))

    def turn():
        """The jobs of a worker that is free if all take turns, of which it does the first."""
        own = jobs[:: len(given)]
        del jobs[:1]
        return own

    def hear(fold, *epoch_and_score):
        if epoch_and_score and on_epoch:
            on_epoch(fold, *epoch_and_score)
        if not epoch_and_score:  # a task that was trained by itself
            ended[fold] += 1
            if ended[fold] == len(run.tasks):
                jobs.insert(0, (fold, (*run.tasks,)))  # which finishes the fold

    side_by_side(_work, given, turn, hear)


def _work(place, args, threads, first):
    """Trains, in a process of its own, what comes from `place`; first: it says what the run is."""
    torch.set_num_threads(threads)
    with redirect_stdout(io.StringIO()):  # all this has been said
        run = open_run(args, devices.pick_device(args.device, args.deterministic))
    run.pace.told = not first
    place.send(None)
    while jobs := place.recv():
        _train(run, jobs, lambda *told: place.send(told))
        place.send(None)


def _train(run, jobs, on_epoch):
    """Trains the first of the jobs of this process, (fold, names of its tasks); of a whole fold
    writes what is to report, of a task by itself calls on_epoch(fold) in the end.
    """
    (fold, names), place = jobs[0], reader.fold_folder(run.folder, jobs[0][0])
    tasks = make_tasks(run, fold, *names)
    later = [name for _, names in jobs[1:] for name in names]
    run.pace.later = [(name, run.tasks[name]["epochs"]) for name in later]
    _introduce(run, fold, tasks)
    valid = tasks[0].data.valid
    truth = tasks[0].data.truth["label"][valid]
    if len(tasks) < len(run.tasks):
        while not tasks[0].finished:
            tasks[0].run_epoch()
            results.tell_epoch(fold, tasks[0].epoch - 1, tasks, truth)
        on_epoch(fold)
        return
    told = results.epochs_told(place, tasks)
    with closing(results.Logger(place, run.options, told)) as logger:
        for epoch in count(told):
            for task in tasks:
                if task.epoch == epoch and not task.finished:
                    task.run_epoch()
            last = max(task.epoch for task in tasks)
            if epoch >= last:
                break
            scores = results.score_epoch(place, epoch, tasks, truth)
            if epoch + 1 == last:  # not one that was trained by itself or before a stop
                results.tell_epoch(fold, epoch, tasks, truth, scores)
            logger.add(tasks, epoch, scores)
            if on_epoch and scores:
                on_epoch(fold, epoch, scores[-1])
        if rank() == 0:
            results.finish_fold(place, fold, run.table.frame.iloc[valid], tasks, logger)
            checkpoint.forget_states(place)
            results.collect(run.folder)


def _introduce(run, fold, tasks):
    """Says who trains in a fold, and at first what they train and where."""
    known = told = run.pace.told
    if not told:
        say(f"run {run.folder}, on {run.device} ({devices.name_of(run.device)})")
    if len(tasks) < len(run.tasks):  # the others are told of by those who train them
        known = fold != next(iter(run.data))
    for task in tasks if not known else ():
        say(f"{task.name}: {task.describe()}")
    if not told:
        losses = "loss of training/cross-entropy of validation"
        say(f"an epoch: {losses}, learning rate, macro F1; * is the epoch kept so far")
    if tasks[0].name != next(iter(run.tasks)):
        return
    data, parts = tasks[0].data, []
    for verb, rows in ("train on", data.train), ("validate on", data.valid):
        who = counted(run.table.frame.person.iloc[rows].nunique(), "person", "people")
        parts.append(f"{verb} {who} ({counted(len(rows), 'photo')})")
    say(f"fold {fold} of {max(run.options.k_fold, 1)}: {', '.join(parts)}")


def make_tasks(run, fold, *names):
    """The Tasks of a fold, or those of these names, each where its saved state left it."""
    run.pace.tasks = ()  # the models of a fold before make room
    run.pace.tasks = [Task(run, fold, name) for name in names or run.tasks]
    return run.pace.tasks
