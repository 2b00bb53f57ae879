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

from common import flags
from common.errors import run_command

TTA = ("none", "flip", "scale", "both")  # of augment.py


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
        choices=TTA,
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
    # Torch and timm take seconds to import: by now a wrong flag has been answered.
    from common import devices
    from dataset import find_images, read_eval
    from experiment import ensemble

    device = devices.pick_device(args.device)
    with devices.process_group(device):
        runs = [ensemble.open_models(folder) for folder in args.model_dir]
        if args.oof:
            ensemble.write_oof(args, runs, device)
        else:
            source = find_images(args.images) if args.images else read_eval(args.data_dir)
            ensemble.write_submission(args, runs, source, device)


if __name__ == "__main__":
    run_command(main)
