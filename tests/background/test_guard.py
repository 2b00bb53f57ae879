"""Which mattes are taken for those of a portrait."""

import cv2
import numpy as np
import pytest

from background import matte


def test_guard_takes_a_poster_of_faces_for_people(portraits, net):
    """Faces on a poster are faces to the network: such a photo is not rejected."""
    faces = [
        cv2.resize(photo, (48, 64), interpolation=cv2.INTER_AREA) for photo, _ in portraits[:16]
    ]
    poster = np.vstack([np.hstack(faces[i : i + 4]) for i in range(0, 16, 4)])
    seed, sure = net.matte(poster)
    assert sure > matte.LEAST_SURE and matte.fault(seed) is None


@pytest.mark.parametrize(
    "box, words",
    [
        ((0, 0, 0, 0), "less than 3%"),
        ((90, 40, 100, 60), "less than 3%"),
        ((0, 0, 100, 100), "more than 98%"),
        ((0, 0, 100, 30), "of the centre"),
        ((0, 0, 24, 100), "of the centre"),
        ((20, 30, 100, 80), None),
    ],
)
def test_faults(box, words):
    made = np.zeros((100, 100), np.uint8)
    made[box[0] : box[2], box[1] : box[3]] = 255
    found = matte.fault(made)
    assert found is None if words is None else words in found
