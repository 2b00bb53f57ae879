"""What changes with the epochs, as functions of the time without state: exact to resume."""

import math


def learning_rate(options, position, scores):
    """The learning rate at `position`, in epochs since the start, as a float.

    Linear warm-up, then cosine to 0, or lr_decay every lr_decay_step epochs (step), or once per
    lr_patience epochs that did not improve on the best of `scores` (plateau).
    """
    lr, epochs = options["lr"], options["epochs"]
    warm = min(options["warmup_epochs"], epochs / 2)
    if position < warm:
        return lr * position / warm
    if options["scheduler"] == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * (position - warm) / (epochs - warm)))
    if options["scheduler"] == "step":
        return lr * options["lr_decay"] ** (position // options["lr_decay_step"])
    if options["scheduler"] == "plateau":
        return lr * options["lr_decay"] ** plateaus(scores, options["lr_patience"])
    return lr


def plateaus(scores, patience):
    """How often `patience` scores in a row did not exceed the best before them."""
    best, waited, count = -math.inf, 0, 0
    for score in scores:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == patience:
            waited, count = 0, count + 1
    return count


def size(options, epoch):
    """(height, width) of the photos in `epoch` (from 0): with --progressive S it grows from S of
    --resize to the whole, reached after two thirds of the epochs.
    """
    start, (height, width) = options["progressive"], options["resize"]
    if start == 1:
        return height, width
    done = min(1.0, epoch / max(2 * options["epochs"] / 3, 1))
    share = start + (1 - start) * done
    return round(height * share), round(width * share)
