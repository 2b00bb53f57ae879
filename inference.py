"""Predicts photos with one run or several, and writes the submission.

    python inference.py --model_dir runs/exp --data_dir data/eval --output_dir output
    python inference.py --model_dir runs/exp runs/exp2 --ensemble_weights 2 1 --tta flip
    python inference.py --model_dir runs/exp --images photos/

View, crop, size, mean and std are read from the runs, never from flags.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

import distributed
import engine
import experiment
import metrics
import results
import store
from common import UserError, rank, run, say, write_csv
from dataset import find_images, read_eval
from labels import CLASSES, join
from model import LAYOUTS, load_model, read_info

TTA = {"none": (False,), "flip": (False, True)}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("what").add_argument
    add(
        "--model_dir",
        nargs="+",
        default=[os.environ.get("SM_CHANNEL_MODEL", "runs/exp")],
        metavar="RUN",
        help="runs of train.py (default: $SM_CHANNEL_MODEL or runs/exp)",
    )
    add(
        "--data_dir",
        default=os.environ.get("SM_CHANNEL_EVAL", "data/eval"),
        help="folder with info.csv (default: $SM_CHANNEL_EVAL or data/eval)",
    )
    add("--images", metavar="FOLDER", help="predict any folder of photos instead")
    add(
        "--output_dir",
        default=os.environ.get("SM_OUTPUT_DATA_DIR", "output"),
        help="where output.csv goes (default: $SM_OUTPUT_DATA_DIR or output)",
    )
    add("--save_probs", action="store_true", help="also write output_probs.csv: ImageID, p0..p17")
    add = parser.add_argument_group("how").add_argument
    add("--tta", choices=TTA, default="none", help="average over flips (default: none)")
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
    args = parser.parse_args(argv)
    weights = args.ensemble_weights
    if weights and (len(weights) != len(args.model_dir) or min(weights) <= 0):
        parser.error(f"--ensemble_weights takes {len(args.model_dir)} weights above 0")
    if args.batch_size < 1:
        parser.error(f"--batch_size {args.batch_size} is not at least 1")
    return args


def main(argv=None):
    args = parse_args(argv)
    device = distributed.pick_device(args.device)
    with distributed.process_group(device):
        runs = [open_run(folder) for folder in args.model_dir]
        root, names = find_images(args.images) if args.images else read_eval(args.data_dir)
        stores = Stores(root, names, args, device)
        probs = [predict_run(models, stores, args) for models in runs]
        probs = fill_unreadable(average(probs, args.ensemble_weights), stores.broken, names)
        weights = decision_weights(args) if args.decision == "f1" else 1
        if rank() == 0:
            write(args, names, probs, (probs * weights).argmax(1))


def open_run(folder):
    """[{task: path of its model} of each fold] of a finished run; else UserError."""
    folder = Path(folder)
    config = experiment.read_config(folder)
    folds = experiment.all_folds(folder)
    missing = [fold for fold in folds if not experiment.finished(folder, fold)]
    if missing:
        raise UserError(
            f"{folder}: fold {missing[0]} is not finished; go on with: "
            f"python train.py --resume {folder}"
        )
    tasks = LAYOUTS[config["layout"]]
    places = [experiment.fold_folder(folder, fold) for fold in folds]
    return [{task: place / task / "best.safetensors" for task in tasks} for place in places]


class Stores:
    """The pixels of the photos to predict, by what a model says of its input."""

    def __init__(self, root, names, args, device):
        self.root, self.names, self.args, self.device = root, names, args, device
        self.loaded, self.broken = {}, {}

    def get(self, info):
        views = tuple(store.views(info["bg"], info["bg_fill"], info["crop"], info["size"]))
        key = (views, info["rembg_model"])
        if key not in self.loaded:
            args, device = self.args, self.device
            matting = (args.matte_dir, info["rembg_model"], device, args.on_error)
            mattes = store.make_mattes(self.root, self.names, views, *matting)
            for method, made in mattes.items():
                if made != info["mattes"][method]:
                    raise UserError(
                        f"the {method} mattes of {self.root} are made with {made}, those of the "
                        f"run with {info['mattes'][method]}: use the same version and model file"
                    )
            distributed.barrier()
            places = (args.cache_dir, args.matte_dir, args.on_error)
            self.loaded[key] = store.load(self.root, self.names, views, *places, device)
            self.broken |= self.loaded[key].broken
        return self.loaded[key]


def predict_run(models, stores, args):
    """float64 (N, 18) probabilities, or with --vote shares of votes, averaged over the folds."""
    total = np.zeros((len(stores.names), CLASSES))
    for paths in models:
        heads = {}
        for path in paths.values():
            pixels = stores.get(read_info(path))
            model, info = load_model(path, stores.device)
            photos = np.arange(len(stores.names))
            heads |= engine.predict(model, pixels, photos, info, args.batch_size, TTA[args.tta])
        probs = join(heads).astype(np.float64)
        if args.vote:  # the mean probabilities decide between as many votes
            probs = np.eye(CLASSES)[probs.argmax(1)] + 1e-3 * probs
        total += probs / probs.sum(1, keepdims=True)
    return total / len(models)


def average(probs, weights):
    """The weighted mean of (N, 18) arrays."""
    return np.average(probs, axis=0, weights=weights)


def fill_unreadable(probs, broken, names):
    """Gives photos that could not be read the mean prediction of the others, and says which."""
    if broken:
        rows = sorted(broken)
        if len(rows) == len(names):
            raise UserError(f"none of the {len(names)} photos could be read; first {broken[0]}")
        for row in rows:
            say(f"unreadable, gets the mean prediction: {names[row]}")
        probs[rows] = np.delete(probs, rows, axis=0).mean(0)
    return probs


def decision_weights(args):
    """(18,) weights of --decision f1, from the OOF probabilities that all the runs share."""
    tables = []
    for folder in args.model_dir:
        path = Path(folder, "oof.csv")
        if not path.is_file():
            raise UserError(f"{folder} was trained on everybody: it has no OOF for --decision f1")
        tables.append(pd.read_csv(path, dtype={"image": str, "person": str}))
    first = tables[0]
    for folder, table in zip(args.model_dir, tables, strict=True):
        if not table[["image", "label"]].equals(first[["image", "label"]]):
            raise UserError(
                f"{folder} and {args.model_dir[0]} predict different people: "
                "--decision f1 needs runs of the same folds"
            )
    probs = average([t[results.PROBS].to_numpy() for t in tables], args.ensemble_weights)
    labels = first.label.to_numpy()
    nested = metrics.nested_decision(probs, labels, first.fold.to_numpy())
    say(
        f"OOF macro F1: argmax {metrics.macro_f1(labels, probs.argmax(1)):.4f}, "
        f"decision f1 {metrics.macro_f1(labels, nested):.4f} (nested by fold)"
    )
    return metrics.decision_weights(probs, labels)


def write(args, names, probs, answers):
    folder = Path(args.output_dir)
    if args.save_probs:
        table = pd.DataFrame(probs.round(7), columns=results.PROBS)
        table.insert(0, "ImageID", names)
        write_csv(folder / "output_probs.csv", table)
    write_csv(folder / "output.csv", pd.DataFrame({"ImageID": names, "ans": answers}))
    say(f"{folder / 'output.csv'}: {len(names)} photos")


if __name__ == "__main__":
    run(main)
