"""Training criteria by name, for hard and soft targets, exact over any number of processes.

To add a loss, write a function like focal() and name it in PER_SAMPLE.
"""

import torch
from torch import distributed as dist
from torch.nn import functional as F

from common.flags import weighted_sum
from labels import YEARS

CENTRE, SCALE = 40.0, 12.0  # in years, of the age that a model predicts
SPREAD = 2.0  # years, of the distribution around an age that is learned
BINS_SHARE = 0.3  # weight of bins_error(), so that a shared backbone still learns its other heads
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
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if processes > 1:
        # The value is that of all processes, the gradient that of this one's samples.
        everyone = sums.detach().clone()
        dist.all_reduce(everyone)
        sums = sums + (everyone - sums.detach())
    both, predicted, true = sums
    present = true.detach() > 0
    f1 = 2 * both / (predicted + true).clamp_min(1e-12)
    loss = 1 - (f1 * present).sum() / present.sum().clamp_min(1)
    loss = loss * true.detach().sum() / total  # 1, or the share of this step's accumulated batches
    return loss - loss.detach() * (1 - 1 / processes)


PER_SAMPLE = {"cross_entropy": cross_entropy, "focal": focal}
TERMS = (*PER_SAMPLE, "f1")
parse = weighted_sum(TERMS)  # "f1*0.4+focal*0.6" -> [("f1", 0.4), ("focal", 0.6)]


def criterion(name, classes, label_smoothing=0.0, class_weights=None, adjustment=None):
    """A function loss(logits, targets, total=None) -> scalar tensor.

    name: one of TERMS or a weighted sum of them, as in "f1*0.4+focal*0.6"; label_smoothing: 0..1;
    class_weights: (classes,), see class_weights(). Both act on cross_entropy and focal alone.
    adjustment: (classes,) added to the logits in training, see adjustment().

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
        if adjustment is not None:
            logits = logits + adjustment.to(logits.device)
        total = len(logits) if total is None else total
        weights = None if class_weights is None else class_weights.to(logits.device)
        value = 0.0
        for term, factor in terms:
            if term == "f1":
                value += factor * soft_f1(logits, _probabilities(targets, classes), total)
            else:
                each = PER_SAMPLE[term](logits, targets, label_smoothing, weights)
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


def adjustment(counts, tau):
    """(C,) float32 tau * log(class frequency), of counts (C,); a class without an image has one.

    A model that learns with it predicts as if all classes were equally frequent (tau 1): Menon et
    al. 2021 (arXiv:2007.07314).
    """
    counts = torch.as_tensor(counts, dtype=torch.float64).clamp_min(1)
    return (tau * (counts / counts.sum()).log()).float()


def years_error(predicted, years, total):
    """Sum of squared errors of the age over `total` samples; both ages standardised.

    predicted: (n,) as the model gives it; years: (n,) float32, NaN where unknown, which counts 0.
    """
    known = torch.isfinite(years)
    wanted = torch.where(known, (years - CENTRE) / SCALE, predicted.detach().float())
    return (predicted.float() - wanted).square().sum() / total


def bins_of(years, kind):
    """(n, bins) float32 probabilities over labels.YEARS that are learned of ages (n,) float32: a
    normal distribution around the age ("dldl"), or the age itself ("corn"); 0 where it is NaN.
    """
    bins = torch.arange(YEARS.start, YEARS.stop, device=years.device, dtype=torch.float32)
    years = years.clamp(YEARS.start, YEARS.stop - 1)[:, None]
    if kind == "corn":
        return (bins == years.round()).float()
    return (-((bins - years) ** 2) / (2 * SPREAD**2)).log_softmax(1).exp().nan_to_num(0)


def bins_error(log_p, wanted, years, total, kind):
    """Loss of a distribution over labels.YEARS, its sum over `total` samples.

    log_p: (n, bins) log-probabilities; wanted: (n, bins) of bins_of(), which may be mixed; years:
    (n,) float32, NaN where unknown, which counts 0. "dldl": KL divergence, and the distance in
    SCALE between the mean and the age (DLDL-v2, Gao et al. 2018). "corn": cross-entropy, which is
    the sum of its conditional losses (Shi et al. 2021, arXiv:2111.08851).
    """
    if kind == "corn":
        return -(wanted * log_p).sum() / total
    known = torch.isfinite(years)
    years = years[known].clamp(YEARS.start, YEARS.stop - 1)
    bins = torch.arange(YEARS.start, YEARS.stop, device=log_p.device, dtype=torch.float32)
    apart = (log_p[known].exp() @ bins - years).abs().sum() / SCALE
    return (F.kl_div(log_p, wanted, reduction="sum") + apart) / total
