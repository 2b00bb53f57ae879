"""What is behind a person: six kinds of wall, view and room."""

import cv2
import numpy as np

CLOTHES = [
    (34, 38, 52), (236, 236, 232), (120, 30, 38), (70, 96, 140), (60, 84, 60),
    (196, 170, 130), (214, 120, 130), (110, 110, 114), (24, 24, 26), (226, 190, 80),
]  # fmt: skip
MARGIN = 24  # frame units around a photo, whose height is 512: room for the jitter of the camera
GAP = 3  # frame units between marks in a row
# Of each kind: the ground, the colours of the marks on it, their least and their greatest width
# and height, and how many lie about; 0 is as many as stand side by side in rows.
BACKDROPS = {
    "wall": ((150, 140, 130), [(206, 198, 184), (180, 184, 196)], (150, 560), (400, 560), 0),
    "brick": ((190, 182, 172), [(150, 84, 66), (176, 104, 80)], (44, 22), (76, 22), 0),
    "blinds": ((206, 222, 238), [(168, 164, 156), (188, 182, 170)], (900, 14), (1800, 14), 0),
    "bookshelf": ((66, 48, 34), CLOTHES, (9, 54), (24, 84), 0),
    "foliage": ((70, 100, 56), [(36, 84, 30), (84, 140, 50)], (8, 6), (44, 22), 420),
    "bokeh": ((66, 60, 80), [(190, 120, 60), (130, 150, 180)], (18, 18), (60, 60), 50),
}


def draw_backdrop(rng, kind, size):
    """One of BACKDROPS, uint8 RGB, out of focus, MARGIN wider than a photo all round."""
    ground, colours, *sizes, count = BACKDROPS[kind]
    scale = size[0] / 512
    height, width = (np.array(size) + 2 * int(MARGIN * scale)).tolist()
    image = np.full((height, width, 3), ground, np.uint8)
    light = rng.uniform(0.6, 1.15) * rng.normal(1, 0.05, 3)
    for centre, extent in marks(rng, width / scale, *sizes, count):
        tone = rng.choice(colours) * rng.uniform(0.75, 1.2)
        centre, extent = centre * scale, extent * scale
        if count:
            cv2.ellipse(image, (centre, extent, rng.uniform(0, 180)), tone, -1)
        else:
            corners = np.rint([centre - extent / 2, centre + extent / 2]).astype(int)
            cv2.rectangle(image, *corners.tolist(), tone, -1)
    blotches = 128 * light * rng.normal(1, 0.07, (7, 5, 1))
    blotches = cv2.resize(blotches.clip(0, 255).astype(np.uint8), (width, height))
    image = cv2.multiply(image, blotches, scale=1 / 128)
    return cv2.stackBlur(image, (2 * int(rng.uniform(2, 8) * scale) + 1,) * 2)


def marks(rng, width, least, most, count):
    """Yields the centre and the size of each mark of a backdrop so wide, in frame units."""
    high, left, bottom = most[1], 0, rng.uniform(0, most[1])
    least, more = np.array(least), np.subtract(most, least)
    for _ in range(count):
        yield rng.uniform((0, 0), (width, 560)), least + rng.random() * more
    while not count and bottom < 560 + high:
        extent = least + rng.random() * more
        yield (left, bottom) + extent * (0.5, -0.5), extent
        left += extent[0] + GAP
        if left > width:
            left, bottom = -rng.uniform(0, most[0]), bottom + high + GAP
