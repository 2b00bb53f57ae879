"""Scores of 18-class predictions, and the paired comparison of runs.

The unit of chance is the person: the seven photos of one person succeed or fail together, so
intervals resample persons, never photos.
"""

import numpy as np
from scipy.special import ndtri, stdtrit

from common.errors import UserError
from labels import ATTRIBUTES, CLASSES, HEADS, decode

MEASURES = ("macro_f1", "accuracy", *ATTRIBUTES)
BLOCK = 256  # bootstrap draws at a time: bounds the memory for any number of persons


def confusion(labels, predictions, classes):
    """(classes, classes) int64 counts, rows true, columns predicted."""
    cells = np.asarray(labels) * classes + np.asarray(predictions)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def per_class_f1(table):
    """(classes,) F1 of a confusion table; a class neither present nor predicted has 0."""
    true_positive = np.diagonal(table)
    return f1_of(true_positive, table.sum(0), table.sum(1))


def macro_f1(labels, predictions, classes=CLASSES):
    """Mean F1 over all `classes`, absent ones included: scikit-learn's f1_score with
    labels=range(classes), average="macro", zero_division=0, at the cost of one bincount.
    """
    return float(per_class_f1(confusion(labels, predictions, classes)).mean())


def f1_of(true_positive, predicted, true):
    """F1 of counts of any one shape; 0 where a class is neither present nor predicted."""
    total = np.asarray(predicted + true, dtype=float)
    return np.divide(2 * true_positive, total, out=np.zeros(total.shape), where=total > 0)


def _summary(labels, predictions, classes):
    table = confusion(labels, predictions, classes)
    return {
        "macro_f1": float(per_class_f1(table).mean()),
        "accuracy": float(np.trace(table) / max(table.sum(), 1)),
        "per_class_f1": per_class_f1(table).tolist(),
        "support": table.sum(1).tolist(),
        "confusion": table.tolist(),
    }


def score(labels, probs):
    """All figures of one table of predictions, ready for JSON.

    labels: (N,) classes 0..17; probs: (N, 18). Returns macro_f1, accuracy, per_class_f1, support,
    confusion (rows true), ece, and under "attributes" the same five figures of mask, gender and
    age, read off the most probable of the 18 classes.
    """
    labels, probs = np.asarray(labels), np.asarray(probs)
    if len(labels) != len(probs) or not len(labels):
        raise UserError(f"{len(labels)} labels and {len(probs)} predictions cannot be scored")
    predictions = probs.argmax(1)
    result = _summary(labels, predictions, CLASSES)
    result["ece"] = ece(labels, probs)
    true, predicted = decode(labels), decode(predictions)
    result["attributes"] = {
        name: _summary(true[name], predicted[name], HEADS[name]) for name in ATTRIBUTES
    }
    return result


def reliability(labels, probs, bins=15):
    """Images, mean top probability and accuracy, three (bins,) arrays, in equal-width bins of the
    top probability; an empty bin has 0 in all three.
    """
    top = probs.max(1)
    right = probs.argmax(1) == labels
    index = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(index, minlength=bins)
    scale = 1 / np.maximum(images, 1)
    confidence = np.bincount(index, top, minlength=bins) * scale
    return images, confidence, np.bincount(index, right, minlength=bins) * scale


def ece(labels, probs, bins=15):
    """Expected calibration error, 0..1 (Guo et al. 2017, "On Calibration of Modern Neural
    Networks"): |accuracy - confidence| of each bin, weighted by its images.
    """
    images, confidence, accuracy = reliability(np.asarray(labels), np.asarray(probs), bins)
    return float((images * np.abs(accuracy - confidence)).sum() / images.sum())


# ---- the paired comparison


def _tables(labels, person, people, predictions):
    """(people, 26, 3) float32: true positives, predicted and true images of each person, for the
    18 classes, then mask, gender and age. All that the measures need, so that a bootstrap draw is
    one row of weights times this table.
    """
    if len(predictions) != len(labels):
        raise UserError(f"a run has {len(predictions)} predictions for {len(labels)} labels")
    true, predicted = {"label": labels} | decode(labels), {"label": predictions}
    predicted |= decode(predictions)
    parts = []
    for name, classes in HEADS.items():
        right = true[name] == predicted[name]
        at_true = person * classes + true[name]
        at_predicted = person * classes + predicted[name]
        cells = people * classes
        counts = [
            np.bincount(at_true, right, minlength=cells),
            np.bincount(at_predicted, minlength=cells),
            np.bincount(at_true, minlength=cells),
        ]
        parts.append(np.stack(counts, -1).reshape(people, classes, 3))
    return np.concatenate(parts, 1).astype(np.float32)


def _measures(sums):
    """(..., 5) values of MEASURES from (..., 26, 3) sums over persons."""
    f1 = f1_of(sums[..., 0], sums[..., 1], sums[..., 2])
    whole = sums[..., :CLASSES, :]
    values = [f1[..., :CLASSES].mean(-1), whole[..., 0].sum(-1) / whole[..., 2].sum(-1)]
    start = CLASSES
    for name in ATTRIBUTES:
        values.append(f1[..., start : start + HEADS[name]].mean(-1))
        start += HEADS[name]
    return np.stack(values, -1)


def _seeds(predictions):
    """A list of (N,) arrays, one a seed, from one array or such a list."""
    one = not isinstance(predictions, (list, tuple)) or np.ndim(predictions[0]) == 0
    return [np.asarray(array) for array in ([predictions] if one else predictions)]


def _influence(table):
    """(people, 5): how much each person moves each measure, the derivative by its weight."""
    sums = table.sum(0, dtype=float)
    total = sums[:, 1] + sums[:, 2]
    gain = 2 * table[..., 0] - f1_of(*sums.T) * (table[..., 1] + table[..., 2])
    gain = gain / np.where(total > 0, total, 1)
    images = table[:, :CLASSES, 2].sum(1)
    right = sums[:CLASSES, 0].sum() / images.sum()
    values = [gain[:, :CLASSES].mean(1)]
    values.append((table[:, :CLASSES, 0].sum(1) - right * images) / images.sum())
    start = CLASSES
    for name in ATTRIBUTES:
        values.append(gain[:, start : start + HEADS[name]].mean(1))
        start += HEADS[name]
    return np.stack(values, 1)


def _draws(labels, persons, groups, draws, seed):
    """The bootstrap over persons: for each group of S runs (values (S, 5) on all persons,
    influences (S, people, 5), samples (draws, S, 5)). Every run sees the same draws.
    """
    labels = np.asarray(labels)
    names, person = np.unique(np.asarray(persons), return_inverse=True)
    if len(person) != len(labels) or not len(labels):
        raise UserError(f"{len(labels)} labels and {len(person)} persons cannot be compared")
    people = len(names)
    tables = [_tables(labels, person, people, run) for group in groups for run in group]
    flat = np.concatenate([table.reshape(people, -1) for table in tables], 1)
    rng, samples = np.random.default_rng(seed), []
    for start in range(0, draws, BLOCK):
        block = min(BLOCK, draws - start)
        drawn = rng.integers(0, people, (block, people)) + np.arange(block)[:, None] * people
        weights = np.bincount(drawn.ravel(), minlength=block * people).reshape(block, people)
        sums = (weights.astype(np.float32) @ flat).reshape(block, len(tables), -1, 3)
        samples.append(_measures(sums))
    samples, result = np.concatenate(samples), []
    for group in groups:
        own, tables = tables[: len(group)], tables[len(group) :]
        values = np.stack([_measures(table.sum(0, dtype=float)) for table in own])
        result.append((values, np.stack([_influence(t) for t in own]), samples[:, : len(own)]))
        samples = samples[:, len(own) :]
    return result


def _over_seeds(values, influences, samples, rng):
    """((draws, 5) samples of the mean over S seeds, [(variance, spread, freedom)] of the seeds).

    Each draw takes S - 1 of the seeds with replacement, which gives the variance of a mean of S
    without bias (Rao and Wu 1988). Seeds also differ because each errs on persons of its own;
    resampling persons covers that already, so it is taken off, else it would count twice.
    """
    seeds, mean = len(values), samples.mean(1)
    if seeds == 1:
        return mean, []
    spread, by_person = values.var(0, ddof=1), influences.var(0, ddof=1).sum(0)
    own = np.maximum(spread - by_person, 0)
    pick = rng.integers(0, seeds, (len(samples), seeds - 1))
    picked = np.take_along_axis(samples, pick[:, :, None], 1).mean(1)
    scale = np.sqrt(own / np.maximum(spread + by_person, 1e-300))
    return mean + scale * (picked - mean), [(own / seeds, spread / seeds, seeds - 1)]


def _freedom(influence, seed_parts):
    """(5,) degrees of freedom of the variance behind an interval (Satterthwaite 1946).

    influence: (people, 5) of the statistic; that of persons falls with the few who carry a rare
    class. seed_parts: what seeds add, as _over_seeds gives it; their spread, of which the chance
    of persons was taken off, is what makes it uncertain.
    """
    squares = influence**2
    persons = 2 * squares.sum(0) ** 2 / np.maximum((squares**2).sum(0), 1e-300)
    parts = [(squares.sum(0), squares.sum(0), persons), *seed_parts]
    variance = sum(part for part, _, _ in parts)
    spread = sum(part**2 / np.maximum(freedom, 1) for _, part, freedom in parts)
    return np.where(spread > 0, variance**2 / np.maximum(spread, 1e-300), 1e6)


def _stretch(samples, freedom):
    """(draws, 5) samples drawn out about their median by Student's t over the normal quantile."""
    middle = np.median(samples, axis=0)
    return middle + (samples - middle) * (stdtrit(freedom, 0.975) / ndtri(0.975))


def intervals(labels, persons, predictions, draws=2000, seed=0):
    """{measure: (value, low, high)}: 95 % intervals over persons (and seeds), as in `compare`.

    labels (N,), persons (N,) any hashable, predictions (N,) classes 0..17 or a list of such, one a
    seed. Measures: macro_f1 and accuracy of the 18 classes, macro F1 of mask, gender and age.
    """
    [(values, influences, samples)] = _draws(labels, persons, [_seeds(predictions)], draws, seed)
    sample, parts = _over_seeds(values, influences, samples, np.random.default_rng(seed + 1))
    sample = _stretch(sample, _freedom(influences.mean(0), parts))
    ends = np.quantile(sample, [0.025, 0.975], axis=0)
    columns = zip(MEASURES, values.mean(0), *ends, strict=True)
    return {name: (float(value), float(low), float(high)) for name, value, low, high in columns}


def interval(labels, persons, predictions, draws=2000, seed=0):
    """(low, high): the 95 % interval of the macro F1, as `intervals` gives it."""
    return intervals(labels, persons, predictions, draws, seed)["macro_f1"][1:]


def compare(labels, persons, predictions_a, predictions_b, draws=2000, seed=0, paired=False):
    """Is b better than a? By a cluster bootstrap over persons (Field and Welsh 2007).

    labels (N,), persons (N,); predictions (N,) classes 0..17, or a list of such arrays, one a seed
    of the same configuration: then persons and seeds are both resampled. One run a side says
    nothing about the chance of training: its interval is over persons alone. `paired`: the k-th
    runs of the two lists belong together (as many pairs of conditions, one change) and are drawn
    together.

    Returns {measure: {"a", "b" (means over seeds), "sd_a", "sd_b" (over seeds; None for one),
    "difference" (b - a), "low", "high" (95 %), "p" (two-sided)}}.

    The interval is the percentile interval, expanded (after Hesterberg 2015, "What Teachers Should
    Know About the Bootstrap") by Student's t with Satterthwaite's degrees of freedom, since a rare
    class hangs on few persons. p is its inversion: below .05 just where it leaves out zero.
    Chosen on simulated pairs of runs, with a difference of macro F1 and without: of 1,000 pairs of
    120 persons, 8 of them of the rarest age, it held the truth in .938 and .954; of 421 persons in
    .960 and .939; of 2,700 (400 pairs) in .948 and .952. The plain percentile fell to .917, basic,
    normal, delta method, BC and BCa to .86 to .91 with 120 persons. Groups of 2, 3 and 5 seeds:
    .955 to .968, where one run a side held the truth of its configuration in .66 only.
    """
    groups = [_seeds(predictions_a), _seeds(predictions_b)]
    if paired and len(groups[0]) != len(groups[1]):
        raise UserError(f"{len(groups[0])} and {len(groups[1])} runs are no pairs")
    one, two = _draws(labels, persons, groups, draws, seed)
    rng = np.random.default_rng(seed + 1)
    if paired:
        difference, parts = _over_seeds(*(y - x for x, y in zip(one, two, strict=True)), rng)
    else:
        (first, parts_one), (second, parts_two) = _over_seeds(*one, rng), _over_seeds(*two, rng)
        difference, parts = second - first, parts_one + parts_two
    difference = _stretch(difference, _freedom(two[1].mean(0) - one[1].mean(0), parts))
    low, high = np.quantile(difference, [0.025, 0.975], axis=0)
    tail = np.minimum((difference <= 0).sum(0), (difference >= 0).sum(0))
    p = np.minimum(1, 2 * (tail + 1) / (draws + 1))
    a, b = one[0], two[0]
    return {
        name: {
            "a": float(a[:, k].mean()),
            "b": float(b[:, k].mean()),
            "sd_a": float(a[:, k].std(ddof=1)) if len(a) > 1 else None,
            "sd_b": float(b[:, k].std(ddof=1)) if len(b) > 1 else None,
            "difference": float(b[:, k].mean() - a[:, k].mean()),
            "low": float(low[k]),
            "high": float(high[k]),
            "p": float(p[k]),
        }
        for k, name in enumerate(MEASURES)
    }
