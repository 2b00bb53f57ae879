"""Age as a distribution over years, logits adjusted for rare classes: against SciPy and loops."""

import json

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, softmax
from torch.nn import functional as F

import inference
import labels
import loss
import model
import train
from common.errors import UserError

YEARS = np.array(labels.YEARS)


def outputs(kind, heads=("age",), n=6, extra=()):
    """(float64 outputs of the last layer, the answer) of a model with random weights."""
    made = model.create("test_resnet", heads, (32, 24), extra=(*extra, kind)).eval()
    torch.nn.init.normal_(made.head.weight, std=3)
    photos = torch.randn(n, 3, 32, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        raw = made.head(made.backbone(photos)).double().numpy()
        return raw, made(photos)


def by_hand(kind, raw):
    """(n, years) probabilities of the outputs of an age head, a photo and a year at a time."""
    if kind == "dldl":
        return softmax(raw, 1)
    result = np.empty((len(raw), len(YEARS)))
    for row, steps in zip(result, expit(raw), strict=True):
        left = 1.0
        for k, older in enumerate(steps):
            row[k], left = left * (1 - older), left * older
        row[-1] = left
    return result


@pytest.mark.parametrize("kind", ["dldl", "corn"])
def test_the_groups_are_sums_of_the_years(kind):
    raw, answer = outputs(kind)
    bins = by_hand(kind, raw)
    np.testing.assert_allclose(answer["bins"].exp(), bins, atol=1e-6)
    groups = [bins[:, YEARS < 30], bins[:, (YEARS >= 30) & (YEARS < 60)], bins[:, YEARS >= 60]]
    sums = np.stack([group.sum(1) for group in groups], 1)
    np.testing.assert_allclose(model.probabilities(answer)["age"], sums, atol=1e-6)


def test_other_heads_and_outputs_stay_where_they_are():
    raw, answer = outputs("corn", ("mask", "gender", "age"), extra=("years",))
    np.testing.assert_allclose(answer["mask"], raw[:, :3], rtol=1e-5)
    np.testing.assert_allclose(answer["gender"], raw[:, 3:5], rtol=1e-5)
    np.testing.assert_allclose(answer["years"], raw[:, -1], rtol=1e-5)
    np.testing.assert_allclose(answer["bins"].exp(), by_hand("corn", raw[:, 5:-1]), atol=1e-6)


@pytest.mark.parametrize("kind", ["dldl", "corn"])
def test_an_untrained_head_knows_nothing(kind):
    made = model.create("test_resnet", ("age",), (32, 24), extra=(kind,)).eval()
    torch.nn.init.zeros_(made.head.weight)
    bins = made(torch.zeros(1, 3, 32, 24))["bins"].exp()
    torch.testing.assert_close(bins, torch.full((1, len(YEARS)), 1 / len(YEARS)))


def test_dldl_is_the_divergence_from_a_normal_distribution_and_the_distance_of_the_mean():
    raw, answer = outputs("dldl")
    years = torch.tensor([25.0, 60, 41.5, np.nan, 3, 99])
    expected = 0.0
    for p, age in zip(by_hand("dldl", raw), years.numpy(), strict=True):
        if np.isfinite(age):
            age = np.clip(age, YEARS[0], YEARS[-1])
            wanted = stats.norm(age, loss.SPREAD).pdf(YEARS)
            expected += stats.entropy(wanted, p) + abs(p @ YEARS - age) / loss.SCALE
    value = loss.bins_error(answer["bins"], loss.bins_of(years, "dldl"), years, 12, "dldl")
    assert value.item() == pytest.approx(expected / 12, rel=1e-5)


def test_corn_is_the_sum_of_its_conditional_losses():
    raw, answer = outputs("corn")
    years = torch.tensor([25.0, 60, 41.4, np.nan, 3, 99])
    expected, older = 0.0, expit(raw)
    for k, year in enumerate(YEARS[:-1]):  # of the people who are not younger: who is older?
        for p, age in zip(older[:, k], years.numpy(), strict=True):
            age = np.round(np.clip(age, YEARS[0], YEARS[-1]))
            if age >= year:
                expected -= np.log(p if age > year else 1 - p)
    value = loss.bins_error(answer["bins"], loss.bins_of(years, "corn"), years, 12, "corn")
    assert value.item() == pytest.approx(expected / 12, rel=1e-5)


def test_adjusted_logits_predict_as_if_the_classes_were_equally_frequent():
    """Photos of three kinds, two classes and one without a photo: the best logits are known."""
    photos = torch.tensor([[10, 2], [5, 1], [1, 1]])  # of kind x class
    kinds = torch.arange(3).repeat_interleave(photos.sum(1))
    classes = torch.cat([torch.arange(2).repeat_interleave(row) for row in photos])
    adjustment = loss.adjustment(torch.bincount(classes, minlength=3), 1.0)
    criterion = loss.criterion("cross_entropy", 3, adjustment=adjustment)
    logits = torch.zeros(3, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-9)

    def step():
        optimizer.zero_grad()
        value = criterion(logits[kinds], classes)
        value.backward()
        return value

    optimizer.step(step)
    likelihood = photos / photos.sum(0)  # of a kind, in a class
    found = logits.detach()[:, :2].softmax(1)
    wanted = likelihood / likelihood.sum(1, keepdim=True)
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)


def test_adjustment_is_the_log_of_the_frequency():
    assert torch.equal(loss.adjustment([5, 3, 0], 0.0), torch.zeros(3))
    expected = 0.5 * np.log([5 / 9, 3 / 9, 1 / 9])
    np.testing.assert_allclose(loss.adjustment([5, 3, 0], 0.5), expected, rtol=1e-6)
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    given = loss.criterion("cross_entropy", 3, adjustment=torch.tensor(expected))(logits, targets)
    wanted = F.cross_entropy(logits + torch.tensor(expected).float(), targets)
    torch.testing.assert_close(given.float(), wanted)


@pytest.mark.parametrize(
    "flags",
    [
        "--shared_backbone --age_head dldl --logit_adjustment 0 age=1 --mixup",
        "--split_heads --age_head softmax age=corn --age_given mask --age_mse",
    ],
)
def test_a_run_trains_years_and_inference_predicts_alike(flags, drawn, tmp_path):
    words = f"--data_dir {drawn / 'train'} --model_dir {tmp_path} --cache_dir {tmp_path / 'cache'} "
    words += "--model test_efficientnet --weights none --resize 32 24 --epochs 1 " + flags
    folder = train.main(words.split())
    infos = [json.loads(path.read_text()) for path in folder.glob("fold0/*/best.json")]
    found = [{"dldl", "corn"} & {*info["extra"]} for info in infos if "age" in info["heads"]]
    assert len(found) == 1 and found[0]
    words = f"--model_dir {folder} --oof {tmp_path / 'again'} --cache_dir {tmp_path / 'cache'}"
    inference.main(words.split())
    first, again = (
        np.loadtxt(path / "oof.csv", delimiter=",", skiprows=1, usecols=range(4, 22))
        for path in (folder, tmp_path / "again")
    )
    np.testing.assert_allclose(first, again, atol=2e-6)


def test_a_run_without_an_age_head_is_refused():
    with pytest.raises(UserError, match="--age_head: this run has no age head; add --split_heads"):
        train.parse_args(["--age_head", "dldl"])
