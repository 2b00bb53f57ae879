"""How fast the weights learn: the optimizer, the learning rate.

The learning rate is a function of the time without state: exact to resume.
"""

import math
from itertools import accumulate, groupby

from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers

from common.errors import UserError

FUSED = ("adam", "adamw", "sgd")  # whose torch implementation has a fused step


def check_optimizer(name):
    """UserError unless timm's factory has an optimizer of this name, of first order."""
    if name not in list_optimizers() or get_optimizer_info(name).second_order:
        raise UserError(
            f"--optimizer {name}: timm has no such optimizer of first order; try adamw, sgd or lion"
        )


def make_optimizer(model, options):
    """The optimizer of a Classifier, by the options optimizer, lr and weight_decay; biases and
    normalisation have no weight decay. UserError if it cannot be made here.
    """
    name = options["optimizer"]
    check_optimizer(name)
    how = {"fused": True} if name in FUSED else {}
    try:
        return create_optimizer_v2(model, name, options["lr"], options["weight_decay"], **how)
    except (AssertionError, ImportError) as error:  # it needs a GPU, or one more package
        raise UserError(f"--optimizer {name}: {error}") from None


def learning_rate(options, position, scores):
    """The learning rate at `position`, in epochs since the start, as a float.

    A step stands at its middle: the first one warms up above 0, and the last of cosine learns too.
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
    flat = [score <= best for score, best in zip(scores[1:], accumulate(scores, max), strict=False)]
    return sum(len([*run]) // patience for stays, run in groupby(flat) if stays)
