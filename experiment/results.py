"""What a run reports: a line an epoch, logs, TensorBoard events, OOF predictions, scores."""

from pathlib import Path

import numpy as np
import pandas as pd

import metrics
from common.files import locked, write_csv, write_json
from common.processes import rank, say
from experiment.reader import all_folds, finished, fold_folder, read_folds, read_metrics, read_oof
from labels import CLASSES, PROBS, combine, joint


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
    """Prints one line on an epoch of all tasks, and writes the fold's log.csv.

    Returns the macro F1 of the 18 classes; None if nobody is held out.
    """
    rows = [task.history[min(epoch, len(task.history) - 1)] for task in tasks]
    parts = [f"fold {fold} epoch {epoch + 1}/{max(task.options['epochs'] for task in tasks)}"]
    for task, row in zip(tasks, rows, strict=True):
        f1 = f" F1 {row['macro_f1']:.3f}" if "macro_f1" in row else ""
        parts.append(f"{task.name} loss {row['train_loss']:.3f}{f1}")
    score = None
    if len(labels):
        log = fold_log(tasks, labels)
        if rank() == 0:
            write_csv(place / "log.csv", pd.DataFrame(log))
        score = log[epoch]["macro_f1"]
        if "label" not in (task.name for task in tasks):
            parts.append(f"18 classes F1 {score:.3f}")
    speed = np.mean([row["images_per_s"] for row in rows])
    waited = np.mean([row["wait_share"] for row in rows])
    say(" | ".join([*parts, f"{speed:.0f} images/s", f"{waited:.1%} waiting"]))
    return score


IN_SHORT = ("macro_f1", "accuracy", "ece")  # of a fold
# Tag names of the baseline, where it has them.
TAGS = {
    "train_loss": "Train/loss",
    "train_accuracy": "Train/accuracy",
    "lr": "Train/lr",
    "val_loss": "Val/loss",
    "val_accuracy": "Val/accuracy",
    "macro_f1": "Val/macro_f1",
}


class TensorBoardLogger:
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

    def close(self):
        """Ends the thread and the file of each writer."""
        for writer in self.writers.values():
            writer.close()


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
        probs = pd.DataFrame(joint(probs).astype(np.float64).round(7), columns=PROBS)
        write_csv(place / "oof.csv", pd.concat([table, probs], axis=1))
        result |= in_short(table.label, probs.to_numpy())
        codes = {head: code for task in tasks for head, code in task.predictions[-1].items()}
        table = metrics.confusion(table.label, combine(codes), CLASSES)
        result["last_epoch"] = {"confusion": table.tolist()}
    write_json(place / "metrics.json", result)


def in_short(labels, probs):
    """The scores of one fold."""
    scores = metrics.score(labels, probs)
    result = {key: scores[key] for key in IN_SHORT}
    attributes = {name: value["macro_f1"] for name, value in scores["attributes"].items()}
    return result | {"attributes": attributes}


def collect(folder):
    """Once all folds are there: oof.csv and metrics.json of the run. Returns the latter, or None.

    Any of several processes that train the folds may come last; one of them at a time gets here.
    """
    folder = Path(folder)
    folds = all_folds(folder)
    with locked(folder / ".lock", wait=True):
        if not all(finished(folder, fold) for fold in folds):
            return None
        people, parts, tables = read_folds(folder), [], []
        for fold in folds:
            place = fold_folder(folder, fold)
            needed = IN_SHORT if (place / "oof.csv").exists() else ()
            parts.append(read_metrics(place / "metrics.json", "fold", *needed))
            if "macro_f1" in parts[-1]:
                held_out = people[people.fold == fold]
                tables.append(read_oof(place / "oof.csv", held_out, parts[-1]))
        result = {"folds": parts, "seconds": sum(part["seconds"] for part in parts)}
        if tables:
            oof = pd.concat(tables).sort_values("image", ignore_index=True)
            write_csv(folder / "oof.csv", oof)
            result = metrics.score(oof.label, oof[PROBS].to_numpy()) | result
            last = sum(np.array(part["last_epoch"]["confusion"]) for part in parts)
            result["last_epoch"] = {"macro_f1": float(metrics.per_class_f1(last).mean())}
        write_json(folder / "metrics.json", result)
    return result


def summary(result):
    """One line of a run's metrics.json."""
    if "macro_f1" not in result:
        return f"trained on everybody, without a score; {result['seconds']:.0f} s"
    images, folds = sum(result["support"]), len(result["folds"])
    attributes = " ".join(f"{n} {v['macro_f1']:.3f}" for n, v in result["attributes"].items())
    where = f"{folds} folds" if folds > 1 else "1 fold"
    if "last_epoch" in result:  # an epoch that nobody chose by these very images
        where += f"; by the last epoch {result['last_epoch']['macro_f1']:.4f}"
    return (
        f"macro F1 {result['macro_f1']:.4f} over {images} images ({where}), accuracy "
        f"{result['accuracy']:.4f}, macro F1 of {attributes}; {result['seconds']:.0f} s"
    )
