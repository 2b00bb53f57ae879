"""The out-of-fold score of whatever inference can do: TTA, votes, ensembles, --decision prior.

Runs may have different folds if all together hold out the same people. The prior of a fold is that
of the other folds of the first run.
"""

from pathlib import Path

import numpy as np
import pandas as pd

import metrics
from common.errors import UserError
from common.files import check_writable, write_csv, write_json
from common.processes import say
from experiment import reader, results, run_folder
from labels import CLASSES, PROBS
from options import LAYOUT_FLAGS, RUNTIME_FLAGS, text_of

TAU = 0.5  # of prior_weights(); 1 would aim at balanced accuracy, and macro F1 needs precision too
FILES = ("config.json", "folds.csv", "oof.csv", "metrics.json")


def read_runs(folders):
    """[FinishedRun] that can be averaged, all in one order of images; UserError if they cannot."""
    known = []
    for folder in map(Path, folders):
        known.append(reader.read_run(folder))
        reader.check_same(known[0], known[-1])
    return known


def predict(run, models, names, predict_fold):
    """float64 (N, 18) probabilities in the order of run.oof. models: {fold: its models}; names: of
    all photos; predict_fold(models of a fold, rows of names, int64 (n,)) gives (n, 18).
    """
    photos, probs = pd.Index(names).get_indexer(run.oof.image), np.empty((len(run.oof), CLASSES))
    for fold, own in run.oof.groupby("fold"):
        if fold not in models:
            raise UserError(f"{run.folder}: fold {fold} is not in its metrics.json; restore it")
        rows = own.index[np.argsort(photos[own.index])]  # the batches of validation, to a bit
        probs[rows] = predict_fold(models[fold], photos[rows])
    return probs


def prior_weights(labels):
    """(18,) weights of the classes, (frequency)^-TAU: logits adjusted after training (Menon et al.
    2021, arXiv:2007.07314). labels (N,); a class without an image counts as having one.
    """
    return np.maximum(np.bincount(labels, minlength=CLASSES), 1.0) ** -TAU


def by_prior(probs, oof):
    """(N, 18) probabilities, in a fold weighed by the prior of the others; says what it gains."""
    labels, folds, weighted = oof.label.to_numpy(), oof.fold.to_numpy(), probs.copy()
    for fold in np.unique(folds):
        weighted[folds == fold] *= prior_weights(labels[folds != fold])
    say(
        f"OOF macro F1: argmax {metrics.macro_f1(labels, probs.argmax(1)):.4f}, "
        f"decision prior {metrics.macro_f1(labels, weighted.argmax(1)):.4f}"
    )
    return weighted / weighted.sum(1, keepdims=True)


def check_target(folder):
    """UserError if --oof would write over anything but an earlier --oof."""
    folder = Path(folder)
    check_writable("--oof", folder)
    found = {path.name for path in folder.glob("[!.]*")}
    if "config.json" in found and "oof_of" in reader.read_config(folder, models=False):
        found -= set(FILES)
    if found - set(FILES[1:]):
        raise UserError(f"--oof {folder} holds {min(found)} already; give a new folder")


def write(folder, known, probs, args, seconds):
    """Writes FOLDER as one more run for report.py, and says its score."""
    folder, first = Path(folder), known[0]
    probs = pd.DataFrame(probs.round(7), columns=PROBS)
    oof = pd.concat([first.oof[["image", "person", "fold", "label"]], probs], axis=1)
    folds = [
        {"fold": int(fold)} | results.in_short(rows.label, rows[PROBS].to_numpy())
        for fold, rows in oof.groupby("fold")
    ]
    result = metrics.score(oof.label, probs.to_numpy()) | {"folds": folds, "seconds": seconds}
    # Written last: a folder with a config is whole.
    (folder / "config.json").unlink(missing_ok=True)
    write_csv(folder / "folds.csv", reader.read_folds(first.folder))
    write_csv(folder / "oof.csv", oof)
    write_json(folder / "metrics.json", result)
    write_json(folder / "config.json", describe(known, args))
    say(f"{folder}: {results.summary(result)}")


def describe(known, args):
    """The config.json of --oof: options of training, all where runs differ, and of inference."""
    first, every = known[0].config, [run.config["options"] for run in known]
    options, names = dict(every[0]), [str(run.folder) for run in known]
    for name in sorted(set().union(*every) - RUNTIME_FLAGS - {"seed", *LAYOUT_FLAGS}):
        texts = dict.fromkeys(text_of(one.get(name, "")) for one in every)
        if len(texts) > 1:
            options[name] = " | ".join(texts)
    options |= {name: getattr(args, name) for name in ("tta", "vote", "decision")}
    if len(known) > 1:
        weights = args.ensemble_weights or [1] * len(known)
        members = zip(names, weights, strict=True)
        options["ensemble"] = [f"{name}={weight:g}" for name, weight in members]
    layout = "ensemble" if len(known) > 1 else first["layout"]
    own = {"layout": layout, "options": options, "oof_of": names}
    return run_folder.stamp(args.device) | own | {key: first[key] for key in ("seed", "data")}
