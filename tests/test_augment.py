"""Augmentation against torchvision's functional ops one photo at a time, mixing against counts."""

import numpy as np
import pytest
import torch
from helpers import columns_of, identity, reference_warp, set_columns
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

import augment

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = (40, 30)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n=6, size=SIZE, low=0, high=256):
    """Smooth random photos: interpolation of noise would hide a shift of part of a pixel."""
    noise = torch.rand(n, 3, 8, 6, generator=generator())
    smooth = torch.nn.functional.interpolate(noise, size, mode="bicubic").clamp(0, 1)
    return (low + (high - 1 - low) * smooth).byte()


def augmented(images, draws, mean=(0, 0, 0), std=(1, 1, 1)):
    """apply() of "strong", by default without a normalisation."""
    return augment.apply(images, draws, mean, std, "strong")


def each(function, images, draws):
    """The photos, each changed by function(photo, its draw)."""
    return torch.stack([function(*pair) for pair in zip(images, draws, strict=True)])


def recoloured(image, draw):
    """A float32 (3, H, W) photo with the brightness, contrast and saturation of its draw."""
    brightness, contrast, saturation = draw[5:8].tolist()
    image = tv.adjust_contrast(tv.adjust_brightness(image, brightness), contrast)
    return tv.adjust_saturation(image, saturation)


def test_no_augmentation_is_normalize_of_torchvision():
    images = photos()
    plain = augment.normalize(images, MEAN, STD)
    torch.testing.assert_close(plain, tv.normalize(images.float() / 255, MEAN, STD))
    draws = augment.draw(6, "none", generator())
    none = augment.apply(images, draws, torch.tensor(MEAN), torch.tensor(STD), strength="none")
    assert torch.equal(none, plain)
    found = augmented(images, identity(6), MEAN, STD)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-4)


def test_flip_is_torchvisions():
    images = photos()
    draws = set_columns(identity(6), flip=[0, 1, 0, 1, 1, 0])
    expected = images.float() / 255
    expected[[1, 3, 4]] = tv.horizontal_flip(expected[[1, 3, 4]])
    torch.testing.assert_close(augmented(images, draws), expected, rtol=0, atol=1e-4)


WARPS = [
    {"angle": [10, -10, 37]},
    {"scale": [0.8, 1.25, 1.1]},
    {"shift_x": [0.1, -0.06, 0.013]},
    {"shift_y": [0.1, -0.06, 0.013]},
    {"flip": [1, 1, 0], "angle": [15, -7, 9], "scale": [0.9, 1.2, 1.1], "shift_x": 0.07},
]


@pytest.mark.parametrize("columns", WARPS)
def test_affine_is_torchvisions(columns):
    images, draws = photos(3), set_columns(identity(3), **columns)
    found = augmented(images, draws)
    expected = each(reference_warp, images, draws)
    assert (expected - images / 255).abs().amax((1, 2, 3)).min() > 0.02
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


FACTORS = [0.6, 0.85, 1.0, 1.15, 1.3, 1.5]


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_is_torchvisions(name):
    images, draws = photos(), set_columns(identity(6), **{name: FACTORS})
    expected = each(recoloured, images.float() / 255, draws)
    assert ((expected == 0) | (expected == 1)).any()  # the clamp at the end is torchvision's
    torch.testing.assert_close(augmented(images, draws), expected, rtol=0, atol=1e-4)


def test_colours_together_are_torchvisions_where_it_does_not_clamp():
    images = photos(low=90, high=150)
    draws = set_columns(
        identity(6), brightness=FACTORS, contrast=FACTORS[::-1], saturation=[*FACTORS[1:], 0.7]
    )
    expected = each(recoloured, images.float() / 255, draws)
    assert 0 < expected.min() < expected.max() < 1
    torch.testing.assert_close(augmented(images, draws), expected, rtol=0, atol=1e-4)


def test_erase_is_torchvisions_with_the_mean_colour():
    images = photos(3)
    draws = set_columns(
        identity(3), erase_y0=0.25, erase_x0=[0, 0.2, 0.5], erase_y1=0.5, erase_x1=[0, 0.5, 1]
    )
    expected = augment.normalize(images, MEAN, STD)
    for i, (left, width) in enumerate([(0, 0), (6, 9), (15, 15)]):
        expected[i] = tv.erase(expected[i], 10, left, 10, width, torch.zeros(3, 1, 1))
    torch.testing.assert_close(augmented(images, draws, MEAN, STD), expected, rtol=0, atol=1e-4)


def test_everything_together_is_torchvisions():
    images = photos(24, low=90, high=150)
    draws = augment.draw(24, "strong", generator(1))
    found = augmented(images, draws, MEAN, STD)
    height, width = SIZE
    erased = 0
    for i, draw in enumerate(draws):
        pixels = recoloured(reference_warp(images[i], draw), draw)
        pixels = tv.normalize(pixels, MEAN, STD)
        y0, x0, y1, x1 = (draw[8:] * torch.tensor([height, width] * 2)).round().int().tolist()
        pixels = tv.erase(pixels, y0, x0, y1 - y0, x1 - x0, torch.zeros(3, 1, 1))
        erased += y1 > y0
        torch.testing.assert_close(found[i], pixels, rtol=0, atol=1e-3)
    assert 0 < erased < 24


def test_draws_have_the_stated_distribution():
    light, strong = (augment.draw(20_000, name, generator()) for name in ("light", "strong"))
    assert not light[:, 8:].any()  # nothing is erased
    value = columns_of(strong.double())
    for strength, found in (("light", light[:, :8].double()), ("strong", strong[:, :8].double())):
        width = augment.WIDTHS[strength]
        assert set(found[:, 0].tolist()) == {0, 1}
        assert found[:, 0].mean().item() == pytest.approx(width["flip"], abs=0.015)
        ranges = [(0, width["angle"]), (1, width["scale"]), *[(0, width["shift"])] * 2]
        for column, (middle, half) in zip(
            found[:, 1:].T, ranges + [(1, width["colour"])] * 3, strict=True
        ):
            uniform = stats.uniform(middle - half, 2 * half)
            assert stats.kstest(column.numpy(), uniform.cdf).pvalue > 1e-3
        independent = np.corrcoef(found.T.numpy()) - np.eye(8)
        assert np.abs(independent).max() < 0.03
    tall, wide = (value[f"erase_{axis}1"] - value[f"erase_{axis}0"] for axis in "yx")
    erased = tall > 0
    assert erased.double().mean().item() == pytest.approx(augment.STRONG["erase"], abs=0.015)
    assert strong[:, 8:].min() >= 0 and strong[:, 8:].max() <= 1
    assert (strong[~erased, 8:] == 0).all()
    tall, wide = tall[erased], wide[erased]
    share = stats.uniform(augment.ERASE_AREA[0], np.diff(augment.ERASE_AREA)[0])
    assert stats.kstest((tall * wide).numpy(), share.cdf).pvalue > 1e-3
    assert (tall / wide).min() == pytest.approx(augment.ERASE_RATIO[0], rel=0.01)
    assert (tall / wide).max() == pytest.approx(augment.ERASE_RATIO[1], rel=0.01)


@pytest.fixture
def recipe(monkeypatch):
    """Adds the augmentations of the docstring of augment.py, as a user would."""
    lines = [line[4:] for line in augment.__doc__.splitlines() if line.startswith("    ")]
    assert len(lines) == 5
    monkeypatch.setattr(augment, "MORE", [])

    def add(first, last):
        exec("\n".join(lines[first:last]), dict(vars(augment)))

    return {"fade": lambda: add(0, 3), "blur": lambda: add(3, 5)}


def test_an_added_augmentation_acts_on_each_sample_by_its_own_draw(recipe):
    images, before = photos(64), augment.draw(64, "strong", generator(3))
    plain = augmented(images, identity(64))
    recipe["fade"]()
    draws = augment.draw(64, "strong", generator(3))
    amount = draws[:, -1]
    assert torch.equal(draws[:, :-1], before)  # the other draws stay as they were
    assert 0 <= amount.min() < 0.02 and 0.28 < amount.max() <= 0.3
    assert torch.equal(draws, augment.draw(64, "strong", generator(3)))
    assert not torch.equal(amount, augment.draw(64, "strong", generator(4))[:, -1])
    found = augmented(images, with_last(identity(64), amount))
    for photo, faded, share in zip(plain, found, amount, strict=True):
        grey = photo.mean((1, 2), keepdim=True)
        torch.testing.assert_close(faded, photo + share * (grey - photo), rtol=0, atol=1e-5)


def with_last(draws, amount):
    """The draws with the amounts of the one entry of MORE."""
    return torch.cat([draws[:, :-1], amount[:, None]], dim=1)


def test_an_added_transform_of_torchvision_is_a_plain_loop_over_seeded_photos(recipe):
    images = photos(64)
    expected = augmented(images, identity(64))
    recipe["blur"]()
    amount = augment.draw(64, "strong", generator(3))[:, -1]
    assert torch.equal(amount, augment.draw(64, "strong", generator(3))[:, -1])
    chosen = amount < 1
    assert 8 < chosen.sum() < 32 and len(amount[chosen].unique()) == chosen.sum()  # 0.3 of them
    for photo, number in zip(expected, amount.tolist(), strict=True):
        if number < 1:
            torch.manual_seed(int(number * 2**24))
            photo.copy_(v2.GaussianBlur(3)(photo))
    draws = with_last(identity(64), amount)
    state = torch.get_rng_state()
    found = augmented(images, draws)
    assert torch.equal(torch.get_rng_state(), state)  # the model's own randomness is not moved
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    parts = [augmented(*batch) for batch in zip(images.split(5), draws.split(5), strict=True)]
    torch.testing.assert_close(torch.cat(parts), found, rtol=0, atol=1e-6)


def test_an_entry_at_the_end_leaves_the_draws_of_the_others(recipe):
    recipe["fade"]()
    before = augment.draw(64, "light", generator(3))
    recipe["blur"]()
    after = augment.draw(64, "light", generator(3))
    assert after.shape[1] == before.shape[1] + 1 and torch.equal(after[:, :-1], before)


def test_no_augmentation_and_tta_stay_without_an_added_one(recipe):
    images = photos(4)
    before = augment.variant(images, MEAN, STD, True, 1.1)
    recipe["fade"]()
    assert torch.equal(augment.variant(images, MEAN, STD, True, 1.1), before)
    assert augment.draw(4, "none", generator()).shape == (4, 0)


def test_samples_differ_and_the_seed_decides():
    images = photos(1).expand(16, -1, -1, -1)
    for strength in ("light", "strong"):
        draws = augment.draw(16, strength, generator(3))
        found, again = (augment.apply(images, draws, MEAN, STD, strength) for _ in range(2))
        assert torch.pdist(found.flatten(1)).min() > 1 and torch.equal(found, again)
        assert torch.equal(draws, augment.draw(16, strength, generator(3)))
        assert not torch.equal(draws, augment.draw(16, strength, generator(4)))


@pytest.mark.parametrize("kind", augment.TTA)
def test_variants_of_tta_are_torchvisions(kind):
    images = photos(9)
    plain = tv.normalize(images.float() / 255, MEAN, STD)
    for flip, scale in augment.TTA[kind]:
        draws = set_columns(identity(9), flip=flip, scale=scale)
        found = augment.variant(images, MEAN, STD, flip, scale)
        if scale == 1:  # exact, whatever the device
            same = augment.normalize(images, MEAN, STD)
            assert torch.equal(found, same.flip(3) if flip else same)
            continue
        expected = tv.normalize(each(reference_warp, images, draws), MEAN, STD)
        assert (expected - plain).abs().amax((1, 2, 3)).min() > 0.1
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    both = {(flip, scale) for flip, _ in augment.TTA["flip"] for _, scale in augment.TTA["scale"]}
    assert set(augment.TTA["both"]) == both


@pytest.mark.parametrize("strength", augment.STRENGTHS)
def test_nothing_waits_for_the_device(strength):
    """On the meta device there are no values: reading one, or a shape that needs one, raises."""
    images = torch.empty(4, 3, *SIZE, dtype=torch.uint8, device="meta")
    draws = augment.draw(4, strength, generator()).to("meta")
    mean = std = torch.empty(3, device="meta")
    found = augment.apply(images, draws, mean, std, strength)
    assert (found.shape, found.dtype) == ((4, 3, *SIZE), torch.float32)
    for kind in augment.MIXES:
        _, drawn = augment.draw_mix(4, kind, 1.0, SIZE, generator())
        assert augment.mix(found, found, drawn.to("meta"), kind)[0].shape == found.shape


def drawn_mix(kind, n=5000, alpha=0.4, size=SIZE, seed=0):
    return augment.draw_mix(n, kind, alpha, size, generator(seed))


@pytest.mark.parametrize("kind", augment.MIXES)
def test_partners_are_any_other_sample(kind):
    partner, draws = drawn_mix(kind)
    own = torch.arange(5000)
    assert (partner != own).all()
    assert stats.kstest(((partner - own) % 5000).numpy() / 5000, "uniform").pvalue > 1e-3
    assert drawn_mix(kind, n=1)[0].tolist() == [0]
    again = drawn_mix(kind)
    assert torch.equal(partner, again[0]) and torch.equal(draws, again[1])
    assert not torch.equal(draws, drawn_mix(kind, seed=1)[1])


def test_mixup_is_the_plain_formula():
    images = augment.normalize(photos(8), MEAN, STD)
    partner, draws = drawn_mix("mixup", n=8)
    mixed, share = augment.mix(images, images[partner], draws, "mixup")
    for i in range(8):
        expected = share[i] * images[i] + (1 - share[i]) * images[partner[i]]
        torch.testing.assert_close(mixed[i], expected)
    assert share.std() > 0.1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_share_is_beta(alpha):
    share = drawn_mix("mixup", alpha=alpha)[1][:, 4].double().numpy()
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["cutmix", "cutmix_half"])
def test_cut_share_is_the_share_of_own_pixels(kind):
    _, draws = drawn_mix(kind, n=400, alpha=1.0)
    own, other = torch.zeros(400, 3, *SIZE), torch.ones(400, 3, *SIZE)
    mixed, share = augment.mix(own, other, draws, kind)
    assert set(mixed.unique().tolist()) == {0, 1}
    torch.testing.assert_close(share, 1 - mixed.mean((1, 2, 3)))
    for i, (y0, x0, y1, x1) in enumerate(draws[:, :4].int().tolist()):
        assert mixed[i, :, y0:y1, x0:x1].all()
    assert len(share.unique()) >= (3 if kind == "cutmix_half" else 100)


def test_cutmix_box_has_the_paper_distribution():
    """Sides are sqrt(1 - lambda) of the photo's, the centre is uniform, the rest is clipped."""
    size = (400, 300)
    _, draws = drawn_mix("cutmix", alpha=1.0, size=size)
    y0, x0, y1, x1, _ = draws.double().unbind(1)
    random = np.random.default_rng(7)
    side = np.sqrt(1 - random.beta(1.0, 1.0, 20_000))
    for low, high, length in ((y0, y1, size[0]), (x0, x1, size[1])):
        centre = random.random(20_000)
        box = np.clip([centre - side / 2, centre + side / 2], 0, 1) * length
        assert stats.ks_2samp((high - low).numpy(), box[1] - box[0]).pvalue > 1e-3
        assert low.min() == 0 and high.max() == length and (high >= low).all()
    inside = (y0 > 0) & (y1 < size[0]) & (x0 > 0) & (x1 < size[1])
    aspect = ((y1 - y0) / (x1 - x0))[inside & (x1 - x0 > 60)]
    assert len(aspect) > 50
    assert aspect.numpy() == pytest.approx(size[0] / size[1], rel=0.04)


def test_half_cuts_a_vertical_line_on_a_random_side():
    _, draws = drawn_mix("cutmix_half", alpha=None, size=(400, 300))
    y0, x0, y1, x1, share = draws.unbind(1)
    assert (y0 == 0).all() and (y1 == 400).all()
    own_left = x1 == 300
    assert ((x0 == 0) ^ own_left).all()
    assert own_left.float().mean().item() == pytest.approx(0.5, abs=0.03)
    low, high = augment.HALF
    assert low - 0.5 / 300 <= share.min() < low + 0.005
    assert high - 0.005 < share.max() <= high + 0.5 / 300
