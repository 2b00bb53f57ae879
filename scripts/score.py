"""Scores a submission against the true answers, where these are known.

python scripts/score.py output/output.csv data/demo/truth.csv
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import metrics
from common import flags
from common.errors import UserError, run_command
from labels import CLASSES


def read(path):
    """The answers (0..17) of a csv with ImageID and ans, by ImageID."""
    try:
        table = pd.read_csv(path, dtype={"ImageID": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable csv ({str(error).splitlines()[0]})") from None
    missing = {"ImageID", "ans"} - set(table)
    if missing:
        raise UserError(f"{path}: column {sorted(missing)[0]} is missing")
    if not table.ans.isin(range(CLASSES)).all():
        raise UserError(f"{path}: ans is not always a class 0 to {CLASSES - 1}")
    return table.set_index("ImageID").ans


def main(argv=None):
    parser = flags.Parser(description=__doc__.split("\n")[0])
    parser.add_argument("submission", help="csv with ImageID, ans")
    parser.add_argument("truth", help="csv with the true ImageID, ans")
    args = parser.parse_args(argv)
    answers, truth = read(args.submission), read(args.truth)
    missing = truth.index.difference(answers.index)
    if len(missing):
        raise UserError(f"{args.submission} lacks {len(missing)} photos, e.g. {missing[0]}")
    scores = metrics.score(truth.to_numpy(), np.eye(CLASSES)[answers[truth.index]])
    attributes = " ".join(f"{n} {v['macro_f1']:.3f}" for n, v in scores["attributes"].items())
    print(
        f"{args.submission}: macro F1 {scores['macro_f1']:.4f}, accuracy "
        f"{scores['accuracy']:.4f} of {len(truth)} photos; macro F1 of {attributes}"
    )


if __name__ == "__main__":
    run_command(main)
