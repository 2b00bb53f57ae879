"""Transparent layers to paint on, and the colours and curves to paint with.

A frame is 384 x 512 units whatever its size in pixels. What is drawn of a person is given in face
units: (0, 0) the centre of the face, (1, 0) its edge beside the eyes, (0, 1) the chin. Colours
are RGB.
"""

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


def curve(points, closed=False):
    """Rounds a line or polygon (n, 2) by three rounds of corner cutting (Chaikin 1974)."""
    points = np.asarray(points, float)
    for _ in range(3):
        before, after = (points, np.roll(points, -1, 0)) if closed else (points[:-1], points[1:])
        cut = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], 1)
        cut = cut.reshape(-1, 2)
        points = cut if closed else np.concatenate([points[:1], cut, points[-1:]])
    return points


def mirror(right):
    """The symmetric polygon whose right side, from top to bottom, is given."""
    return np.concatenate([right, np.asarray(right)[::-1] * (-1, 1)])


def ellipse(centre, radii):
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radii + centre


def over(below, above):
    """Lays one premultiplied RGBA picture over another, in place (Porter and Duff 1984)."""
    rest = cv2.bitwise_not(cv2.extractChannel(above, 3))
    cv2.add(cv2.multiply(below, cv2.merge([rest] * 4), scale=1 / 255), above, below)


class Layer:
    """A transparent picture of the box (left, top, right, bottom), in frame units about the face.

    pixels: uint8 RGBA, premultiplied by alpha, so that painting and warping need no division.
    """

    def __init__(self, box, scale, unit):
        self.box, self.scale, self.unit = np.array(box), scale, np.asarray(unit)
        width, height = ((self.box[2:] - self.box[:2]) * scale).astype(int)
        self.pixels = np.zeros((height, width, 4), np.uint8)

    def fixed(self, points):
        """Face units to pixels, in the fixed-point format of cv2 (shift 4)."""
        points = (np.asarray(points) * self.unit - self.box[:2]) * self.scale
        return np.rint(points * 16).astype(np.int32)

    def window(self, points, room=1):
        """The part of `pixels` around fixed points, and its left top corner (x, y) in pixels."""
        low = (points.min(0) // 16 - room).clip(0)
        high = (points.max(0) // 16 + room + 1).clip(0)
        return self.pixels[low[1] : high[1], low[0] : high[0]], low.tolist()

    def fill(self, points, colour):
        cv2.fillPoly(self.pixels, [self.fixed(points)], (*map(float, colour), 255), cv2.LINE_AA, 4)

    def line(self, points, colour, width=1.0, closed=False):
        """A line, `width` frame units wide, or many of them if points are (n, k, 2)."""
        points = self.fixed(points)
        points = [points] if points.ndim == 2 else list(points)
        ink, width = (*map(float, colour), 255), max(1, round(width * self.scale))
        cv2.polylines(self.pixels, points, closed, ink, width, cv2.LINE_AA, 4)

    def tint(self, centre, radii, colour, strength):
        """Blends a colour in, softly around a centre, only where the layer is painted."""
        centre, reach = self.fixed(centre), np.multiply(radii, self.unit) * self.scale
        part, (left, top) = self.window(centre + np.outer((-32, 32), reach).astype(int))
        y, x = np.ogrid[: part.shape[0], : part.shape[1]]
        x = np.exp(-(((x + left - centre[0] / 16) / reach[0]) ** 2))
        y = np.exp(-(((y + top - centre[1] / 16) / reach[1]) ** 2))
        share = (strength / 255 * x * y * part[..., 3]).astype(np.float32)
        above = np.full_like(part, (*np.array(colour).astype(np.uint8), 255))
        part[:] = cv2.blendLinear(part, above, 1 - share, share)

    def crease(self, lines, depth, width=1.6):
        """Darkens along soft lines, by about the share `depth` at their middle."""
        if not len(lines):
            return
        lines = [self.fixed(curve(line)) for line in lines]
        part, low = self.window(np.concatenate(lines), int(3 * width * self.scale) + 2)
        ink, thick = np.zeros(part.shape[:2], np.float32), max(1, round(width * self.scale))
        lines = [line - 16 * np.array(low, np.int32) for line in lines]
        cv2.polylines(ink, lines, False, float(depth), thick, shift=4)
        ink = cv2.stackBlur(ink, (2 * int(width * self.scale) + 1,) * 2)
        darker = 1 - ink[..., None] * np.array([0.8, 1, 1, 0], np.float32)
        np.multiply(part, darker, out=part, casting="unsafe")

    def place(self, frame, scale, centre, zoom, roll=0.0):
        """Lays the layer over a frame, (h, w, 4) uint8 at `scale` pixels a unit, in place.

        centre: that of the face, in frame units; roll in radians.
        """
        cos, sin = np.cos(roll), np.sin(roll)
        turn = zoom * scale * np.array([(cos, -sin), (sin, cos)])
        matrix = np.column_stack([turn / self.scale, turn @ self.box[:2] + centre * scale])
        over(frame, cv2.warpAffine(self.pixels, matrix, frame.shape[1::-1]))


def pattern(rng):
    """The lines of a plain, striped or checked fabric, for Layer.crease."""
    kind, places = rng.integers(3), np.arange(-4, 6, rng.uniform(0.1, 0.26))
    lean = rng.choice(3) / 4
    stripes = [[(x - lean, -1), (x + lean, 6)] for x in places] if kind else []
    return stripes + ([[(-4, y), (4, y + lean)] for y in places] if kind == 2 else [])
