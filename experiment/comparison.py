"""Intervals of scores, and the comparison of runs, by resampling persons: the photos of one person
succeed or fail together.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from common.errors import UserError
from common.processes import counted
from labels import ATTRIBUTES, CLASSES, HEADS, decode
from metrics import f1_of

MEASURES = ("macro_f1", "accuracy", *ATTRIBUTES)
# Where the classes of each head stand among all 26, and behind them the one class of all photos,
# whose F1 is the accuracy: each measure is a mean of F1.
FIRST = dict(zip([*HEADS, "all"], np.cumsum([0, *HEADS.values()]).tolist(), strict=True))
PARTS = [slice(0, CLASSES), slice(FIRST["all"], None)]
PARTS += [slice(FIRST[name], FIRST[name] + HEADS[name]) for name in ATTRIBUTES]
# With two seeds a freedom of 1 made one interval in twenty as wide as all scores; on simulated
# pairs of 40, 120 and 421 persons 2 holds the truth as often, .89 to .995 against .905 to .995.
LEAST_FREEDOM = 2
MARGIN = 0.02  # a smaller difference of macro F1 is not worth an option
SIGNIFICANT = 0.05
FEWEST = 30  # persons: below, the intervals hang on one or two persons of a rare class
BLOCK = 256  # bootstrap draws at a time: bounds the memory for any number of persons


class Bootstrap(NamedTuple):
    """The S seeds of one configuration: their measures, in the order of MEASURES."""

    values: np.ndarray  # (S, 5), on all persons
    influences: np.ndarray  # (people, S, 5), see influence_of()
    samples: np.ndarray  # (draws, S, 5), on resampled persons


def person_counts(labels, person, people, predictions):
    """(people, 27, 2) float32 counts of each person's photos: right ones, and true plus predicted
    ones of a class, for the 18 classes, mask, gender, age, and all photos: a bootstrap draw is one
    row of weights times this.
    """

    def cells(codes):
        codes = {"label": codes} | decode(codes)
        return np.concatenate([person * 26 + FIRST[name] + codes[name] for name in HEADS])

    true, predicted = cells(labels), cells(predictions)
    found = true[true == predicted], np.concatenate([true, predicted])
    counts = np.stack([np.bincount(cells, minlength=people * 26) for cells in found], -1)
    counts = counts.reshape(people, 26, 2).astype(np.float32)
    return np.concatenate([counts, counts[:, :CLASSES].sum(1, keepdims=True)], 1)


def _means(classes):
    """(..., 5) values of MEASURES from those of the classes (..., 27)."""
    return np.stack([classes[..., part].mean(-1) for part in PARTS], -1)


def _measures(sums):
    """(..., 5) values of MEASURES from (..., 27, 2) sums over persons."""
    return _means(f1_of(sums[..., 0], sums[..., 1], 0))


def influence_of(counts):
    """(people, ..., 5): how much each person moves each measure, the derivative by its weight.

    counts: (people, ..., 27, 2), of person_counts().
    """
    right, total = np.moveaxis(counts.sum(0, dtype=float), -1, 0)
    gain = 2 * counts[..., 0] - f1_of(right, total, 0) * counts[..., 1]
    return _means(gain / np.where(total > 0, total, 1))


def bootstrap(labels, persons, groups, draws, seed):
    """[Bootstrap] of groups of runs, lists of (N,) predictions; all see the same persons drawn."""
    labels = np.asarray(labels)
    names, person = np.unique(np.asarray(persons), return_inverse=True)
    people, runs = len(names), [run for group in groups for run in group]
    counts = np.stack([person_counts(labels, person, people, run) for run in runs], 1)
    rng, samples = np.random.default_rng(seed), []
    for start in range(0, draws, BLOCK):
        block = min(BLOCK, draws - start)
        drawn = rng.integers(0, people, (block, people)) + np.arange(block)[:, None] * people
        weights = np.bincount(drawn.ravel(), minlength=block * people).reshape(block, people)
        sums = weights.astype(np.float32) @ counts.reshape(people, -1)
        samples.append(_measures(sums.reshape(block, *counts.shape[1:])))
    values, influences = _measures(counts.sum(0, dtype=float)), influence_of(counts)
    ends = np.cumsum([len(group) for group in groups])[:-1]
    of_groups = (np.split(part, ends, -2) for part in (values, influences, np.concatenate(samples)))
    return [Bootstrap(*parts) for parts in zip(*of_groups, strict=True)]


def _seed_part(groups):
    """(variance (5,), spread (5,), freedom) that the choice of seeds adds to a difference of means,
    or to one mean; freedom is 0 where no configuration has two seeds.

    Seeds also differ because each errs on persons of its own; resampling persons covers that
    already, so it is subtracted from the variance; `spread` still has it.
    """
    several = [(len(g.values) - 1, g) for g in groups if len(g.values) > 1]
    freedom = sum(n for n, _ in several)
    spread = sum(n * g.values.var(0, ddof=1) for n, g in several) / max(freedom, 1)
    by_person = sum(n * g.influences.var(1, ddof=1).sum(0) for n, g in several) / max(freedom, 1)
    share = sum(1 / len(group.values) for group in groups)
    return np.maximum(spread - by_person, 0) * share, spread * share, freedom


def _freedom(influence, seed_part):
    """(5,) degrees of freedom of the variance behind an interval (Satterthwaite 1946), from the
    influence (people, 5) of the statistic: few if few persons carry a rare class. The sum is never
    less certain than the seeds alone.
    """
    squares, (variance, spread, of_seeds) = influence**2, seed_part
    persons = squares.sum(0)
    of_persons = 2 * persons**2 / np.maximum((squares**2).sum(0), 1e-300)
    wrong = persons**2 / np.maximum(of_persons, 1) + spread**2 / max(of_seeds, 1)
    freedom = np.where(wrong > 0, (persons + variance) ** 2 / np.maximum(wrong, 1e-300), 1e6)
    return np.maximum(freedom, max(of_seeds, LEAST_FREEDOM))


def _samples(groups, least, rng):
    """(draws, 5) samples of a mean over seeds (one group) or of a difference of means (two): the
    resampled persons, the chance of seeds added, drawn out by Student's t over the normal quantile.

    least: the least value that there is, 0 of a score and -1 of a difference; the largest is 1.
    """

    def value(means):
        return means[-1] - (means[0] if len(means) > 1 else 0)

    influence, part = value([group.influences.mean(1) for group in groups]), _seed_part(groups)
    samples = value([group.samples.mean(1) for group in groups])
    samples = samples + np.sqrt(part[0]) * rng.standard_normal(samples.shape)
    middle = np.median(samples, axis=0)
    stretch = stdtrit(_freedom(influence, part), 0.975) / ndtri(0.975)
    return np.clip(middle + (samples - middle) * stretch, least, 1)


def intervals(labels, persons, predictions, *, draws=2000, seed=0):
    """{measure: (value, low, high)}: 95 % intervals over persons (and seeds), as in `compare`.

    labels (N,), persons (N,) any hashable, predictions (N,) classes 0..17 or a list of such, one a
    seed. Measures: macro_f1 and accuracy of the 18 classes, macro F1 of mask, gender and age.
    """
    groups = bootstrap(labels, persons, [np.atleast_2d(predictions)], draws, seed)
    sample = _samples(groups, 0, np.random.default_rng(seed + 1))
    rows = groups[0].values.mean(0), *np.quantile(sample, [0.025, 0.975], axis=0)
    return dict(zip(MEASURES, map(tuple, np.transpose(rows).tolist()), strict=True))


def compare(labels, persons, a, b, *, draws=2000, seed=0, conditions=0):
    """Is b better than a? By a cluster bootstrap over persons (Field and Welsh 2007).

    labels (N,), persons (N,); a, b: predictions (N,), classes 0..17, or a list of such arrays, one
    a seed of the same configuration: then persons and seeds are both resampled. One run a side
    says nothing about how much training varies: its interval is over persons alone. conditions: 0,
    or how many conditions a change was tried in: a and b have as many seeds of each, one condition
    after the other; then the chance is that of persons and of conditions, seeds being averaged.

    Returns {measure: {"a", "b" (means over seeds), "sd_a", "sd_b" (over seeds; None for one),
    "difference" (b - a), "low", "high" (95 %), "low90", "high90" (90 %), "p" (two-sided),
    "detectable" (the smallest difference that as many persons and seeds show with 80 % power)}},
    and under "macro_f1" also "won" and "lost": photos whose class b alone, and a alone, has right,
    a mean over the pairs of runs.

    The interval is the percentile interval, widened (after Hesterberg 2015, "What Teachers Should
    Know About the Bootstrap") by Student's t with Satterthwaite's degrees of freedom, since a rare
    class depends on few persons. p is its inversion: below .05 exactly where it excludes zero.
    On simulated pairs of 120 to 2,700 persons it held the truth in .93 to .995 (scripts/simulate.py
    measures some again); with 120 the plain percentile fell to .917, others to .86 to .91. One run
    a side held the truth of its configuration in .66 only where seeds have a bias of their own.
    """
    a, b, rng = np.atleast_2d(a), np.atleast_2d(b), np.random.default_rng(seed + 1)
    groups = one, two = bootstrap(labels, persons, [a, b], draws, seed)
    if conditions:
        if len(a) != len(b) or len(a) % conditions:
            raise UserError(f"{len(a)} and {len(b)} runs are no pairs of {conditions} conditions")

        def change(x, y):  # (..., S, 5) -> (..., conditions, 5)
            return (y - x).reshape(*x.shape[:-2], conditions, -1, x.shape[-1]).mean(-2)

        groups = [Bootstrap(*map(change, one, two))]
    rows = _rows(one.values, two.values, _samples(groups, -1, rng))
    before, after = a == np.asarray(labels), b == np.asarray(labels)
    if not conditions:  # each run of a with each of b
        before, after = before.mean(0, keepdims=True), after.mean(0, keepdims=True)
    both = (before * after).sum(1)
    won, lost = (float((side.sum(1) - both).mean()) for side in (after, before))
    rows["macro_f1"] |= {"won": won, "lost": lost}
    return rows


def _rows(a, b, difference):
    """The result of compare(): values (S, 5) of each side, samples (draws, 5) of the difference."""
    columns = {"a": a.mean(0), "b": b.mean(0), "difference": b.mean(0) - a.mean(0)}
    for name, values in ("sd_a", a), ("sd_b", b):
        columns[name] = values.std(0, ddof=1) if len(values) > 1 else None
    levels = {"low": 0.025, "high": 0.975, "low90": 0.05, "high90": 0.95}
    ends = np.quantile(difference, [*levels.values()], axis=0)
    columns |= zip(levels, ends, strict=True)
    # The quantiles of test and power, .975 and .8, in the units of these samples.
    power = np.ptp(np.quantile(difference, [0.2, 0.8], axis=0), axis=0)
    columns["detectable"] = (columns["high"] - columns["low"] + power) / 2
    tail = np.minimum((difference <= 0).sum(0), (difference >= 0).sum(0))
    columns["p"] = np.minimum(1, 2 * (tail + 1) / (len(difference) + 1))
    return pd.DataFrame(columns, MEASURES).to_dict("index")


def verdict(row, people):
    """A difference of macro F1 in words: better or worse; no difference larger than MARGIN, by two
    one-sided tests at 5 % each (Schuirmann 1987); or undecided. row: of compare(), and "holm", its
    p value among all comparisons. One run a side is evidence about these two runs alone.
    """
    if people < FEWEST:
        return f"nothing can be told from {counted(people, 'person', 'people')}"
    way = "better" if row["difference"] > 0 else "worse"
    same = row["low90"] > -MARGIN and row["high90"] < MARGIN
    words = "undecided"
    if row["holm"] < SIGNIFICANT:
        words = f"{way}, by less than .02" if same else way
    elif same:
        words = "no difference larger than .02 either way"
    elif row["p"] < SIGNIFICANT:
        words = f"undecided, perhaps {way}, but one of many comparisons"
    several = row["sd_a"] is not None or row["sd_b"] is not None
    return words if several else f"{words} (these two runs)"
