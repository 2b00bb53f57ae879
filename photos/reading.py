"""Photos and their mattes as files: where they lie, how they are decoded."""

from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from common.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def read_photo(path):
    """Decodes a photo to RGB uint8 (H, W, 3), turned upright by its EXIF tag, without alpha.

    UserError if the file is missing or is no image.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        photo = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
    except cv2.error:
        photo = None
    if photo is None:
        raise UserError(f"{path}: is no readable image")
    return photo


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


def read_matte(path, shape):
    """uint8 (H, W) foreground share of a matte file; UserError if missing or of another shape."""
    alpha = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
    if alpha is None:
        raise UserError(f"{path}: no readable matte; make it with preprocess.py")
    if alpha.shape != tuple(shape):
        raise UserError(f"{path}: is {alpha.shape}, its photo {tuple(shape)}; remove the matte")
    return alpha
