"""Trains one model of the 18 classes, three attribute models, or one backbone with three heads.

python train.py --data_dir data/train
python train.py --split_heads --bg rembg --lr 1e-3 age=3e-4
python train.py --k_fold 5 --weighted_sampler --criterion focal
python train.py --k_fold 6 --workers 2
python train.py --from_run runs/exp --lr 3e-4
python train.py --resume runs/exp
"""

import signal
import sys

import options
from common.errors import UserError, run_command
from common.files import check_writable
from common.imports import quick_imports
from common.processes import rank, say, world_size


def parse_args(argv):
    """The options of a new run, of one like another (--from_run, --config), or of --resume."""
    parser = options.make_parser(__doc__)
    args = parser.parse_args(argv)
    if args.resume or args.from_run or args.config:
        from experiment import run_folder

        if args.resume:
            return run_folder.resumed_args(args, argv)
        args = run_folder.inherited_args(parser, args, argv)
    options.check(args)
    return args


def main(argv=None, on_epoch=None):
    """Trains the run that the flags describe, and returns its folder (None after --dry_run).

    on_epoch: called as on_epoch(fold, epoch, macro F1 of the 18 classes) after each epoch of all
    tasks of a validated fold, both numbers from 0, with the state saved. It may raise to stop.
    """
    argv = sys.argv[1:] if argv is None else argv
    if options.is_dry_run(argv):
        from training.dry_run import dry_run

        return dry_run(argv, parse_args)
    args = parse_args(argv)
    if args.workers > 1 and world_size() > 1:
        raise UserError("--workers starts processes of its own: give --workers 1, or no torchrun")
    # A run to go on with need not lie where it was begun.
    check_writable("--resume" if args.resume else "--model_dir", args.resume or args.model_dir)
    check_writable("--cache_dir", args.cache_dir)
    # Torch and timm take seconds to import: by now a wrong flag has been answered.
    with quick_imports(compiles=any(args.compile.values())):
        from common import devices
        from experiment import reader, results
        from training.run import open_run, train_folds

    results.import_wandb(args.wandb)
    device = devices.pick_device(args.device, args.deterministic)
    with devices.process_group(device):
        run = open_run(args, device)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        try:
            train_folds(run, on_epoch)
        except KeyboardInterrupt:
            words = reader.resume_command(run.folder, args.fold, args.device)
            if rank() == 0:  # to stderr: `| tee log` ends by the same Ctrl-C
                print(f"stopped; go on with: {words}", file=sys.stderr)
            sys.exit(130)
        if rank() == 0:
            say(results.summary(results.collect(run.folder), reader.all_folds(run.folder)))
    return run.folder


if __name__ == "__main__":
    run_command(main)
