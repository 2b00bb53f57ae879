"""Photos and their mattes as files: where they lie, how they are decoded."""

from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from common.errors import UserError
from common.files import read_bytes

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # errors are told by us
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


# What to do about such a photo, whatever the command.
SKIP = "fix it, or use --on_error skip: training goes on without it, inference gives it the mean"
SKIP += " prediction"


def read_photo(path):
    """Decodes a photo to RGB uint8 (H, W, 3), turned upright by its EXIF tag, without alpha.

    UserError if the file is missing or is not an image.
    """
    return decode_photo(read_bytes(path), path)


def decode_photo(data, path):
    """As read_photo(), of the bytes of the file."""
    return _decoded(data, path, cv2.IMREAD_COLOR_RGB)


def read_matte(path, shape=None):
    """A matte, or any mask file, as uint8 (H, W): 255 is foreground.

    UserError if the file is missing, is not an image, or is not of the (H, W) asked for.
    """
    matte = _decoded(read_bytes(path), path, cv2.IMREAD_GRAYSCALE)
    if shape is not None and matte.shape != tuple(shape):
        raise UserError(f"{path}: is {matte.shape}, its photo {tuple(shape)}; replace or remove it")
    return matte


def _decoded(data, path, mode):
    """The image in the bytes of a file, as cv2.imdecode gives it; UserError if there is none."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if _bounded(data) else None
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{path}: is not a readable image")
    return image


def _bounded(data):
    """False for no bytes, and for a PNG with a chunk beyond its end: OpenCV takes 4 GB for it."""
    place = 8 if data.startswith(b"\x89PNG") else len(data)
    while place + 8 <= len(data) and data[place + 4 : place + 8] != b"IEND":
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return bool(data) and place <= len(data)


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
