"""Writes the report: one HTML page on the data and on the runs given, and every table as csv.

With --data_dir alone it is a look at the data. With runs it answers whether one is better than
another, by paired intervals over people, and shows where they err and where they look.
"""

import argparse
import sys

from common import flags
from common.errors import run_command
from common.files import check_writable


def parse_args(argv=None):
    parser = flags.Parser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    what = parser.add_argument_group("what to report on")
    what.add_argument(
        "--data_dir", default="data/train", help="folder with train.csv, or its images folder"
    )
    what.add_argument(
        "--model_dir", nargs="+", default=[], metavar="RUN",
        help="runs of the same people; join the seeds of one configuration by commas: a,a2,a3",
    )  # fmt: skip
    what.add_argument(
        "--baseline", metavar="RUN", help="the run to compare with (None: the first of --model_dir)"
    )
    what.add_argument(
        "--matte_dir",
        help="folder of the mattes (None: that of the runs, else mattes beside the images folder)",
    )
    where = parser.add_argument_group("where to")
    where.add_argument("--out", default="report.html", help="the page; its tables lie beside it")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--cam_images", type=int, default=2, metavar="N",
        help="photos of each class that show where the models look, 0 for none",
    )  # fmt: skip
    how.add_argument("--seed", type=int, default=0, help="seed of the choice of photos shown")
    args = parser.parse_args(argv)
    if args.cam_images < 0:
        parser.error(f"--cam_images {args.cam_images}: give 0 or more")
    if args.baseline and not args.model_dir:
        parser.error("--baseline needs runs to compare with it (--model_dir)")
    return args


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    check_writable("--out", args.out, "file")
    from reporting import assemble

    assemble.write_report(args, argv)


if __name__ == "__main__":
    run_command(main)
