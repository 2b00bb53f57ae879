"""Lossless photos of noise with mattes of two methods, and their pixels by cv2 and numpy."""

import cv2
import helpers
import numpy as np
import torch
from PIL import Image

from photos import reading, store, views

NAMES = ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "b/3.png"]
SHAPE = (64, 48)
PHOTO = views.View("none", "none", "none", "none", (32, 24))
GREY = 120


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_matte(root, method, name, alpha):
    helpers.write_matte(
        reading.matte_path(root.parent / "mattes", method, name), alpha, root / name
    )


def make_photos(tmp_path):
    """(root, photos, alphas): photos of noise and soft mattes of two methods, all lossless."""
    rng = np.random.default_rng(0)
    root, photos, alphas = tmp_path / "images", [], []
    for name in NAMES:
        photos.append(rng.integers(0, 256, (*SHAPE, 3), np.uint8))
        alphas.append(rng.integers(0, 256, SHAPE, np.uint8))
        write(root / name, photos[-1])
        for method in ("rembg", "grabcut"):
            write_matte(root, method, name, alphas[-1])
    return root, photos, alphas


def load(root, *views, names=NAMES, **options):
    return store.load(root, names, views, root.parent / "cache", **options)


def pixels(root, *views, **options):
    """uint8 (N, 3, H, W) of each photo in the one view."""
    loaded = load(root, *views, **options)
    return loaded.batch(torch.arange(len(options.get("names", NAMES))), 0).numpy()


def resized(photo, size):
    found = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA)
    return found.reshape(*size, -1).transpose(2, 0, 1)


def pasted(photo, alpha, back):
    share = alpha[..., None] / 255
    return np.rint(photo * share + np.asarray(back) * (1 - share)).astype(np.uint8)
