"""Random augmentation and mixing of a whole batch on its device, each sample with its own draw.

The random numbers are drawn apart from the pixels: once for all samples of an epoch, on the CPU.
A batch uses its rows of that table, so that the result depends, beyond rounding, on neither the
split into batches, nor the number of processes, nor the device. apply(), normalize() and mix()
never wait for the device: no value is read, no shape depends on one.

To add an augmentation, append to MORE a step and, for each strength, a range. Each sample gets its
own amount, uniform in the range; a strength without a range skips the step.

    def fade(pixels, amount):  # pixels (n, 3, H, W) float32 in 0..1, amount (n, 1, 1, 1)
        return torch.lerp(pixels, pixels.mean((2, 3), keepdim=True), amount)
    MORE.append((fade, {"light": (0, 0.1), "strong": (0, 0.3)}))

Or, at the end of this file, a transform of torchvision, with the chance that a photo gets it:

    from torchvision.transforms import v2
    MORE.append(transform(v2.GaussianBlur(3), light=0.1, strong=0.3))

Runs stay repeatable, and an entry at the end leaves all other draws as they were.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

STRENGTHS = ("none", "light", "strong")
MIXES = ("mixup", "cutmix", "cutmix_half")
# The chance of flip and erase, and half the range about "no change" of the others: the angle in
# degrees; the factors of size, brightness, contrast and saturation; the shares of a shift.
LIGHT = {"flip": 0.5, "erase": 0, "angle": 10, "scale": 0.1, "shift": 0.06, "colour": 0.15}
STRONG = {"flip": 0.5, "erase": 0.25, "angle": 20, "scale": 0.2, "shift": 0.1, "colour": 0.3}
WIDTHS = {"light": LIGHT, "strong": STRONG}
MORE = []  # [(step, {strength: (low, high)})], after the colours and before the normalisation
COLUMNS = ("flip", "angle", "scale", "shift_x", "shift_y", "brightness", "contrast", "saturation")
COLUMNS += ("erase_y0", "erase_x0", "erase_y1", "erase_x1")  # of draw(), then one for each of MORE
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


def draw(n, strength, generator):
    """All random numbers of n samples.

    strength: one of STRENGTHS; generator: a CPU torch.Generator seeded for this epoch, which moves
    on by the same amount whatever the strength and MORE. Returns (n, C) float32 on the CPU: COLUMNS
    and the amounts of MORE; nothing for "none".
    """
    numbers = torch.rand(n, 13, generator=generator).unbind(1)
    if strength == "none":
        return torch.empty(n, 0)
    width, (flip, erase, area, ratio, y, x, *around) = WIDTHS[strength], numbers
    angle, scale, shift_x, shift_y, *colours = (2 * number - 1 for number in around)  # -1..1
    columns = [(flip < width["flip"]).float(), width["angle"] * angle, 1 + width["scale"] * scale]
    columns += [width["shift"] * shift_x, width["shift"] * shift_y]
    columns += [1 + width["colour"] * colour for colour in colours]
    # Random erasing (Zhong et al. 2017, arXiv:1708.04896): a box as shares of the height and
    # width, always inside the photo; all 0 for none.
    area = ERASE_AREA[0] + (ERASE_AREA[1] - ERASE_AREA[0]) * area
    low, high = map(math.log, ERASE_RATIO)
    ratio, erase = torch.exp(low + (high - low) * ratio), (erase < width["erase"]).float()
    tall, wide = erase * torch.sqrt(area * ratio), erase * torch.sqrt(area / ratio)
    y, x = erase * y * (1 - tall), erase * x * (1 - wide)
    columns += [y, x, y + tall, x + wide]
    own = torch.Generator().manual_seed(generator.initial_seed() ^ 1)
    for _, ranges in MORE:
        uniform = torch.rand(n, generator=own)
        if strength in ranges:
            low, high = ranges[strength]
            columns.append(low + (high - low) * uniform)
    return torch.stack(columns, dim=1)


def transform(function, **chances):
    """An entry of MORE: any torchvision.transforms.v2 transform that keeps the size, such as
    v2.GaussianBlur(3); chances: {strength: the chance above 0 that a photo gets it}.

    It sees one photo at a time, (3, H, W) float32 in 0..1, and is seeded by that photo's amount.
    That costs one call a photo, and on a GPU a wait for the device each batch: a step on the whole
    batch is faster.
    """

    def step(pixels, amounts):
        with torch.random.fork_rng([pixels.device] if pixels.is_cuda else []):
            for photo, amount in zip(pixels, amounts.flatten().tolist(), strict=True):
                if amount < 1:
                    torch.manual_seed(int(amount * 2**24))
                    photo.copy_(function(photo))
        return pixels

    return step, {strength: (0, 1 / chance) for strength, chance in chances.items()}


def apply(images, draws, mean, std, strength="light"):
    """Augments and normalises (n, 3, H, W) uint8 to float32. draws: rows of draw() of the same
    strength, on the same device; mean, std: (3,) in 0..1, best as tensors there.
    """
    if strength == "none":
        return normalize(images, mean, std)
    steps = [step for step, ranges in MORE if strength in ranges]
    return _augment(images, draws, mean, std, steps, WIDTHS[strength]["erase"] > 0)


def _augment(images, draws, mean, std, steps=(), erases=False):
    # On a CPU few photos at a time stay in the cache of their core: faster than all at once.
    few = PHOTOS_A_THREAD * torch.get_num_threads() if images.device.type == "cpu" else len(images)
    parts = []
    for photos, rows in zip(images.split(few), draws.split(few), strict=True):
        columns = rows.unbind(1)
        pixels = colour(warp(photos.float(), *columns[:5]), *columns[5:8])
        for step, amount in zip(steps, columns[12:], strict=True):
            pixels = step(pixels, amount[:, None, None, None])
        pixels = _standardize_(pixels, mean, std)
        if erases:  # to the mean colour
            height, width = pixels.shape[2:]
            box = [a * b for a, b in zip(columns[8:12], (height, width) * 2, strict=True)]
            pixels.masked_fill_(_inside(box, height, width), 0)
        parts.append(pixels)
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def warp(pixels, flip, angle, scale, shift_x, shift_y):
    """torchvision's hflip, then affine: bilinear, about the centre, mirrored beyond the edges.

    pixels: (n, 3, H, W) float32; the others: (n,), the angle in degrees, clockwise.
    """
    # Where each output pixel comes from, (n, H, W, 2) in the units of F.grid_sample; kept as two
    # planes, x and y, since that is several times faster to fill than pairs.
    (height, width), angle, device = pixels.shape[2:], torch.deg2rad(angle), angle.device
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    x = torch.arange(width, device=device) - (width - 1) / 2 - width * shift_x[:, None]
    y = torch.arange(height, device=device) - (height - 1) / 2 - height * shift_y[:, None]
    to_x, to_y = 2 / width * (1 - 2 * flip), 2 / height
    along_x = torch.stack([(cos * to_x)[:, None] * x, (-sin * to_y)[:, None] * x], dim=1)
    along_y = torch.stack([(sin * to_x)[:, None] * y, (cos * to_y)[:, None] * y], dim=1)
    grid = (along_x[:, :, None, :] + along_y[:, :, :, None]).permute(0, 2, 3, 1)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


def colour(pixels, brightness, contrast, saturation):
    """torchvision's adjust_brightness, adjust_contrast and adjust_saturation of pixels in 0..255,
    in place; returns 0..1, clamped once at the end, where torchvision clamps after each.

    Brightness b, then contrast c around the mean grey, then saturation s around the pixel's own
    grey are one affine map of the pixel, the same for each colour:
    s c b pixel + (1 - s) c b grey + (1 - c) b mean_grey.
    """
    b, c, s = (factor[:, None, None] for factor in (brightness / 255, contrast, saturation))
    grey = GREY[0] * pixels[:, 0]
    grey.add_(pixels[:, 1], alpha=GREY[1]).add_(pixels[:, 2], alpha=GREY[2])
    # The grey of a grey pixel is sum(GREY) of it, which is not quite 1.
    constant = (1 - c) * b * (s + (1 - s) * sum(GREY)) * grey.mean((1, 2), keepdim=True)
    grey.mul_((1 - s) * c * b).add_(constant)
    return pixels.mul_((s * c * b)[:, None]).add_(grey[:, None]).clamp_(0, 1)


def normalize(images, mean, std):
    """(n, 3, H, W) uint8 to float32: (images / 255 - mean) / std, with mean, std as in apply()."""
    return _standardize_(images.float().div_(255), mean, std)


def _standardize_(pixels, mean, std):
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=pixels.device) for v in (mean, std))
    return pixels.sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))


def variant(images, mean, std, flip=False, scale=1.0):
    """normalize() of the photos, mirrored with `flip`, zoomed in (scale > 1) or out about the
    centre; the size stays. Without a zoom it is exact, with one bilinear, as in apply().
    """
    if scale != 1:
        draws = torch.tensor([[flip, 0, scale, 0, 0, 1, 1, 1]]).repeat(len(images), 1)
        return _augment(images, draws.to(images.device), mean, std)
    pixels = normalize(images, mean, std)
    return pixels.flip(3) if flip else pixels


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
    """(images mixed with their partners, (n,) weight of the own label); both are (n, 3, H, W)
    float, normalised; draws: (n, 5) rows of draw_mix() on the same device.
    """
    *box, share = draws.unbind(1)
    if kind == "mixup":
        return torch.lerp(partners, images, share[:, None, None, None]), share
    return torch.where(_inside(box, *images.shape[2:]), partners, images), share
