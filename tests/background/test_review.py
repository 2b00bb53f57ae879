"""Scores of mattes against their definitions."""

import numpy as np
import pytest

from background import review


def brute_boundary_f(made, truth, reach):
    """By its definition: each boundary pixel looks for one of the other mask within reach."""

    def edge(mask):
        return [
            (y, x)
            for y, x in np.argwhere(mask)
            if not mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].all()
        ]

    def near(some, others):
        return np.mean([min(np.hypot(y - v, x - u) for v, u in others) <= reach for y, x in some])

    a, b = edge(made), edge(truth)
    precision, recall = near(a, b), near(b, a)
    return 2 * precision * recall / (precision + recall)


def test_boundary_f_is_its_definition():
    y, x = np.mgrid[0:120, 0:120]
    truth = np.hypot(y - 70, x - 50) < 40
    made = np.hypot(y - 70, x - 54) < 38
    reach = round(0.0075 * np.hypot(120, 120))
    ours = review.boundary_f(made, truth)
    assert 0.1 < ours < 0.9
    assert ours == pytest.approx(brute_boundary_f(made, truth, reach), abs=1e-6)
    assert review.boundary_f(truth, truth) == 1
    assert review.boundary_f(np.zeros_like(truth), truth) == 0
    assert review.iou(np.zeros_like(truth), np.zeros_like(truth)) == 1
