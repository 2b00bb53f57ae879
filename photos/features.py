"""The outputs of a frozen backbone, computed once for each photo and view, and kept on disk."""

import hashlib

import numpy as np
import torch

import augment
from common import devices
from common.files import cached
from common.processes import progress
from photos.store import Pixels


def load(pixels, backbone, info, cache_dir, batch_size=256):
    """Pixels whose batches are the features, float32 (n, F), of those of another store.Pixels, from
    the cache folder or made now, by a backbone in eval mode on their device; info: the ModelInfo.
    """
    key = hashlib.sha256(pixels.key.encode())
    key.update(repr((info.model, info.mean, info.std, info.size)).encode())
    for value in backbone.state_dict().values():
        key.update(value.contiguous().cpu().numpy().tobytes())
    path = cache_dir / f"{key.hexdigest()[:20]}.features.npy"

    def make(temporary):
        with temporary.open("wb") as file:
            np.save(file, _compute(pixels, backbone, info, batch_size))
        return {"model": info.model, "photos": pixels.count}

    cached(path, make)
    layers = [{"pixels": values} for values in np.load(path)]
    return Pixels(layers, pixels.broken, pixels.device)


@torch.inference_mode()
def _compute(pixels, backbone, info, batch_size):
    views = []
    for view in range(pixels.views):
        parts = torch.arange(pixels.count).split(devices.at_once(batch_size, pixels.device))
        bar = progress(parts, desc=f"features of {info.model}")
        seen = (augment.normalize(pixels.batch(part, view), info.mean, info.std) for part in bar)
        views.append(torch.cat([backbone(batch) for batch in seen]).float().cpu().numpy())
    return np.stack(views)
