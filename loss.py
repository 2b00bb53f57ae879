"""Training criteria by name, for hard and soft targets, exact over any number of processes.

To add a loss, write a function like focal() and name it in PER_SAMPLE, and in CRITERIA
of options.py.
"""

import torch
from torch.nn import functional as F

from common.devices import sum_over_ranks
from common.flags import weighted_sum
from common.processes import world_size

CENTRE, SCALE = 40.0, 12.0  # in years, of the age that a model predicts
GAMMA = 2.0  # of the focal loss, the paper's choice


def _probabilities(targets, classes):
    return F.one_hot(targets, classes).float() if targets.dim() == 1 else targets.float()


def cross_entropy(logits, targets, smoothing, weights):
    """(n,) of logits (n, classes), targets (n,) classes or (n, classes) probabilities."""
    targets = targets.float() if targets.dim() == 2 else targets
    return F.cross_entropy(logits, targets, weights, reduction="none", label_smoothing=smoothing)


def focal(logits, targets, smoothing, weights, gamma=GAMMA):
    """(n,) sum over classes of target * (1 - p)^gamma * -log p, arguments as in cross_entropy().

    Lin et al. 2017 (arXiv:1708.02002), softmax instead of sigmoid.
    """
    classes = logits.shape[1]
    targets = _probabilities(targets, classes) * (1 - smoothing) + smoothing / classes
    log_p = F.log_softmax(logits, dim=1)
    each = -targets * (-torch.expm1(log_p)) ** gamma * log_p
    return (each if weights is None else each * weights).sum(1)


def soft_f1(logits, targets, total):
    """1 - soft macro F1 of the whole batch, as this process's part of it (see criterion()).

    With p the probabilities and q the targets, summed over the batch, a class has
    F1 = 2 sum(min(p, q)) / sum(p + q). For hard labels min(p, q) is the usual p * q; for soft
    ones it keeps the best value, at p = q, at 1 (Wang et al. 2023, arXiv:2303.16296). The mean
    is over the classes in the batch's targets: an absent one has F1 0 whatever the model does.
    """
    p = logits.softmax(1)
    sums = torch.stack([torch.minimum(p, targets).sum(0), p.sum(0), targets.sum(0)])
    # The value is that of all processes, the gradient that of this one's samples.
    everyone = sum_over_ranks(sums.detach().clone())
    sums = sums + (everyone - sums.detach())
    both, predicted, true = sums
    present = true.detach() > 0
    f1 = 2 * both / (predicted + true).clamp_min(1e-12)
    loss = 1 - (f1 * present).sum() / present.sum().clamp_min(1)
    loss = loss * true.detach().sum() / total  # 1, or the share of this step's accumulated batches
    return loss - loss.detach() * (1 - 1 / world_size())


PER_SAMPLE = {"cross_entropy": cross_entropy, "focal": focal}
TERMS = (*PER_SAMPLE, "f1")
parse = weighted_sum(TERMS)  # "f1*0.4+focal*0.6" -> [("f1", 0.4), ("focal", 0.6)]


def criterion(name, classes, label_smoothing=0.0, class_weights=None):
    """A function loss(logits, targets, total=None) -> scalar tensor.

    name: one of TERMS or a weighted sum of them, as in "f1*0.4+focal*0.6"; label_smoothing: 0..1;
    class_weights: (classes,) where the logits are, see class_weights(). These two act on
    cross_entropy and focal alone.

    logits: (n, classes), any float type, taken as float32. targets: (n,) int64, or (n, classes)
    probabilities whose rows sum to 1. A one-hot row costs the same as its hard label, class
    weights included: the batch's loss is the sum over samples divided by total, the number of
    samples of the whole batch (n if None), never by a sum of weights.

    When a batch is spread over processes, the sum over them of what they return, and of its
    gradients, is the loss and the gradient of one process with the whole batch. DDP averages
    gradients, so multiply by the number of processes before backward(). "f1" communicates:
    every process of the group must call it.
    """
    terms = parse(name)

    def loss(logits, targets, total=None):
        logits = logits.float()
        total = len(logits) if total is None else total
        value = 0.0
        for term, factor in terms:
            if term == "f1":
                value += factor * soft_f1(logits, _probabilities(targets, classes), total)
            else:
                each = PER_SAMPLE[term](logits, targets, label_smoothing, class_weights)
                value += factor * each.sum() / total
        return value

    return loss


def class_weights(counts, power):
    """(class frequency)^-power, scaled so that the mean weight of a training image is 1.

    counts: (C,) images of each class; power: 0 gives ones. Returns (C,) float32. A class without
    an image weighs 0: it has no frequency, and label smoothing then pushes nothing towards it.
    """
    share = torch.as_tensor(counts, dtype=torch.float64)
    share = share / share.sum()
    weights = torch.where(share > 0, share.clamp_min(1e-300) ** -power, 0)
    return (weights / (share * weights).sum()).float()


def years_error(predicted, years, total):
    """Sum of squared errors of the age over `total` samples; both ages standardised.

    predicted: (n,) as the model gives it; years: (n,) float32, NaN where unknown, which counts 0.
    """
    known = torch.isfinite(years)
    wanted = torch.where(known, (years - CENTRE) / SCALE, predicted.detach().float())
    return (predicted.float() - wanted).square().sum() / total
