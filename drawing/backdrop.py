"""What is behind a person: eight kinds of wall, view and room, and posters of other people."""

import cv2
import numpy as np

from drawing.canvas import CLOTHES, ellipse, mix, pick

MARGIN = 24  # frame units of backdrop around the frame, for the jitter of the camera


def render_scale(size):
    """(pixels in a frame unit while drawing, how many times smaller the photo is in the end)."""
    times = int(np.ceil(256 / size[0]))
    return size[0] * times / 512, times


def draw_backdrop(rng, kind, size, poster=None):
    """What is behind a person, uint8 RGBA of alpha 0, MARGIN wider than the photo all round.

    kind one of BACKDROPS; poster: None, or somebody else of draw_portrait, to hang on the wall.
    """
    scale, times = render_scale(size)
    pad = 2 * int(MARGIN * scale) + 1
    height, width = size[0] * times + pad, size[1] * times + pad
    half = scale / 2  # backdrops are out of focus: half the resolution will do
    y, x = np.mgrid[: -(-height // 2), : -(-width // 2)].astype(np.float32) / half
    image = np.ascontiguousarray(BACKDROPS[kind](rng, x, y).clip(0, 255).astype(np.uint8))
    if kind in DETAILS:
        DETAILS[kind](rng, image, half)
    if poster is not None:
        hang(rng, image, poster, half)
    blotch = rng.normal(128, 8, (7, 5, 1)).clip(96, 160).astype(np.uint8).repeat(3, 2)
    image = cv2.multiply(image, cv2.resize(blotch, image.shape[1::-1]), scale=1 / 128)
    image = cv2.GaussianBlur(image, (0, 0), max(0.3, rng.uniform(0.2, 2.2) * half))
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    image[..., 3] = 0
    return image


def hang(rng, image, person, half):
    """Hangs a framed poster of another person beside the one to come."""
    side = rng.choice([-1, 1]) * rng.uniform(112, 140)
    left = max(0, int(image.shape[1] / 2 + (side - 58) * half))
    top = int(rng.uniform(30, 110) * half)
    part = image[top : top + int(160 * half), left : left + int(116 * half)]
    frame = np.zeros((*part.shape[:2], 4), np.uint8)
    frame[..., :3] = rng.integers(60, 240, 3)
    centre = np.array([58, 76]) + rng.normal(0, 4, 2)
    for layer in (person["back"], person["body"], person["head"]):
        if layer:
            layer.place(frame, half, centre, 0.52)
    part[:] = frame[..., :3]
    cv2.rectangle(part, (0, 0), part.shape[1::-1], (30, 26, 24), max(1, int(6 * half)))


# --- colours (h, w, 3) over grids x and y in frame units ---------------------------------------


def two_colours(rng, low):
    """Two related colours of a room, the first `low` to 235 bright."""
    first = rng.uniform(low, 235) + rng.normal(0, 18, 3)
    return first, first * rng.uniform(0.6, 0.85) + rng.normal(0, 12, 3)


def wall(rng, x, y):
    first, second = two_colours(rng, 140)
    share = (x > rng.uniform(20, 400) + 0.05 * y) * 0.35 + y / 1400
    return first + share[..., None] * (second - first)


def studio(rng, x, y):
    first, second = two_colours(rng, 90)
    apart = np.hypot(x - rng.uniform(120, 300), y - rng.uniform(100, 300)) / 380
    return first + apart[..., None].clip(0, 1.2) * (second * 0.7 - first)


def brick(rng, x, y):
    wide, high = rng.uniform(52, 80), rng.uniform(20, 30)
    row = np.floor(y / high)
    along = x / wide + 0.5 * (row % 2)
    base = np.array(pick(rng, [(168, 92, 70), (190, 180, 170), (130, 70, 60), (206, 196, 186)]))
    tones = base * rng.uniform(0.72, 1.15, (97, 1)) + rng.normal(0, 6, (97, 3))
    colour = tones[((row * 31 + np.floor(along) * 17) % 97).astype(int)]
    mortar = np.minimum(y % high, (along % 1) * wide) < 3.5
    return np.where(mortar[..., None], base * 0.35 + 120, colour)


def bookshelf(rng, x, y):
    shade = pick(rng, [(48, 33, 22), (30, 22, 17), (90, 75, 58), (110, 108, 104)])
    return np.array(shade) + (y / 40)[..., None]


def foliage(rng, x, y):
    return np.array([90, 120, 70]) + (120 - y / 3)[..., None] * np.array([0.6, 0.6, 0.7])


def bokeh(rng, x, y):
    dark = np.array([44, 40, 52]) * rng.uniform(0.5, 1.6)
    return dark + (y / 16)[..., None] * rng.uniform(0.5, 1.5, 3)


def blinds(rng, x, y):
    sky = np.array([206, 222, 238]) * rng.uniform(0.75, 1.05)
    slat = np.array([236, 230, 218]) * rng.uniform(0.55, 0.95)
    share = (0.5 + 0.5 * np.sin(2 * np.pi * y / rng.uniform(18, 30))) ** 3
    inside = np.abs(x - rng.uniform(120, 300)) < rng.uniform(130, 220)
    return np.where(inside[..., None], slat + share[..., None] * (sky - slat), slat * 0.8)


def wallpaper(rng, x, y):
    first, second = two_colours(rng, 110)
    step = rng.uniform(22, 50)
    waves = np.sin(2 * np.pi * x / step) * (np.sin(np.pi * y / step) if rng.random() < 0.6 else 1)
    return first + (waves * 1.5).clip(0, 1)[..., None] * (second - first)


# --- details, painted on an image of `half` pixels a frame unit ----------------------------


def books(rng, image, half):
    for shelf in np.arange(rng.uniform(20, 80), 620, 92):
        x = rng.uniform(-10, 0)
        while x < 460:
            wide, high = rng.uniform(9, 24), rng.uniform(54, 80)
            colour = mix(pick(rng, CLOTHES), (90, 70, 60), rng.uniform(0, 0.6))
            book = np.array([(x, shelf - high), (x + wide, shelf)]) * half
            cv2.rectangle(image, *book.astype(int).tolist(), colour, -1)
            x += wide + 0.8 + 26 * (rng.random() < 0.08)
        board = np.array([(0, shelf), (480, shelf + 6)]) * half
        cv2.rectangle(image, *board.astype(int).tolist(), (150, 116, 84), -1)


def leaves(rng, image, half):
    size, turn = rng.uniform((5, 3), (20, 9), (300, 2)), rng.uniform(0, np.pi, (300, 1))
    x, y = np.moveaxis(ellipse((0, 0), (1, 1), 9) * size[:, None], 2, 0)
    shape = np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y], 2)
    shape = np.int32((shape + rng.uniform(-10, (440, 570), (300, 1, 2))) * half * 16)
    for number, leaf in enumerate(shape):  # from dark ones behind to bright ones in front
        if number % 5 == 0:
            tone = rng.uniform((20, 70, 10), (110, 190, 80)) * (0.4 + 0.7 * number / 300)
        cv2.fillConvexPoly(image, leaf, tuple(tone), cv2.LINE_AA, 4)


def lamps(rng, image, half):
    for _ in range(36):
        radius, tone = rng.uniform(8, 34) * half, rng.uniform((120, 80, 40), (255, 220, 200))
        centre = rng.uniform(0, (440, 520)) * half
        left, top = (centre - radius - 2).astype(int).clip(0)
        part = image[top : int(centre[1] + radius) + 3, left : int(centre[0] + radius) + 3]
        disc, centre = part.copy(), ((centre - (left, top)) * 16).astype(int).tolist()
        cv2.circle(disc, centre, int(radius * 16), tuple(tone), -1, cv2.LINE_AA, 4)
        share = rng.uniform(0.15, 0.6)
        part[:] = cv2.addWeighted(disc, share, part, 1 - share, 0)


PAINTERS = (wall, studio, brick, bookshelf, foliage, bokeh, blinds, wallpaper)
BACKDROPS = {painter.__name__: painter for painter in PAINTERS}
DETAILS = {"bookshelf": books, "foliage": leaves, "bokeh": lamps}
