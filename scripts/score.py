"""Scores a submission against the true answers, where these are known.

python scripts/score.py output/output.csv data/demo/truth.csv
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common.errors import UserError, run_command
from common.files import read_rows
from common.flags import Parser
from labels import CLASSES


def read(path):
    """{ImageID: class 0..17} of a csv with the columns ImageID and ans."""
    answers = {}
    for line, row in read_rows(path, ("ImageID", "ans")):
        name, answer = row["ImageID"], row["ans"]
        if answer not in map(str, range(CLASSES)):
            raise UserError(f"{path} line {line}: ans {answer} is not a class, 0 to {CLASSES - 1}")
        if name in answers:
            raise UserError(f"{path} line {line}: {name} is listed for the second time")
        answers[name] = int(answer)
    return answers


def main(argv=None):
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("submission", help="csv with ImageID, ans")
    parser.add_argument("truth", help="csv with the true ImageID, ans")
    args = parser.parse_args(argv)
    answers, truth = read(args.submission), read(args.truth)
    missing = [name for name in truth if name not in answers]
    if missing:
        photos = "1 photo" if len(missing) == 1 else f"{len(missing)} photos, the first"
        raise UserError(f"{args.submission} has no answer for {photos}: {missing[0]}")
    import metrics

    probs = np.eye(CLASSES)[[answers[name] for name in truth]]
    scores = metrics.score(list(truth.values()), probs)
    attributes = " ".join(f"{n} {v['macro_f1']:.3f}" for n, v in scores["attributes"].items())
    print(
        f"{args.submission}: macro F1 {scores['macro_f1']:.4f}, accuracy "
        f"{scores['accuracy']:.4f} on {len(truth)} photos; macro F1 of {attributes}"
    )


if __name__ == "__main__":
    run_command(main)
