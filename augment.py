"""Random augmentation and mixing of a whole batch on its device, each sample with its own draw.

The random numbers are drawn apart from the pixels: once for all samples of an epoch, on the CPU.
A batch uses its rows of that table, so that the result depends, beyond rounding, on neither the
split into batches, nor the number of processes, nor the device. apply(), normalize() and mix()
never wait for the device: no value is read, no shape depends on one.

To add an augmentation, add one entry to AUGMENTATIONS: a name, a step, and a range a strength.

    def fade(pixels, amount):  # pixels (n, 3, H, W) float32 in 0..1, amount (n, 1, 1, 1)
        return torch.lerp(pixels, pixels.mean((2, 3), keepdim=True), amount)
    AUGMENTATIONS.append(Augmentation("fade", fade, {"light": (0, 0.1), "strong": (0, 0.3)}))

Each sample gets its own amount, uniform in the range; a strength without a range skips the step.
Or take a transform of torchvision, with the chance that a photo gets it (its cost: transform()).

    AUGMENTATIONS.append(transform(v2.GaussianBlur(3), {"light": 0.1, "strong": 0.3}))

The draws of a new entry follow from the seed of the epoch, its name and its place in the list:
runs stay repeatable, and an entry at the end leaves all other draws as they were.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch.nn import functional as F

STRENGTHS = ("none", "light", "strong")
MIXES = ("mixup", "cutmix", "cutmix_half")
ERASE_AREA = (0.02, 0.2)  # share of the photo; small enough for any box of these ratios to fit
ERASE_RATIO = (0.3, 3.3)  # height over width, each as a share of the photo's
HALF = (0.46, 0.54)  # share of the own photo in cutmix_half
PHOTOS_A_THREAD = 4
GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, with torchvision's digits
# Test-time augmentation: the (flip, scale) of each variant of a photo that is averaged over.
TTA = {
    "none": ((False, 1.0),),
    "flip": ((False, 1.0), (True, 1.0)),
    "scale": ((False, 0.9), (False, 1.0), (False, 1.1)),
    "both": tuple((flip, scale) for flip in (False, True) for scale in (0.9, 1.0, 1.1)),
}


def between(ends, uniform):
    """[(n,) numbers between the two ends] of (n,) uniform numbers in 0..1."""
    low, high = ends
    return [low + (high - low) * uniform]


@dataclass(frozen=True)
class Augmentation:
    """One random change: what it draws for a sample, its range a strength, its step on a batch.

    step(pixels, *columns) -> pixels: (n, 3, H, W) float32 in 0..1, which it may overwrite; a
    column is (n, 1, 1, 1). With `normalized` it runs after the normalisation instead.
    ranges: {strength: what draw() takes}; a strength that is missing skips the step.
    draw(range, *numbers) -> one (n,) column for each name in `columns`, from as many (n,) random
    numbers, uniform in 0..1, as `numbers` says.
    shared: instead, the positions of its numbers in the row that WARP, COLOUR and ERASE share.
    """

    name: str
    step: Callable
    ranges: dict
    draw: Callable = between
    columns: tuple = ("amount",)
    numbers: int = 1
    shared: tuple = ()
    normalized: bool = False


# ---- the entries: flip and affine, colour, erasing, and any transform of torchvision


def draw_warp(width, flip, *numbers):
    """Flip 0 or 1; the angle in degrees, clockwise; a factor; shares of the width and height."""
    angle, scale, *shift = (2 * number - 1 for number in numbers)  # -1..1
    flip, shift = (flip < width["flip"]).float(), [width["shift"] * part for part in shift]
    return flip, width["angle"] * angle, 1 + width["scale"] * scale, *shift


def warp(pixels, *columns):
    """torchvision's hflip, then affine: bilinear, about the centre, mirrored beyond the edges."""
    grid = _grid([column.flatten() for column in columns], *pixels.shape[2:])
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def _grid(columns, height, width):
    """Where each output pixel comes from: (n, H, W, 2) in the units of F.grid_sample.

    Kept as two planes, x and y, since that is several times faster to fill than pairs.
    """
    flip, angle, scale, shift_x, shift_y = columns
    angle, device = torch.deg2rad(angle), angle.device
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    x = torch.arange(width, device=device) - (width - 1) / 2 - width * shift_x[:, None]
    y = torch.arange(height, device=device) - (height - 1) / 2 - height * shift_y[:, None]
    to_x, to_y = 2 / width * (1 - 2 * flip), 2 / height
    along_x = torch.stack([(cos * to_x)[:, None] * x, (-sin * to_y)[:, None] * x], dim=1)
    along_y = torch.stack([(sin * to_x)[:, None] * y, (cos * to_y)[:, None] * y], dim=1)
    return (along_x[:, :, None, :] + along_y[:, :, :, None]).permute(0, 2, 3, 1)


def draw_colour(width, *numbers):
    """Factors of brightness, contrast and saturation. Hue is never touched."""
    return [1 + width * (2 * number - 1) for number in numbers]


def colour(pixels, brightness, contrast, saturation):
    """torchvision's adjust_brightness, adjust_contrast and adjust_saturation of pixels in 0..255,
    in place; returns 0..1, clamped once at the end, where torchvision clamps after each.

    Brightness b, then contrast c around the mean grey, then saturation s around the pixel's own
    grey are one affine map of the pixel, the same for each colour:
    s c b pixel + (1 - s) c b grey + (1 - c) b mean_grey.
    """
    b, c, s = (factor[..., 0] for factor in (brightness, contrast, saturation))
    b = b / 255
    grey = GREY[0] * pixels[:, 0]
    grey.add_(pixels[:, 1], alpha=GREY[1]).add_(pixels[:, 2], alpha=GREY[2])
    # The grey of a grey pixel is sum(GREY) of it, which is not quite 1.
    constant = (1 - c) * b * (s + (1 - s) * sum(GREY)) * grey.mean((1, 2), keepdim=True)
    grey.mul_((1 - s) * c * b).add_(constant)
    return pixels.mul_((s * c * b)[:, None]).add_(grey[:, None]).clamp_(0, 1)


def draw_erase(chance, happens, area, ratio, y, x):
    """The box as shares of the height (y) and width (x), all 0 for none (Zhong et al. 2017,
    arXiv:1708.04896); always inside the photo.
    """
    area = ERASE_AREA[0] + (ERASE_AREA[1] - ERASE_AREA[0]) * area
    low, high = map(math.log, ERASE_RATIO)
    ratio = torch.exp(low + (high - low) * ratio)
    happens = (happens < chance).float()
    tall, wide = happens * torch.sqrt(area * ratio), happens * torch.sqrt(area / ratio)
    y, x = happens * y * (1 - tall), happens * x * (1 - wide)
    return y, x, y + tall, x + wide


def erase(pixels, *columns):
    """torchvision's erase of normalised pixels, in place: 0 is the mean colour."""
    height, width = pixels.shape[2:]
    y0, x0, y1, x1 = (column.flatten() for column in columns)
    box = (y0 * height, x0 * width, y1 * height, x1 * width)
    return pixels.masked_fill_(_inside(box, height, width), 0)


def transform(function, chances):
    """An Augmentation of any torchvision.transforms.v2 transform that keeps the size, such as
    v2.GaussianBlur(3): each photo gets it with the chance in 0..1 that `chances` has for a
    strength, seeded by its own draw.

    It sees one photo at a time, (3, H, W) float32 in 0..1. That costs one call a photo, and on a
    GPU a wait for the device each batch: a step on the whole batch, as in fade() above, is faster.
    """

    def draw(chance, happens, seed):
        return [(happens < chance) * (1 + seed * 2**24)]  # exact in float32; 0: leave it alone

    def step(pixels, seeds):
        with torch.random.fork_rng([pixels.device] if pixels.is_cuda else []):
            for photo, seed in zip(pixels, seeds.flatten().tolist(), strict=True):
                if seed:
                    torch.manual_seed(int(seed))
                    photo.copy_(function(photo))
        return pixels

    name = getattr(function, "__name__", type(function).__name__)
    return Augmentation(name, step, chances, draw, columns=("seed",), numbers=2)


# The numbers of a range: the chance of flip and erase, else half a width about "no change".
WARP = Augmentation(
    "warp",
    warp,
    {
        "light": {"flip": 0.5, "angle": 10.0, "scale": 0.1, "shift": 0.06},
        "strong": {"flip": 0.5, "angle": 20.0, "scale": 0.2, "shift": 0.1},
    },
    draw_warp,
    columns=("flip", "angle", "scale", "shift_x", "shift_y"),
    shared=(0, 6, 7, 8, 9),
)
COLOUR = Augmentation(
    "colour",
    colour,
    {"light": 0.15, "strong": 0.3},
    draw_colour,
    columns=("brightness", "contrast", "saturation"),
    shared=(10, 11, 12),
)
ERASE = Augmentation(
    "erase",
    erase,
    {"strong": 0.25},
    draw_erase,
    columns=("erase_y0", "erase_x0", "erase_y1", "erase_x1"),
    shared=(1, 2, 3, 4, 5),
    normalized=True,
)
SHARED = 13  # random numbers a sample that these three share, so that older runs repeat
# In the order of their steps. Warp and colour come first in every strength but none: they copy
# the photos and bring them from 0..255 to 0..1.
AUGMENTATIONS = [WARP, COLOUR, ERASE]


# ---- the batch


def active(strength):
    """The entries of AUGMENTATIONS that a strength has, in the order of the columns of draw()."""
    return [entry for entry in AUGMENTATIONS if strength in entry.ranges]


def draw(n, strength, generator):
    """All random numbers of n samples.

    strength: one of STRENGTHS; generator: a CPU torch.Generator seeded for this epoch, which moves
    on by the same amount whatever the strength and the entries. Returns (n, C) float32 on the CPU,
    a column for each of the `columns` of active(strength).
    """
    shared = torch.rand(n, SHARED, generator=generator).unbind(1)
    columns = []
    for place, entry in enumerate(active(strength)):
        numbers = [shared[k] for k in entry.shared]
        if not numbers:
            seed = generator.initial_seed() ^ zlib.crc32(f"{place} {entry.name}".encode())
            own = torch.Generator().manual_seed(seed)
            numbers = torch.rand(n, entry.numbers, generator=own).unbind(1)
        columns += entry.draw(entry.ranges[strength], *numbers)
    return torch.stack(columns, dim=1) if columns else torch.empty(n, 0)


def apply(images, draws, mean, std, strength="light"):
    """Augments and normalises a batch.

    images: (n, 3, H, W) uint8; draws: rows of draw() of the same strength, on the same device;
    mean, std: (3,) in 0..1, best as tensors on the device (a sequence is copied there each call).
    Returns (n, 3, H, W) float32: the steps of active(strength), with the normalisation after all
    but those that are `normalized`.
    """
    entries = active(strength)
    return _augment(images, draws, mean, std, entries) if entries else normalize(images, mean, std)


def _augment(images, draws, mean, std, entries):
    if images.device.type != "cpu":
        return _steps(images, draws, mean, std, entries)
    # Few photos at a time stay in the cache of their core: faster than all at once.
    few = PHOTOS_A_THREAD * torch.get_num_threads()
    parts = zip(images.split(few), draws.split(few), strict=True)
    return torch.cat([_steps(*part, mean, std, entries) for part in parts])


def _steps(images, draws, mean, std, entries):
    columns = iter(draws[:, :, None, None, None].unbind(1))
    steps = [(entry, list(islice(columns, len(entry.columns)))) for entry in entries]

    def run(pixels, normalized):
        for entry, own in steps:
            if entry.normalized == normalized:
                pixels = entry.step(pixels, *own)
        return pixels

    return run(_standardize_(run(images.float(), False), mean, std), True)


def normalize(images, mean, std):
    """(n, 3, H, W) uint8 to float32: (images / 255 - mean) / std, with mean, std as in apply()."""
    return _standardize_(images.float().div_(255), mean, std)


def variant(images, mean, std, flip=False, scale=1.0):
    """normalize() of the photos, mirrored with `flip`, zoomed in (scale > 1) or out about the
    centre; the size stays. Without a zoom it is exact, with one bilinear, as in apply().
    """
    if scale != 1:
        draws = torch.tensor([[flip, 0, scale, 0, 0, 1, 1, 1]]).repeat(len(images), 1)
        return _augment(images, draws.to(images.device), mean, std, [WARP, COLOUR])
    pixels = normalize(images, mean, std)
    return pixels.flip(3) if flip else pixels


def _standardize_(pixels, mean, std):
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=pixels.device) for v in (mean, std))
    return pixels.sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))


def _inside(box, height, width):
    """(n, 1, H, W) bool: is the pixel's centre in the box; box: y0, x0, y1, x1, (n,) pixels."""
    y0, x0, y1, x1 = box
    y = torch.arange(height, device=y0.device) + 0.5
    x = torch.arange(width, device=y0.device) + 0.5
    rows = (y >= y0[:, None]) & (y < y1[:, None])
    columns = (x >= x0[:, None]) & (x < x1[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def draw_mix(n, kind, alpha, size, generator):
    """Partners and shares of n samples, the i-th of which is to be mixed with the partner[i]-th.

    kind: one of MIXES; alpha: the own share is Beta(alpha, alpha), not used by cutmix_half;
    size: (height, width); generator: a CPU torch.Generator. Returns partner (n,) int64, never
    the sample itself unless n is 1, and (n, 5) float32: y0, x0, y1, x1, the box in pixels that
    cutmix takes from the partner (0 for mixup), and the own share in 0..1.

    mixup: Zhang et al. 2017 (arXiv:1710.09412). cutmix: Yun et al. 2019 (arXiv:1905.04899), the
    box clipped to the photo and the share corrected to the true area. cutmix_half: cut along a
    vertical line, own share uniform in HALF before rounding to pixels, the side drawn at random.
    """
    height, width = size
    partner = torch.arange(n) + torch.randint(1, max(n, 2), (n,), generator=generator)
    seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
    random = np.random.default_rng(seed)  # torch draws Beta from its global generator only
    share = random.uniform(*HALF, n) if kind == "cutmix_half" else random.beta(alpha, alpha, n)
    box = np.zeros((4, n))
    if kind == "cutmix":
        cut = np.sqrt(1 - share)
        for axis, length in enumerate(size):
            half = np.floor(length * cut) / 2
            centre = random.integers(0, length, n)
            box[axis] = np.clip(np.floor(centre - half), 0, length)
            box[axis + 2] = np.clip(np.floor(centre + half), 0, length)
    elif kind == "cutmix_half":
        own_left = random.random(n) < 0.5
        own = np.rint(share * width)
        box[1] = np.where(own_left, own, 0)
        box[2], box[3] = height, np.where(own_left, width, width - own)
    if kind != "mixup":
        share = 1 - (box[2] - box[0]) * (box[3] - box[1]) / (height * width)
    draws = torch.from_numpy(np.stack([*box, share], axis=1)).float()
    return partner % n, draws


def mix(images, partners, draws, kind):
    """Mixes each image with its partner.

    images, partners: (n, 3, H, W) float, normalised; draws: (n, 5) rows of draw_mix() on the
    same device. Returns (n, 3, H, W) and (n,) the weight of the own label, 1 - that of the
    partner's.
    """
    *box, share = draws.unbind(1)
    if kind == "mixup":
        return torch.lerp(partners, images, share[:, None, None, None]), share
    return torch.where(_inside(box, *images.shape[2:]), partners, images), share
