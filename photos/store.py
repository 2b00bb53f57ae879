"""The pixel store: every photo decoded, composited, cropped and resized once, kept as uint8.

Resizing costs more than decoding, and both cost more than anything else on the host; so each
(photos, view, crop, size) is one .npy file of shape (N, C, H, W) in the cache folder, from which
batches are read. Folds, epochs, models and runs share it; on a GPU with room it is copied there
once. Its checksum is checked when it is opened.
"""

import hashlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from common.errors import UserError
from common.files import cached
from common.processes import cores, progress
from photos import crops
from photos.reading import SKIP, default_matte_dir, matte_path, read_matte, read_photo
from photos.views import matte_methods

VERSION = 2  # raise it when the same request would give other pixels
MEAN_COLOUR = (124, 116, 104)  # of ImageNet, RGB


class Rows:
    """A uint8 (N, C, H, W) array in an .npy file, of which rows are read as they are asked for.

    A memory map would be slower, and end the process where somebody truncates the file.
    """

    device = torch.device("cpu")

    def __init__(self, path, shape):
        self.path, self.shape, self.row = path, shape, math.prod(shape[1:])
        self.nbytes = shape[0] * self.row
        self.file = path.open("rb", buffering=0)
        self.header = path.stat().st_size - self.nbytes

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        """uint8 (n, C, H, W) of an int64 (n,) tensor of rows."""
        found = torch.empty((len(index), *self.shape[1:]), dtype=torch.uint8)
        rows = found.numpy().reshape(len(index), self.row)
        for row, number in zip(rows, index.tolist(), strict=True):
            if os.preadv(self.file.fileno(), [row], self.header + number * self.row) < self.row:
                raise UserError(
                    f"{self.path} was truncated while it was in use; run the command again, which "
                    "makes it again (a run that was in training goes on with --resume)"
                )
        return found

    def to(self, device):
        """All of it on a device, a part at a time."""
        whole = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for part in torch.arange(len(self)).split(1024):
            whole[part[0] : part[-1] + 1] = self[part]
        return whole


class Pixels:
    """The pixels of N photos in V views, as batches on a device.

    layers: of each view, {name: a Rows, or a uint8 (N, C, H, W) array}; broken: {index: message}
    of photos that could not be read (their pixels are zero); key: names what the pixels were made
    from; count: photos.
    """

    def __init__(self, layers, broken, device, resident=None, key=""):
        self.key, self.count = key, len(layers[0]["pixels"])
        size = sum(layer.nbytes for view in layers for layer in view.values())
        self.device, self.broken, self.views = torch.device(device), broken, len(layers)
        if resident is None and self.device.type == "cuda":
            resident = size < 0.5 * torch.cuda.mem_get_info(self.device)[0]
        self.layers = [
            {
                name: torch.from_numpy(layer) if isinstance(layer, np.ndarray) else layer
                for name, layer in view.items()
            }
            for view in layers
        ]
        if resident:
            self.layers = [
                {name: layer.to(self.device) for name, layer in view.items()}
                for view in self.layers
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
        order = torch.argsort(torch.cat(parts)).to(self.device, non_blocking=True)
        return torch.cat(found)[order]

    def _view(self, layers, photos, backgrounds):
        if backgrounds is None or "background" not in layers:
            return self._take(layers["pixels"], photos)
        alpha = self._take(layers["matte"], photos).to(torch.int32)
        photo, background = (
            self._take(layers["photo"], photos),
            self._take(layers["background"], backgrounds),
        )
        return ((photo * alpha + background * (255 - alpha) + 127) // 255).to(torch.uint8)

    def _take(self, layer, index):
        if layer.device == self.device:
            return layer[index.to(self.device, non_blocking=True)]
        return layer[index].pin_memory().to(self.device, non_blocking=True)


class Joined(Pixels):
    """The pixels of `first`, and behind them those of `second`, as one, without a copy."""

    def __init__(self, first, second):
        self.device, self.views = first.device, first.views
        self.key, self.first = f"{first.key}+{second.key}", first.count
        self.count = first.count + second.count
        moved = {self.first + index: message for index, message in second.broken.items()}
        self.broken = first.broken | moved
        self.layers = [
            {name: (layer, theirs[name]) for name, layer in ours.items()}
            for ours, theirs in zip(first.layers, second.layers, strict=True)
        ]

    def _take(self, layer, index):
        behind = index >= self.first
        if not behind.any():
            return super()._take(layer[0], index)
        found = super()._take(layer[0], index[~behind])
        found = torch.cat([found, super()._take(layer[1], index[behind] - self.first)])
        order = torch.argsort(torch.cat([torch.nonzero(~behind), torch.nonzero(behind)]).flatten())
        return found[order.to(self.device, non_blocking=True)]


def load(root, names, views, cache_dir, *, matte_dir=None, on_error="stop", device="cpu"):
    """Pixels of photos `names` below `root`; what the cache lacks is made first.

    The mattes that the views need must be there: background/pixels.py makes them first. A photo
    that cannot be read is a UserError, or with on_error="skip" stands in Pixels.broken.
    """
    matte_dir = Path(matte_dir or default_matte_dir(root))
    layers, broken, keys = [], {}, []
    for view in views:
        fills = {"pixels": view.fill}
        if view.fill == "random":
            fills = {
                "pixels": "mean",
                "photo": "none",
                "matte": "matte",
                "background": "background",
            }
        arrays = {}
        for kind, fill in fills.items():
            wanted = replace(view, fill=fill)
            path, bad = _open(root, names, wanted, Path(cache_dir), matte_dir, on_error)
            arrays[kind] = Rows(path, _shape(names, wanted))
            keys.append(path.stem)
            broken |= bad
        layers.append(arrays)
    return Pixels(layers, broken, device, key="+".join(keys))


def _open(root, names, view, cache_dir, matte_dir, on_error):
    """(path of a uint8 (N, C, H, W) .npy, broken) of one layer, built if the cache lacks it."""
    inputs = _fingerprint(root, names, view, matte_dir)
    path = cache_dir / f"{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:20]}.npy"

    def make(temporary):
        broken = _build(temporary, root, names, view, matte_dir)
        if broken and on_error == "stop":
            raise UserError(_broken_line(broken))
        return {"view": inputs["view"], "photos": len(names), "broken": broken}

    broken = {int(index): message for index, message in cached(path, make)["broken"].items()}
    if broken and on_error == "stop":
        raise UserError(_broken_line(broken))
    return path, broken


def _fingerprint(root, names, view, matte_dir):
    """All that the pixels depend on: files by size and times of change, and the view."""
    files = []
    methods = matte_methods([view])
    for name in names:
        paths = [Path(root, name)]
        paths += [matte_path(matte_dir, method, name) for method in methods]
        for path in paths:
            try:
                stat = path.stat()
                files.append((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
            except OSError:
                files.append(None)
    return {
        "version": VERSION,
        "root": str(Path(root).resolve()),
        "names": list(names),
        "view": [view.method, view.fill, view.crop, view.crop_method, list(view.size)],
        "stat": files,
    }


def _shape(names, view):
    return len(names), 1 if view.fill == "matte" else 3, *view.size


def _build(path, root, names, view, matte_dir):
    """Writes one layer with all cores; returns {index: message} of the photos left at zero."""
    broken = {}

    def job(index):
        name = names[index]
        try:
            out[index] = _render(Path(root, name), name, view, matte_dir)
        except UserError as error:
            broken[index] = str(error)

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pool below has the cores already
    try:
        out = np.lib.format.open_memmap(path, "w+", np.uint8, _shape(names, view))
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, a crash later
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        with ThreadPoolExecutor(cores()) as pool:
            what = view.method if view.method != "none" else "photos"
            list(progress(pool.map(job, range(len(names))), total=len(names), desc=what))
        out.flush()
    finally:
        cv2.setNumThreads(threads)
    return dict(sorted(broken.items()))


def _broken_line(broken):
    first = broken[min(broken)]
    more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    return f"{first}{more}; {SKIP}"


def _render(path, name, view, matte_dir):
    """uint8 (C, H, W) of one photo under a view."""
    photo = read_photo(path)
    shape = photo.shape[:2]
    if view.method != "none":
        alpha = read_matte(matte_path(matte_dir, view.method, name), shape)
        photo = _layer(photo, alpha, view.fill)
    top, bottom, left, right = 0, shape[0], 0, shape[1]
    if view.crop == "center":
        top, bottom, left, right = crops.center_box(*shape)
    elif view.crop == "person":
        alpha = read_matte(matte_path(matte_dir, view.crop_method, name), shape)
        top, bottom, left, right = crops.person_box(alpha, view.size)
    photo = photo[top:bottom, left:right]
    height, width = view.size
    shrinks = photo.shape[0] >= height and photo.shape[1] >= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    photo = cv2.resize(photo, (width, height), interpolation=method)
    return photo.reshape(height, width, -1).transpose(2, 0, 1)


def _layer(photo, alpha, fill):
    if fill == "none":
        return photo
    if fill == "matte":
        return alpha
    if fill == "background":
        return _background(photo, alpha)
    back = np.zeros_like(photo)
    if fill == "mean":
        back[:] = MEAN_COLOUR
    elif fill == "blur":
        back = _background(photo, alpha)
    share = alpha[..., None].astype(np.uint16)
    return ((photo * share + back * (255 - share) + 127) // 255).astype(np.uint8)


def _background(photo, alpha):
    """The background alone, blurred, so that it also covers the place of the person.

    A normalised blur: the person weighs nothing, so no colour of theirs bleeds into it.
    """
    height, width = alpha.shape
    small = (max(width // 8, 1), max(height // 8, 1))
    weight = 1 - alpha.astype(np.float32) / 255 + 1e-4  # a matte that covers all leaves a blur
    colour = cv2.resize(photo * weight[..., None], small, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(weight, small, interpolation=cv2.INTER_AREA)
    sigma = small[0] / 8
    colour = (
        cv2.GaussianBlur(colour, (0, 0), sigma) / cv2.GaussianBlur(weight, (0, 0), sigma)[..., None]
    )
    return cv2.resize(np.clip(np.rint(colour), 0, 255).astype(np.uint8), (width, height))
