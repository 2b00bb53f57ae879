"""Draws a competition whose truth is known: parametric portraits in the competition's layout.

Beside `train` and `eval` lies the truth: `truth.csv` (the answers of eval), `truth_train.csv` (true
gender and age of people in train, whose recorded label may be noisy) and `mattes_true` (8-bit
mattes, 255 on the person). A person's looks depend on (seed, split, number of the person) alone,
not on how many people are drawn.
"""

import json
from pathlib import Path

from common.errors import UserError, run_command
from common.files import atomic, check_writable, write_json
from common.flags import Option, make_parser, number
from common.processes import say

SHARE = number(float, 0, 1)
FLAGS = {
    "files": [Option("out", Path("data/demo"), Path, "folder to write")],
    "how much": [
        Option("people", 120, number(int, 24),
               "people in train, 24 or more: at least two of every gender x age group"),
        Option("eval_people", 60, number(int, 1), "people in eval, 1 or more"),
        Option("size", [512, 384], number(int, 32, 2048),
               "height and width of a photo, 32 to 2048", count=2),
    ],
    "what is drawn": [
        Option("seed", 0, number(int, 0), "another seed draws other people"),
        Option("label_noise", 0.0, SHARE,
               "share of people in train with a wrong gender or age group, 0 to 1"),
        Option("background_bias", 0.0, SHARE,
               "share of people in train whose gender and age group decide the background, 0 to 1"),
    ],
}  # fmt: skip


def parse_args(argv=None):
    return make_parser(FLAGS, __doc__).parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    flags = {name: value for name, value in sorted(vars(args).items()) if name != "out"}
    if is_drawn(args.out, flags):
        return
    check_writable("--out", args.out)
    from drawing.competition import draw

    try:
        with atomic(args.out.resolve()) as work:
            draw(work, args)
            write_json(work / "demo.json", flags)
    except OSError:
        if is_drawn(args.out, flags):  # by another process in the meantime
            return
        raise
    counts = f"{args.people} people in train and {args.eval_people} in eval"
    say(f"{args.out}: drew {counts}, seven photos each")


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
    say(f"{out} was drawn with the same flags: kept")
    return True


if __name__ == "__main__":
    run_command(main)
