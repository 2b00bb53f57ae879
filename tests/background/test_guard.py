"""Which mattes are taken for those of a portrait."""

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers import write_matte

from background import matte
from dataset import find_images
from photos.reading import matte_path, read_matte


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


def test_what_grabcut_makes_is_judged_too(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(matte.grabcut, "grabcut", lambda photo, _: np.zeros_like(photo[..., 0]))
    root, names = find_images(folder)
    matte.ensure(root, names, "grabcut", matte.Matting(tmp_path))
    assert list(pd.read_csv(tmp_path / "grabcut/rejected.csv").image) == names
    assert read_matte(tmp_path / "grabcut" / names[0]).min() == 255


def test_kept_mattes_of_another_network_are_not_taken(folder, tmp_path):
    (root, [name, *_]), half = find_images(folder), np.zeros((256, 192), np.uint8)
    half[:, :96] = 255
    matte.ensure(root, [name], "rembg_grabcut", matte.Matting(tmp_path / "alone"))
    matte.ensure(root, [name], "rembg", matte.Matting(tmp_path / "other"))
    write_matte(matte_path(tmp_path / "other", "rembg", name), half, root / name)
    meta = tmp_path / "other/rembg/meta.json"
    meta.write_text(meta.read_text().replace('"sha256": "', '"sha256": "0'))
    matte.ensure(root, [name], "rembg_grabcut", matte.Matting(tmp_path / "other"))
    places = (tmp_path / place for place in ("alone", "other"))
    alone, other = (matte_path(place, "rembg_grabcut", name).read_bytes() for place in places)
    assert alone == other
