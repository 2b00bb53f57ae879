"""What a run reports: a line an epoch, logs, TensorBoard events, OOF predictions, scores."""

import hashlib
import importlib
from collections import ChainMap
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import metrics
from common.errors import UserError
from common.files import locked, write_csv, write_json
from common.processes import counted, rank, say
from experiment.reader import all_folds, finished, fold_folder, read_folds, read_metrics, read_oof
from labels import CLASS_NAMES, CLASSES, HEADS, PROBS, combine, decode, joint
from options import text_of, training_options


def score_epoch(place, epoch, tasks, labels):
    """Writes the fold's log.csv: a row an epoch, the scores of the 18 classes, of all tasks
    together. A task that is done before the others keeps its last predictions. Returns the macro
    F1 in each epoch up to this one, from 0; none if nobody is held out.
    """
    if not len(labels):
        return []
    rows = []
    for number in range(1, 1 + max(len(task.predictions) for task in tasks)):
        predicted = combine(ChainMap(*(task.predictions[:number][-1] for task in tasks)))
        rows.append((number, metrics.macro_f1(labels, predicted), (predicted == labels).mean()))
    log = pd.DataFrame(rows, columns=["epoch", "macro_f1", "accuracy"])
    if rank() == 0:
        write_csv(place / "log.csv", log)
    return log.macro_f1[: epoch + 1].tolist()


def epochs_told(place, tasks):
    """How many epochs of all tasks of a fold its log.csv has."""
    log = place / "log.csv"
    scored = max(len(log.read_bytes().splitlines()) - 1, 0) if log.exists() else 0
    return min([scored, *(task.epoch for task in tasks if not task.finished)])


def tell_epoch(fold, epoch, tasks, labels, scores=()):
    """Prints one line on an epoch of tasks; scores: of score_epoch(), if they are all of a fold."""
    parts = [f"fold {fold} epoch {epoch + 1}/{max(task.options['epochs'] for task in tasks)}"]
    parts += [_in_words(task, epoch, decode(labels)) for task in tasks]
    if scores and "label" not in (task.name for task in tasks):
        best = scores[-1] > max(scores[:-1], default=-1)
        parts.append(f"18 classes F1 {scores[-1]:.3f}{'*' * best}")
    say(" | ".join([*parts, f"{tasks[0].run.pace.left()} left"]))


def _in_words(task, epoch, truth):
    """An epoch of one task; truth: {attribute: codes} of the validation photos."""
    if epoch >= len(task.history):
        return f"{task.name}: done (kept epoch {task.best['epoch']})"
    row = task.history[epoch]
    words = f"{task.name}: loss {row['train_loss']:.3f}"
    if "val_loss" in row:
        words += f"/{row['val_loss']:.3f}"
    words += f", lr {row['lr']:.2g}"
    if len(task.heads) > 1 and "macro_f1" in row:
        codes = task.predictions[epoch]
        scores = {h: metrics.macro_f1(truth[h], codes[h], HEADS[h]) for h in task.heads}
        words += ", F1 " + " ".join(f"{head} {score:.3f}" for head, score in scores.items())
    elif "macro_f1" in row:
        words += f", F1 {row['macro_f1']:.3f}"
    return words + "*" * (task.best["epoch"] == row["epoch"])


IN_SHORT = ("macro_f1", "accuracy", "ece")  # of a fold


def import_wandb(project):
    """The package wandb, None without a project (--wandb); UserError if it is not installed."""
    try:
        return importlib.import_module("wandb") if project else None
    except ImportError:
        raise UserError("--wandb: install wandb (pip install wandb), or leave it out") from None


class Logger:
    """TensorBoard events of a fold, in its folder, with --wandb also a run of Weights & Biases: the
    columns of log.csv of each task and of the 18 classes. Ranks other than 0 log nothing.

    told: how many epochs are logged already.
    """

    def __init__(self, place, options, told):
        self.writer = self.wandb = None
        if rank() > 0:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(place, purge_step=told + 1)
        self.options = {name: text_of(v) for name, v in training_options(options).items()}
        self.wandb = import_wandb(options.wandb)
        if self.wandb:
            made = (place.parent / "config.json").read_bytes()  # a resumed run is the same one
            how = {"id": hashlib.sha256(made).hexdigest()[:16] + place.name, "resume": "allow"}
            how |= {"name": f"{place.parent.name}/{place.name}", "group": place.parent.name}
            try:
                self.wandb.init(project=options.wandb, dir=place, config=self.options, **how)
            except Exception as error:  # of others: a key, a network
                raise UserError(f"--wandb: {error}; or set WANDB_MODE=offline") from None

    def add(self, tasks, epoch, scores):
        """Adds an epoch, counted from 0, of the tasks that had it; scores: of score_epoch()."""
        values = {"18 classes/macro_f1": scores[-1]} if scores else {}
        for task in tasks:
            for row in task.history[epoch : epoch + 1]:
                values |= {f"{task.name}/{key}": row[key] for key in row if key != "epoch"}
        self._add(values, epoch + 1)

    def _add(self, values, epoch):
        for tag, value in values.items() if self.writer else ():
            self.writer.add_scalar(tag, value, epoch)
            self.writer.flush()
        if self.wandb:
            self.wandb.log(values | {"epoch": epoch})

    def add_result(self, epoch, scores, table):
        """Adds, after the last epoch, the options with the scores of the fold, and the confusion of
        the kept models, as a text and as an image: the darker, the larger the share of its row.
        table: (18, 18) counts, rows true; None if nobody is held out.
        """
        from torch.utils.tensorboard.summary import hparams

        scores = {f"fold/{name}": scores[name] for name in IN_SHORT if name in scores}
        self._add(scores, epoch)
        for summary in hparams(self.options, scores):
            self.writer.file_writer.add_summary(summary)
        if table is not None:
            shares = table / np.maximum(table.sum(1, keepdims=True), 1)
            image = np.uint8(255 - 255 * shares).repeat(20, 0).repeat(20, 1)
            self.writer.add_image("fold/confusion", image, dataformats="HW")
            lines = [["true", *CLASS_NAMES], ["-"] * (1 + CLASSES)]
            lines += [[name, *row] for name, row in zip(CLASS_NAMES, table, strict=True)]
            text = "\n".join(" | ".join(map(str, line)) for line in lines)  # Markdown
            self.writer.add_text("fold/confusion", text)
            if self.wandb:
                self.wandb.log({"fold/confusion": self.wandb.Image(image)})

    def close(self):
        if self.writer:
            self.writer.close()
        if self.wandb:
            self.wandb.finish()


def finish_fold(place, fold, rows, tasks, logger):
    """Writes oof.csv and, last, metrics.json of a fold; rows: its validation photos, a table."""
    result = {
        "fold": fold,
        "seconds": sum(row["seconds"] for task in tasks for row in task.history),
        "best_epochs": {task.name: task.best["epoch"] for task in tasks},
    }
    table = None
    if len(rows):
        oof = rows.assign(fold=fold)[["image", "person", "fold", "label"]].reset_index(drop=True)
        probs = joint({h: p.numpy() for task in tasks for h, p in task.best["probs"].items()})
        probs = pd.DataFrame(probs.astype(np.float64).round(7), columns=PROBS)
        write_csv(place / "oof.csv", pd.concat([oof, probs], axis=1))
        result |= in_short(oof.label, probs.to_numpy())
        table = metrics.confusion(oof.label, probs.to_numpy().argmax(1), CLASSES)
        last = combine(ChainMap(*(task.predictions[-1] for task in tasks)))
        result["last_confusion"] = metrics.confusion(oof.label, last, CLASSES).tolist()
    logger.add_result(max(task.epoch for task in tasks), result, table)
    write_json(place / "metrics.json", result)


def in_short(labels, probs):
    """The scores of one fold."""
    scores = metrics.score(labels, probs)
    attributes = {name: value["macro_f1"] for name, value in scores["attributes"].items()}
    return {key: scores[key] for key in IN_SHORT} | {"attributes": attributes}


def collect(folder):
    """Writes oof.csv and metrics.json of the run, of the folds that are finished so far; returns
    the latter. Of several processes that train the folds one at a time gets here.
    """
    folder, parts, tables = Path(folder), [], []
    with locked(folder / ".lock", wait=True):
        people = read_folds(folder)
        for fold in filter(partial(finished, folder), all_folds(folder)):
            place, held = fold_folder(folder, fold), people[people.fold == fold]
            needed = (*IN_SHORT, "last_confusion") if len(held) else ()
            parts.append(read_metrics(place / "metrics.json", "fold", *needed))
            if needed:
                tables.append(read_oof(place / "oof.csv", held, parts[-1]))
        result = {"folds": parts, "seconds": sum(part["seconds"] for part in parts)}
        if tables:
            oof = pd.concat(tables).sort_values("image", ignore_index=True)
            write_csv(folder / "oof.csv", oof)
            result = metrics.score(oof.label, oof[PROBS].to_numpy()) | result
            last = sum(np.array(part["last_confusion"]) for part in parts)
            result["last_epoch"] = {"macro_f1": float(metrics.per_class_f1(last).mean())}
        write_json(folder / "metrics.json", result)
    return result


def progress_of(done, folds):
    """Which of the folds of a run are missing: `1 of 5 folds done, missing 1, 2, 3, 4`."""
    missing = ", ".join(str(fold) for fold in folds if fold not in done)
    return f"{len(done)} of {counted(len(folds), 'fold')} done, missing {missing}"


def summary(result, folds=()):
    """One line of a run's metrics.json; folds: all those of the run."""
    if "macro_f1" not in result:
        return f"trained on everybody, without a score; {result['seconds']:.0f} s"
    done = [part["fold"] for part in result["folds"]]
    where = counted(len(done), "fold")
    if "last_epoch" in result:  # an epoch that nobody chose by these very images
        where += f"; last epoch {result['last_epoch']['macro_f1']:.4f}"
    attributes = " ".join(f"{n} {v['macro_f1']:.3f}" for n, v in result["attributes"].items())
    missing = f"; {progress_of(done, folds)}" if set(folds) - set(done) else ""
    return (
        f"macro F1 {result['macro_f1']:.4f} over {sum(result['support'])} photos ({where}), "
        f"accuracy {result['accuracy']:.4f}, macro F1 of {attributes}; {result['seconds']:.0f} s"
        f"{missing}"
    )
