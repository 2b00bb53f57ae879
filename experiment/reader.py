"""Reads run folders: the one place that knows what lies in them."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import UserError
from common.files import read_json
from labels import ATTRIBUTES, CLASSES, PROBS


def read_config(folder):
    """The config.json of a run; UserError if the folder is no run, or is only half of one."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json, so it is not a run of train.py")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not {"options", "layout", "data"} <= config.keys():
        raise UserError(f"{folder}/config.json is not one that train.py wrote")
    if "oof_of" in config:
        runs = " ".join(config["oof_of"])
        raise UserError(f"{folder} has scores of inference.py --oof, no models; give {runs}")
    if not (folder / "folds.csv").is_file():
        raise UserError(f"{folder} has no folds.csv: the run is not whole; train it again")
    return config


def all_folds(folder):
    """Fold numbers of a run; one that trained on everybody has the one fold 0."""
    return sorted(set(read_folds(folder).fold) - {-1}) or [0]


def read_folds(folder):
    """The folds.csv of a run, as dataset.split_people() made it: a frame (person, fold)."""
    return pd.read_csv(Path(folder, "folds.csv"), dtype={"person": str})


def finished(folder, fold):
    """True if that fold of the run is trained and its predictions are written."""
    return (fold_folder(folder, fold) / "metrics.json").exists()


def fold_folder(folder, fold):
    return Path(folder) / f"fold{fold}"


TASKS = ("label", "shared", *ATTRIBUTES)
ALL = "all 18 classes"  # the curve of a fold as a whole


@dataclass
class FinishedRun:
    """One run folder: its config.json, its oof.csv sorted by image, and its learning curves.

    logs: {ALL or a task: frame of all folds, with the columns of log.csv and `fold`}.
    last_epoch: macro F1 of the last epochs instead of the kept ones, NaN if unknown.
    """

    folder: Path
    config: dict
    oof: pd.DataFrame
    logs: dict = field(default_factory=dict)
    last_epoch: float = math.nan

    @property
    def probs(self):
        return self.oof[PROBS].to_numpy()

    @property
    def predictions(self):
        return self.probs.argmax(1)


def read_run(folder):
    """The FinishedRun in a folder of train.py; UserError if it is none or is not finished."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give runs of train.py (--model_dir)")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a run of train.py: it has no config.json")
    config = read_json(folder / "config.json")
    path = folder / "oof.csv"
    if not path.is_file():
        raise UserError(
            f"{folder} has no oof.csv: finish it (python train.py --resume {folder}), "
            "or leave it out if it was trained on everybody"
        )
    scores = read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
    last = scores.get("last_epoch", {}).get("macro_f1", math.nan)
    return FinishedRun(folder, config, _read_oof(path), _read_logs(folder), last)


def _read_oof(path):
    try:
        oof = pd.read_csv(path, dtype={"image": str, "person": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable csv ({str(error).splitlines()[0]})") from None
    missing = [name for name in ("image", "person", "fold", "label", *PROBS) if name not in oof]
    if missing:
        raise UserError(f"{path}: column {', '.join(missing[:3])} is missing")
    numbers = oof[["label", *PROBS]].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    bad = ~np.isfinite(numbers).all(1) | ~np.isin(numbers[:, 0], range(CLASSES))
    if bad.any() or not len(oof):
        where = f"line {bad.argmax() + 2} has no label 0..17 or no probability" if len(oof) else ""
        raise UserError(f"{path}: {where or 'no rows'}; write it again with train.py")
    if oof.image.duplicated().any():
        raise UserError(f"{path}: {oof.image[oof.image.duplicated()].iloc[0]} occurs twice")
    return oof.sort_values("image", ignore_index=True)


def _read_logs(folder):
    parts = {}
    for path in sorted(folder.glob("fold*/log.csv")) + sorted(folder.glob("fold*/*/log.csv")):
        depth = path.relative_to(folder).parts
        key = ALL if len(depth) == 2 else depth[1]
        try:
            frame = pd.read_csv(path)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
            raise UserError(f"{path} is not a readable csv; remove it or resume the run") from None
        frame["fold"] = int(depth[0].removeprefix("fold"))
        parts.setdefault(key, []).append(frame)
    order = sorted(parts, key=lambda key: TASKS.index(key) if key in TASKS else -1)
    return {key: pd.concat(parts[key], ignore_index=True) for key in order}


def check_same(a, b):
    """UserError that names the difference unless two runs predict the same labelled images."""
    for column, word in (("image", "images"), ("person", "people")):
        ours, theirs = set(a.oof[column]), set(b.oof[column])
        if ours != theirs:
            some = sorted(ours ^ theirs)[0]
            where = a.folder if some in ours else b.folder
            raise UserError(
                f"{a.folder} and {b.folder} predict different {word} ({len(ours)} and "
                f"{len(theirs)}; {some} is in {where} only): compare runs of the same folds"
            )
    moved = (a.oof.person != b.oof.person) | (a.oof.label != b.oof.label)
    if moved.any():
        image = a.oof.image[moved].iloc[0]
        raise UserError(
            f"{a.folder} and {b.folder} disagree on the person or label of {moved.sum()} images "
            f"({image} is one): they were trained on different tables"
        )


def check_table(frame, run):
    """The rows of the data table in the run's order; UserError if the run is of other data."""
    rows = frame.set_index("image").reindex(run.oof.image)
    missing = rows.label.isna().to_numpy()
    if missing.any():
        raise UserError(
            f"{run.folder} predicts {missing.sum()} images that the data do not hold "
            f"({run.oof.image[missing].iloc[0]} is one): give its own --data_dir"
        )
    rows = rows.reset_index()
    moved = (rows.label.astype(int) != run.oof.label) | (rows.person != run.oof.person)
    if moved.any():
        raise UserError(
            f"{run.folder} and the data disagree on the label of {moved.sum()} images "
            f"({run.oof.image[moved].iloc[0]} is one): give its own --data_dir"
        )
    return rows
