"""The decision rule against a plain loop over scikit-learn's F1."""

import numpy as np
import pytest
from helpers import CELLS, macro_f1_sklearn, random_probs

from experiment import decision
from labels import CLASSES, decode


def nest(probs, labels, folds):
    return (probs * decision.nested_weights(probs, labels, folds)).argmax(1)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_decision_weights_raise_the_score_of_a_biased_model(rng):
    persons = np.repeat(np.arange(300), 7)
    mask = np.tile([0, 0, 0, 0, 0, 1, 2], 300)
    labels = 6 * mask + np.repeat(rng.choice(6, 300, p=CELLS), 7)
    tilt = np.where(decode(np.arange(CLASSES))["age"] == 2, 0.15, 1.0)  # it shuns the old
    probs = random_probs(rng, labels, 2.5) * tilt
    probs /= probs.sum(1, keepdims=True)
    weights = decision.weights(probs, labels)
    by_age = weights.reshape(-1, 3)
    assert by_age.min() > 0 and (by_age[:, 2] > 1.5 * by_age[:, :2].max(1)).all()
    plain = macro_f1_sklearn(labels, probs.argmax(1))
    assert macro_f1_sklearn(labels, (probs * weights).argmax(1)) > plain + 0.05
    assert np.array_equal(weights, decision.weights(probs, labels))
    folds = persons % 5
    nested = nest(probs, labels, folds)
    assert plain + 0.05 < macro_f1_sklearn(labels, nested)
    for fold in range(5):  # the labels of a fold have no say in its own predictions
        changed = np.where(folds == fold, rng.permutation(labels), labels)
        again = nest(probs, changed, folds)
        assert np.array_equal(again[folds == fold], nested[folds == fold])


def test_one_step_of_the_ascent_is_a_plain_loop(rng):
    labels = rng.integers(0, CLASSES, 200)
    probs = random_probs(rng, labels)
    for group in decision.GROUPS[[0, 3, 7]]:
        line = decision.macro_f1_on_grid(np.log(probs), labels, group)
        assert line.shape == decision.GRID.shape and np.ptp(line) > 0.05
        for k in range(0, len(line), 8):
            weights = np.where(group, np.exp(decision.GRID[k]), 1)
            expected = macro_f1_sklearn(labels, (probs * weights).argmax(1))
            assert line[k] == pytest.approx(expected)
