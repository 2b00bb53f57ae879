"""Scores a submission against the true answers, where these are known.

python scripts/score.py output/output.csv data/demo/truth.csv
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common.errors import UserError, run_command
from common.flags import Parser
from common.processes import counted
from labels import CLASSES


def main(argv=None):
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("submission", help="csv with ImageID, ans")
    parser.add_argument("truth", help="csv with the true ImageID, ans")
    args = parser.parse_args(argv)
    import metrics
    from experiment import reader

    columns, tables = {"ImageID": str, "ans": reader.OOF["label"]}, []
    for path in (args.submission, args.truth):
        table = reader.read_table(path, columns)
        reader.stop_at(path, table.ImageID.duplicated(), "this ImageID occurs twice")
        tables.append(table.set_index("ImageID").ans)
    answers, truth = tables
    missing = truth.index.difference(answers.index, sort=False)
    if len(missing):
        photos = counted(len(missing), "photo") + ", the first" * (len(missing) > 1)
        raise UserError(f"{args.submission} has no answer for {photos}: {missing[0]}")
    scores = metrics.score(truth, np.eye(CLASSES)[answers[truth.index]])
    attributes = " ".join(f"{n} {v['macro_f1']:.3f}" for n, v in scores["attributes"].items())
    print(
        f"{args.submission}: macro F1 {scores['macro_f1']:.4f}, accuracy "
        f"{scores['accuracy']:.4f} on {len(truth)} photos; macro F1 of {attributes}"
    )


if __name__ == "__main__":
    run_command(main)
