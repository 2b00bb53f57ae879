"""Reads run folders: the one place that knows what lies in them."""

import io
import math
import shlex
import warnings
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

import metrics
import options
from common.errors import UserError
from common.files import read_bytes, read_json
from common.processes import counted
from common.schema import COUNT, SHARE, Number, check
from labels import CLASSES, LAYOUTS, PROBS

# What the files of a run hold; see common/schema.py.
CONFIG = {
    "layout": {*LAYOUTS, "ensemble"},
    "seed": Number(int, 0),
    "options": {
        **{"data_dir": str, "matte_dir?": (str, None), "seed": Number(int, 0)},
        **{"k_fold": (COUNT, str), "val_ratio": (SHARE, str)},  # text: of an ensemble that differs
        **dict.fromkeys(options.LAYOUT_FLAGS, bool),
    },
    "data": {"fingerprint": str, "people": COUNT, "images": COUNT, "files?": {str: str}},
    "git?": (str, None),
    "tasks?": {str: {"amp?": {"auto", "off", "bf16", "fp16"}, "compile?": (bool, {"graphs"})}},
    "oof_of?": [str],
}
CONFUSION = [[COUNT, CLASSES], CLASSES]
METRICS = {  # of a run and of a fold
    **{"macro_f1?": SHARE, "accuracy?": SHARE, "ece?": SHARE, "confusion?": CONFUSION},
    **{"seconds": Number(float, 0), "folds?": [{"fold": COUNT}], "fold?": COUNT},
    **{"last_epoch?": {"macro_f1": SHARE}, "last_confusion?": CONFUSION},
}
FOLDS = {"person": str, "fold": Number(int, -1, 2**31)}
OOF = {"image": str, "person": str, "fold": COUNT, "label": Number(int, 0, CLASSES - 1)}
OOF |= dict.fromkeys(PROBS, SHARE)


def read_table(path, columns):
    """A csv as a frame with columns {name: str or a Number}; UserError that names a wrong line."""
    texts = {name: str for name, kind in columns.items() if kind is str}
    how = {"dtype": texts, "keep_default_na": False, "float_precision": "round_trip"}
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            data = io.BytesIO(read_bytes(path))
            frame = pd.read_csv(data, **how, index_col=False, low_memory=False)
    except (OSError, ValueError, OverflowError, pd.errors.ParserWarning) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is not a readable csv ({reason}); restore it") from None
    for column, kind in columns.items():
        if column not in frame:
            raise UserError(f"{path}: column {column} is missing; restore the file")
        if kind is str:
            stop_at(path, frame[column].isna() | (frame[column] == ""), f"{column} is empty")
        else:
            values = pd.to_numeric(frame[column], errors="coerce").astype(float)
            bad = ~values.between(kind.low, kind.high) | (kind.kind is int) & (values % 1 != 0)
            stop_at(path, bad, f"{column} is not {kind}")
            frame[column] = values.astype(kind.kind)
    if not len(frame):
        raise UserError(f"{path} has no rows; restore it")
    return frame


def stop_at(path, bad, reason):
    """UserError that names the first line of a table where `bad` is true."""
    bad = np.asarray(bad)
    if bad.any():
        raise UserError(f"{path} line {bad.argmax() + 2}: {reason}; restore the file")


def read_config(folder, models=True):
    """The config.json of a run, checked; with models=False also one of inference.py --oof."""
    path = Path(folder, "config.json")
    if not path.is_file():
        raise UserError(f"{folder} is not a run of train.py: it has no config.json")
    config = check(read_json(path), CONFIG, path)
    if "oof_of" in config:
        if models:
            runs = " ".join(config["oof_of"])
            raise UserError(f"{folder} has scores of inference.py --oof, no models; give {runs}")
        return config
    recorded = config["options"]
    options.check_recorded(recorded, path)
    layout = options.layout_of(Namespace(**{k: recorded[k] for k in options.LAYOUT_FLAGS}))
    if (layout, recorded["seed"]) != (config["layout"], config["seed"]):
        raise UserError(
            f"{path}: layout and seed contradict the options split_heads, shared_backbone and "
            "seed; restore the file"
        )
    return config


def read_folds(folder):
    """The folds.csv of a run, as of dataset.split_people(); UserError unless all its people are in
    one of the folds 0 .. k - 1, or in -1 if they always train beside a fold 0.
    """
    path = Path(folder, "folds.csv")
    frame, config = read_table(path, FOLDS), read_config(folder, models=False)
    people, recorded = config["data"]["people"], config["options"]
    folds = sorted(set(frame.fold))
    held = [fold for fold in folds if fold >= 0]
    made = len(held)
    if "oof_of" not in config:
        made = recorded["k_fold"] or int(recorded["val_ratio"] > 0)
    if frame.person.duplicated().any() or len(frame) != people:
        raise UserError(f"{path} does not list the {people} people of the run once; restore it")
    gaps = held != list(range(len(held))) or (len(held) > 1 and folds != held)
    if gaps or len(held) != made:
        raise UserError(f"{path} has the folds {folds}, the run {made} from 0 on; restore it")
    return frame


def all_folds(folder):
    """Fold numbers of a run; one that trained on everybody has the one fold 0."""
    return sorted(set(read_folds(folder).fold) - {-1}) or [0]


def read_metrics(path, *needed):
    """A metrics.json, of a run or of a fold, with these keys."""
    shape = METRICS | {name: METRICS[f"{name}?"] for name in needed}
    return check(read_json(path), shape, path)


def read_oof(path, folds, scores):
    """An oof.csv, sorted by image; UserError if it is not what the run predicted: people of the
    frame `folds`, with the scores of read_metrics().
    """
    oof = read_table(path, OOF)
    probs = oof[PROBS].to_numpy(float)
    stop_at(path, np.abs(probs.sum(1) - 1) > 1e-5, "p0 to p17 do not sum to 1")  # of 7 digits
    elsewhere = oof.person.map(folds.set_index("person").fold) != oof.fold
    stop_at(path, elsewhere, "folds.csv holds out this person elsewhere or not at all")
    stop_at(path, oof.image.duplicated(), "this image occurs twice")
    strange = oof.image.str.rpartition("/")[0] != oof.person
    stop_at(path, strange, "this image is not one of this person")
    found = metrics.score(oof.label, probs)
    for key in ("confusion", "macro_f1", "accuracy", "ece"):
        if key in scores and not np.allclose(found[key], scores[key], rtol=0, atol=1e-6):
            raise UserError(f"{path} and metrics.json differ in the {key}; restore the two")
    return oof.sort_values("image", ignore_index=True)


def finished(folder, fold):
    """True if that fold of the run is trained and its predictions are written."""
    return fold_folder(folder, fold, "metrics.json").exists()


def fold_folder(folder, fold, *below):
    return Path(folder, f"fold{fold}", *below)


def resume_command(folder, folds=None, device="auto"):
    """What a user types to go on with a run, or with some of its folds."""
    words = ["--resume", str(folder), *(["--fold", *map(str, folds)] if folds else [])]
    words += ["--device", device] if device != "auto" else []
    return shlex.join(["python", "train.py", *words])


@dataclass
class FinishedRun:
    """What report and inference know of one run folder."""

    folder: Path
    config: dict
    oof: pd.DataFrame  # sorted by image
    missing: list = field(default_factory=list)  # folds not trained yet, whose people oof lacks
    seconds: float = math.nan  # of all folds and tasks
    last_epoch: float = math.nan  # macro F1 of the last epochs instead of the kept ones, if known

    @property
    def probs(self):
        return self.oof[PROBS].to_numpy()

    @property
    def predictions(self):
        return self.probs.argmax(1)

    def leave_out(self, folds):
        """Forgets these folds, and what is known of all folds together only."""
        if set(folds) == set(self.missing):
            return
        if not set(self.oof.fold) - set(folds):
            raise UserError(f"{self.folder}: no fold is finished in all runs; compare others")
        self.oof = self.oof[~self.oof.fold.isin(folds)].reset_index(drop=True)
        self.missing, self.seconds, self.last_epoch = folds, math.nan, math.nan


def read_run(folder):
    """The FinishedRun in a folder of train.py; UserError if it is none, or no fold is finished."""
    folder = Path(folder)
    config, folds = read_config(folder, models=False), read_folds(folder)
    if not (folder / "oof.csv").is_file() or not (folder / "metrics.json").is_file():
        raise UserError(
            f"{folder} has no oof.csv or no metrics.json: finish it "
            f"({resume_command(folder)}), or leave it out if it was trained on everybody"
        )
    scores = read_metrics(folder / "metrics.json", "macro_f1", "confusion")
    oof = read_oof(folder / "oof.csv", folds, scores)
    missing = sorted(set(folds.fold) - {-1, *oof.fold})
    last = scores.get("last_epoch", {}).get("macro_f1", math.nan)
    return FinishedRun(folder, config, oof, missing, scores["seconds"], last)


def check_same(a, b):
    """UserError that names the difference unless two runs predict the same labelled images."""
    advice = "compare runs of the same folds and data"
    check_table(a.oof, b, a.folder, advice)
    check_table(b.oof, a, b.folder, advice)


def check_table(frame, run, name="the data", advice="give its own --data_dir"):
    """The rows of a table, called `name`, in the run's order; UserError if it is of other data."""
    rows = frame.set_index("image").reindex(run.oof.image).reset_index()
    moved = (rows.label != run.oof.label) | (rows.person != run.oof.person)
    for bad, what in (rows.label.isna(), "has {} which {} lacks"), (moved, "labels {} unlike {}"):
        if bad.any():
            images = f"{counted(bad.sum(), 'image')} ({rows.image[bad].iloc[0]} ...)"
            raise UserError(f"{run.folder} {what.format(images, name)}: {advice}")
    return rows
