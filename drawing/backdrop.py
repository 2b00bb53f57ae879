"""What is behind a person: six kinds of wall, view and room, out of focus."""

import cv2
import numpy as np

CLOTHES = [
    (34, 38, 52), (236, 236, 232), (120, 30, 38), (70, 96, 140), (60, 84, 60),
    (196, 170, 130), (214, 120, 130), (110, 110, 114), (24, 24, 26), (226, 190, 80),
]  # fmt: skip
MARGIN = 24  # frame units around a photo, whose height is 512: room for the jitter of the camera
# Of each kind: the ground, the colours of the marks on it, their least and their greatest width
# and height, and how many there are.
BACKDROPS = {
    "wall": ((150, 140, 130), [(206, 198, 184), (180, 184, 196)], (150, 560), (400, 560), 8),
    "brick": ((190, 182, 172), [(150, 84, 66), (176, 104, 80)], (44, 18), (76, 26), 260),
    "blinds": ((206, 222, 238), [(168, 164, 156), (188, 182, 170)], (900, 8), (1800, 14), 24),
    "bookshelf": ((66, 48, 34), CLOTHES, (9, 54), (24, 84), 220),
    "foliage": ((70, 100, 56), [(36, 84, 30), (84, 140, 50)], (8, 6), (44, 22), 420),
    "windows": ((66, 60, 80), [(190, 120, 60), (130, 150, 180)], (18, 18), (40, 60), 50),
}


def draw_backdrop(rng, kind, size):
    """One of BACKDROPS, uint8 RGB, MARGIN wider than a photo all round."""
    ground, colours, *extents, count = BACKDROPS[kind]
    scale = size[0] / 512
    height, width = (np.array(size) + 2 * int(MARGIN * scale)).tolist()
    image = np.full((height, width, 3), ground, np.uint8)
    for _ in range(count):
        place, extent = rng.uniform((0, 0), (width, height)), rng.uniform(*extents) * scale / 2
        corners = np.rint([place - extent, place + extent]).astype(int).tolist()
        cv2.rectangle(image, *corners, rng.choice(colours) * rng.uniform(0.75, 1.2), -1)
    light = 128 * rng.uniform(0.6, 1.15) * rng.normal(1, 0.05, 3) * rng.normal(1, 0.07, (7, 5, 1))
    light = cv2.resize(light.clip(0, 255).astype(np.uint8), (width, height))
    image = cv2.multiply(image, light, scale=1 / 128)
    return cv2.stackBlur(image, (2 * int(rng.uniform(2, 8) * scale) + 1,) * 2)
