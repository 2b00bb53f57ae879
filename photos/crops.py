"""Where a photo is cut: to its middle, or to the person's head and shoulders."""

import cv2
import numpy as np

# Shares of height and width: of 512 x 384 pixels, 320 x 256 hold the head, 240 x 192 the face.
MIDDLES = {"none": (1, 1), "center": (5 / 8, 2 / 3), "face": (15 / 32, 1 / 2)}


def middle_box(height, width, crop="center"):
    """(top, bottom, left, right) of the middle of a photo, as much as MIDDLES[crop] says."""
    tall, wide = (max(1, round(n * s)) for n, s in zip((height, width), MIDDLES[crop], strict=True))
    top, left = (height - tall) // 2, (width - wide) // 2
    return top, top + tall, left, left + wide


def person_box(alpha, size):
    """(top, bottom, left, right) of head and shoulders in a matte, in the proportions of `size`.

    The head is the largest circle near the top of the person: going down, the inscribed radius
    grows until the middle of the head. The box is 3.9 of it, about 1.7 heads tall; middle_box()
    without a person.
    """
    height, width = alpha.shape
    inside = (alpha > 127).astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(inside, outlines, -1, 1, cv2.FILLED)  # a hole in a matte is not background
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(width // 8, 3),) * 2)
    inside = cv2.morphologyEx(inside, cv2.MORPH_OPEN, disc)  # curls and hands are not a head
    rows = np.flatnonzero(inside.sum(1) > width / 20)
    if not len(rows) or inside.mean() > 0.97:
        return middle_box(height, width)
    top = rows[0]
    # Beyond the sides of the photo the person goes on; above it there is nothing.
    padded = cv2.copyMakeBorder(inside, 1, 0, 0, 0, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:]
    reach = min(top + max(3 * height // 5, 1), height)  # further down it is the body
    radius, below = depth.max(1)[top:reach], np.arange(1, reach - top + 1)
    middle = (radius - 0.4 * below).argmax()
    radius, centre = radius[middle], depth[top + middle].argmax()
    tall = min(3.9 * radius, height, width * size[0] / size[1])
    wide = tall * size[1] / size[0]
    first = int(np.clip(round(top - 0.3 * radius), 0, height - tall))
    left = int(np.clip(round(centre - wide / 2), 0, width - wide))
    tall, wide = max(1, round(tall)), max(1, round(wide))  # of a photo of few pixels
    first, left = min(first, height - tall), min(left, width - wide)
    return first, first + tall, left, left + wide
