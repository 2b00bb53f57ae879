"""The samples of an epoch. Each photo is one flat colour that names it, so that the pixels of a
batch tell by themselves which photos they came from."""

from collections import Counter

import numpy as np
import pytest
import torch

from dataset import Data, Epoch
from labels import HEADS, decode
from photos.store import Pixels
from training.task import seed_of

SIZE = (10, 8)
PLAIN = (torch.zeros(3), torch.ones(3))
OPTIONS = {
    "weighted_sampler": 0.0,
    "augmentation": "none",
    "mixup": 0.0,
    "cutmix": 0.0,
    "cutmix_half": False,
    "resize": list(SIZE),
    "heads": ("label",),
    "years": False,
}


def flat(values):
    """uint8 (N, 3, H, W): photo i has the colour values[i] everywhere."""
    values = np.asarray(values, np.uint8)[:, None, None, None]
    return np.broadcast_to(values, (len(values), 3, *SIZE)).copy()


def data(n=60, views=1, train=None, codes=None, layers=None):
    """Data of n photos; photo i has the colour i in the first view and 100 + i in the second."""
    layers = layers or [{"pixels": flat(100 * view + np.arange(n))} for view in range(views)]
    layers = [{name: torch.from_numpy(one) for name, one in view.items()} for view in layers]
    codes = np.random.default_rng(0).integers(0, 18, n) if codes is None else codes
    targets = {"label": codes} | decode(codes)
    train = np.arange(0, n, 2) if train is None else train
    valid = np.setdiff1d(np.arange(n), train)
    return Data(Pixels(layers, {}, "cpu"), [str(i) for i in range(n)], train, valid, targets, None)


def epoch(made, heads=("label",), seed=0, **options):
    return Epoch(made, OPTIONS | {"heads": heads} | options, seed, PLAIN)


def colours(images):
    """int (n, H, W) colour of each pixel, of images in 0..1."""
    return (images[:, 0] * 255).round().long()


ALL = slice(None)


def test_seeds_differ_by_each_part():
    seeds = [seed_of(42, 0, "age", 1), seed_of(42, 0, "age", 2), seed_of(42, 1, "age", 1)]
    seeds += [seed_of(42, 0, "mask", 1), seed_of(43, 0, "age", 1), seed_of(4, 20, "age", 1)]
    assert len(set(seeds)) == 6 and all(0 <= seed < 2**63 for seed in seeds)
    assert seeds[0] == seed_of(42, 0, "age", 1)


def test_every_training_photo_once_with_its_own_label():
    made = data()
    samples = epoch(made)
    images, own, targets = samples.batch(ALL)
    assert samples.count == len(images) == 30 and images.dtype == torch.float32
    found = colours(images)
    assert (found == found[:, :1, :1]).all()
    assert sorted(found[:, 0, 0].tolist()) == made.train.tolist()
    assert found[:, 0, 0].tolist() != made.train.tolist()
    assert own["label"].tolist() == made.targets["label"][found[:, 0, 0]].tolist()
    assert targets.keys() == own.keys() and torch.equal(targets["label"], own["label"])
    assert own["label"].dtype == torch.int64


def test_both_views_of_a_photo_have_its_label():
    made = data(views=2)
    samples = epoch(made, heads=("mask", "gender", "age"))
    images, own, _ = samples.batch(ALL)
    found = colours(images)[:, 0, 0]
    assert samples.count == 60
    assert Counter(found.tolist()) == Counter([*made.train.tolist(), *(100 + made.train).tolist()])
    for head in ("mask", "gender", "age"):
        assert own[head].tolist() == made.targets[head][found % 100].tolist()


def test_images_are_normalised():
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    samples = Epoch(data(), OPTIONS, 0, (mean, std))
    images = samples.batch(slice(0, 4))[0]
    colour = samples.photos[:4].float()[:, None] / 255
    expected = ((colour - mean) / std)[:, :, None, None].expand(images.shape)
    torch.testing.assert_close(images, expected)


VARIANTS = [
    {"augmentation": "strong"},
    {"augmentation": "light", "weighted_sampler": 1.0},
    {"augmentation": "light", "mixup": 0.4},
    {"augmentation": "strong", "cutmix": 1.0},
    {"cutmix_half": True},
]


def noise(n, views):
    rng = np.random.default_rng(1)
    return [{"pixels": rng.integers(0, 256, (n, 3, *SIZE), np.uint8)} for _ in range(views)]


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("views", [1, 2])
def test_slices_make_the_whole_and_a_seed_makes_the_epoch(options, views):
    made = data(views=views, layers=noise(60, views))
    whole = epoch(made, seed=5, **options).batch(ALL)
    again = epoch(made, seed=5, **options)
    parts = [again.batch(slice(i, i + 7)) for i in range(0, again.count, 7)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), whole[0])
    for place in (1, 2):
        joined = torch.cat([part[place]["label"] for part in parts])
        assert torch.equal(joined, whole[place]["label"])
    rank = torch.arange(1, again.count, 2)  # as one of two processes takes its rows
    torch.testing.assert_close(again.batch(rank)[0], whole[0][rank])
    other = epoch(made, seed=6, **options).batch(ALL)
    assert not torch.equal(other[1]["label"], whole[1]["label"])
    assert not torch.equal(other[0], whole[0])


@pytest.mark.parametrize(
    ("heads", "head"),
    [(("age",), "age"), (("mask",), "mask"), (("mask", "gender", "age"), "label")],
)
def test_the_weighted_sampler_draws_each_class_alike(heads, head):
    n = 6000
    rng = np.random.default_rng(0)
    codes = rng.choice(18, n, p=rng.dirichlet(np.full(18, 0.7)))
    codes[:18] = np.arange(18)
    codes[1::2] = 0  # those who validate do not count
    made = data(n, codes=codes, layers=noise(2, 2))  # the draw does not look at the pixels
    samples = epoch(made, heads=heads, weighted_sampler=1.0)
    assert samples.count == n and set(samples.photos.tolist()) <= set(made.train.tolist())
    drawn = made.targets[head][samples.photos]
    present = np.unique(made.targets[head][made.train])
    p = 1 / len(present)
    shares = np.bincount(drawn, minlength=HEADS[head])[present] / n
    assert np.abs(shares - p).max() < 5 * np.sqrt(p * (1 - p) / n)
    before = np.bincount(made.targets[head][made.train], minlength=HEADS[head])[present]
    assert before.max() > 1.5 * before.min()
    views = np.bincount(samples.views, minlength=2) / n
    assert abs(views[0] - 0.5) < 5 * np.sqrt(0.25 / n)


def test_half_the_power_draws_by_the_root_of_the_frequency():
    n = 8000
    codes = np.where(np.arange(n) % 10 == 0, 1, 0)  # age group 1 has a tenth
    made = data(n, train=np.arange(n), codes=codes, layers=noise(2, 1))
    samples = epoch(made, heads=("age",), weighted_sampler=0.5)
    share = (made.targets["age"][samples.photos] == 1).mean()
    expected = np.sqrt(0.1) / (np.sqrt(0.1) + np.sqrt(0.9))
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)


def mixed(kind, value, views=1):
    """(data, samples, images, own, targets) of an epoch with mixing."""
    made = data(views=views)
    samples = epoch(made, heads=("label", "age"), seed=3, **{kind: value})
    return made, samples, *samples.batch(ALL)


def test_mixup_blends_images_and_labels_alike():
    made, samples, images, own, targets = mixed("mixup", 0.6)
    share = samples.mix[:, -1]
    partner = samples.photos[samples.partners]
    assert (partner != samples.photos).all() and share.min() < 0.4 < 0.6 < share.max()
    for i in range(samples.count):
        lam, mine, other = share[i].item(), samples.photos[i].item(), partner[i].item()
        blend = (lam * mine + (1 - lam) * other) / 255
        torch.testing.assert_close(images[i], torch.full_like(images[i], blend))
        for head in ("label", "age"):
            expected = np.zeros(HEADS[head])
            expected[made.targets[head][mine]] += lam
            expected[made.targets[head][other]] += 1 - lam
            np.testing.assert_allclose(targets[head][i], expected, atol=1e-6)
            assert own[head][i] == made.targets[head][mine]


@pytest.mark.parametrize(("kind", "value"), [("cutmix", 1.0), ("cutmix_half", True)])
@pytest.mark.parametrize("views", [1, 2])
def test_cut_labels_are_the_shares_of_the_pixels(kind, value, views):
    made, samples, images, own, targets = mixed(kind, value, views)
    pasted = 0
    for i, found in enumerate(colours(images)):
        counted = Counter(found.flatten().tolist())
        assert len(counted) <= 2
        pasted += len(counted) == 2
        for head in ("label", "age"):
            expected = np.zeros(HEADS[head])
            for colour, count in counted.items():
                expected[made.targets[head][colour % 100]] += count / found.numel()
            np.testing.assert_allclose(targets[head][i], expected, atol=1e-6)
            assert targets[head][i].sum().item() == pytest.approx(1)
            assert own[head][i] == made.targets[head][samples.photos[i]]
    assert pasted > samples.count / 2


def test_random_backgrounds_come_from_training_photos():
    n = 60
    layer = {"pixels": flat(np.full(n, 250)), "photo": flat(np.full(n, 200))}
    layer |= {"background": flat(np.arange(n)), "matte": np.zeros((n, 1, *SIZE), np.uint8)}
    layer["matte"][:, :, :5] = 255  # the person fills the upper half
    made = data(n, layers=[layer, {"pixels": flat(100 + np.arange(n))}])
    samples = epoch(made)
    removed = samples.views == 0
    found = colours(samples.batch(ALL)[0])
    assert (found[removed][:, :5] == 200).all()
    backgrounds = found[removed][:, 5:]
    assert (backgrounds == backgrounds[:, :1, :1]).all()
    assert set(backgrounds.flatten().tolist()) <= set(made.train.tolist())
    assert len(backgrounds[:, 0, 0].unique()) > 10
    assert (found[~removed] == 100 + samples.photos[~removed][:, None, None]).all()


def test_years_are_mixed_with_the_share_of_the_photos():
    made = data()
    made.targets["years"] = np.where(np.arange(60) % 5 == 0, np.nan, np.arange(60)).astype("f4")
    samples = epoch(made, heads=("age",), seed=3, years=True, mixup=0.5)
    _, own, targets = samples.batch(ALL)
    one, two = samples.photos, samples.photos[samples.partners]
    share, years = samples.mix[:, 4].numpy(), made.targets["years"]
    expected = share * years[one] + (1 - share) * years[two]
    np.testing.assert_allclose(targets["years"], expected, rtol=1e-4)
    assert 0 < np.isnan(expected).sum() < samples.count and set(own) == {"age"}


def test_augmentation_acts_on_the_same_photos():
    made = data(layers=noise(60, 1))
    plain, light, strong = (epoch(made, augmentation=a) for a in ("none", "light", "strong"))
    assert torch.equal(plain.photos, light.photos) and torch.equal(plain.photos, strong.photos)
    images = [samples.batch(ALL)[0] for samples in (plain, light, strong)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (images[a] - images[b]).abs().amax((1, 2, 3)).min() > 0.05
