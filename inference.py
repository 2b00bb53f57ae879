"""Predicts photos with one run or several, and writes the submission.

    python inference.py --model_dir runs/exp --data_dir data/eval --output_dir output
    python inference.py --model_dir runs/exp runs/exp2 --ensemble_weights 2 1 --tta flip
    python inference.py --model_dir runs/exp --images photos/
    python inference.py --model_dir runs/exp runs/exp2 --tta both --oof runs/exp-tta

--oof scores all this honestly: it predicts the training photos instead, each person by the models
that never saw them, and writes a folder that report.py takes as one more run.
View, crop, size, mean and std are read from the runs, never from flags.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

import augment
from common import devices, flags
from common.errors import UserError, run
from common.files import write_csv
from common.processes import rank, say
from dataset import find_images, read_eval
from experiment import decision, oof, pseudo, reader
from experiment.predictions import predict
from labels import CLASSES, LAYOUTS, join
from model import load_model, read_info
from photos import store, views


def parse_args(argv=None):
    parser = flags.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _what_flags(parser.add_argument_group("what").add_argument)
    _how_flags(parser.add_argument_group("how").add_argument)
    args = parser.parse_args(argv)
    weights = args.ensemble_weights
    if weights and (len(weights) != len(args.model_dir) or min(weights) <= 0):
        parser.error(f"--ensemble_weights takes {len(args.model_dir)} weights above 0")
    if args.batch_size < 1:
        parser.error(f"--batch_size {args.batch_size} is not at least 1")
    for name in ("data_dir", "images", "save_probs"):
        if args.oof and getattr(args, name):
            parser.error(f"--oof predicts the photos of --train_dir: leave out --{name}")
    args.data_dir = args.data_dir or os.environ.get("SM_CHANNEL_EVAL", "data/eval")
    return args


def _what_flags(add):
    add(
        "--model_dir",
        nargs="+",
        default=[os.environ.get("SM_CHANNEL_MODEL", "runs/exp")],
        metavar="RUN",
        help="runs of train.py (default: $SM_CHANNEL_MODEL or runs/exp)",
    )
    add("--data_dir", help="folder with info.csv (default: $SM_CHANNEL_EVAL or data/eval)")
    add("--images", metavar="FOLDER", help="predict any folder of photos instead")
    add(
        "--output_dir",
        default=os.environ.get("SM_OUTPUT_DATA_DIR", "output"),
        help="where output.csv goes (default: $SM_OUTPUT_DATA_DIR or output)",
    )
    add(
        "--save_probs",
        action="store_true",
        help="also write output_probs.csv (ImageID, p0..p17), and output_probs_by_fold.csv, the "
        "models of each fold apart, if all runs held out the same people",
    )
    add(
        "--oof",
        metavar="FOLDER",
        help="score the held-out training photos instead; FOLDER is one more run for report.py",
    )
    add(
        "--train_dir",
        help="the photos that the runs were trained on, for --oof and --decision f1 "
        "(default: the --data_dir of the first run)",
    )


def _how_flags(add):
    add(
        "--tta",
        choices=augment.TTA,
        default="none",
        help="average over flips, zooms of .9, 1 and 1.1, or both together (default: none)",
    )
    add("--ensemble_weights", type=float, nargs="+", help="one weight a run (default: equal)")
    add("--vote", action="store_true", help="each model votes for a class (default: average)")
    add(
        "--decision",
        choices=("argmax", "f1"),
        default="argmax",
        help="f1: class weights that maximise macro F1 on the runs' OOF (default: argmax)",
    )
    add("--batch_size", type=int, default=256, help="photos a batch (default: 256)")
    add("--device", default="auto", help="auto|cpu|cuda|cuda:1 ... (default: auto)")
    add("--cache_dir", default="cache", help="folder of the decoded photos (default: cache)")
    add("--matte_dir", help="folder of the mattes (default: mattes/ beside the images)")
    add(
        "--on_error",
        choices=("stop", "skip"),
        default="stop",
        help="an unreadable photo stops, or gets the mean prediction (default: stop)",
    )


def main(argv=None):
    args = parse_args(argv)
    device = devices.pick_device(args.device)
    with devices.process_group(device):
        runs = [open_run(folder) for folder in args.model_dir]
        if args.oof:
            write_oof(args, runs, device)
            return
        root, names = find_images(args.images) if args.images else read_eval(args.data_dir)
        weights = decision_weights(args, runs, device) if args.decision == "f1" else 1
        stores = Stores(root, names, args, device)
        parts = [predict_run(models, stores, args) for models in runs]
        probs = average([sum(part.values()) / len(part) for part in parts], args.ensemble_weights)
        parts = by_people(args, parts)
        fill_unreadable([probs, *parts.values()], stores.broken, names)
        if rank() == 0:
            if args.save_probs:
                pseudo.write(args.output_dir, names, probs, parts)
            write(args, names, (probs * weights).argmax(1))


def open_run(folder):
    """{fold: {task: path of its model}} of a finished run; else UserError."""
    folder = Path(folder)
    config = reader.read_config(folder)
    folds = reader.all_folds(folder)
    missing = [fold for fold in folds if not reader.finished(folder, fold)]
    if missing:
        raise UserError(
            f"{folder}: fold {missing[0]} is not finished; go on with: "
            f"python train.py --resume {folder}"
        )
    tasks = LAYOUTS[config["layout"]]
    places = {fold: reader.fold_folder(folder, fold) for fold in folds}
    return {
        fold: {task: place / task / "best.safetensors" for task in tasks}
        for fold, place in places.items()
    }


class Stores:
    """The pixels of the photos to predict, by what a model says of its input."""

    def __init__(self, root, names, args, device):
        self.root, self.names, self.args, self.device = root, names, args, device
        self.loaded, self.broken = {}, {}

    def get(self, info):
        seen = tuple(views.views(info["bg"], info["bg_fill"], info["crop"], info["size"]))
        key = (seen, info["rembg_model"])
        if key not in self.loaded:
            args, device = self.args, self.device
            matting = (args.matte_dir, info["rembg_model"], device, args.on_error)
            mattes = store.make_mattes(self.root, self.names, seen, *matting)
            for method, made in mattes.items():
                if made != info["mattes"][method]:
                    raise UserError(
                        f"the {method} mattes of {self.root} are made with {made}, those of the "
                        f"run with {info['mattes'][method]}: use the same version and model file"
                    )
            devices.barrier()
            places = (args.cache_dir, args.matte_dir, args.on_error)
            self.loaded[key] = store.load(self.root, self.names, seen, *places, device)
            self.broken |= self.loaded[key].broken
        return self.loaded[key]


def predict_run(models, stores, args):
    """{fold: float64 (N, 18)} probabilities, or with --vote shares of votes, by each fold."""
    photos = np.arange(len(stores.names))
    return {fold: predict_fold(paths, stores, photos, args) for fold, paths in models.items()}


def predict_fold(paths, stores, photos, args):
    """float64 (n, 18) probabilities, or votes, of photos (n,) by the models of one fold."""
    heads = {}
    for path in paths.values():
        pixels = stores.get(read_info(path))
        model, info = load_model(path, stores.device)
        tta = augment.TTA[args.tta]
        heads |= predict(model, pixels, photos, info, args.batch_size, tta)
    probs = join(heads).astype(np.float64)
    if args.vote:  # the mean probabilities decide between as many votes
        probs = np.eye(CLASSES)[probs.argmax(1)] + 1e-3 * probs
    return probs / probs.sum(1, keepdims=True)


def average(probs, weights):
    """The weighted mean of (N, 18) arrays."""
    return np.average(probs, axis=0, weights=weights)


def by_people(args, parts):
    """{pseudo.held_out(): (N, 18)} averaged over the runs; {} if they held out different people."""
    keyed = []
    for folder, part in zip(args.model_dir, parts, strict=True):
        keys = pseudo.held_out(reader.read_folds(folder))
        keyed.append({keys[fold]: probs for fold, probs in part.items() if fold in keys})
    if any(one.keys() != keyed[0].keys() for one in keyed):
        return {}
    return {key: average([one[key] for one in keyed], args.ensemble_weights) for key in keyed[0]}


def fill_unreadable(tables, broken, names):
    """Gives photos that could not be read the mean row of the others, in place; says which."""
    if len(broken) == len(names):
        raise UserError(f"none of the {len(names)} photos could be read; first {broken[0]}")
    rows = sorted(broken)
    for row in rows:
        say(f"unreadable, gets the mean prediction: {names[row]}")
    for probs in tables if rows else ():
        probs[rows] = np.delete(probs, rows, axis=0).mean(0)


def decision_weights(args, runs, device):
    """(18,) weights of --decision f1, from OOF probabilities as the photos themselves get them."""
    known = oof.read_runs(args.model_dir, args.decision)
    if args.tta == "none" and not args.vote:
        probs = average([run.probs for run in known], args.ensemble_weights)
    else:
        probs = predict_oof(args, known, runs, device)
    oof.nested(probs, known[0].oof)
    return decision.weights(probs, known[0].oof.label.to_numpy())


def write_oof(args, runs, device):
    """Scores the runs together out of fold, as --tta, --vote, --decision ... say, into --oof."""
    oof.check_target(args.oof)
    start, known = time.perf_counter(), oof.read_runs(args.model_dir, args.decision)
    probs = predict_oof(args, known, runs, device)
    if args.decision == "f1":
        probs = oof.nested(probs, known[0].oof)
    if rank() == 0:
        oof.write(args.oof, known, probs, args, time.perf_counter() - start)


def predict_oof(args, known, runs, device):
    """float64 (N, 18) probabilities of the held-out photos, averaged over the runs.

    known: of oof.read_runs(); runs: of open_run(). Photos that training left out as unreadable
    are no part of it; UserError if another one is unreadable now.
    """
    table = oof.training_photos(known[0], args.train_dir)
    mattes = (args.oof and args.matte_dir) or known[0].config["options"].get("matte_dir")
    theirs = argparse.Namespace(**vars(args) | {"matte_dir": mattes, "on_error": "skip"})
    names = list(table.frame.image)  # all of them, as in training, which has cached the pixels
    stores = Stores(table.root, names, theirs, device)

    def predict(paths, photos):
        probs = predict_fold(paths, stores, photos, args)
        for row in sorted(stores.broken.keys() & set(photos)):
            raise UserError(f"{stores.broken[row]}; it was readable in training: restore it")
        return probs

    probs = [oof.predict(*pair, names, predict) for pair in zip(known, runs, strict=True)]
    return average(probs, args.ensemble_weights)


def write(args, names, answers):
    path = Path(args.output_dir, "output.csv")
    write_csv(path, pd.DataFrame({"ImageID": names, "ans": answers}))
    say(f"{path}: {len(names)} photos")


if __name__ == "__main__":
    run(main)
