"""Views of photos in the store against cv2, numpy and Pillow, photo by photo."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from noise_photos import (
    GREY,
    NAMES,
    PHOTO,
    SHAPE,
    load,
    pasted,
    pixels,
    resized,
    write,
    write_matte,
)
from PIL import Image

from dataset import find_images
from photos import crops, reading, store, views


def test_photos_are_rgb_resized_once(made):
    root, photos, _ = made
    found = pixels(root, PHOTO)
    assert found.dtype == np.uint8 and found.shape == (5, 3, 32, 24)
    for photo, mine in zip(photos, found, strict=True):
        assert (mine == resized(photo, (32, 24))).all()
        blocks = photo.reshape(32, 2, 24, 2, 3).mean((1, 3)).transpose(2, 0, 1)
        assert np.abs(mine - blocks).max() <= 0.5


def test_enlarging_is_bilinear(made):
    root, photos, _ = made
    found = pixels(root, replace(PHOTO, size=(100, 80)))
    expected = cv2.resize(photos[0], (80, 100), interpolation=cv2.INTER_LINEAR)
    assert (found[0] == expected.transpose(2, 0, 1)).all()


def test_drawn_photos_look_as_in_pillow(drawn):
    root, names = find_images(drawn / "train")
    view = replace(PHOTO, size=(128, 96))
    loaded = store.load(root, names[:20], [view], root.parents[1] / "cache")
    for i, name in enumerate(names[:20]):
        with Image.open(root / name) as image:
            expected = np.asarray(image.convert("RGB"), np.int16).transpose(2, 0, 1)
        found = loaded.batch(torch.tensor([i]), 0)[0].numpy()
        assert np.abs(found - expected).mean() < 2
        assert np.abs(found[::-1] - expected).mean() > 2  # not BGR


@pytest.mark.parametrize(
    ("crop", "share", "decoded"),
    [("none", (1, 1), (64, 48)), ("center", (5 / 8, 2 / 3), (128, 96))],
)
def test_a_large_photo_looks_as_if_it_was_decoded_whole(
    tmp_path, monkeypatch, crop, share, decoded
):
    blocks = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)
    Image.fromarray(blocks).resize((384, 512)).save(tmp_path / "p.jpg")
    sizes, read = [], reading.read_photo

    def noting(*words):
        sizes.append((photo := read(*words)).shape[:2])
        return photo

    monkeypatch.setattr(reading, "read_photo", noting)
    view = replace(PHOTO, crop=crop, size=(32, 24))
    loaded = store.load(tmp_path, ["p.jpg"], [view], tmp_path / "cache")
    found = loaded.batch(torch.tensor([0]), 0)[0].numpy()
    assert sizes == [decoded]
    with Image.open(tmp_path / "p.jpg") as image:
        high, wide = 512 * share[0], 384 * share[1]
        box = ((384 - wide) / 2, (512 - high) / 2, (384 + wide) / 2, (512 + high) / 2)
        expected = np.asarray(image.resize((24, 32), Image.Resampling.BOX, box), float)
    assert np.abs(found - expected.transpose(2, 0, 1)).mean() < 1


@pytest.mark.parametrize(("fill", "back"), [("black", (0, 0, 0)), ("mean", (124, 116, 104))])
@pytest.mark.parametrize("method", ["rembg", "grabcut"])
def test_the_background_is_filled(made, fill, back, method):
    root, photos, alphas = made
    found = pixels(root, replace(PHOTO, method=method, fill=fill))
    for photo, alpha, mine in zip(photos, alphas, found, strict=True):
        assert (mine == resized(pasted(photo, alpha, back), (32, 24))).all()


@pytest.mark.parametrize(
    ("crop", "box"), [("center", np.s_[96:416, 64:320]), ("face", np.s_[136:376, 96:288])]
)
def test_the_middle_is_cropped(tmp_path, crop, box):
    photo = np.random.default_rng(0).integers(0, 256, (512, 384, 3), np.uint8)
    write(tmp_path / "images" / "1.png", photo)
    found = pixels(tmp_path / "images", replace(PHOTO, crop=crop), names=["1.png"])
    assert (found[0] == resized(photo[box], (32, 24))).all()


def test_the_person_is_cropped_alike_in_both_views(made):
    root, photos, alphas = made
    for alpha, name in zip(alphas, NAMES, strict=True):
        alpha[:] = 0
        alpha[12:33, 10:30] = alpha[36:, 4:40] = alpha[30:40, 15:25] = 255  # head, body, neck
        write_matte(root, "rembg", name, alpha)
    both = views.build_views("none+rembg", "black", "person", (16, 12))
    loaded = load(root, *both)
    top, bottom, left, right = crops.person_box(alphas[0], (16, 12))
    assert 16 <= bottom - top < 64
    for i, photo in enumerate(photos):
        for view, whole in enumerate((photo, pasted(photo, alphas[i], (0, 0, 0)))):
            found = loaded.batch(torch.tensor([i]), view)[0].numpy()
            assert (found == resized(whole[top:bottom, left:right], (16, 12))).all()


def person_in_front(root, backs, method="rembg"):
    """Red people on flat backgrounds; the edges fall on no multiple of the blur's cells."""
    alpha = np.zeros(SHAPE, np.uint8)
    alpha[13:, 11:35] = 255
    for name, back in zip(NAMES, backs, strict=False):
        photo = np.full((*SHAPE, 3), back, np.uint8)
        photo[alpha > 0] = (255, 0, 0)
        write(root / name, photo)
        write_matte(root, method, name, alpha)
    return alpha


def test_no_colour_of_the_person_bleeds_into_a_blurred_background(tmp_path):
    root = tmp_path / "images"
    alpha = person_in_front(root, [GREY])
    view = replace(PHOTO, method="rembg", fill="blur", size=SHAPE)
    found = pixels(root, view, names=NAMES[:1])[0].transpose(1, 2, 0).astype(int)
    assert (found[alpha > 0] == (255, 0, 0)).all()
    assert np.abs(found[alpha == 0] - GREY).max() <= 2


def test_far_from_the_background_is_its_mean_colour():
    """Shoulders that fill the photo: what stands in their place is not their colour."""
    photo, alpha = np.full((512, 384, 3), (40, 60, 220), np.uint8), np.zeros((512, 384), np.uint8)
    alpha[120:, 120:264] = alpha[300:] = 255
    photo[alpha > 0] = (230, 20, 20)
    assert np.abs(store._background(photo, alpha).astype(int) - (40, 60, 220)).max() <= 2
    whole = store._background(photo, np.full_like(alpha, 255))  # a matte that covers all
    np.testing.assert_allclose(whole.mean((0, 1)), photo.mean((0, 1)), atol=1)


def test_a_random_fill_takes_the_background_of_another_photo(tmp_path):
    root, backs = tmp_path / "images", [40, 90, 140, 190, 240]
    alpha = person_in_front(root, backs)
    view = replace(PHOTO, method="rembg", fill="random", size=(20, 18))
    loaded = load(root, view)
    photos, backgrounds = torch.tensor([0, 3, 3, 1]), torch.tensor([2, 0, 3, 4])
    found = loaded.batch(photos, 0, backgrounds).numpy().transpose(0, 2, 3, 1).astype(int)
    small = resized(alpha, (20, 18))[0]
    for i, (photo, other) in enumerate(zip(photos.tolist(), backgrounds.tolist(), strict=True)):
        whole = np.full((*SHAPE, 3), backs[photo], np.uint8)
        whole[alpha > 0] = (255, 0, 0)
        own = resized(whole, (20, 18)).transpose(1, 2, 0)
        assert np.abs(found[i] - pasted(own, small, [backs[other]] * 3)).max() <= 2
    mean = pixels(root, replace(view, fill="mean"))
    assert (loaded.batch(photos, 0).numpy() == mean[photos]).all()


def test_a_batch_is_an_index_into_the_views(made):
    root, *_ = made
    removed = replace(PHOTO, method="rembg", fill="mean")
    dark = replace(PHOTO, method="rembg", fill="black")
    loaded = load(root, PHOTO, removed, dark)
    plain = np.stack([pixels(root, view) for view in (PHOTO, removed, dark)])
    rng = np.random.default_rng(0)
    photos, views = rng.integers(0, 5, 40), rng.integers(0, 3, 40)
    found = loaded.batch(torch.from_numpy(photos), torch.from_numpy(views))
    assert loaded.views == 3 and found.dtype == torch.uint8
    assert (found.numpy() == plain[views, photos]).all()
    assert (loaded.batch(torch.from_numpy(photos), 2).numpy() == plain[2, photos]).all()


def test_twins_are_cropped_by_the_same_matte():
    assert views.build_views("none", "mean", "none", [128, 96]) == (replace(PHOTO, size=(128, 96)),)
    twins = views.build_views("none+grabcut", "blur", "person", (8, 6))
    assert [view.method for view in twins] == ["none", "grabcut"]
    assert [view.fill for view in twins] == ["none", "blur"]
    assert {view.crop_method for view in twins} == {"grabcut"}
    assert views.matte_methods(twins) == ["grabcut"]
    assert views.matte_methods([PHOTO]) == []
