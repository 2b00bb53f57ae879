"""A transparent picture and the ways to paint on it: smooth shapes, lines, soft shades.

Places are in face units: (0, 0) the centre of the face, (1, 0) its edge beside the eyes, (0, 1)
the chin. Colours are RGB.
"""

import cv2
import numpy as np

BLACK = (0, 0, 0)
ROUND = np.stack([np.cos(np.arange(16) * np.pi / 8), np.sin(np.arange(16) * np.pi / 8)], 1)
STEP, LEFT, TOP = 0.06, -2.4, -1.3  # the grid of soft shades, in face units


def mix(first, second, share):
    """The colour between two: `first` where share is 0, `second` where it is 1."""
    return np.asarray(first, float) * (1 - share) + np.asarray(second, float) * share


def mirror(right):
    """The symmetric outline whose right side, from top to bottom, is given."""
    return np.concatenate([right, np.asarray(right)[::-1] * (-1, 1)])


def smooth(points):
    """Rounds a polygon (n, 2) by two rounds of corner cutting (Chaikin 1974)."""
    for _ in range(2):
        after = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1)
        points = points.reshape(-1, 2)
    return points


class Sketch:
    """Paints on pixels, (H, W, 4) uint8 RGBA premultiplied. frame: (2, 3), face units to pixels."""

    def __init__(self, size, frame):
        self.pixels, self.frame = np.zeros((*size, 4), np.uint8), frame

    def fixed(self, points):
        """Face units to pixels, in the fixed-point format of cv2 (shift 4)."""
        points = np.asarray(points) @ self.frame[:, :2].T + self.frame[:, 2]
        return np.rint(points * 16).astype(np.int32)

    def fill(self, shape, colour, at=(0, 0), stretch=(1, 1)):
        """A smooth shape (n, 2), stretched and put at a place; right of the middle, two of them."""
        right = smooth(np.multiply(shape, stretch) + at)
        shapes = self.fixed([right, right * (-1, 1)][: 1 + (at[0] > 0)])
        cv2.fillPoly(self.pixels, shapes, np.append(colour, 255.0), cv2.LINE_AA, 4)

    def lines(self, paths, colour, width, closed=False):
        """Lines (m, k, 2) of a width."""
        ink, width = np.append(colour, 255.0), max(1, round(width * self.frame[1, 1]))
        cv2.polylines(self.pixels, list(self.fixed(paths)), closed, ink, width, cv2.LINE_AA, 4)

    def shade(self, spots):
        """Darkens what is painted softly about spots, on the right and on the left.

        spots: (x, y, width, height, depth) each; depth is how much darker, a share or one for
        each of red, green and blue; below 0 is brighter.
        """
        right, top, width, height = np.array([spot[:4] for spot in spots]).T[..., None]
        depth = [np.multiply(spot[4], (1, 1, 1)) for spot in spots]
        down = np.exp(-(((np.arange(TOP, 4, STEP) - top) / height) ** 2))
        across = np.exp(-(((abs(np.arange(LEFT, -LEFT, STEP)) - right) / width) ** 2))
        gain = 128.5 - 128 * np.einsum("ny,nx,nc->yxc", down, across, depth, optimize=True)
        gain = np.dstack([gain.clip(0, 255), np.full(gain.shape[:2], 128)]).astype(np.uint8)
        frame, size = self.frame @ [(STEP, 0, LEFT), (0, STEP, TOP), (0, 0, 1)], self.pixels.shape
        gain = cv2.warpAffine(gain, frame, size[1::-1], borderMode=cv2.BORDER_REPLICATE)
        cv2.multiply(self.pixels, gain, self.pixels, scale=1 / 128)


def over(below, above):
    """Lays a premultiplied RGBA picture over another, in place (Porter and Duff 1984)."""
    rest = cv2.bitwise_not(cv2.extractChannel(above, 3))
    return cv2.add(cv2.multiply(below, cv2.merge([rest] * 4), below, scale=1 / 255), above, below)
