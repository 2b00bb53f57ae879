"""How fast and how lean everything is, against the bare thing that it is made of: one table.

    python scripts/benchmark.py                 the whole table, an hour on 2 cores
    python scripts/benchmark.py --quick         two minutes: fewer photos, one round
    python scripts/benchmark.py --only store rembg
    python scripts/benchmark.py --model resnet50 --resize 224 224 --only epoch
    python scripts/benchmark.py --only store epoch_first inference memory --photos 1000 5000 20000

A row measures two things in turn in one run (A B, B A, A B ...), so that a drift of the machine
cancels, and tells the median of the rounds' ratios, with the lowest and the highest. The rows
stand in measures.py, the loop that many write in customary.py. The table goes to the screen and to
--out, with each round in a JSON file beside it, and a plot if there are --photos.
"""

import io
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import pandas as pd
from measures import PHOTOS, ROWS, Bench

from common import devices
from common.errors import run_command
from common.files import check_writable, write_json, write_text
from common.flags import Option, make_parser, number, one_of
from common.processes import cores, say
from experiment.run_folder import stamp

FLAGS = {
    "which": [
        Option("only", None, one_of(*ROWS), " ".join(ROWS), count="+", unset="all"),
        Option("quick", False, None, "a tenth of the photos, one round"),
        Option("photos", None, number(int, 70), "in each row", count="+", unset="as fits the row"),
        Option("rounds", 4, number(int, 1), "rounds of each row"),
    ],
    "of what": [
        Option("data_dir", None, Path, "train folder of the photos", unset="a drawn competition"),
        Option("model", "tf_efficientnet_lite0", str, "backbone"),
        Option("resize", [128, 96], number(int, 8), "height and width", count=2),
        Option("batch_size", 32, number(int, 1), "photos a step"),
        Option("device", "auto", str, "auto|cpu|cuda|cuda:1 ..."),
        Option("out", Path("output/benchmark"), Path, "writes OUT.md, OUT.json, OUT.svg"),
    ],
}
COLUMNS = ["row", "photos", "ours", "unit", "over", "theirs", "ratio", "lowest", "highest", "bar"]
COLUMNS += ["reached", "rounds"]


def measured(name, bench, people, rounds):
    """A row of measures.py as a dict of COLUMNS: medians, and all rounds."""
    measure, _, unit, over, bar = ROWS[name]
    things, pairs = list(measure(bench, people)), []
    for turn in range(rounds):
        values = {thing: float(thing()) for thing in (things if turn % 2 == 0 else things[::-1])}
        pairs.append([values[thing] for thing in things])
    ratios = [ours / other[0] if other else ours for ours, *other in pairs]
    ours, theirs = [*map(median, zip(*pairs, strict=True)), ""][:2]
    ratio, most = median(ratios), unit in ("s", "MB")
    figures = ours, unit, over, theirs, ratio, min(ratios), max(ratios)
    ending = f"{'at most' if most else 'at least'} {bar}", ratio <= bar if most else ratio >= bar
    return dict(zip(COLUMNS, (name, PHOTOS * people, *figures, *ending, pairs), strict=True))


def line(values):
    """A line of a table in Markdown."""
    shown = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
    return f"| {' | '.join(shown)} |"


def main(argv=None):
    args = make_parser(FLAGS, __doc__).parse_args(argv)
    check_writable("--out", f"{args.out}.md", "file")
    known, device = stamp(args.device), devices.name_of(devices.pick_device(args.device))
    versions = ", ".join(f"{name} {version}" for name, version in known["versions"].items())
    model = f"{args.model}, {'x'.join(map(str, args.resize))}, batch {args.batch_size}"
    of = f"{device}, {cores()} cores; {versions}, commit {known['git']}; {model}"
    head, results = COLUMNS[:-1], []
    lines = [of, "", line(head), "|---" * len(head) + "|"]
    say("\n".join(lines))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, folder)
        for name in args.only or ROWS:
            usual = ROWS[name][1]
            counts = [round(count / PHOTOS) for count in args.photos or []]
            for people in counts or [max(10, usual // 10) if args.quick and usual else usual]:
                with redirect_stdout(io.StringIO()):  # a run says where it is, mattes how many
                    row = measured(name, bench, people, 1 if args.quick else args.rounds)
                results.append(row)
                lines.append(line(row[column] for column in head))
                say(lines[-1])
                write_text(f"{args.out}.md", "\n".join([*lines, ""]))
                report = {"of": of, "options": vars(args), "rows": results}
                write_json(f"{args.out}.json", report)
    if args.photos:
        table = pd.DataFrame(results).pivot_table("ours", "photos", ["row", "unit"])
        axes = table.plot(style="o-", subplots=True, layout=(2, -1), figsize=(10, 5), ylim=0)
        axes[0, 0].figure.savefig(f"{args.out}.svg", metadata={"Date": None})


if __name__ == "__main__":
    run_command(main)
