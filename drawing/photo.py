"""A photo of a drawn person: a mask on the face, a pose, a light and the noise of the camera."""

import copy
import functools

import cv2
import numpy as np

from drawing.backdrop import MARGIN, render_scale
from drawing.canvas import CLOTHES, WHITE, Layer, curve, mirror, mix, over, pattern
from drawing.portrait import LONG, half_width

# Of each kind of mask: its colours; how far its middle rises above its upper edge; how much of the
# face's width it covers; half the width of its lower edge.
BLUES = [(160, 200, 226), (236, 240, 242), (232, 180, 196), (130, 176, 190), (40, 42, 48)]
GREYS = [(244, 244, 240), (236, 232, 222), (60, 62, 66), (214, 196, 176)]
MASKS = {
    "surgical": (BLUES, 0.04, 0.97, 0.42),
    "kn95": (GREYS, 0.14, 0.96, 0.16),
    "cloth": (CLOTHES, 0.09, 0.985, 0.32),
}
# How a mask may be worn: (height of its upper edge, of its lower edge) on the face.
WORN = {"right": (0.13, 1.05), "nose": (0.46, 1.1), "chin": (0.76, 1.14)}


def draw_mask(rng, head, who, kind, worn):
    """A copy of the head Layer with a mask on it; the head stays as it is.

    who of identity, kind one of MASKS, worn one of WORN: "nose" leaves the nose bare, "chin" the
    mouth too.
    """
    face, layer = copy.deepcopy(head), Layer(head.box, head.scale, head.unit)
    colours, rise, share, foot = MASKS[kind]
    top, low = rng.normal(WORN[worn][0], 0.02), rng.uniform(0, 0.05) + WORN[worn][1]
    peak, deep = top - rise, low - top
    v = top + deep * np.array([0.1, 0.3, 0.55, 0.8, 1])
    reach = half_width(who, v.clip(0, 0.93)) * share
    reach[4], reach[3] = foot, max(reach[3], 1.4 * foot)
    edge = np.stack([reach, v], 1)
    shape = curve(mirror([(0, peak), *edge]), True)
    tone = rng.choice(colours)
    dark, light = mix(tone, (20, 20, 30), 0.32), mix(tone, WHITE, 0.5)
    hook = 0.85 if who["style"] in LONG else 1.02  # hair hides the ears
    for side in (-1, 1):
        for corner, ear in ((edge[0], -0.06), (edge[3], 0.24)):
            face.line([corner * (side, 1), (side * hook, ear)], (232, 232, 232), 2.2)
    face.tint((0, peak - 0.02), (0.6, 0.06), mix(who["skin"], (70, 30, 20), 0.6), 0.4)
    layer.fill(shape, tone)
    if kind == "cloth":
        layer.crease(pattern(rng), 0.5, 3)
    for side in (-1, 1):
        layer.tint((side * 0.95, top + deep / 2), (0.3, deep * 0.6), dark, 0.65)
    layer.tint((0, low), (0.7, deep * 0.22), dark, 0.7)
    layer.tint((0, top + deep * 0.33), (0.3, deep * 0.2), light, 0.45)
    if kind == "surgical":
        for y in top + deep * np.array([0.32, 0.5, 0.68]):
            x = 0.93 * np.interp(y, edge[:, 1], edge[:, 0])
            pleat = curve([(-x, y - 0.03), (0, y + 0.07), (x, y - 0.03)])
            layer.line(pleat, dark, 1.3)
            layer.line(np.add(pleat, (0, 0.02)), light, 1)
    else:
        layer.line([(0, peak + 0.05), (0, low)], dark, 1.6)
    layer.line(shape, mix(tone, dark, 0.5), 1, closed=True)
    over(face.pixels, layer.pixels)
    return face


@functools.cache
def grain(height, width):
    """Fixed sensor noise around 128, larger than a photo: each photo takes another part of it."""
    noise = np.random.default_rng(0).normal(128, 32, (height + 64, width + 64, 3))
    return noise.clip(0, 255).astype(np.uint8)


def sunlight(rng, centre, sun):
    """Gains of a light from one side, uint8 (12, 9, 3) where 128 is 1, to be resized."""
    tilt, strength = sun + rng.normal(0, 0.3), rng.uniform(0.1, 0.55)
    x = (np.arange(9) + 0.5) / 9 - centre[0]
    y = (np.arange(12)[:, None] + 0.5) / 12 - centre[1]
    ramp = 1 + strength * (np.cos(tilt) * x * 1.8 - np.sin(tilt) * y)
    gain, warm = np.exp(rng.normal(0, 0.09)), rng.normal(0.01, 0.05)
    gains = gain * ramp[..., None] * (1 + warm, 1.0, 1 - warm)
    return (128 * gains.clip(0.4, 1.9)).astype(np.uint8)


def draw_photo(rng, person, backdrop, size, sun, *, mask=None, worn="right"):
    """One photo of a person: ((H, W, 3) uint8 RGB, (H, W) uint8 matte, 255 on the person).

    person of draw_portrait and backdrop of draw_backdrop, both at render_scale(size); sun the angle
    of the light; mask one of MASKS, or None for a bare face; worn one of WORN. The draws of rng
    do not depend on the backdrop.
    """
    (who, layers), (scale, times) = person, render_scale(size)
    height, width = size[0] * times, size[1] * times
    if mask:
        layers = [*layers[:-1], draw_mask(rng, layers[-1], who, mask, worn)]
    middle = np.array([width / scale / 2, 226]) + rng.normal(0, (13, 10))
    zoom, roll = 1.1 * np.exp(rng.normal(0, 0.05)), rng.normal(0, 0.05)
    left, top = rng.integers(0, 2 * int(MARGIN * scale) + 1, 2)
    frame = backdrop[top : top + height, left : left + width].copy()
    for layer, share in zip(layers, (0.7, 0.25, 1)[-len(layers) :], strict=True):
        layer.place(frame, scale, middle, zoom, roll * share)
    matte = cv2.extractChannel(frame, 3)
    gains = sunlight(rng, middle * scale / (width, height), sun)
    gains = cv2.resize(gains, (width, height), interpolation=cv2.INTER_LINEAR)
    image = cv2.multiply(cv2.cvtColor(frame, cv2.COLOR_RGBA2RGB), gains, scale=1 / 128)
    image = cv2.GaussianBlur(image, (3, 3), max(0.2, rng.uniform(0, 0.9) * scale))
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    matte = cv2.resize(matte, size[::-1], interpolation=cv2.INTER_AREA)
    share, (x, y) = rng.uniform(0.04, 0.2), rng.integers(0, 64, 2)
    noise = grain(*size)[y : y + size[0], x : x + size[1]]
    return cv2.addWeighted(image, 1, noise, share, -128 * share), matte
