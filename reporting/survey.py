"""What the report says of the data: sizes and kinds of files, mean faces, look-alikes, mattes."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from common.errors import UserError
from common.processes import cores, progress
from labels import CLASSES
from photos.reading import matte_path, read_photo

SMALL = (96, 128)  # width, height at which photos are compared, averaged and shown
NORMAL = 2  # the mask code of the bare face
REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
MATTE_ORDER = ("rembg_grabcut", "rembg", "grabcut")  # the best first


def survey(root, frame):
    """One pass over all photos, at the smallest size that the decoder gives for little work.

    Returns (files, means, hashes): files, a frame (image, kind, width, height, kilobytes, error),
    one row an image; means (18, 128, 96, 3) uint8 RGB, zero for an absent class; hashes
    {person: (256,) bool} difference hashes of the bare-faced photos.
    """
    sums = np.zeros((CLASSES, SMALL[1], SMALL[0], 3))
    counts, rows, hashes = np.zeros(CLASSES), [], {}
    names = frame.image.tolist()
    with ThreadPoolExecutor(cores()) as pool:
        looks = pool.map(lambda name: _look(Path(root) / name), names)
        columns = zip(names, frame.label, frame["mask"], frame.person, looks, strict=True)
        for name, label, mask, person, (row, small) in progress(
            columns, total=len(names), desc="photos", unit="photo"
        ):
            rows.append({"image": name} | row)
            if small is None:
                continue
            sums[label] += small
            counts[label] += 1
            if mask == NORMAL:
                hashes[person] = difference_hash(small)
    means = (sums / np.maximum(counts, 1)[:, None, None, None]).round().astype(np.uint8)
    return pd.DataFrame(rows), means, hashes


def _look(path):
    """(row of the file table, (128, 96, 3) RGB uint8 or None if it cannot be read)."""
    row = {"kind": "", "width": 0, "height": 0, "kilobytes": 0.0, "error": ""}
    try:
        data = Path(path).read_bytes()
        row["kilobytes"] = round(len(data) / 1024, 1)
        with Image.open(io.BytesIO(data)) as header:
            row["width"], row["height"] = header.size
            alpha = " with alpha" if "A" in header.getbands() else ""
            row["kind"] = f"{header.format}{alpha}"
        least = min(row["width"] / SMALL[0], row["height"] / SMALL[1])
        factor = next((f for f in REDUCED if f <= least), 1)
        photo = cv2.imdecode(np.frombuffer(data, np.uint8), REDUCED[factor])
    except (OSError, ValueError, SyntaxError, cv2.error, Image.DecompressionBombError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return row | {"error": reason[:120]}, None
    if photo is None:
        return row | {"error": "cannot be decoded"}, None
    photo = cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)
    if photo.shape[:2] != SMALL[::-1]:
        photo = cv2.resize(photo, SMALL, interpolation=cv2.INTER_AREA)
    return row, photo


def difference_hash(photo):
    """(256,) bool: on a 17 x 16 grid, is each cell brighter than its left neighbour? Unmoved by
    brightness, contrast, size and compression.
    """
    grid = cv2.resize(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (17, 16), cv2.INTER_AREA)
    return (grid[:, 1:] > grid[:, :-1]).ravel()


def look_alikes(hashes, limit=38, most=200):
    """Pairs of people whose bare-faced photos are nearly the same picture: a frame (a, b, bits),
    nearest first, of pairs that differ in at most `limit` of 256 bits.

    Unrelated portraits differ in about 100 bits; a recompressed or resized copy in a few.
    """
    people = sorted(hashes)
    signs = np.array([hashes[person] for person in people], np.float32) * 2 - 1
    pairs = []
    for start in range(0, len(people), 1024):
        bits = (256 - signs[start : start + 1024] @ signs.T) / 2
        near = np.argwhere(bits <= limit)
        pairs += [(i + start, j, int(bits[i, j])) for i, j in near if i + start < j]
    pairs = sorted(pairs, key=lambda pair: pair[2])[:most]
    return pd.DataFrame(
        [(people[i], people[j], bits) for i, j, bits in pairs], columns=["a", "b", "bits"]
    )


def data_uri(image, quality=72):
    """A WebP data URI of an RGB or grey uint8 image."""
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    coded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return "data:image/webp;base64," + base64.b64encode(coded.tobytes()).decode()


def small_photo(path, size=SMALL):
    """(H, W, 3) RGB uint8 of the given (width, height), for the page; a grey card if unreadable."""
    try:
        return cv2.resize(read_photo(path), size, interpolation=cv2.INTER_AREA)
    except UserError:
        return np.full((size[1], size[0], 3), 128, np.uint8)


def photo_uri(path):
    """A data URI of a photo at SMALL."""
    return data_uri(small_photo(path))


def matte_methods(matte_dir):
    """Names of the methods that have mattes below `matte_dir`, the best first."""
    folder = Path(matte_dir)
    found = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    known = [name for name in MATTE_ORDER if name in found]
    return known + sorted(name for name in found if name not in known and name[0] != ".")


def read_matte(matte_dir, method, image, size=SMALL):
    """(H, W) float32 foreground 0..1 at (width, height) `size`, or None where there is none."""
    path = matte_path(matte_dir, method, image)
    try:
        matte = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error):
        return None
    if matte is None:
        return None
    return cv2.resize(matte, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def rejected(matte_dir, methods):
    """One frame of all rejected.csv, with the method in front; empty if there is none."""
    frames = []
    for method in methods:
        path = Path(matte_dir) / method / "rejected.csv"
        if path.is_file():
            try:
                frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
                raise UserError(f"{path} is no readable csv; run preprocess.py again") from None
            frame.insert(0, "method", method)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["method"])
