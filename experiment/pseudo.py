"""Probabilities of unlabelled photos as files: inference.py writes them, --pseudo reads them.

    output_probs.csv          ImageID, p0..p17: the mean of all models
    output_probs_by_fold.csv  ImageID, held_out, p0..p17: the models of each fold apart

`held_out` stands for the people whom these models never saw. A fold that holds out the same people
can be taught by these models alone, and then learns nothing about the people who validate it.
"""

import hashlib
from pathlib import Path

import pandas as pd

from common.errors import UserError
from common.files import write_csv
from common.schema import SHARE
from experiment.reader import read_table, stop_at
from labels import PROBS

KEY = "held_out"
FLATTERS = (
    "is the mean of all models, and they have seen the labels of the validation people: the "
    "out-of-fold score is too high. output_probs_by_fold.csv keeps it honest"
)


def held_out(folds):
    """{fold: SHA-256 (16 hex digits) of the people it validates} of a frame (person, fold)."""
    groups = folds[folds.fold >= 0].groupby("fold").person
    return {
        int(fold): hashlib.sha256("\n".join(sorted(people)).encode()).hexdigest()[:16]
        for fold, people in groups
    }


def write(folder, names, mean, parts):
    """Writes both files, the second if there are parts, {a value of held_out(): (N, 18)}; mean: of
    all, (N, 18).
    """
    write_csv(Path(folder, "output_probs.csv"), _table(names, mean))
    path = Path(folder, "output_probs_by_fold.csv")
    path.unlink(missing_ok=True)  # of other runs
    if parts:
        write_csv(path, pd.concat([_table(names, p, **{KEY: key}) for key, p in parts.items()]))


def _table(names, probs, **more):
    probs = pd.DataFrame(probs.round(7), columns=PROBS)
    return pd.concat([pd.DataFrame({"ImageID": names} | more), probs], axis=1)


def read(path, known, folds):
    """(names, {fold: float64 (M, 18)}) of either file, of photos in `known`, for a run of the frame
    (person, fold); the mean of all models has the key None. UserError that names the line of what
    is wrong, or the fold that the file cannot teach.
    """
    parts = _parts(path, known)
    wanted = {None: None} if None in parts else held_out(folds)
    if not wanted:
        raise UserError(f"{path} is by fold, but nobody is held out here: give output_probs.csv")
    for fold, key in wanted.items():
        if key not in parts:
            raise UserError(
                f"{path}: no model held out the people of fold {fold}: train with the --seed, "
                "--k_fold, --val_ratio and data of that run, or give output_probs.csv"
            )
    names = list(parts[next(iter(wanted.values()))].index)
    if any(set(parts[key].index) != set(names) for key in wanted.values()):
        raise UserError(f"{path} is not whole: the folds have different photos")
    return names, {fold: parts[key].loc[names].to_numpy() for fold, key in wanted.items()}


def _parts(path, known):
    """{held_out: frame of p0..p17 by ImageID} of a file; without that column the key is None."""
    table = read_table(path, {"ImageID": str, f"{KEY}?": str} | dict.fromkeys(PROBS, SHARE))
    stop_at(path, (table[PROBS].sum(axis=1) - 1).abs() > 1e-3, "p0 to p17 do not sum to 1")
    keys, lines = table[KEY] if KEY in table else [None] * len(table), {}
    for line, (key, name) in enumerate(zip(keys, table.ImageID, strict=True), 2):
        if name not in known:
            raise UserError(f"{path} line {line}: {name} is not a photo of --eval_dir")
        first = lines.setdefault((key, name), line)
        if first != line:
            raise UserError(f"{path} line {line}: {name} stands on line {first} too")
    table = table.set_index("ImageID")
    return {None: table[PROBS]} if KEY not in table else dict(iter(table.groupby(KEY)[PROBS]))
