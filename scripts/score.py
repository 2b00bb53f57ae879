"""Scores a submission against the true answers, where these are known.

python scripts/score.py output/output.csv data/demo/truth.csv
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common.errors import UserError, run_command
from common.flags import Parser
from labels import CLASSES


def main(argv=None):
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("submission", help="csv with ImageID, ans")
    parser.add_argument("truth", help="csv with the true ImageID, ans")
    args = parser.parse_args(argv)
    from experiment import reader
    from metrics import score

    columns, tables = {"ImageID": str, "ans": reader.OOF["label"]}, []
    for path in (args.submission, args.truth):
        table = reader.read_table(path, columns)
        reader.stop_at(path, table.ImageID.duplicated(), "this ImageID occurs twice")
        tables.append(table.set_index("ImageID").ans)
    answers, truth = tables
    missing = truth.index.difference(answers.index, sort=False)
    if len(missing):
        lacks = f"{len(missing)} of {len(truth)} photos, such as {missing[0]}"
        raise UserError(f"{args.submission} has no answer for {lacks}")
    scores = score(truth, np.eye(CLASSES)[answers[truth.index]])
    attributes = " ".join(f"{n} {v['macro_f1']:.3f}" for n, v in scores["attributes"].items())
    whole = f"macro F1 {scores['macro_f1']:.4f}, accuracy {scores['accuracy']:.4f}"
    print(f"{args.submission}: {whole} on {len(truth)} photos; macro F1 of {attributes}")


if __name__ == "__main__":
    run_command(main)
