"""Searches the options of training: many runs, the next where the scores so far promise most.

python tune.py --trials 30                                  # the space of search_space.json
python tune.py --trials 30 --study split -- --split_heads --k_fold 5
python tune.py --space mine.json --storage sqlite:///tune.db -- --epochs 6 --bg none

The words after -- are flags of train.py, the same in each trial. The same command again continues
the search, also after a kill; started twice at the same time, it is two workers.
"""

import shlex
import sys

from common.errors import UserError, run_command
from common.flags import Option, folder_name, make_parser, number, one_of
from common.processes import world_size

FLAGS = {"search": (
    Option("trials", 30, number(int, 1), "trials in all, with those of earlier calls"),
    Option("storage", "sqlite:///tune.db", str, "database, as a URL of SQLAlchemy"),
    Option("study", "tune", folder_name,
           "name of the study, and of its folder in --model_dir of train.py"),
    Option("space", "search_space.json", str, "file of the flags to search and their values"),
    Option("pruner", "median", one_of("median", "none"), "median|none: median stops a trial "
           "whose best score is below the median of the others after the same share of epochs"),
    Option("seed", 0, number(int, 0), "of the search; that of the runs is a flag after --"),
)}  # fmt: skip


def parse_args(argv):
    """(the flags of tune.py, the flags of train.py after --)."""
    end = argv.index("--") if "--" in argv else len(argv)
    return make_parser(FLAGS, __doc__).parse_args(argv[:end]), argv[end + 1 :]


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    args, fixed = parse_args(argv)
    if world_size() > 1:
        raise UserError("tune.py does not run under torchrun: start it once for each GPU instead")
    import train
    from search import study

    search = study.open_search(args, fixed, train.main)
    try:
        while study.run_next(search):
            pass
    except (KeyboardInterrupt, SystemExit):  # train.main saves its state, then exits
        words = shlex.join(["python", "tune.py", *argv])
        print(f"stopped; go on with: {words}", file=sys.stderr)
        sys.exit(130)
    study.finish(search)


if __name__ == "__main__":
    run_command(main)
