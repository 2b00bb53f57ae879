"""Draws the differences that report pages tell, with their intervals, one below the other.

python scripts/intervals.py runs/findings/joint-none-split-none.html ... --out docs/findings.svg
"""

import base64
import re
import sys
from pathlib import Path

import pandas as pd

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
    from experiment.reader import read_table
    from reporting import figures

    found = []
    for page in args.pages:
        folder = page.with_name(f"{page.stem}_tables")
        path, runs = folder / "comparison.csv", read_table(folder / "runs.csv", {"run": str}).run
        numbers = dict.fromkeys(("difference", "low", "high"), Number(float, -1, 1))
        table = read_table(path, {"run": str, "measure": str, **numbers})
        rows = table[table.measure == "macro F1"]
        if "verdict" not in rows:
            raise UserError(f"{path} is of an older version: make the page again")
        if len(rows) != 1 or len(runs) != 2:
            raise UserError(f"{path} compares {len(runs)} runs: give pages of two")
        # Seeds of a condition are told by the first of them.
        ours = rows.run.iloc[0]
        names = [re.sub(r"-s\d+$", "", run) for run in (ours, *runs[runs != ours])]
        found.append(rows.assign(run=" against ".join(names)))
    figures.STYLE["savefig.transparent"] = False  # no page is behind it
    picture, _ = figures.forest(pd.concat(found, ignore_index=True), "its rival")
    write_text(args.out, base64.b64decode(picture.partition(",")[2]).decode())


if __name__ == "__main__":
    run_command(main)
