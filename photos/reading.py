"""Photos and their mattes as files: where they lie, how they are decoded."""

from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from common.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def read_photo(path):
    """Decodes a photo to RGB uint8 (H, W, 3), turned upright by its EXIF tag, without alpha.

    UserError if the file is missing or is not an image.
    """
    return _decoded(path, cv2.IMREAD_COLOR_RGB)


def read_matte(path, shape=None):
    """A matte, or any mask file, as uint8 (H, W): 255 is foreground.

    UserError if the file is missing, is not an image, or is not of the (H, W) asked for.
    """
    try:
        matte = _decoded(path, cv2.IMREAD_GRAYSCALE)
    except UserError as error:
        raise UserError(f"{error}; preprocess.py makes the mattes that are missing") from None
    if shape is not None and matte.shape != tuple(shape):
        raise UserError(f"{path}: is {matte.shape}, its photo {tuple(shape)}; replace or remove it")
    return matte


def _decoded(path, mode):
    """The image in a file, as cv2.imdecode gives it; UserError if there is none."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        image = cv2.imdecode(data, mode) if len(data) else None
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{path}: is not a readable image")
    return image


def default_matte_dir(root):
    """Where mattes lie unless told otherwise: beside the images folder."""
    root = Path(root).resolve()
    return root.parent / ("mattes" if root.name == "images" else f"{root.name}_mattes")


def matte_path(matte_dir, method, name):
    """The file of one matte: the photo's path below `method`, as .png."""
    return Path(matte_dir, method, PurePosixPath(name).with_suffix(".png"))


def is_junk(name):
    """True for what file managers and notebooks leave behind (`._a.jpg`, `.DS_Store`, ...)."""
    return name.startswith(".")


def is_photo(name):
    return name.lower().endswith(SUFFIXES) and not is_junk(name)
