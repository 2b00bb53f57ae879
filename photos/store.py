"""The pixel store: every photo decoded, composited, cropped and resized once, kept as uint8.

Each (photos, view, crop, size) is one .npy file of shape (N, C, H, W) in the cache folder, from
which the batches of all folds, models and runs are read; on a GPU with room it is copied there.
"""

import errno
import hashlib
import json
import math
import os
from dataclasses import astuple, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from common.devices import send
from common.errors import UserError
from common.files import cached, read_bytes
from photos import crops, reading
from photos.views import matte_methods

VERSION = 4  # raise it when the same request would give other pixels
COLOURS = {"black": (0, 0, 0), "mean": (124, 116, 104)}  # the mean of ImageNet, RGB
# The layers of a view, each with its fill; "random" puts them together batch by batch.
RANDOM = {"pixels": "mean", "photo": "none", "matte": "matte", "background": "background"}


class Rows:
    """A uint8 array of a `shape` (N, C, H, W) in a .npy file, whose rows are read when asked for. A
    memory map would be slower, and end the process where somebody truncates the file.
    """

    device = torch.device("cpu")

    def __init__(self, path, shape):
        self.path, self.shape, self.nbytes = path, shape, math.prod(shape)
        self.row = math.prod(shape[1:])
        self.file, self.header = path.open("rb", buffering=0), path.stat().st_size - self.nbytes

    def __getitem__(self, index):
        """uint8 (n, C, H, W) of an int64 (n,) tensor of rows."""
        found = torch.empty((len(index), *self.shape[1:]), dtype=torch.uint8)
        rows = found.numpy().reshape(len(index), self.row)
        for row, number in zip(rows, index.tolist(), strict=True):
            place = self.header + number * self.row
            if os.preadv(self.file.fileno(), [row], place) < self.row:
                raise UserError(
                    f"{self.path} was truncated while it was in use; run the command again, which "
                    "makes it again (a run that was in training goes on with --resume)"
                )
        return found

    def to(self, device):
        """All of it on a device, a part at a time."""
        whole = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for part in torch.arange(self.shape[0]).split(1024):
            whole[part[0] : part[-1] + 1] = self[part]
        return whole


class Pixels:
    """The pixels of N photos in V views, as batches on a device.

    layers: of each view, {name: a Rows, or a uint8 (N, C, H, W) tensor}; broken: {index: message}
    of unreadable photos, whose pixels are zero.
    """

    def __init__(self, layers, broken, device):
        self.device, self.broken, self.views = torch.device(device), broken, len(layers)
        size = sum(layer.nbytes for view in layers for layer in view.values())
        on_gpu = self.device.type == "cuda"
        fits = on_gpu and size < 0.5 * torch.cuda.mem_get_info(self.device)[0]
        self.layers = [
            {name: layer.to(self.device) if fits else layer for name, layer in view.items()}
            for view in layers
        ]

    def batch(self, photos, view, backgrounds=None):
        """uint8 (n, 3, H, W) on the device.

        photos: int64 (n,) indices. view: int64 (n,) view of each, or one int for all.
        backgrounds: int64 (n,) photos whose backgrounds a "random" fill takes; None for "mean".
        """
        if self.views == 1 or isinstance(view, int):
            index = 0 if self.views == 1 else view
            return self._view(self.layers[index], photos, backgrounds)
        parts = [torch.nonzero(view == v).flatten() for v in range(self.views)]
        found = [
            self._view(layers, photos[part], None if backgrounds is None else backgrounds[part])
            for layers, part in zip(self.layers, parts, strict=True)
        ]
        return torch.cat(found)[send(torch.argsort(torch.cat(parts)), self.device)]

    def _view(self, layers, photos, backgrounds):
        if backgrounds is None or "background" not in layers:
            return self._take(layers["pixels"], photos)
        alpha = self._take(layers["matte"], photos).to(torch.int32)
        photo = self._take(layers["photo"], photos)
        background = self._take(layers["background"], backgrounds)
        return ((photo * alpha + background * (255 - alpha) + 127) // 255).to(torch.uint8)

    def _take(self, layer, index):
        if layer.device == self.device:
            return layer[send(index, self.device)]
        return send(layer[index], self.device)


def load(root, names, views, cache_dir, *, matte_dir=None, on_error="stop", device="cpu"):
    """The Pixels of the photos `names` below the images folder `root`; what the cache lacks is made
    first. A photo that cannot be read is a UserError, or with on_error="skip" stands in
    Pixels.broken; a matte that is missing, or that of another photo, is a UserError
    (background/pixels.py makes them first).
    """
    matte_dir, layers, broken = Path(matte_dir or reading.default_matte_dir(root)), [], {}
    for view in views:
        fills, arrays = RANDOM if view.fill == "random" else {"pixels": view.fill}, {}
        for kind, fill in fills.items():
            wanted = replace(view, fill=fill)
            path, bad = _open(root, names, wanted, matte_dir, Path(cache_dir), on_error)
            broken |= bad
            arrays[kind] = Rows(path, (len(names), *_shape(wanted)))
        layers.append(arrays)
    return Pixels(layers, broken, device)


def _open(root, names, view, matte_dir, cache_dir, on_error):
    """(path of a uint8 (N, C, H, W) .npy, broken) of one layer, built if the cache lacks it."""
    paths = [Path(root, name) for name in names]
    for method in matte_methods([view]):
        paths += [reading.matte_path(matte_dir, method, name) for name in names]
    stamps = [reading.stamp(path) for path in paths]
    inputs = [VERSION, str(Path(root).resolve()), names, astuple(view), stamps]
    path = cache_dir / f"{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:20]}.npy"

    def make(temporary):
        broken = _build(temporary, root, names, view, matte_dir)
        check(broken)
        return {"view": astuple(view), "photos": len(names), "broken": broken}

    def check(broken):
        if broken and on_error == "stop":
            more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
            raise UserError(f"{broken[min(broken)]}{more}; {reading.SKIP}")

    def good(note):  # a photo that can be read now was not at fault, but its disk
        return not any(reading.readable(paths[int(index)]) for index in note["broken"])

    broken = {int(index): message for index, message in cached(path, make, good)["broken"].items()}
    check(broken)
    return path, broken


def _shape(view):
    return 1 if view.fill == "matte" else 3, *view.size


def _build(path, root, names, view, matte_dir):
    """Writes one layer with all cores; returns {index: message} of the photos left at zero."""
    broken, least = {}, _least(view)
    # Only its header and its zeros: rows written through the map would stay in memory.
    start = np.lib.format.open_memmap(path, "w+", np.uint8, (len(names), *_shape(view))).offset

    def work(index):
        try:
            data = read_bytes(Path(root, names[index]))
            photo = reading.read_photo(Path(root, names[index]), data, least)
        except UserError as error:
            broken[index] = str(error)
            return
        alphas = {}
        for method in matte_methods([view]):
            matte = reading.matte_path(matte_dir, method, names[index])
            alphas[method] = reading.read_matte(matte, photo.shape[:2], data)
        row = _render(photo, alphas, view).tobytes()
        if os.pwrite(file.fileno(), row, start + index * len(row)) < len(row):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    title = view.method if view.method != "none" else "photos"
    with path.open("r+b") as file:
        reading.on_all_cores(work, range(len(names)), title)
    return dict(sorted(broken.items()))


def _least(view):
    """(height, width) of a photo that will do for this view: twice as large as what is kept of it.
    Of 200 faces the pixels then differ by .3 to .6 grey levels on average from those of the photo
    decoded whole. None for a view with mattes, which are as large as the photo.
    """
    if matte_methods([view]):
        return None
    shares = crops.MIDDLES[view.crop]
    return tuple(2 * side / share for side, share in zip(view.size, shares, strict=True))


def _render(photo, alphas, view):
    """uint8 (C, H, W) of one photo under a view; alphas: {method: its matte}."""
    if view.crop == "person":
        top, bottom, left, right = crops.person_box(alphas[view.crop_method], view.size)
    else:
        top, bottom, left, right = crops.middle_box(*photo.shape[:2], view.crop)
    photo = _layer(photo, alphas.get(view.method), view.fill)[top:bottom, left:right]
    height, width = view.size
    shrinks = photo.shape[0] >= height and photo.shape[1] >= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    photo = cv2.resize(photo, (width, height), interpolation=method)
    return photo.reshape(height, width, -1).transpose(2, 0, 1)


def _layer(photo, alpha, fill):
    if fill in ("none", "matte"):
        return photo if fill == "none" else alpha
    back = np.uint8(COLOURS[fill]) if fill in COLOURS else _background(photo, alpha)
    if fill == "background":
        return back
    share = alpha[..., None].astype(np.uint16)
    return ((photo * share + back * (255 - share) + 127) // 255).astype(np.uint8)


def _background(photo, alpha):
    """The background alone, blurred over the person, whose colours do not bleed into it."""
    height, width = alpha.shape
    small = (max(width // 8, 1), max(height // 8, 1))
    weight = 1 - alpha.astype(np.float32) / 255
    if not weight.any():
        weight += 1  # a matte that covers all leaves a blur
    colour = cv2.resize(photo * weight[..., None], small, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(weight, small, interpolation=cv2.INTER_AREA)
    sigma, mean = small[0] / 8, colour.sum((0, 1)) / weight.sum()
    colour = cv2.GaussianBlur(colour, (0, 0), sigma) + 1e-4 * mean  # far from any background
    colour /= cv2.GaussianBlur(weight, (0, 0), sigma)[..., None] + 1e-4
    return cv2.resize(np.clip(np.rint(colour), 0, 255).astype(np.uint8), (width, height))
