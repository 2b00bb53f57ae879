"""Draws a competition whose truth is known: parametric portraits in the competition's layout.

Beside `train` and `eval` lie the truth: `truth.csv` (the answers of eval), `truth_train.csv` (true
gender and age of people in train, whose recorded label may be noisy) and `mattes_true` (8-bit
mattes, 255 on the person). A person's looks depend on (seed, split, number of the person) alone:
not on how many people are drawn, nor by how many processes.
"""

import argparse
import contextlib
import json
import os
import shutil
from pathlib import Path

from common import flags
from common.errors import UserError, run_command
from common.files import write_json
from common.processes import say
from drawing.competition import PHOTOS, draw


def parse_args(argv=None):
    parser = flags.Parser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    files = parser.add_argument_group("files")
    files.add_argument("--out", type=Path, default=Path("data/demo"), help="folder to write")
    size = parser.add_argument_group("how much")
    size.add_argument(
        "--people", type=int, default=120,
        help="people in train, 24 or more: at least two of every gender x age group",
    )  # fmt: skip
    size.add_argument("--eval_people", type=int, default=60, help="people in eval, 1 or more")
    size.add_argument(
        "--size", type=int, nargs=2, default=[512, 384], metavar=("H", "W"),
        help="height and width of a photo, 32 to 2048",
    )  # fmt: skip
    truth = parser.add_argument_group("what is drawn")
    truth.add_argument("--seed", type=int, default=0, help="another seed, other people")
    truth.add_argument(
        "--label_noise", type=float, default=0.0, metavar="SHARE",
        help="share of people in train with a wrong gender or age group",
    )  # fmt: skip
    truth.add_argument(
        "--background_bias", type=float, default=0.0, metavar="SHARE",
        help="share of people in train whose background follows from gender and age group",
    )  # fmt: skip
    args = parser.parse_args(argv)
    check(args)
    return args


def check(args):
    for name, low in (("people", 24), ("eval_people", 1), ("seed", 0)):
        if getattr(args, name) < low:
            raise UserError(f"--{name} {getattr(args, name)} is below {low}; choose {low} or more")
    for name in ("label_noise", "background_bias"):
        if not 0 <= getattr(args, name) <= 1:
            raise UserError(f"--{name} {getattr(args, name)} is not a share; choose 0 to 1")
    if not all(32 <= side <= 2048 for side in args.size):
        raise UserError(f"--size {args.size[0]} {args.size[1]}: both must be 32 to 2048")


def main(argv=None):
    args = parse_args(argv)
    flags = {name: value for name, value in sorted(vars(args).items()) if name != "out"}
    if is_drawn(args.out, flags):
        say(f"{args.out} was drawn with the same flags: kept")
        return
    out = args.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        draw(work, args)
        write_json(work / "demo.json", flags)
        with contextlib.suppress(FileNotFoundError):
            out.rmdir()  # it is empty
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    photos = len(PHOTOS)
    say(
        f"{args.out}: drew {args.people} people, {photos * args.people} photos, in train; "
        f"{args.eval_people} people, {photos * args.eval_people} photos, in eval"
    )


def is_drawn(out, flags):
    """Whether `out` holds this very competition; UserError if it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = dict(json.loads((out / "demo.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise UserError(f"{out} is not a drawn competition; choose another --out") from None
    if found != flags:
        differ = [f"--{name}" for name in flags if found.get(name) != flags[name]]
        raise UserError(
            f"{out} was drawn with another {' '.join(differ)}; remove it or choose another --out"
        )
    return True


if __name__ == "__main__":
    run_command(main)
