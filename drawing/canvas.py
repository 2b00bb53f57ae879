"""Transparent layers to paint on, in face units, and the colours and fabrics to paint with.

A frame is 384 x 512 units whatever its size in pixels. What is drawn of a person is given in face
units: (0, 0) the centre of the face, (1, 0) its edge beside the eyes, (0, 1) the chin. Colours
are RGB.
"""

import functools

import cv2
import numpy as np

CLOTHES = [(34, 38, 52), (236, 236, 232), (120, 30, 38), (70, 96, 140), (60, 84, 60)]


CLOTHES += [(196, 170, 130), (214, 120, 130), (110, 110, 114), (24, 24, 26), (226, 190, 80)]


WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def mix(first, second, share):
    """The colour between two: `first` where share is 0, `second` where it is 1."""
    return tuple(np.asarray(first, float) * (1 - share) + np.asarray(second, float) * share)


def pick(rng, values):
    return values[rng.integers(len(values))]


@functools.cache
def corner_cutting(count, closed):
    """The matrix of three rounds of corner cutting of `count` points (Chaikin 1974)."""
    points = np.eye(count)
    for _ in range(3):
        before, after = (points, np.roll(points, -1, 0)) if closed else (points[:-1], points[1:])
        cut = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], 1)
        cut = cut.reshape(-1, count)
        points = cut if closed else np.concatenate([points[:1], cut, points[-1:]])
    return points


def curve(points, closed=False):
    """Rounds a line or polygon (n, 2)."""
    return corner_cutting(len(points), closed) @ np.asarray(points)


def whole(right):
    """The symmetric polygon whose right side, from top to bottom, is given."""
    return np.concatenate([right, np.asarray(right)[::-1] * (-1, 1)])


@functools.cache
def circle(steps):
    angle = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def ellipse(centre, radii, steps=24):
    return circle(steps) * radii + centre


class Layer:
    """A transparent picture of the box (left, top, right, bottom), in frame units about the face.

    pixels: uint8 RGBA, premultiplied by alpha, so that painting and warping need no division.
    """

    def __init__(self, box, scale, unit):
        self.box, self.scale, self.unit = box, scale, np.asarray(unit)
        size = int((box[3] - box[1]) * scale), int((box[2] - box[0]) * scale), 4
        self.pixels = np.zeros(size, np.uint8)

    def fixed(self, points):
        """Face units to pixels, in the fixed-point format of cv2 (shift 4)."""
        points = (np.asarray(points) * self.unit - self.box[:2]) * self.scale
        return np.rint(points * 16).astype(np.int32)

    def trim(self, room):
        """Cuts off what is empty, but not the box `room`, in face units, where more will come."""
        left, top, wide, high = cv2.boundingRect(cv2.extractChannel(self.pixels, 3))
        rim = int(4 * self.scale) + 2  # a turning head moves the pixels a little
        low = np.array([left, top]) - rim
        high = low + (wide, high) + 2 * rim
        room = self.fixed(room) // 16
        low = np.minimum(low, room[0]).clip(0)
        high = np.minimum(np.maximum(high, room[1]), self.pixels.shape[1::-1])
        self.pixels = self.pixels[low[1] : high[1], low[0] : high[0]].copy()
        edges = np.concatenate([low, high]) / self.scale
        self.box = tuple(edges + np.tile(self.box[:2], 2))

    def fill(self, points, colour):
        cv2.fillPoly(self.pixels, [self.fixed(points)], (*colour, 255), cv2.LINE_AA, 4)

    def line(self, points, colour, width=1.0, closed=False):
        """A line, `width` frame units wide, or many of them if points are (n, k, 2)."""
        points = self.fixed(points)
        points = [points] if points.ndim == 2 else list(points)
        width = max(1, round(width * self.scale))
        cv2.polylines(self.pixels, points, closed, (*colour, 255), width, cv2.LINE_AA, 4)

    def window(self, points):
        """The part of `pixels` around points, and the coverage 0..1 of their polygon there."""
        fixed, size = self.fixed(points), self.pixels.shape[1::-1]
        low = np.clip(fixed.min(0) // 16 - 1, 0, np.subtract(size, 1))
        high = np.clip(fixed.max(0) // 16 + 2, low + 1, size)
        cover = np.zeros((high - low)[::-1], np.uint8)
        cv2.fillPoly(cover, [fixed - 16 * low.astype(np.int32)], 255, cv2.LINE_AA, 4)
        return self.pixels[low[1] : high[1], low[0] : high[0]], cover / np.float32(255)

    def cloth(self, points, fabric):
        """Fills a polygon with fabric(x, y), colours (h, w, 3) of grids in frame units."""
        part, cover = self.window(points)
        y, x = np.mgrid[: part.shape[0] : 2, : part.shape[1] : 2].astype(np.float32) / self.scale
        rgba = np.full((*x.shape, 4), 255, np.uint8)
        rgba[..., :3] = fabric(x, y).clip(0, 255)
        rgba = cv2.resize(rgba, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        part[:] = cv2.blendLinear(part, rgba, 1 - cover, cover)

    def tint(self, centre, radii, colour, strength):
        """Blends a colour in, softly around a centre, only where the layer is painted."""
        (left, top), (x_unit, y_unit), scale = self.box[:2], self.unit, self.scale
        x, y = (centre[0] * x_unit - left) * scale, (centre[1] * y_unit - top) * scale
        wide, high = radii[0] * x_unit * scale, radii[1] * y_unit * scale
        height, width = self.pixels.shape[:2]
        left, right = max(0, int(x - 2 * wide)), min(width, int(x + 2 * wide) + 1)
        top, bottom = max(0, int(y - 2 * high)), min(height, int(y + 2 * high) + 1)
        if left >= right or top >= bottom:
            return
        part = self.pixels[top:bottom, left:right]
        down = np.exp(-(((np.arange(top, bottom, dtype=np.float32) - float(y)) / float(high)) ** 2))
        along = np.exp(
            -(((np.arange(left, right, dtype=np.float32) - float(x)) / float(wide)) ** 2)
        )
        down *= np.float32(strength / 255)
        weight = down[:, None] * along
        weight *= part[..., 3]
        solid = np.full((*weight.shape, 4), (*(int(n) for n in colour), 255), np.uint8)
        cv2.blendLinear(part, solid, 1 - weight, weight, part)

    def crease(self, lines, depth, width=1.6):
        """Darkens along soft lines, by about the share `depth` at their middle."""
        fixed = [self.fixed(curve(line)) for line in lines]
        room = int(3 * width * self.scale) + 2
        every = np.concatenate([*fixed, np.zeros((0, 2), np.int32)])
        if not len(every):
            return
        low = (every.min(0) // 16 - room).clip(0)
        high = (every.max(0) // 16 + room).clip(0)
        part = self.pixels[low[1] : high[1], low[0] : high[0]]
        ink, thick = np.zeros(part.shape[:2], np.float32), max(1, round(width * self.scale))
        fixed = [line - 16 * low.astype(np.int32) for line in fixed]
        cv2.polylines(ink, fixed, False, float(depth), thick, shift=4)
        ink = cv2.stackBlur(ink, (2 * int(width * self.scale) + 1,) * 2)
        solid = np.zeros_like(part)
        solid[..., 0], solid[..., 3] = part[..., 0] // 6, part[..., 3]
        part[:] = cv2.blendLinear(part, solid, 1 - ink, ink)


def fabric(rng, base):
    """A function of grids (x, y) that gives colours: plain, stripes, checks, dots or knit."""
    other = mix(pick(rng, CLOTHES), base, 0.2)
    kind, step = rng.choice(["plain", "stripes", "checks", "dots", "knit"]), rng.uniform(7, 18)
    tilt = rng.choice([0.0, 0.0, np.pi / 2, 0.7])

    def paint(x, y):
        u, v = x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)
        if kind == "stripes":
            share = (np.sin(2 * np.pi * v / step) * 4).clip(0, 1)
        elif kind == "checks":
            share = (v % step < step / 2) * 0.45 + (u % step < step / 2) * 0.45
        elif kind == "dots":
            u = u + np.floor(v / step) % 2 * step / 2
            share = (step * 0.3 - np.hypot(u % step - step / 2, v % step - step / 2)).clip(0, 1)
        else:
            share = (0.18 + 0.18 * np.sin(2.2 * u) * np.sin(1.1 * v + u)) * (kind == "knit")
        return np.asarray(base) + share[..., None] * (np.asarray(other) - base)

    return paint
