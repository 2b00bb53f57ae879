"""Trains one model of the 18 classes, three attribute models, or one backbone with three heads.

python train.py --data_dir data/train
python train.py --split_heads --bg rembg --lr 1e-3 age=3e-4
python train.py --k_fold 5 --weighted_sampler --criterion focal
python train.py --resume runs/exp
"""

import sys

import options
from common.errors import run_command
from common.files import check_writable
from common.processes import rank, say


def parse_args(argv):
    """The options of a new run, or those of the run that --resume names."""
    args = options.parse_args(argv, __doc__)
    if args.resume:
        from experiment import run_folder

        args = run_folder.resumed_args(args, argv)
    return args


def main(argv=None, on_epoch=None):
    """Trains the run that the flags describe, and returns its folder.

    on_epoch: called as on_epoch(fold, epoch, macro F1 of the 18 classes) after each epoch of all
    tasks of a validated fold, both numbers from 0. It may raise to stop the run, whose state is
    then saved.
    """
    args = parse_args(sys.argv[1:] if argv is None else argv)
    # A run to go on with need not lie where it was begun.
    check_writable("--resume" if args.resume else "--model_dir", args.resume or args.model_dir)
    check_writable("--cache_dir", args.cache_dir)
    # Torch and timm take seconds to import: by now a wrong flag has been answered.
    from common import devices
    from experiment import results, run_folder
    from training.loop import Stopped
    from training.run import open_run, train_fold

    device = devices.pick_device(args.device)
    with devices.process_group(device), devices.stop_on_signals() as stopping:
        run = open_run(args, device)
        try:
            for fold in run_folder.folds_to_train(args, run.folder):
                train_fold(run, fold, stopping, on_epoch)
        except Stopped:
            say(f"stopped; go on with: python train.py --resume {run.folder}")
            sys.exit(130)
        if rank() == 0:
            result = results.collect(run.folder)
            more = f"{run.folder}: other folds are not finished yet"
            say(results.summary(result) if result else more)
    return run.folder


if __name__ == "__main__":
    run_command(main)
