"""Photos and their mattes as files: where they lie, how they are decoded, which belong together.

The digest of a photo's bytes stands in its matte's PNG: a photo that was replaced, or one of equal
name from another data set, is told from the one that the matte was made of.
"""

import hashlib
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from common.errors import UserError
from common.files import read_bytes
from common.processes import cores, progress

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # errors are told by us
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# What to do about an unreadable photo, whatever the command.
SKIP = "fix it, or use --on_error skip: training leaves it out, inference gives a mean prediction"
# Added to the flag of the colours, it decodes at a part of the size.
REDUCED = {times: getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{times}") for times in (8, 4, 2)}
END = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"  # of each PNG


def read_photo(path, data=None, least=None):
    """RGB uint8 (H, W, 3) of a photo, turned upright by its EXIF tag, without alpha; data: its
    bytes, if they are known. UserError if it is missing or is not an image.

    least: (height, width) that will do: a JPEG which is twice as large or more is decoded at a
    half, a quarter or an eighth of its size, as far as it is not smaller then.
    """
    data = read_bytes(path) if data is None else data
    reduced = _reduction(data, least) if least else 0
    photo = _decoded(data, path, cv2.IMREAD_COLOR_RGB | reduced)
    if reduced and (photo.shape[0] < least[0] or photo.shape[1] < least[1]):  # it was turned
        return read_photo(path, data)
    return photo


def readable(path):
    """Whether read_photo() reads it."""
    try:
        return read_photo(path) is not None
    except UserError:
        return False


def _reduction(data, least):
    """The flag of cv2.imdecode for the smallest size of a JPEG that is as large as `least`, or 0.

    Its size stands in its frame header, before any pixel (ITU-T T.81, B.2.2).
    """
    place = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while place + 9 <= len(data) and not 0xC0 <= data[place + 1] <= 0xC2:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    height, width = struct.unpack(">HH", data[place + 5 : place + 9].ljust(4, b"\0"))
    if height * width > int(os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]):  # see common/errors.py
        return 0  # OpenCV would compare the reduced size with it
    scale = min(height / least[0], width / least[1])
    return next((flag for times, flag in REDUCED.items() if scale >= times), 0)


def read_matte(path, shape=None, photo=None):
    """A matte, or any mask file, as uint8 (H, W): 255 is foreground. UserError if it is missing, is
    not an image, not of the (H, W) asked for, or does not belong to the photo of these bytes.
    """
    data = read_bytes(path)
    matte = _decoded(data, path, cv2.IMREAD_GRAYSCALE, "; replace or remove it")
    if shape is not None and matte.shape != tuple(shape):
        raise UserError(f"{path}: is {matte.shape}, its photo {tuple(shape)}; replace or remove it")
    if photo is not None and not data.endswith(tie(digest(photo))):
        raise UserError(
            f"{path} is the matte of another photo of this name; run the command again, and give "
            "each folder of photos its own --matte_dir"
        )
    return matte


def _decoded(data, path, mode, advice=""):
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode) if _bounded(data) else None
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{path}: is not a readable image{advice}")
    return image


def _bounded(data):
    """False for no bytes, and for a PNG with a chunk beyond its end: OpenCV takes 4 GB for it."""
    place = 8 if data.startswith(b"\x89PNG") else len(data)
    while place + 8 <= len(data) and data[place + 4 : place + 8] != b"IEND":
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return bool(data) and place <= len(data)


def digest(data):
    """SHA-256 of the bytes of a photo, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def tie(photo):
    """How the PNG of a matte ends whose photo has this digest: with a text chunk (PNG 11.3.3.2)."""
    chunk = b"tEXtphoto sha256\0" + photo.encode()
    length, crc = (struct.pack(">I", number) for number in (len(chunk) - 4, zlib.crc32(chunk)))
    return length + chunk + crc + END


def stamp(path):
    """The size and the times of change of a file, as text; "" if there is none. That of the inode
    tells a file whose other time was set back, as `cp -p` does.
    """
    try:
        stat = os.stat(path)  # noqa: PTH116
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} "


def on_all_cores(work, items, title, workers=None):
    """Calls work(item) of each item in threads, one a core, with a progress bar."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the workers have the cores already
    pool = ThreadPoolExecutor(workers or cores())
    try:
        for _ in progress(pool.map(work, items), total=len(items), desc=title):
            pass
    finally:  # after an error or Ctrl-C, what has not begun is given up
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


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
