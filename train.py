"""Trains one model of the 18 classes, three attribute models, or one backbone with three heads.

python train.py --data_dir data/train
python train.py --split_heads --bg rembg --lr 1e-3 age=3e-4
python train.py --k_fold 5 --weighted_sampler --criterion focal
python train.py --resume runs/exp
"""

import argparse
import sys
from contextlib import closing, nullcontext

import batches
import distributed
import engine
import experiment
import flags
import options
import results
import store
import training_flags
import training_labels
from common import UserError, locked, rank, run, say
from dataset import read_train
from model import LAYOUTS


def parse_args(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = flags.Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    training_flags.add_to(parser)
    args = parser.parse_args(argv)
    if args.resume:
        resumed = experiment.read_args(args.resume, argv, vars(args))
        for name in experiment.HOW:
            setattr(resumed, name, getattr(args, name))
        args = resumed
    options.check(args)
    return args


def main(argv=None, on_epoch=None):
    """Trains the run that the words say, and returns its folder.

    on_epoch: called as on_epoch(fold, epoch, macro F1 of the 18 classes) after each epoch of all
    tasks of a validated fold, both numbers from 0. It may raise to stop the run, whose state is
    then saved.
    """
    args = parse_args(argv)
    device = distributed.pick_device(args.device)
    with distributed.process_group(device):
        table = read_train(args.data_dir)
        for note in table.notes:
            say(f"{args.data_dir}: {note}")
        labels = training_labels.read(args, table)
        folder = experiment.open_run(args, table)
        say(f"run {folder}")
        pixels, mattes = load_pixels(args, labels, device)
        folds = experiment.folds_to_train(args, folder)
        with distributed.stop_on_signals() as stopping:
            try:
                for fold in folds:
                    watch = (stopping, on_epoch)
                    train_fold(args, folder, fold, table, labels, pixels, mattes, device, *watch)
            except engine.Stopped:
                say(f"stopped; go on with: python train.py --resume {folder}")
                sys.exit(130)
        if rank() == 0:
            result = results.collect(folder)
            say(results.summary(result) if result else f"{folder}: other folds are to come")
        return folder


def load_pixels(args, labels, device):
    """{task: store.Pixels}, {method: what its mattes are made with} of the photos of `labels`.

    Tasks with the same view and size share one store; missing mattes are made first.
    """
    names, loaded, result, mattes = labels.names, {}, {}, {}
    for task in LAYOUTS[options.layout_of(args)]:
        chosen = options.for_task(args, task)
        views = tuple(store.views(*(chosen[key] for key in ("bg", "bg_fill", "crop", "resize"))))
        if views not in loaded:
            matting = (args.matte_dir, args.rembg_model, device, args.on_error)
            for source in labels.sources:
                mattes |= store.make_mattes(*source, views, *matting)
            distributed.barrier()
            places = (args.cache_dir, args.matte_dir, args.on_error)
            parts = [store.load(*source, views, *places, device) for source in labels.sources]
            loaded[views] = store.Joined(*parts) if len(parts) > 1 else parts[0]
        result[task] = loaded[views]
    for name in sorted({names[i] for pixels in result.values() for i in pixels.broken}):
        say(f"left out, unreadable: {name}")
    return result, mattes


def train_fold(args, folder, fold, table, labels, pixels, mattes, device, stopping, on_epoch):
    """Trains the tasks of one fold together, epoch by epoch, and writes its predictions."""
    place = experiment.fold_folder(folder, fold)
    with locked(place / ".lock", wait=False) if rank() == 0 else nullcontext(True) as free:
        if not free:
            raise UserError(f"{place} is being trained by another process; leave it to it")
        train, valid = experiment.people_of(folder, fold, table.frame, pixels)
        labels = labels.of_fold(fold)
        tasks = make_tasks(args, fold, place, labels, train, valid, pixels, mattes, device)
        truth = labels.truth["label"][valid]
        with closing(results.Boards(place, tasks)) as boards:
            while waiting := [task for task in tasks if not task.finished]:
                epoch = min(task.epoch for task in waiting)
                for task in waiting:
                    if task.epoch == epoch:
                        task.run_epoch(stopping)
                        boards.add(task)
                score = results.report_epoch(place, fold, epoch, tasks, truth)
                if on_epoch and score is not None:
                    on_epoch(fold, epoch, score)
                if stopping():
                    raise engine.Stopped
        if rank() == 0:
            results.finish_fold(place, fold, table.frame.iloc[valid], tasks)


def make_tasks(args, fold, place, labels, train, valid, pixels, mattes, device):
    """The engine.Tasks of the layout, each where its saved state left it."""
    tasks = []
    for name, heads in LAYOUTS[options.layout_of(args)].items():
        chosen = options.for_task(args, name)
        rows = labels.rows(train, heads, pixels[name].broken)
        taught = (labels.targets, labels.truth)
        data = batches.Data(pixels[name], labels.names, rows, valid, *taught)
        info = {key: chosen[key] for key in ("bg", "bg_fill", "crop")}
        info |= {"rembg_model": args.rembg_model, "mattes": mattes}
        key = (args.seed, fold)
        tasks.append(engine.Task(name, heads, chosen, data, info, place / name, key, device, args))
    return tasks


if __name__ == "__main__":
    run(main)
