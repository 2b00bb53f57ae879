"""GrabCut against the usual one, true mattes and the network."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from background import grabcut


def overlap(made, truth):
    return jaccard_score(truth.ravel() >= 128, made.ravel() >= 128)


def rectangle_cut(photo):
    """GrabCut as its tutorial has it: a rectangle, full resolution, five iterations."""
    height, width = photo.shape[:2]
    labels = np.zeros((height, width), np.uint8)
    box = (width // 20, height // 20, width * 9 // 10, height * 9 // 10)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(photo, labels, box, *models, 5, cv2.GC_INIT_WITH_RECT)
    return (labels % 2 * 255).astype(np.uint8)


def test_grabcut_finds_the_people_and_beats_a_rectangle(portraits):
    ours = [overlap(grabcut.grabcut(photo), truth) for photo, truth in portraits]
    rectangle = [overlap(rectangle_cut(photo), truth) for photo, truth in portraits[:6]]
    assert np.mean(ours) > 0.85
    assert np.mean(ours[:6]) > np.mean(rectangle) + 0.05


def test_grabcut_wins_back_what_the_network_missed(portraits, net):
    alone, both = [], []
    for photo, truth in portraits[:5]:
        seed, sure = net.matte(photo)
        assert sure > 0.9
        alone.append(overlap(seed, truth))
        both.append(overlap(grabcut.grabcut(photo, seed), truth))
    assert np.mean(alone) > 0.75
    assert np.mean(both) > max(0.92, np.mean(alone))


def test_grabcut_keeps_what_the_network_found(portraits):
    photo, truth = portraits[0]
    seed = truth.copy()
    seed[len(seed) // 2 :] = 0  # a network that saw the head only
    made = grabcut.grabcut(photo, seed)
    assert (made >= seed).all()
    assert overlap(made, truth) > overlap(seed, truth) + 0.2


def test_grabcut_is_the_same_in_any_thread_and_at_any_time(portraits):
    photos = [photo for photo, _ in portraits[:4]]
    first = [grabcut.grabcut(photo) for photo in photos]
    cv2.setRNGSeed(77)
    with ThreadPoolExecutor(3) as pool:
        again = list(pool.map(grabcut.grabcut, photos[::-1]))[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("shape", [(90, 300), (40, 40), (7, 5), (600, 20)])
def test_grabcut_takes_any_shape(shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    made = grabcut.grabcut(photo)
    assert made.shape == shape and made.dtype == np.uint8
