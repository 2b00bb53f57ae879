"""metrics.py against scikit-learn."""

import numpy as np
import pytest
from helpers import macro_f1_sklearn, random_probs
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

import metrics
from common.errors import UserError
from labels import ATTRIBUTES, CLASSES, decode


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("classes", [2, 3, 18])
def test_macro_f1_is_sklearns(rng, classes):
    for size in (1, 5, 60, 3000):
        labels, predictions = rng.integers(0, classes, (2, size))
        expected = macro_f1_sklearn(labels, predictions, classes)
        assert metrics.macro_f1(labels, predictions, classes) == pytest.approx(expected, abs=1e-12)


def test_score_is_sklearns(rng):
    labels = rng.choice([0, 1, 2, 3, 7, 9, 13, 16], 700)  # ten classes have no image
    probs = random_probs(rng, labels)
    predictions = probs.argmax(1)
    result = metrics.score(labels, probs)
    assert result["macro_f1"] == pytest.approx(macro_f1_sklearn(labels, predictions))
    assert result["accuracy"] == pytest.approx(accuracy_score(labels, predictions))
    table = confusion_matrix(labels, predictions, labels=range(CLASSES))
    assert result["confusion"] == table.tolist()
    assert result["support"] == np.bincount(labels, minlength=CLASSES).tolist()
    for name, values in ATTRIBUTES.items():
        part = result["attributes"][name]
        true, predicted = decode(labels)[name], decode(predictions)[name]
        expected = macro_f1_sklearn(true, predicted, len(values))
        assert part["macro_f1"] == pytest.approx(expected)
        assert part["accuracy"] == pytest.approx(accuracy_score(true, predicted))
        kinds = range(len(values))
        assert part["confusion"] == confusion_matrix(true, predicted, labels=kinds).tolist()
        f1 = f1_score(true, predicted, labels=kinds, average=None, zero_division=0)
        assert part["per_class_f1"] == pytest.approx(f1.tolist())


def test_ece_is_that_of_a_plain_loop(rng):
    labels = rng.integers(0, CLASSES, 900)
    probs = random_probs(rng, labels, strength=3)
    top, right, expected = probs.max(1), probs.argmax(1) == labels, 0.0
    for low in range(15):
        inside = (top > low / 15) & (top <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    assert metrics.ece(labels, probs) == pytest.approx(expected)
    certain = np.eye(CLASSES)[labels]
    assert metrics.ece(labels, certain) == 0
    assert metrics.ece((labels + 1) % CLASSES, certain) == 1


def test_what_cannot_be_scored():
    with pytest.raises(UserError, match="0 labels"):
        metrics.score([], np.zeros((0, CLASSES)))
