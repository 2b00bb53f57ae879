"""Scores of 18-class predictions. Intervals and comparisons of runs: experiment/comparison.py."""

import numpy as np

from common.errors import UserError
from labels import ATTRIBUTES, CLASSES, HEADS, decode


def confusion(labels, predictions, classes):
    """(classes, classes) int64 counts, rows true, columns predicted."""
    cells = np.asarray(labels) * classes + np.asarray(predictions)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def per_class_f1(table):
    """(classes,) F1 of a confusion table; a class neither present nor predicted has 0."""
    return f1_of(np.diagonal(table), table.sum(0), table.sum(1))


def macro_f1(labels, predictions, classes=CLASSES):
    """Mean F1 over all `classes`, absent ones included: scikit-learn's f1_score with
    labels=range(classes), average="macro", zero_division=0, at the cost of one bincount.
    """
    return float(per_class_f1(confusion(labels, predictions, classes)).mean())


def f1_of(true_positive, predicted, true):
    """F1 of counts of any one shape; 0 where a class is neither present nor predicted."""
    total = np.asarray(predicted + true, dtype=float)
    return np.divide(2 * true_positive, total, out=np.zeros(total.shape), where=total > 0)


def _summary(table):
    f1 = per_class_f1(table)
    return {
        "macro_f1": float(f1.mean()),
        "accuracy": float(np.trace(table) / max(table.sum(), 1)),
        "per_class_f1": f1.tolist(),
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
    result = _summary(confusion(labels, predictions, CLASSES)) | {"ece": ece(labels, probs)}
    true, predicted = decode(labels), decode(predictions)
    result["attributes"] = {
        name: _summary(confusion(true[name], predicted[name], HEADS[name])) for name in ATTRIBUTES
    }
    return result


def ece(labels, probs, bins=15):
    """Expected calibration error, 0..1 (Guo et al. 2017, "On Calibration of Modern Neural
    Networks"): in equal-width bins of the top probability, |accuracy - confidence| weighted by the
    images of the bin.
    """
    top, right = np.max(probs, 1), np.argmax(probs, 1) == labels
    index = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(index, right - top)).sum() / len(top))
