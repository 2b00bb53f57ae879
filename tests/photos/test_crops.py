"""The box of head and shoulders, on drawn silhouettes and on any matte."""

import cv2
import numpy as np
import pytest

from photos import crops


def silhouette(shape, centre, radius):
    """A head on a neck and shoulders that reach the lower edge; centre is (y, x)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    head = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    neck = (y >= centre[0]) & (np.abs(x - centre[1]) <= 0.5 * radius)
    body = (y >= centre[0] + 1.4 * radius) & (np.abs(x - centre[1]) <= 2.2 * radius)
    return ((head | neck | body) * 255).astype(np.uint8)


@pytest.mark.parametrize("centre", [(180, 192), (180, 120), (250, 200)])
def test_the_person_box_holds_the_head_at_one_scale(centre):
    heads = []
    for radius in (50, 75):
        box = crops.person_box(silhouette((512, 384), centre, radius), (128, 96))
        top, bottom, left, right = box
        assert 0 <= top < bottom <= 512 and 0 <= left < right <= 384
        assert (bottom - top) / (right - left) == pytest.approx(128 / 96, rel=0.02)
        assert top <= centre[0] - radius and bottom >= centre[0] + 1.4 * radius
        assert abs((left + right) / 2 - centre[1]) < 0.25 * radius
        heads.append((bottom - top) / radius)
    assert heads[0] == pytest.approx(heads[1], rel=0.05)


def test_a_curl_a_hole_or_a_hand_does_not_move_the_person_box():
    alpha = silhouette((512, 384), (200, 192), 75)
    top, bottom, left, right = crops.person_box(alpha, (128, 96))
    curl, holed, waving = alpha.copy(), alpha.copy(), alpha.copy()
    cv2.circle(curl, (150, 118), 14, 255, -1)  # above the head, off its middle
    cv2.circle(holed, (192, 210), 30, 0, -1)
    cv2.rectangle(waving, (300, 10), (325, 400), 255, -1)
    for changed in (curl, holed, waving):
        box = crops.person_box(changed, (128, 96))
        np.testing.assert_allclose(box, (top, bottom, left, right), atol=0.15 * (bottom - top))


def test_the_person_box_of_any_matte_lies_in_the_photo(drawn):
    rng = np.random.default_rng(0)
    mattes = [cv2.imread(str(p), 0) for p in sorted((drawn / "mattes_true").rglob("*.png"))[:40]]
    for shape in ((1, 1), (3, 200), (200, 3), (64, 48), (48, 64)):
        mattes += [(rng.random(shape) < share).astype(np.uint8) * 255 for share in (0.1, 0.5, 0.9)]
        stripe = np.zeros(shape, np.uint8)
        stripe[:, -1:] = 255
        mattes += [stripe, stripe[::-1] | 255, np.zeros(shape, np.uint8)]
    assert len(mattes) == 70
    for alpha in mattes:
        for size in ((128, 96), (96, 128), (64, 64)):
            top, bottom, left, right = crops.person_box(alpha, size)
            assert 0 <= top < bottom <= alpha.shape[0] and 0 <= left < right <= alpha.shape[1]
    for height, width in rng.integers(1, 6, (300, 2)):  # photos of few pixels, long sizes
        alpha = (rng.random((height, width)) < rng.random()).astype(np.uint8) * 255
        boxes = [crops.person_box(alpha, size) for size in ((32, 256), (256, 32))]
        boxes += [crops.middle_box(height, width, crop) for crop in crops.MIDDLES]
        for top, bottom, left, right in boxes:
            assert 0 <= top < bottom <= height and 0 <= left < right <= width
    nobody = np.zeros((512, 384), np.uint8)
    assert crops.person_box(nobody, (128, 96)) == crops.person_box(nobody + 255, (128, 96))
    assert crops.person_box(nobody, (128, 96)) == (96, 416, 64, 320)
