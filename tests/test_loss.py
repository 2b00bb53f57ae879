"""Losses against torch, timm, torchvision and scikit-learn, and two processes against one.

The references are imported in the tests, since the second process imports this file too.
"""

import os
from datetime import timedelta

import pytest
import torch
from helpers import macro_f1_sklearn
from launch import free_port, warm
from torch import distributed as dist
from torch.nn import functional as F

import loss
from common.errors import UserError

CLASSES = 18
NAMES = ["cross_entropy", "focal", "f1", "f1*0.4+focal*0.6"]


def batch(n=40, classes=CLASSES, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=random)
    hard = torch.randint(0, classes, (n,), generator=random)
    soft = torch.softmax(2 * torch.randn(n, classes, generator=random), dim=1)
    return logits, hard, soft


def weights(classes=CLASSES):
    return loss.class_weights(torch.arange(1, classes + 1) ** 2, 0.5)


def test_parse():
    assert loss.parse("cross_entropy") == [("cross_entropy", 1.0)]
    assert loss.parse("f1*0.4+focal*0.6") == [("f1", 0.4), ("focal", 0.6)]
    assert loss.parse("f1 + focal * 2") == [("f1", 1.0), ("focal", 2.0)]


@pytest.mark.parametrize(
    "name", ["", "f2", "f1+", "f1*", "f1*x", "f1*0", "f1*-1", "f1*nan", "f1*inf", "focal*1*2"]
)
def test_a_wrong_name_or_weight_says_what_would_do(name):
    what = r"'.*' is not (one of cross_entropy, focal, f1|a number above 0); give one, or a sum"
    with pytest.raises(UserError, match=what):
        loss.criterion(name, CLASSES)


def test_cross_entropy_is_torch_and_timm():
    from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

    logits, hard, soft = batch()
    plain = loss.criterion("cross_entropy", CLASSES)
    smooth = loss.criterion("cross_entropy", CLASSES, label_smoothing=0.1)
    torch.testing.assert_close(plain(logits, hard), F.cross_entropy(logits, hard))
    torch.testing.assert_close(plain(logits, soft), SoftTargetCrossEntropy()(logits, soft))
    torch.testing.assert_close(smooth(logits, hard), LabelSmoothingCrossEntropy(0.1)(logits, hard))
    torch.testing.assert_close(
        smooth(logits, soft), SoftTargetCrossEntropy()(logits, 0.9 * soft + 0.1 / CLASSES)
    )


def test_weighted_cross_entropy_is_torchs_times_the_mean_weight():
    logits, hard, _ = batch()
    weighted = loss.criterion("cross_entropy", CLASSES, class_weights=weights())(logits, hard)
    torchs = F.cross_entropy(logits, hard, weights())
    torch.testing.assert_close(weighted, torchs * weights()[hard].mean())


def test_focal_is_torchvisions_for_two_classes():
    """Two logits (0, z) are one sigmoid of z; its alpha = -1 leaves out the class balance."""
    from torchvision.ops import sigmoid_focal_loss

    logits, hard, _ = batch(classes=2)
    logits[:, 0] = 0
    ours = loss.criterion("focal", 2)(logits, hard)
    theirs = sigmoid_focal_loss(logits[:, 1], hard.float(), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(ours, theirs)


def test_focal_is_the_papers_formula_and_gamma_0_cross_entropy():
    logits, hard, soft = batch()
    p = logits.softmax(1)[torch.arange(len(hard)), hard]
    ours = loss.criterion("focal", CLASSES)(logits, hard)
    torch.testing.assert_close(ours, ((1 - p) ** 2 * -p.log()).mean())
    for targets in (hard, soft):
        gamma_0 = loss.focal(logits, targets, 0.1, weights(), gamma=0)
        torch.testing.assert_close(gamma_0, loss.cross_entropy(logits, targets, 0.1, weights()))


@pytest.mark.parametrize("seed", range(3))
def test_f1_is_scikit_learns_for_sure_predictions(seed):
    logits, hard, _ = batch(seed=seed)
    logits[::2] += 9 * F.one_hot(hard[::2], CLASSES)  # half of them right, else F1 is near 0
    predicted = logits.argmax(1)
    present = hard.unique().tolist()
    assert len(present) < CLASSES  # absent classes are left out
    reference = macro_f1_sklearn(hard, predicted, present)
    assert 0.3 < reference < 0.9
    ours = loss.criterion("f1", CLASSES)(1e4 * logits, hard)
    assert ours.item() == pytest.approx(1 - reference, abs=1e-6)


def test_f1_of_soft_targets_is_best_at_the_targets():
    _, _, soft = batch()
    f1 = loss.criterion("f1", CLASSES)
    best = soft.log().requires_grad_()
    assert f1(best, soft).item() == pytest.approx(0, abs=1e-6)
    assert f1(2 * best, soft) > 0.01
    assert f1(0.5 * best, soft) > 0.01


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_one_hot_target_costs_what_its_label_costs(name, smoothing, weighted):
    logits, hard, _ = batch()
    options = {"label_smoothing": smoothing, "class_weights": weights() if weighted else None}
    function = loss.criterion(name, CLASSES, **options)
    one_hot = F.one_hot(hard, CLASSES).float()
    torch.testing.assert_close(function(logits, one_hot), function(logits, hard))


def test_sum_and_total():
    logits, hard, _ = batch()
    _, focal, f1, both = (loss.criterion(name, CLASSES)(logits, hard) for name in NAMES)
    torch.testing.assert_close(both, 0.4 * f1 + 0.6 * focal)
    for name in NAMES:
        function = loss.criterion(name, CLASSES)
        torch.testing.assert_close(function(logits, hard, total=80), function(logits, hard) / 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_logits_have_finite_gradients(name, dtype, sign):
    _, hard, soft = batch()
    logits = (sign * 1e4 * F.one_hot(hard, CLASSES)).to(dtype).requires_grad_()
    for targets in (hard, soft):
        value = loss.criterion(name, CLASSES)(logits, targets)
        assert value.dtype == torch.float32
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()


def test_bfloat16_logits_are_taken_as_float32():
    logits, hard, _ = batch()
    logits = logits.bfloat16()
    for name in NAMES:
        function = loss.criterion(name, CLASSES)
        assert torch.equal(function(logits, hard), function(logits.float(), hard))


@pytest.mark.parametrize("name", NAMES)
def test_descent_learns(name):
    _, hard, _ = batch()
    logits = torch.zeros(len(hard), CLASSES, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss.criterion(name, CLASSES)(logits, hard).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1), hard)


def test_class_weights():
    counts = torch.tensor([2745, 415, 0, 83])
    share = counts / counts.sum()
    for power in (0.0, 0.5, 1.0):
        found = loss.class_weights(counts, power)
        assert found[2] == 0
        assert (share * found).sum().item() == pytest.approx(1)
        ratio = (2745 / 83) ** power
        assert (found[3] / found[0]).item() == pytest.approx(ratio)
    assert loss.class_weights(counts, 0.0).tolist() == pytest.approx([1, 1, 0, 1])


CASES = [(name, kind) for name in NAMES for kind in ("hard", "soft")]


def gradient(name, kind, rows, total):
    """Loss and gradient of a linear model on some rows of the batch."""
    options = {} if name == "f1" else {"class_weights": weights(), "label_smoothing": 0.1}
    logits, hard, soft = batch()
    targets = hard if kind == "hard" else soft
    model = torch.eye(CLASSES, requires_grad=True)
    value = loss.criterion(name, CLASSES, **options)(logits[rows] @ model, targets[rows], total)
    value.backward()
    return value.detach(), model.grad


def slice_gradients(rank, port):
    """One of two processes with uneven slices: per case, loss and gradient summed over both.

    DDP's average of gradients of the loss times 2 is the same sum.
    """
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", address, timeout=timedelta(seconds=60), rank=rank, world_size=2)
    os.environ["WORLD_SIZE"] = "2"
    try:
        found = [gradient(*case, slice(25) if rank == 0 else slice(25, 40), 40) for case in CASES]
        for pair in found:
            for value in pair:
                dist.all_reduce(value)
    finally:
        del os.environ["WORLD_SIZE"]
        dist.destroy_process_group()
    return found


def test_two_processes_have_the_loss_and_gradient_of_one():
    port = free_port()
    other = warm().Process(target=slice_gradients, args=(1, port))
    other.start()
    found = slice_gradients(0, port)
    other.join(60)
    assert other.exitcode == 0
    for case, (value, slope) in zip(CASES, found, strict=True):
        whole, reference = gradient(*case, slice(40), None)
        assert reference.abs().max() > 1e-3
        torch.testing.assert_close(value, whole)
        torch.testing.assert_close(slope, reference, rtol=1e-4, atol=1e-6)


def test_the_error_in_years_is_the_mean_square_over_known_ages():
    predicted = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    years = torch.tensor([46.0, float("nan"), 40.0])
    value = loss.years_error(predicted, years, 3)
    value.backward()
    assert value.item() == pytest.approx((0.0**2 + 2.0**2) / 3)  # 46 years are (46 - 40) / 12
    assert predicted.grad.tolist() == pytest.approx([0, 0, 2 * 2.0 / 3])
