"""Writes the report: one HTML page on the data and on the runs given, and every table as csv.

With --data_dir alone it is a look at the data. With runs it answers whether one is better than
another, by paired intervals over people, and shows where they err and where they look.
"""

import sys

from common.errors import run_command
from common.files import check_writable
from common.flags import Option, make_parser, number
from common.imports import quick_imports

FLAGS = {
    "what to report on": [
        Option("data_dir", "data/train", str, "folder with train.csv, or its images folder"),
        Option("model_dir", None, str, "runs of the same people; join the seeds of one "
               "configuration by commas: a,a2,a3", count="+"),
        Option("baseline", None, str, "the run of --model_dir to compare with", unset="the first"),
        Option("matte_dir", None, str, "folder of the mattes",
               unset="that of the runs, else mattes/ beside the images"),
    ],
    "where to": [
        Option("out", "report.html", str, "the page; its tables go to NAME_tables/ beside it")
    ],
    "how": [
        Option("cam_images", 2, number(int, 0),
               "photos of each class that show where the models look, 0 for none"),
        Option("seed", 0, number(int, 0), "of the choice of photos shown"),
    ],
}  # fmt: skip


def parse_args(argv=None):
    parser = make_parser(FLAGS, __doc__)
    args = parser.parse_args(argv)
    args.model_dir = args.model_dir or []
    if args.baseline and args.baseline not in args.model_dir:
        hint = "write it as it stands there"
        parser.error(f"--baseline {args.baseline} is none of the runs in --model_dir; {hint}")
    return args


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    check_writable("--out", args.out, "file")
    with quick_imports(compiles=False):
        from reporting import assemble

    assemble.write_report(args, argv)


if __name__ == "__main__":
    run_command(main)
