"""Draws the differences that report pages tell, with their intervals, one below the other.

python scripts/intervals.py runs/findings/joint-none-split-none.html ... --out docs/findings.svg
"""

import io
import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common.errors import UserError, run_command
from common.files import check_writable, write_text
from common.flags import Parser
from common.schema import Number


def main(argv=None):
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="+", type=Path, help="pages of report.py, of two runs each")
    parser.add_argument("--out", type=Path, default=Path("output/intervals.svg"), help="picture")
    args = parser.parse_args(argv)
    check_writable("--out", args.out, "file")
    import matplotlib
    from matplotlib.figure import Figure

    from experiment.reader import read_table

    found = []
    for page in args.pages:
        folder = page.with_name(f"{page.stem}_tables")
        path, runs = folder / "comparison.csv", read_table(folder / "runs.csv", {"run": str}).run
        numbers = dict.fromkeys(("difference", "low", "high"), Number(float, -1, 1))
        table = read_table(path, {"run": str, "measure": str, **numbers})
        rows = table[table.measure == "macro F1"]
        if len(rows) != 1 or len(runs) != 2:
            raise UserError(f"{path} compares {len(runs)} runs: give pages of two")
        # Seeds of a condition are told by the first of them.
        ours = rows.run.iloc[0]
        names = [re.sub(r"-s\d+$", "", run) for run in (ours, *runs[runs != ours])]
        found.append((" against ".join(names), *rows[[*numbers]].iloc[0]))
    names, middle, low, high = map(np.array, zip(*found, strict=True))
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "intervals"}
    figure = Figure(figsize=(8, 1 + len(names) / 3), layout="constrained")
    axes, places = figure.subplots(), np.arange(len(names))
    axes.axvspan(-0.02, 0.02, color="#e0e0e0")  # what report.py calls no difference
    axes.axvline(0, color="black", lw=1)
    axes.errorbar(middle, places, xerr=[middle - low, high - middle], fmt="o", capsize=4)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlabel("difference of macro F1, 95 % interval (grey: no larger than .02)")
    axes.spines[["top", "right"]].set_visible(False)
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    write_text(args.out, picture.getvalue())


if __name__ == "__main__":
    run_command(main)
