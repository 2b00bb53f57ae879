"""Transparent layers to paint on, and the colours, curves and fabrics to paint with.

A frame is 384 x 512 units whatever its size in pixels. What is drawn of a person is given in face
units: (0, 0) the centre of the face, (1, 0) its edge beside the eyes, (0, 1) the chin. Colours
are RGB.
"""

import functools

import cv2
import numpy as np

CLOTHES = [
    (34, 38, 52), (236, 236, 232), (120, 30, 38), (70, 96, 140), (60, 84, 60),
    (196, 170, 130), (214, 120, 130), (110, 110, 114), (24, 24, 26), (226, 190, 80),
]  # fmt: skip
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


def mirror(right):
    """The symmetric polygon whose right side, from top to bottom, is given."""
    return np.concatenate([right, np.asarray(right)[::-1] * (-1, 1)])


def directions(angles):
    """(..., 2): the unit vectors (x, y) of angles in radians."""
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def ellipse(centre, radii, steps=24):
    return directions(np.linspace(0, 2 * np.pi, steps, endpoint=False)) * radii + centre


def blend(below, above, share):
    """Mixes two RGBA pictures into the first: `above` where share, (h, w) float32, is 1."""
    below[:] = cv2.blendLinear(below, above, 1 - share, share)


def over(below, above):
    """Lays one premultiplied RGBA picture over another, in place (Porter and Duff 1984)."""
    rest = cv2.bitwise_not(cv2.extractChannel(above, 3))
    cv2.add(cv2.multiply(below, cv2.merge([rest] * 4), scale=1 / 255), above, below)


def bell(low, high, middle, width):
    """A soft bump over the pixels low..high: 1 at the middle, 1/e at `width` from it."""
    pixels = np.arange(low, high, dtype=np.float32)
    return np.exp(-(((pixels - float(middle)) / float(width)) ** 2))


class Layer:
    """A transparent picture of the box (left, top, right, bottom), in frame units about the face.

    pixels: uint8 RGBA, premultiplied by alpha, so that painting and warping need no division.
    """

    def __init__(self, box, scale, unit):
        self.box, self.scale, self.unit = box, scale, np.asarray(unit)
        height, width = int((box[3] - box[1]) * scale), int((box[2] - box[0]) * scale)
        self.pixels = np.zeros((height, width, 4), np.uint8)

    def fixed(self, points):
        """Face units to pixels, in the fixed-point format of cv2 (shift 4)."""
        points = (np.asarray(points) * self.unit - self.box[:2]) * self.scale
        return np.rint(points * 16).astype(np.int32)

    def trim(self, room):
        """Cuts off what is empty, but not the box `room`, in face units, where more will come."""
        filled = np.array(cv2.boundingRect(cv2.extractChannel(self.pixels, 3)))
        rim = int(4 * self.scale) + 2  # a turning head moves the pixels a little
        room = self.fixed(room) // 16
        low = np.minimum(filled[:2] - rim, room[0]).clip(0)
        high = np.maximum(filled[:2] + filled[2:] + rim, room[1])
        high = np.minimum(high, self.pixels.shape[1::-1])
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

    def bounds(self, points, room):
        """(low, high): the corners (x, y) of fixed points in pixels, and some room around them."""
        size = self.pixels.shape[1::-1]
        low = np.clip(points.min(0) // 16 - room, 0, np.subtract(size, 1))
        return low, np.clip(points.max(0) // 16 + room + 1, low + 1, size)

    def window(self, points):
        """The part of `pixels` around points, and the coverage 0..1 of their polygon there."""
        fixed = self.fixed(points)
        low, high = self.bounds(fixed, 1)
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
        blend(part, rgba, cover)

    def tint(self, centre, radii, colour, strength):
        """Blends a colour in, softly around a centre, only where the layer is painted."""
        middle = (np.multiply(centre, self.unit) - self.box[:2]) * self.scale
        reach = np.multiply(radii, self.unit) * self.scale
        low = (middle - 2 * reach).astype(int).clip(0)
        high = np.minimum((middle + 2 * reach).astype(int) + 1, self.pixels.shape[1::-1])
        if (low >= high).any():
            return
        part = self.pixels[low[1] : high[1], low[0] : high[0]]
        along, down = map(bell, low, high, middle, reach)
        weight = (down * np.float32(strength / 255))[:, None] * along * part[..., 3]
        solid = np.full((*weight.shape, 4), (*(int(n) for n in colour), 255), np.uint8)
        blend(part, solid, weight)

    def crease(self, lines, depth, width=1.6):
        """Darkens along soft lines, by about the share `depth` at their middle."""
        if not len(lines):
            return
        fixed = [self.fixed(curve(line)) for line in lines]
        low, high = self.bounds(np.concatenate(fixed), int(3 * width * self.scale) + 2)
        part = self.pixels[low[1] : high[1], low[0] : high[0]]
        ink, thick = np.zeros(part.shape[:2], np.float32), max(1, round(width * self.scale))
        fixed = [line - 16 * low.astype(np.int32) for line in fixed]
        cv2.polylines(ink, fixed, False, float(depth), thick, shift=4)
        ink = cv2.stackBlur(ink, (2 * int(width * self.scale) + 1,) * 2)
        solid = np.zeros_like(part)
        solid[..., 0], solid[..., 3] = part[..., 0] // 6, part[..., 3]
        blend(part, solid, ink)

    def place(self, frame, scale, centre, zoom, *, roll=0.0, turn=(0, 0)):
        """Warps the layer over a frame, (h, w, 4) uint8 at `scale` pixels a unit, in place.

        centre: that of the face in the frame; roll in radians; turn: how far, in frame units, the
        middle of the face moves against its edge, as it does when a head turns or nods.
        """
        left, top, right, bottom = self.box
        cos, sin = np.cos(roll), np.sin(roll)
        corners = np.array([(left, top), (left, bottom), (right, top), (right, bottom)])
        corners = corners @ np.array([(cos, sin), (-sin, cos)]) * zoom + centre
        low = np.floor(corners.min(0) * scale).astype(int).clip(0)
        high = np.minimum(np.ceil(corners.max(0) * scale).astype(int), frame.shape[1::-1])
        # The map is smooth: it is worked out at every 8th pixel and interpolated.
        size = -(-(high - low) // 8)
        x = (low[0] + np.arange(size[0]) * 8 + 4) / scale - centre[0]
        y = (low[1] + np.arange(size[1])[:, None] * 8 + 4) / scale - centre[1]
        u, v = (cos * x + sin * y) / zoom, (cos * y - sin * x) / zoom
        if any(turn):
            bump = np.exp(-((u / 52) ** 2) - (v / 80) ** 2)
            u, v = u - turn[0] * bump, v - turn[1] * bump
        grid = (np.stack([u - left, v - top], 2) * self.scale - 0.5).astype(np.float32)
        grid = cv2.resize(grid, (size * 8).tolist())[: high[1] - low[1], : high[0] - low[0]]
        warped = cv2.remap(self.pixels, grid, None, cv2.INTER_LINEAR)
        over(frame[low[1] : high[1], low[0] : high[0]], warped)


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
