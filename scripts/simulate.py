"""What the verdicts of report.py are worth: their shares on simulated pairs of configurations.

    python scripts/simulate.py    # two minutes on one core; prints a Markdown table

Gender and age of a photo are mistaken where a sum of normal variables exceeds the skill of the
configuration: some people are hard for all, some for one configuration or seed. Macro F1 is .64.
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common.errors import run_command
from common.flags import Option, make_parser, number
from experiment.comparison import compare, verdict
from metrics import macro_f1

CELLS = np.array([549, 410, 83, 732, 817, 109]) / 2700  # gender x age of the competition
PHOTO_MASK = np.array([0, 0, 0, 0, 0, 1, 2])  # masks are never mistaken
# Deviations of what makes a photo hard; the skills at gender, and at the age of each cell.
PERSON, CONFIGURATION, SEED, PHOTO = 0.7, 0.3, 0.35, 0.5
GENDER_SKILL, AGE_SKILL = 1.47, np.array([0.78, 0.69, -0.29] * 2)
MISTAKEN = np.array([1, 0, 1])  # the group for which an age is taken
SPREAD = 0.03  # deviation of the skill over seeds, which moves the macro F1 by about .01
VERDICTS = ("better", "worse", "no difference", "undecided")
FLAGS = {
    "what is simulated": [
        Option("pairs", 400, number(int, 1), "pairs of configurations a row"),
        Option("people", (120, 421), number(int, 30), "people of a pair", count="+"),
        Option("seeds", (1, 3), number(int, 1), "seeds of each configuration", count="+"),
        Option("differences", (0.0, 0.05), number(float, -0.25, 0.25),
               "true differences of macro F1", count="+"),
    ]
}  # fmt: skip


def simulate(rng, people, seeds, gain, spread=SPREAD):
    """labels, persons (N,), and two lists of predictions (N,), one a seed; the second gains."""
    cell = rng.choice(6, people, p=CELLS)
    gender, age, normal = cell[:, None] // 3, cell[:, None] % 3, rng.standard_normal
    person, sides = PERSON * normal((2, people, 1)), ([], [])
    for level, side in zip((0, gain), sides, strict=True):
        hard = person + CONFIGURATION * normal((2, people, 1))
        for _ in range(seeds):
            latent = hard + SEED * normal((2, people, 1)) + PHOTO * normal((2, people, 7))
            limit = (AGE_SKILL[cell] + level + spread * normal())[:, None]
            found_gender = np.where(latent[0] > GENDER_SKILL, 1 - gender, gender)
            found_age = np.where(latent[1] > limit, MISTAKEN[age], age)
            side.append((6 * PHOTO_MASK + 3 * found_gender + found_age).ravel())
    labels = (6 * PHOTO_MASK + cell[:, None]).ravel()
    return labels, np.repeat(np.arange(people), 7), *sides


def gain_of(difference):
    """The gain in skill that moves the macro F1 of very many people by so much."""

    def miss(gain):
        labels, _, [a], [b] = simulate(np.random.default_rng(0), 50_000, 1, gain, spread=0)
        return macro_f1(labels, b) - macro_f1(labels, a) - difference

    return brentq(miss, -1, 2, xtol=1e-3) if difference else 0


def measure(people, seeds, difference, pairs):
    """Shares of VERDICTS, share of intervals that hold the truth, median detectable difference."""
    rng, gain = np.random.default_rng([people, seeds]), gain_of(difference)
    rows = [compare(*simulate(rng, people, seeds, gain))["macro_f1"] for _ in range(pairs)]
    said = [verdict(row | {"holm": row["p"]}, people) for row in rows]
    shares = [np.mean([words.startswith(start) for words in said]) for start in VERDICTS]
    held = np.mean([row["low"] <= difference <= row["high"] for row in rows])
    return *shares, held, np.median([row["detectable"] for row in rows])


def main(argv=None):
    args = make_parser(FLAGS, __doc__).parse_args(argv)
    head = "people", "seeds", "difference", *VERDICTS, "interval holds it", "detectable"
    print(f"| {' | '.join(head)} |\n" + "|---" * len(head) + "|")
    for people, seeds, difference in product(args.people, args.seeds, args.differences):
        figures = difference, *measure(people, seeds, difference, args.pairs)
        shown = " | ".join(f"{figure:.3f}" for figure in figures)
        print(f"| {people} | {seeds} | {shown} |", flush=True)


if __name__ == "__main__":
    run_command(main)
