"""Decision rules: weights of the classes that raise the macro F1 over plain argmax."""

import numpy as np

from labels import ATTRIBUTES, CLASSES, HEADS, decode
from metrics import f1_of

SHRINK = 0.5  # share of the fitted log weights; the whole overfits the few people of a rare class
TAU = 0.5  # of prior(); 1 would aim at balanced accuracy, and macro F1 needs precision too
GRID = np.linspace(-2, 2, 81)  # log weights: e^-2 .. e^2
# One row a value of an attribute: the classes that have it.
GROUPS = np.stack(
    [decode(np.arange(CLASSES))[name] == k for name in ATTRIBUTES for k in range(HEADS[name])]
)


def weights(probs, labels, rounds=20):
    """(18,) positive weights that raise the macro F1 of argmax(probs * weights) on these images.

    probs (N, 18), labels (N,). A weight is the product of those of its mask, gender and age: with
    18 free weights the rare classes overfit a few images. (Simulated, 421 people: argmax .502;
    on unseen people .537 with 18 weights, .546 with 8.) Coordinate ascent on the log weights of
    GRID, all of them tried at once; half of the result is returned (SHRINK).
    """
    labels, logs = np.asarray(labels), np.log(np.maximum(np.asarray(probs, float), 1e-12))
    bias = np.zeros(len(GROUPS))
    for _ in range(rounds):
        before = bias.copy()
        for k, group in enumerate(GROUPS):
            now, bias[k] = bias[k], 0
            value = macro_f1_on_grid(logs + bias @ GROUPS, labels, group)
            best, here = value.argmax(), np.abs(GRID - now).argmin()
            bias[k] = GRID[best] if value[best] > value[here] + 1e-9 else now
        if (bias == before).all():
            break
    return np.exp(SHRINK * bias @ GROUPS)


def prior(labels):
    """(18,) weights (class frequency)^-TAU: logits adjusted after training (Menon et al. 2021,
    arXiv:2007.07314). labels (N,); a class without an image counts as having one.
    """
    return np.maximum(np.bincount(labels, minlength=CLASSES), 1.0) ** -TAU


def macro_f1_on_grid(scores, labels, group):
    """(len(GRID),) macro F1 of argmax as the log weight of the classes in `group` (18,) varies."""
    inside, outside = np.where(group, scores, -np.inf), np.where(group, -np.inf, scores)
    winner, rival = inside.argmax(1), outside.argmax(1)
    turn = np.searchsorted(GRID, outside.max(1) - inside.max(1))  # from this grid point: winner

    def up_to(classes):
        """(len(GRID) + 1, 18, 18) confusion of the images that have turned at each grid point."""
        cells = (turn * CLASSES + labels) * CLASSES + classes
        counts = np.bincount(cells, minlength=(len(GRID) + 1) * CLASSES**2)
        return counts.reshape(-1, CLASSES, CLASSES).cumsum(0)

    before = up_to(rival)
    tables = (up_to(winner) + before[-1] - before)[:-1]
    return f1_of(tables.diagonal(0, 1, 2), tables.sum(1), tables.sum(2)).mean(1)


def learnt(rule, probs, labels):
    """(18,) weights of the rule "f1" or "prior"."""
    return prior(labels) if rule == "prior" else weights(probs, labels)


def nested_weights(probs, labels, folds, rule="f1"):
    """(N, 18) decision weights of each image; those of a fold are picked on the other folds only,
    so that the gain over argmax is one that unseen people would have. folds: (N,) ints.
    """
    result = np.empty(probs.shape)
    for fold in np.unique(folds):
        held = folds == fold
        result[held] = learnt(rule, probs[~held], labels[~held])
    return result
