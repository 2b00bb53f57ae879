"""Mattes to look at, and in numbers: a preview; IoU and boundary F against true masks."""

from pathlib import Path

import cv2
import numpy as np

from common.errors import UserError
from common.files import atomic, read_bytes
from common.processes import progress, say
from photos.reading import matte_path, read_matte, read_photo

PHOTOS = 12  # in the preview, from all over the list
CELL = 192  # height of a photo there
GREY = 128
TOLERANCE = 0.0075  # of the diagonal: how far apart two boundaries may be and still agree


def preview(root, names, methods, matte_dir):
    """Writes preview.png: PHOTOS photos, and below each what each method leaves of it."""
    columns = []
    for pick in np.unique(np.linspace(0, len(names) - 1, PHOTOS).astype(int)):
        paths = {method: matte_path(matte_dir, method, names[pick]) for method in methods}
        if all(path.exists() for path in paths.values()):  # else a broken photo that was skipped
            data = read_bytes(root / names[pick])
            photo = read_photo(root / names[pick], data)
            mattes = {m: read_matte(path, photo.shape[:2], data) for m, path in paths.items()}
            columns.append(_column(photo, mattes))
    if columns:
        path = Path(matte_dir, "preview.png")
        with atomic(path) as temporary:
            cv2.imencode(".png", np.hstack(columns)[..., ::-1])[1].tofile(temporary)
        say(f"look first at {path}: some photos, and what each method leaves of them")


def _column(photo, mattes):
    """uint8 RGB: the photo, and below it what each of {method: matte} leaves of it."""
    width = round(photo.shape[1] * CELL / photo.shape[0])
    width = min(max(1, width), 4 * CELL)  # however long the photo
    cells = []
    for label, matte in {"photo": np.full(photo.shape[:2], 255), **mattes}.items():
        alpha = matte[..., None] / 255
        view = np.uint8(photo * alpha + GREY * (1 - alpha))
        cell = cv2.resize(view, (width, CELL), interpolation=cv2.INTER_AREA)
        cell[:20] //= 2  # a dark strip behind the label
        cv2.putText(cell, label, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255,) * 3, 1)
        cells.append(cell)
    return np.vstack(cells)


def find_truths(folder, names):
    """{photo: file of its true mask} of the photos that have one; UserError if none has."""
    paths = {name: folder / Path(name).with_suffix(".png") for name in names}
    truths = {name: path for name, path in paths.items() if path.exists()}
    if not truths:
        raise UserError(
            f"--score {folder}: has no mask of any photo; expected such as {paths[names[0]]}"
        )
    return truths


def score_line(method, root, truths, matte_dir):
    """One row of the table of scores: how near a method's mattes are to the true masks."""
    scores = []
    for name, path in progress(truths.items(), desc=f"score {method}"):
        matte = matte_path(matte_dir, method, name)
        if matte.exists():  # else a broken photo that was skipped
            made = read_matte(matte, None, read_bytes(root / name)) >= 128
            truth = read_matte(path, made.shape)
            if 0 < truth.max() < 128:
                raise UserError(f"{path}: its values go to {truth.max()}; 255 is the person")
            scores.append((iou(made, truth >= 128), boundary_f(made, truth >= 128)))
    if not scores:
        return f"{method:16} none"
    ious, edges = np.transpose(scores)
    columns = np.mean(ious), np.median(ious), np.percentile(ious, 5), np.mean(edges)
    return f"{method:16} {len(ious):6} " + "".join(f"{value:11.3f}" for value in columns)


def iou(made, truth):
    """Intersection over union of two bool arrays (H, W); 1 if both are empty."""
    union = (made | truth).sum()
    return float((made & truth).sum() / union) if union else 1.0


def boundary_f(made, truth):
    """F-score of the boundary pixels of two bool arrays (H, W), within TOLERANCE.

    A boundary pixel counts as right if the other mask has one within that distance (Csurka et
    al., BMVC 2013; Perazzi et al., CVPR 2016). 1 if neither has a boundary, 0 if only one has.
    """
    reach = max(1, round(TOLERANCE * np.hypot(*made.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    edges = [boundary(mask) for mask in (made, truth)]
    if not all(edge.any() for edge in edges):
        return float(not any(edge.any() for edge in edges))
    near = [cv2.dilate(edge, disc) for edge in edges]
    precision = near[1][edges[0] > 0].mean()
    recall = near[0][edges[1] > 0].mean()
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def boundary(mask):
    """The pixels of a mask that touch its outside; the border of the picture is not outside."""
    mask = mask.astype(np.uint8)
    return mask - cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
