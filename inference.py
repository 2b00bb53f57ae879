"""Predicts photos with one run or several, and writes the submission.

    python inference.py --model_dir runs/exp --data_dir data/eval --output_dir output
    python inference.py --model_dir runs/exp runs/exp2 --ensemble_weights 2 1 --tta flip
    python inference.py --model_dir runs/exp --images my_photos/    (or one.jpg)
    python inference.py --model_dir runs/exp runs/exp2 --tta both --oof runs/exp-tta

--oof scores all this honestly: it predicts the training photos instead, each person by the models
that never saw them, and writes a folder that report.py takes as one more run.
View, crop, size, mean and std are read from the runs, never from flags.
"""

import os
from pathlib import Path

from common.errors import run_command
from common.files import check_writable
from common.flags import Option, make_parser, number, one_of
from common.imports import quick_imports
from common.processes import counted

TTA = ("none", "flip", "scale", "both")  # of augment.py
FLAGS = {
    "what": [
        Option("model_dir", ["runs/exp"], str, "runs of train.py", count="+",
               env="SM_CHANNEL_MODEL"),
        Option("data_dir", None, str, "folder with info.csv",
               unset="$SM_CHANNEL_EVAL or data/eval"),
        Option("images", None, str, "predict a folder of photos or one file instead; the answers "
               "go to predictions.csv, in words too"),
        Option("output_dir", "output", str, "where output.csv goes", env="SM_OUTPUT_DATA_DIR"),
        Option("save_probs", False, None, "also write output_probs.csv (ImageID, p0..p17), with "
               "--images predictions_probs.csv"),
        Option("oof", None, str, "score the held-out training photos instead; this folder is one "
               "more run for report.py"),
        Option("train_dir", None, str, "folder with the train.csv of the runs, for --oof",
               unset="the --data_dir of the first run"),
    ],
    "how": [
        Option("tta", "none", one_of(*TTA), "|".join(TTA) + ": average over flips, zooms of .9, 1 "
               "and 1.1, or both together"),
        Option("ensemble_weights", None, number(float, 1e-6, 1e6), "one weight a run", count="+",
               unset="equal"),
        Option("vote", False, None, "each model votes for a class, instead of the average"),
        Option("decision", "argmax", one_of("argmax", "prior"), "argmax|prior: prior weighs the "
               "classes by (frequency)^-1/2, so that rare ones are predicted more often"),
        Option("batch_size", 256, number(int, 1), "photos a batch, on a CPU at most 32"),
        Option("device", "auto", str, "auto|cpu|cuda|cuda:1|mps ..."),
        Option("cache_dir", "cache", str, "folder of the decoded photos"),
        Option("matte_dir", None, str, "folder of the mattes", unset="mattes/ beside the images"),
        Option("on_error", "stop", one_of("stop", "skip"),
               "stop|skip: stop at an unreadable photo, or give it the mean prediction"),
    ],
}  # fmt: skip


def parse_args(argv=None):
    parser = make_parser(FLAGS, __doc__)
    args = parser.parse_args(argv)
    weights = args.ensemble_weights
    if weights and len(weights) != len(args.model_dir):
        needed = counted(len(args.model_dir), "weight")
        parser.error(f"--ensemble_weights takes {needed}, one a run")
    for name in ("data_dir", "images", "save_probs"):
        if args.oof and getattr(args, name):
            parser.error(f"--oof predicts the photos of --train_dir: leave out --{name}")
    if args.images and args.data_dir:
        parser.error("--images and --data_dir both name the photos: leave one out")
    if args.train_dir and not args.oof:
        parser.error("--train_dir is for --oof: leave it out")
    args.data_dir = args.data_dir or os.environ.get("SM_CHANNEL_EVAL") or "data/eval"
    return args


def main(argv=None):
    args = parse_args(argv)
    answers = Path(args.output_dir, "predictions.csv" if args.images else "output.csv")
    if not args.oof:
        check_writable("--output_dir", args.output_dir)
        for path in (answers, answers.with_name(f"{answers.stem}_probs.csv")):
            check_writable("--output_dir", path, "file")
    check_writable("--cache_dir", args.cache_dir)
    # Torch and timm take seconds to import: by now a wrong flag has been answered.
    with quick_imports(compiles=False):
        from common import devices
        from dataset import find_images, read_eval
        from experiment import ensemble

    device = devices.pick_device(args.device)
    with devices.process_group(device):
        runs = [ensemble.open_models(folder) for folder in args.model_dir]
        if args.oof:
            ensemble.write_oof(args, runs, device)
        else:
            if args.images:
                source = find_images(args.images, "--images")
            else:
                source = read_eval(args.data_dir)
            ensemble.write_submission(answers, args, runs, source, device)


if __name__ == "__main__":
    run_command(main)
