"""Random augmentation and mixing of a whole batch on its device, each sample with its own draw.

The random numbers are drawn apart from the pixels: once for all samples of an epoch, on the CPU.
A batch uses its rows of that table, so that the result depends, beyond rounding, on neither the
split into batches, nor the number of processes, nor the device. apply(), normalize() and mix()
never wait for the device: no value is read, no shape depends on one.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

# Chance (flip, erase) or half-width of the uniform range of each draw. Hue is never touched.
RANGES = {
    "none": {"flip": 0.0, "angle": 0.0, "scale": 0.0, "shift": 0.0, "colour": 0.0, "erase": 0.0},
    "light": {
        "flip": 0.5,
        "angle": 10.0,
        "scale": 0.1,
        "shift": 0.06,
        "colour": 0.15,
        "erase": 0.0,
    },
    "strong": {
        "flip": 0.5,
        "angle": 20.0,
        "scale": 0.2,
        "shift": 0.1,
        "colour": 0.3,
        "erase": 0.25,
    },
}
STRENGTHS = tuple(RANGES)
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
# The columns of a table of draws. flip is 0 or 1; angle in degrees, clockwise; shift and erased
# box as shares of width (x) and height (y); scale and the three of colour are factors.
COLUMNS = (
    *("flip", "angle", "scale", "shift_x", "shift_y"),
    *("brightness", "contrast", "saturation"),
    *("erase_y0", "erase_x0", "erase_y1", "erase_x1"),
)


def draw(n, strength, generator):
    """All random numbers of n samples.

    strength: one of STRENGTHS; generator: a CPU torch.Generator, which moves on by the same
    amount whatever the strength. Returns (n, len(COLUMNS)) float32 on the CPU; for "none" each
    row changes nothing. Erasing: Zhong et al. 2017 (arXiv:1708.04896), its box always inside.
    """
    width = RANGES[strength]
    uniform = torch.rand(n, 13, generator=generator).unbind(1)
    flip, erase, area, ratio, y, x, *around = uniform
    angle, scale, shift_x, shift_y, *colour = (2 * u - 1 for u in around)  # -1..1
    area = ERASE_AREA[0] + (ERASE_AREA[1] - ERASE_AREA[0]) * area
    low, high = map(math.log, ERASE_RATIO)
    ratio = torch.exp(low + (high - low) * ratio)
    erase = (erase < width["erase"]).float()
    tall, wide = erase * torch.sqrt(area * ratio), erase * torch.sqrt(area / ratio)
    y, x = erase * y * (1 - tall), erase * x * (1 - wide)
    columns = (
        (flip < width["flip"]).float(),
        width["angle"] * angle,
        1 + width["scale"] * scale,
        width["shift"] * shift_x,
        width["shift"] * shift_y,
        *(1 + width["colour"] * factor for factor in colour),
        *(y, x, y + tall, x + wide),
    )
    return torch.stack(columns, dim=1)


def neutral(n, flip=False, scale=1.0):
    """(n, len(COLUMNS)) float32 draws on the CPU that flip and scale alike, and change no more."""
    draws = draw(n, "none", torch.Generator())
    draws[:, COLUMNS.index("flip")] = flip
    draws[:, COLUMNS.index("scale")] = scale
    return draws


def apply(images, draws, mean, std, strength="light"):
    """Augments and normalises a batch.

    images: (n, 3, H, W) uint8; draws: (n, len(COLUMNS)), rows of draw() on the same device;
    mean, std: (3,) in 0..1, best as tensors on the device (a sequence is copied there each call).
    strength: that of the draws; "none" and "light" skip the steps that they do not have.
    Returns (n, 3, H, W) float32.

    The steps are torchvision's hflip, affine (bilinear, about the centre, the photo mirrored
    beyond its edges), adjust_brightness, adjust_contrast, adjust_saturation, normalize and erase
    (with the mean colour), in this order. Colours are clamped to 0..1 once, after saturation;
    torchvision clamps after each step. That makes the three one affine map of the pixel.
    """
    if strength == "none":
        return normalize(images, mean, std)
    if images.device.type != "cpu":
        return _augment(images, draws, mean, std, strength)
    # Few photos at a time stay in the cache of their core: faster than all at once.
    few = PHOTOS_A_THREAD * torch.get_num_threads()
    parts = zip(images.split(few), draws.split(few), strict=True)
    return torch.cat([_augment(*part, mean, std, strength) for part in parts])


def _augment(images, draws, mean, std, strength):
    height, width = images.shape[2:]
    drawn = dict(zip(COLUMNS, draws.unbind(1), strict=True))
    pixels = F.grid_sample(
        images.float(), _grid(drawn, height, width), padding_mode="reflection", align_corners=False
    )
    pixels = _standardize_(_colour_(pixels, drawn), mean, std)
    if strength == "strong":
        y0, x0, y1, x1 = draws[:, -4:].unbind(1)
        box = (y0 * height, x0 * width, y1 * height, x1 * width)
        pixels.masked_fill_(_inside(box, height, width), 0)
    return pixels


def normalize(images, mean, std):
    """(n, 3, H, W) uint8 to float32: (images / 255 - mean) / std, with mean, std as in apply()."""
    return _standardize_(images.float().div_(255), mean, std)


def variant(images, mean, std, flip=False, scale=1.0):
    """normalize() of the photos, mirrored with `flip`, zoomed in (scale > 1) or out about the
    centre; the size stays. Without a zoom it is exact, with one bilinear, as in apply().
    """
    if scale != 1:
        draws = neutral(len(images), flip, scale).to(images.device)
        return apply(images, draws, mean, std, "light")
    pixels = normalize(images, mean, std)
    return pixels.flip(3) if flip else pixels


def _standardize_(pixels, mean, std):
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=pixels.device) for v in (mean, std))
    return pixels.sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))


def _grid(drawn, height, width):
    """Where each output pixel comes from: (n, H, W, 2) in the units of F.grid_sample.

    Kept as two planes, x and y, since that is several times faster to fill than pairs.
    """
    device = drawn["angle"].device
    angle = torch.deg2rad(drawn["angle"])
    cos, sin = torch.cos(angle) / drawn["scale"], torch.sin(angle) / drawn["scale"]
    mirror = 1 - 2 * drawn["flip"]
    x = torch.arange(width, device=device) - (width - 1) / 2 - width * drawn["shift_x"][:, None]
    y = torch.arange(height, device=device) - (height - 1) / 2 - height * drawn["shift_y"][:, None]
    to_x, to_y = 2 / width * mirror, 2 / height
    along_x = torch.stack([(cos * to_x)[:, None] * x, (-sin * to_y)[:, None] * x], dim=1)
    along_y = torch.stack([(sin * to_x)[:, None] * y, (cos * to_y)[:, None] * y], dim=1)
    return (along_x[:, :, None, :] + along_y[:, :, :, None]).permute(0, 2, 3, 1)


def _colour_(pixels, drawn):
    """Brightness b, contrast c, saturation s of pixels in 0..255, in place; returns 0..1.

    b, then c around the mean grey, then s around the pixel's own grey, written out:
    s c b pixel + (1 - s) c b grey + (1 - c) b mean_grey, the same for each colour.
    """
    b, c, s = (drawn[name][:, None, None] for name in ("brightness", "contrast", "saturation"))
    b = b / 255
    grey = GREY[0] * pixels[:, 0]
    grey.add_(pixels[:, 1], alpha=GREY[1]).add_(pixels[:, 2], alpha=GREY[2])
    # The grey of a grey pixel is sum(GREY) of it, which is not quite 1.
    constant = (1 - c) * b * (s + (1 - s) * sum(GREY)) * grey.mean((1, 2), keepdim=True)
    grey.mul_((1 - s) * c * b).add_(constant)
    return pixels.mul_((s * c * b)[:, None]).add_(grey[:, None]).clamp_(0, 1)


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
