"""The run folder: its name, its config, its folds, and what is collected from them."""

import contextlib
import hashlib
import os
import platform
import signal
import subprocess
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import distributed as dist

import metrics
import options
from common import (
    UserError,
    locked,
    rank,
    read_json,
    say,
    world_size,
    write_csv,
    write_json,
)
from dataset import split_people
from labels import CLASSES, combine, join

PROBS = [f"p{i}" for i in range(CLASSES)]
HOW = ("resume", "device", "fold")  # flags that say how to run, not what


def fingerprint(frame):
    """SHA-256 (first 16 hex digits) of the labelled photos of a table."""
    text = frame.sort_values("image")[["image", "age", "label"]].to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def what(args):
    """The options that make a run what it is, as they stand in config.json."""
    return {name: value for name, value in vars(args).items() if name not in HOW}


def open_run(args, table):
    """The folder of this run, with config.json and folds.csv in it, the same on every process.

    A new run takes the first free name of exp, exp2, exp3 ... With --fold, or where torchrun has
    restarted it, the run of that name is joined if its options and data are the same.
    """
    folder = _open_run(args, table) if rank() == 0 else None
    if world_size() > 1:
        shared = [folder]
        dist.broadcast_object_list(shared)
        folder = shared[0]
    if isinstance(folder, UserError):
        raise folder
    return folder


def _open_run(args, table):
    try:
        return _join(args, table) or _create(args, table)
    except UserError as error:
        if world_size() == 1:
            raise
        return error  # every process raises it, none waits for the others


def _join(args, table):
    """The run that exists already and is meant, else None."""
    first = Path(args.model_dir, args.name)
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    if args.resume:
        folder = Path(args.resume)
    elif args.fold is not None and (first / "config.json").exists():
        folder = first
    elif restarted:
        folders = [f for f in _numbered(first) if (f / "config.json").exists()]
        same = [f for f in folders if read_json(f / "config.json")["options"] == what(args)]
        if not same:
            return None
        folder = same[-1]
    else:
        return None
    config = read_json(folder / "config.json")
    if config["options"] != what(args):
        differing = [k for k, v in what(args).items() if config["options"].get(k) != v]
        raise UserError(f"{folder} is a run with another --{differing[0]}: choose another --name")
    if config["data"]["fingerprint"] != fingerprint(table.frame):
        raise UserError(f"{folder} was trained on other photos or labels than {args.data_dir}")
    return folder


def _numbered(first):
    """exp, exp2, exp3 ... as far as they exist."""
    found, number = [], 1
    while (path := first.with_name(first.name + (str(number) if number > 1 else ""))).exists():
        found.append(path)
        number += 1
    return found


def _create(args, table):
    first = Path(args.model_dir, args.name)
    first.parent.mkdir(parents=True, exist_ok=True)
    with locked(first.parent / ".lock", wait=True):  # folds may start at the same moment
        joined = _join(args, table)
        if joined:
            return joined
        number = len(_numbered(first)) + 1
        folder = first.with_name(first.name + (str(number) if number > 1 else ""))
        folds = split_people(table.frame, args.seed, args.k_fold, args.val_ratio)
        folder.mkdir()
        write_csv(folder / "folds.csv", folds)
        write_json(folder / "config.json", _config(args, table))
    return folder


def _config(args, table):
    layout = options.layout_of(args)
    return {
        "command": " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "layout": layout,
        "seed": args.seed,
        "options": what(args),
        "tasks": {task: options.for_task(args, task) for task in options.LAYOUTS[layout]},
        "data": {
            "fingerprint": fingerprint(table.frame),
            "people": int(table.frame.person.nunique()),
            "images": len(table.frame),
            "notes": table.notes,
        },
        "git": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "hardware": _hardware(),
    }


def _git_commit():
    home = Path(__file__).resolve().parent
    try:
        ask = ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _hardware():
    if torch.cuda.is_available():
        return f"{world_size()} x {torch.cuda.get_device_name()}"
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def read_args(folder, given):
    """The options of the run in `folder`, for --resume; `given` are the words on the command line.

    UserError if it is no run, or if flags were given that would change what it is.
    """
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"--resume {folder}: it has no config.json, so it is no run")
    changing = [word for word in given if word.startswith("--") and word[2:] not in HOW]
    if changing:
        raise UserError(f"{changing[0]}: a resumed run goes on with its own options; leave it out")
    return Namespace(**read_json(Path(folder) / "config.json")["options"])


def folds_to_train(args, folder):
    """The folds of the run, or those of --fold, that are not finished yet."""
    folds = all_folds(folder)
    chosen = folds if args.fold is None else args.fold
    unknown = sorted(set(chosen) - set(folds))
    if unknown:
        raise UserError(f"--fold {unknown[0]}: {folder} has the folds {folds[0]} to {folds[-1]}")
    done = [fold for fold in chosen if finished(folder, fold)]
    if done:
        say(f"finished already: fold {', '.join(map(str, done))}")
    return [fold for fold in chosen if fold not in done]


def all_folds(folder):
    """Fold numbers of a run; one that trained on everybody has the one fold 0."""
    return sorted(set(pd.read_csv(Path(folder) / "folds.csv").fold) - {-1}) or [0]


def people_of(folder, fold, frame, pixels):
    """(train, valid): int64 rows of the table in this fold, without unreadable photos."""
    folds = pd.read_csv(Path(folder) / "folds.csv", dtype={"person": str})
    mine = frame.person.map(folds.set_index("person").fold).to_numpy()
    readable = np.ones(len(frame), bool)
    for stored in pixels.values():
        readable[list(stored.broken)] = False
    train, valid = (
        np.flatnonzero(readable & (mine != fold)),
        np.flatnonzero(readable & (mine == fold)),
    )
    if not len(train):
        raise UserError(f"{folder} fold {fold}: nobody is left to train on")
    return train, valid


def finished(folder, fold):
    """True if that fold of the run is trained and its predictions are written."""
    return (fold_folder(folder, fold) / "metrics.json").exists()


def fold_folder(folder, fold):
    return Path(folder) / f"fold{fold}"


def fold_log(tasks, labels):
    """One row an epoch: the scores of the 18 classes, of all tasks together.

    A task that is done before the others keeps its last predictions.
    """
    rows = []
    for epoch in range(max(len(task.predictions) for task in tasks)):
        codes = {}
        for task in tasks:
            codes |= task.predictions[min(epoch, len(task.predictions) - 1)]
        predicted = combine(codes)
        accuracy = float((predicted == labels).mean())
        row = {"epoch": epoch + 1, "macro_f1": metrics.macro_f1(labels, predicted)}
        rows.append(row | {"accuracy": accuracy})
    return rows


def report_epoch(place, fold, epoch, tasks, labels):
    """Prints one line on an epoch of all tasks, and writes the fold's log.csv."""
    rows = [task.history[min(epoch, len(task.history) - 1)] for task in tasks]
    parts = [f"fold {fold} epoch {epoch + 1}/{max(task.options['epochs'] for task in tasks)}"]
    for task, row in zip(tasks, rows, strict=True):
        score = f" F1 {row['macro_f1']:.3f}" if "macro_f1" in row else ""
        parts.append(f"{task.name} loss {row['train_loss']:.3f}{score}")
    if len(labels):
        log = fold_log(tasks, labels)
        if rank() == 0:
            write_csv(place / "log.csv", pd.DataFrame(log))
        if "label" not in (task.name for task in tasks):
            parts.append(f"18 classes F1 {log[epoch]['macro_f1']:.3f}")
    speed = np.mean([row["images_per_s"] for row in rows])
    waited = np.mean([row["wait_share"] for row in rows])
    say(" | ".join([*parts, f"{speed:.0f} images/s", f"{waited:.1%} waiting"]))


# Tag names of the baseline, where it has them.
TAGS = {
    "train_loss": "Train/loss",
    "train_accuracy": "Train/accuracy",
    "lr": "Train/lr",
    "val_loss": "Val/loss",
    "val_accuracy": "Val/accuracy",
    "macro_f1": "Val/macro_f1",
}


class Boards:
    """TensorBoard events of the tasks of a fold."""

    def __init__(self, place, tasks):
        self.writers = {}
        if rank() == 0:
            from torch.utils.tensorboard import SummaryWriter

            self.writers = {
                task.name: SummaryWriter(place / task.name, purge_step=task.epoch + 1)
                for task in tasks
            }

    def add(self, task):
        """Adds the last epoch of a task."""
        for key, tag in TAGS.items() if self.writers else ():
            if key in task.history[-1]:
                self.writers[task.name].add_scalar(tag, task.history[-1][key], task.epoch)
                self.writers[task.name].flush()


def finish_fold(place, fold, rows, tasks):
    """Writes fold<k>/oof.csv and, last, fold<k>/metrics.json, from the best epoch of each task.

    rows: the table of the validation photos.
    """
    result = {
        "fold": fold,
        "seconds": sum(row["seconds"] for task in tasks for row in task.history),
        "best_epochs": {task.name: task.best["epoch"] for task in tasks},
    }
    if len(rows):
        table = rows[["image", "person", "label"]].reset_index(drop=True)
        table.insert(2, "fold", fold)
        probs = {head: p for task in tasks for head, p in task.best["probs"].items()}
        probs = pd.DataFrame(join(probs).astype(np.float64).round(7), columns=PROBS)
        write_csv(place / "oof.csv", pd.concat([table, probs], axis=1))
        scores = metrics.score(table.label, probs.to_numpy())
        result |= {key: scores[key] for key in ("macro_f1", "accuracy", "ece")}
        result["attributes"] = {n: v["macro_f1"] for n, v in scores["attributes"].items()}
    write_json(place / "metrics.json", result)


def collect(folder):
    """Once all folds are there: oof.csv and metrics.json of the run. Returns the latter, or None.

    Any of several processes that train the folds may come last; one of them at a time gets here.
    """
    folder = Path(folder)
    folds = all_folds(folder)
    with locked(folder / ".lock", wait=True):
        if not all(finished(folder, fold) for fold in folds):
            return None
        parts = [read_json(fold_folder(folder, fold) / "metrics.json") for fold in folds]
        result = {"folds": parts, "seconds": sum(part["seconds"] for part in parts)}
        if "macro_f1" in parts[0]:
            types = {"image": str, "person": str}
            tables = [
                pd.read_csv(fold_folder(folder, fold) / "oof.csv", dtype=types) for fold in folds
            ]
            oof = pd.concat(tables).sort_values("image", ignore_index=True)
            write_csv(folder / "oof.csv", oof)
            result = metrics.score(oof.label, oof[PROBS].to_numpy()) | result
        write_json(folder / "metrics.json", result)
    return result


def summary(result):
    """One line of a run's metrics.json."""
    if "macro_f1" not in result:
        return f"trained on everybody, without a score; {result['seconds']:.0f} s"
    images, folds = sum(result["support"]), len(result["folds"])
    attributes = " ".join(f"{n} {v['macro_f1']:.3f}" for n, v in result["attributes"].items())
    where = f"{folds} folds" if folds > 1 else "1 fold"
    return (
        f"macro F1 {result['macro_f1']:.4f} over {images} images ({where}), accuracy "
        f"{result['accuracy']:.4f}, macro F1 of {attributes}; {result['seconds']:.0f} s"
    )


@contextlib.contextmanager
def stop_on_signals():
    """Yields stopping(): True once SIGINT or SIGTERM came to any process; a second one kills."""
    came = []

    def handler(number, frame):
        if came:
            raise KeyboardInterrupt
        came.append(number)
        say("stopping after this step (once more to stop at once) ...")

    def stopping():
        if world_size() == 1:
            return bool(came)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        flag = torch.tensor([float(bool(came))], device=device)
        dist.all_reduce(flag)
        return bool(flag.item())

    previous = {
        number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopping
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
