"""Trains one model of the 18 classes, three attribute models, or one backbone with three heads.

python train.py --data_dir data/train
python train.py --split_heads --bg rembg --lr 1e-3 age=3e-4
python train.py --k_fold 5 --weighted_sampler --criterion focal
python train.py --resume runs/exp
"""

import argparse
import sys
from contextlib import closing, nullcontext

import dataset
import options
from common import devices, flags
from common.errors import UserError, run
from common.files import locked
from common.processes import rank, say
from dataset import read_train
from experiment import reader, results, run_folder
from labels import LAYOUTS
from photos import store, views
from training import teaching
from training.task import Stopped, Task


def parse_args(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = flags.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_to(parser)
    args = parser.parse_args(argv)
    if args.resume:
        resumed = run_folder.read_args(args.resume, argv, vars(args))
        for name in run_folder.HOW:
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
    device = devices.pick_device(args.device)
    with devices.process_group(device):
        table = read_train(args.data_dir)
        for note in table.notes:
            say(f"{args.data_dir}: {note}")
        labels = teaching.read(args, table)
        folder = run_folder.open_run(args, table)
        say(f"run {folder}")
        pixels, mattes = load_pixels(args, labels, device)
        folds = run_folder.folds_to_train(args, folder)
        with devices.stop_on_signals() as stopping:
            try:
                for fold in folds:
                    watch = (stopping, on_epoch)
                    train_fold(args, folder, fold, table, labels, pixels, mattes, device, *watch)
            except Stopped:
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
        seen = tuple(views.views(*(chosen[key] for key in ("bg", "bg_fill", "crop", "resize"))))
        if seen not in loaded:
            matting = (args.matte_dir, args.rembg_model, device, args.on_error)
            for source in labels.sources:
                mattes |= store.make_mattes(*source, seen, *matting)
            devices.barrier()
            places = (args.cache_dir, args.matte_dir, args.on_error)
            parts = [store.load(*source, seen, *places, device) for source in labels.sources]
            loaded[seen] = store.Joined(*parts) if len(parts) > 1 else parts[0]
        result[task] = loaded[seen]
    for name in sorted({names[i] for pixels in result.values() for i in pixels.broken}):
        say(f"left out, unreadable: {name}")
    return result, mattes


def train_fold(args, folder, fold, table, labels, pixels, mattes, device, stopping, on_epoch):
    """Trains the tasks of one fold together, epoch by epoch, and writes its predictions."""
    place = reader.fold_folder(folder, fold)
    with locked(place / ".lock", wait=False) if rank() == 0 else nullcontext(True) as free:
        if not free:
            raise UserError(f"{place} is being trained by another process; leave it to it")
        train, valid = run_folder.people_of(folder, fold, table.frame, pixels)
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
                    raise Stopped
        if rank() == 0:
            results.finish_fold(place, fold, table.frame.iloc[valid], tasks)


def make_tasks(args, fold, place, labels, train, valid, pixels, mattes, device):
    """The engine.Tasks of the layout, each where its saved state left it."""
    tasks = []
    for name, heads in LAYOUTS[options.layout_of(args)].items():
        chosen = options.for_task(args, name)
        rows = labels.rows(train, heads, pixels[name].broken)
        taught = (labels.targets, labels.truth)
        data = dataset.Data(pixels[name], labels.names, rows, valid, *taught)
        info = {key: chosen[key] for key in ("bg", "bg_fill", "crop")}
        info |= {"rembg_model": args.rembg_model, "mattes": mattes}
        key = (args.seed, fold)
        tasks.append(Task(name, heads, chosen, data, info, place / name, key, device, args))
    return tasks


if __name__ == "__main__":
    run(main)
