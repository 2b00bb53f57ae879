"""The samples of one epoch, all that is random about them drawn at once, and their batches."""

import hashlib
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

import augment
from dataset import sampling_weights
from labels import HEADS


@dataclass
class Data:
    """What one task trains on in one fold.

    pixels: a store.Pixels of N photos; names: their N names; train, valid: int64 arrays of
    photos; targets: {head: int64 (N,)}, of training, and "years": float32 (N,), NaN where
    unknown; truth: {head: int64}, of validation, whose photos come first.
    """

    pixels: object
    names: list
    train: np.ndarray
    valid: np.ndarray
    targets: dict
    truth: dict


def seed_of(*parts):
    """A seed of 63 bits from (seed, fold, task, epoch, ...)."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Epoch:
    """The samples of one epoch of one task.

    data: Data; heads: those of the model; options: options.for_task(); seed: of this epoch;
    normalization: (mean, std) tensors on the device; size: (height, width) of the photos, else
    that of --resize; extra: the model's other outputs (see model.Classifier).

    With V views each photo counts V times. With a weighted sampler the samples are drawn with
    replacement, balancing the classes of the one head, or the 18 classes for several heads.
    The draws do not depend on the batch size, the device or the number of processes.
    """

    def __init__(self, data, heads, options, seed, normalization, size=None, extra=()):
        self.data, self.heads, self.extra, self.options = data, heads, extra, options
        self.normalization, device = normalization, data.pixels.device
        generator = torch.Generator().manual_seed(seed)
        train, views = torch.from_numpy(data.train), data.pixels.views
        self.size = size = tuple(size or options["resize"])
        self.count = n = len(train) * views
        if options["weighted_sampler"]:
            head = heads[0] if len(heads) == 1 else "label"
            codes = data.targets[head][data.train]
            weights = sampling_weights(codes, head, options["weighted_sampler"])
            weights = torch.from_numpy(weights).repeat(views)
            pick = torch.multinomial(weights, n, replacement=True, generator=generator)
        else:
            pick = torch.randperm(n, generator=generator)
        self.photos, self.views = train[pick % len(train)], pick // len(train)
        self.draws = augment.draw(n, options["augmentation"], generator).to(device)
        self.backgrounds = train[torch.randint(len(train), (n,), generator=generator)]
        self.mixing = next((kind for kind in augment.MIXES if options[kind]), None)
        if self.mixing:
            alpha = float(options[self.mixing])
            self.partners, mix = augment.draw_mix(n, self.mixing, alpha, size, generator)
            self.mix = mix.to(device)
        self.waited = 0.0  # seconds spent on fetching pixels

    def batch(self, rows):
        """(images, own, targets) of the samples `rows`, a slice.

        images: float32 (n, 3, H, W), augmented and normalised, or (n, F) features; own: {head:
        int64 (n,)}; targets: the same, or with mixing {head: float32 (n, classes)}; and where
        `extra` asks for it, "years" (n,) float32 and "given" (n, 3) float32 mask states.
        """
        photos = self.photos[rows]
        images, own = self._images(rows), self._classes(photos)
        targets = own | self._extra(photos)
        if not self.mixing:
            return images, own, targets
        partners = self.partners[rows]
        others = self._classes(self.photos[partners])
        images, share = augment.mix(images, self._images(partners), self.mix[rows], self.mixing)
        for head in self.heads:
            soft = F.one_hot(others[head], HEADS[head]), F.one_hot(own[head], HEADS[head])
            targets[head] = torch.lerp(*(value.float() for value in soft), share[:, None])
        for name, other in self._extra(self.photos[partners]).items():
            weight = share[:, None] if other.dim() == 2 else share
            targets[name] = torch.lerp(other, targets[name], weight)
        return images, own, targets

    def _classes(self, photos):
        return {head: self._target(head, photos) for head in self.heads}

    def _extra(self, photos):
        result = {}
        if "years" in self.extra:
            result["years"] = self._target("years", photos)
        if "given_mask" in self.extra:
            result["given"] = F.one_hot(self._target("mask", photos), HEADS["mask"]).float()
        return result

    def _target(self, name, photos):
        values = torch.from_numpy(self.data.targets[name])[photos]
        return values.to(self.data.pixels.device, non_blocking=True)

    def _images(self, rows):
        start = time.perf_counter()
        pixels = self.data.pixels.batch(self.photos[rows], self.views[rows], self.backgrounds[rows])
        self.waited += time.perf_counter() - start
        if pixels.dim() == 2:
            return pixels
        if pixels.shape[2:] != self.size:
            pixels = F.interpolate(pixels.float(), self.size, mode="area")
        draws, strength = self.draws[rows], self.options["augmentation"]
        return augment.apply(pixels, draws, *self.normalization, strength)
