"""What inference does with runs: their models, averages, decision, out-of-fold score."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import augment
from background import matte
from background.pixels import open_pixels
from common.errors import UserError
from common.files import write_csv
from common.processes import counted, rank, say
from dataset import read_train
from experiment import oof, reader, results
from experiment.predictions import NotFinite, load, predict
from labels import ATTRIBUTES, CLASSES, IN_WORDS, LAYOUTS, PROBS, decode, joint, marginals
from photos.reading import default_matte_dir
from photos.views import build_views, matte_methods


def open_models(folder):
    """{fold: {path of a model: its heads}} of the finished folds of a run; UserError if none is."""
    folder = Path(folder)
    tasks, folds = LAYOUTS[reader.read_config(folder)["layout"]], reader.all_folds(folder)
    scores = folder / "metrics.json"
    parts = reader.read_metrics(scores).get("folds") if scores.exists() else ()
    if not parts:
        raise UserError(f"{folder} is not finished; go on: {reader.resume_command(folder)}")
    done = [part["fold"] for part in parts]
    if done != folds:
        say(f"{folder}: {results.progress_of(done, folds)}")

    def path(fold, task):
        return reader.fold_folder(folder, fold, task, "best.safetensors")

    return {fold: {path(fold, task): heads for task, heads in tasks.items()} for fold in done}


class Photos:
    """The photos of a source, (images folder, names below it), opened as each model wants them,
    with the matting network of its run; broken: {row: message} of what could not be read.
    """

    def __init__(self, source, matting, args, device):
        self.source, self.matting, self.args, self.device = source, matting, args, device
        self.opened, self.broken = {}, {}

    def pixels(self, info):
        """The store.Pixels that a model of this ModelInfo takes."""
        views, cache_dir = build_views(*info.view), self.args.cache_dir
        key = (views, info.rembg_model)
        if key not in self.opened:
            matting = replace(self.matting, rembg_model=info.rembg_model)
            networks = [of for opened, of in self.opened if {*matte_methods(opened)} - {"grabcut"}]
            if networks and networks[0] != info.rembg_model:  # whose mattes are in the folder
                folder = matting.matte_dir or default_matte_dir(self.source[0])
                matting = replace(matting, matte_dir=Path(folder, Path(info.rembg_model).stem))
            self.opened[key] = open_pixels(self.source, views, matting, cache_dir, self.device)
        pixels, mattes = self.opened[key]
        for method, made in mattes.items():
            theirs = info.mattes.get(method)
            if made != theirs:
                raise UserError(
                    f"the {method} mattes of {self.source[0]} are made with {made}, those of "
                    f"the run with {theirs}: use the same version and model file"
                )
        self.broken |= pixels.broken
        return pixels

    def predict(self, models, rows=None):
        """float64 (n, 18) probabilities, or with --vote votes, of rows (n,), by default of all.

        models: of a fold, as of open_models().
        """
        args, heads = self.args, {}
        rows = np.arange(len(self.source[1])) if rows is None else rows
        for path, own in models.items():
            model, info = load(path, own, self.device)
            pixels, tta = self.pixels(info), augment.TTA[args.tta]
            try:
                heads |= predict(model, pixels, rows, info, args.batch_size, tta)
            except NotFinite as error:
                raise UserError(f"{path}: {error}: train it again with a lower --lr") from None
        probs = joint(heads).astype(np.float64)
        if args.vote:  # the mean probabilities decide between as many votes
            probs = np.eye(CLASSES)[probs.argmax(1)] + 1e-3 * probs
        return probs / probs.sum(1, keepdims=True)


def write_submission(path, args, runs, source, device):
    """Predicts the photos of `source` with runs, [open_models()], and writes the answers to `path`,
    with --images in words too, and with --save_probs the probabilities beside it.
    """
    weights = 1
    if args.decision == "prior":
        counted_in = [folder for folder in args.model_dir if Path(folder, "oof.csv").is_file()]
        if not counted_in:
            raise UserError("no run has an oof.csv, whose labels --decision prior counts: give one")
        weights = oof.prior_weights(oof.read_runs(counted_in[:1])[0].oof.label)
    matting = matte.Matting(args.matte_dir, on_error=args.on_error)
    photos, names = Photos(source, matting, args, device), source[1]
    probs = [sum(map(photos.predict, run.values())) / len(run) for run in runs]
    probs = np.average(probs, 0, args.ensemble_weights)
    broken = sorted(photos.broken)
    if len(broken) == len(names):
        raise UserError(f"none of the {len(names)} photos could be read; first {photos.broken[0]}")
    for row in broken:
        say(f"unreadable, gets the mean prediction: {names[row]}")
    probs[broken] = np.delete(probs, broken, axis=0).mean(0)
    if rank() > 0:
        return
    probs = probs * weights / (probs * weights).sum(1, keepdims=True)  # as --oof writes them
    answers, beside = probs.argmax(1), path.with_name(f"{path.stem}_probs.csv")
    beside.unlink(missing_ok=True)  # those of other answers
    table = pd.DataFrame({"ImageID": names, "ans": answers})
    if args.images:
        for name, codes in decode(answers).items():
            table[name] = [IN_WORDS[name][code] for code in codes]
            table[f"p_{name}"] = marginals(probs)[name][np.arange(len(codes)), codes].round(4)
        if len(names) == 1:
            words = ", ".join(table[name][0] for name in ATTRIBUTES)
            say(f"{words} ({probs[0, answers[0]]:.2f})")
    write_csv(path, table)
    if args.save_probs:
        table = pd.DataFrame(probs.round(7), columns=PROBS)
        table.insert(0, "ImageID", names)
        write_csv(beside, table)
    say(f"{path}: {counted(len(names), 'photo')}")


def write_oof(args, runs, device):
    """Scores the runs together out of fold, as --tta, --vote, --decision ... say, into --oof."""
    oof.check_target(args.oof)
    start, known = time.perf_counter(), oof.read_runs(args.model_dir)
    if args.decision == "prior" and known[0].oof.fold.nunique() < 2:
        raise UserError(f"{known[0].folder} has one fold: --oof --decision prior needs --k_fold")
    probs = predict_oof(args, known, runs, device)
    if args.decision == "prior":
        probs = oof.by_prior(probs, known[0].oof)
    if rank() == 0:
        oof.write(args.oof, known, probs, args, time.perf_counter() - start)


def predict_oof(args, known, runs, device):
    """float64 (N, 18) probabilities of the held-out photos, averaged over the runs: known, of
    oof.read_runs(), and runs, of open_models(). UserError if one that was readable is not now.
    """
    options = known[0].config["options"]
    try:
        table = read_train(args.train_dir or options["data_dir"])
        reader.check_table(table.frame, known[0])
    except UserError as error:  # of functions whose callers have another flag
        raise UserError(str(error).replace("--data_dir", "--train_dir")) from None
    kept = options.get("matte_dir")
    mattes = args.matte_dir or (kept if kept and Path(kept).is_dir() else None)
    names = list(table.frame.image)  # all of them, as in training, which has cached the pixels
    photos = Photos((table.root, names), matte.Matting(mattes, on_error="skip"), args, device)
    pairs = zip(known, runs, strict=True)
    probs = [oof.predict(run, models, names, photos.predict) for run, models in pairs]
    held_out = set(known[0].oof.image)
    for row, message in sorted(photos.broken.items()):
        if names[row] in held_out:
            raise UserError(f"{message}; it was readable in training: restore it")
    return np.average(probs, 0, args.ensemble_weights)
