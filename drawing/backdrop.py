"""What is behind a person: six kinds of wall, view and room."""

import cv2
import numpy as np

from drawing.canvas import CLOTHES, mix

MARGIN = 24  # frame units of backdrop around the frame, for the jitter of the camera


def render_scale(size):
    """(pixels in a frame unit while drawing, how many times smaller the photo is in the end)."""
    times = int(np.ceil(256 / size[0]))
    return size[0] * times / 512, times


def draw_backdrop(rng, kind, size):
    """One of BACKDROPS, uint8 RGBA of alpha 0, MARGIN wider than the photo all round."""
    scale, times = render_scale(size)
    pad = 2 * int(MARGIN * scale) + 1
    height, width = size[0] * times + pad, size[1] * times + pad
    half = scale / 2  # backdrops are out of focus: half the resolution will do
    y, x = np.mgrid[: -(-height // 2), : -(-width // 2)].astype(np.float32) / half
    colours = BACKDROPS[kind](rng, x, y, half).clip(0, 255)
    image = cv2.cvtColor(colours.astype(np.uint8), cv2.COLOR_RGB2RGBA)
    blotch = rng.normal(128, 8, (7, 5, 1)).clip(96, 160).astype(np.uint8).repeat(4, 2)
    image = cv2.multiply(image, cv2.resize(blotch, image.shape[1::-1]), scale=1 / 128)
    image = cv2.GaussianBlur(image, (0, 0), max(0.3, rng.uniform(0.2, 2.2) * half))
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    image[..., 3] = 0
    return image


# --- colours, (h, w, 3) float32, over grids x and y in frame units, `half` pixels each ----------


def wall(rng, x, y, half):
    first = rng.uniform(100, 235) + rng.normal(0, 18, 3)
    second = first * rng.uniform(0.6, 0.85) + rng.normal(0, 12, 3)
    share = (x > rng.uniform(20, 400) + 0.05 * y) * 0.35 + y / 1400
    return first + share[..., None] * (second - first)


def brick(rng, x, y, half):
    wide, high = rng.uniform(52, 80), rng.uniform(20, 30)
    row = np.floor(y / high)
    along = x / wide + 0.5 * (row % 2)
    base = rng.choice([(168, 92, 70), (190, 180, 170), (130, 70, 60), (206, 196, 186)])
    tones = base * rng.uniform(0.72, 1.15, (97, 1)) + rng.normal(0, 6, (97, 3))
    colour = tones[((row * 31 + np.floor(along) * 17) % 97).astype(int)]
    mortar = np.minimum(y % high, (along % 1) * wide) < 3.5
    return np.where(mortar[..., None], base * 0.35 + 120, colour)


def blinds(rng, x, y, half):
    sky = np.array([206, 222, 238]) * rng.uniform(0.75, 1.05)
    slat = np.array([236, 230, 218]) * rng.uniform(0.55, 0.95)
    share = (0.5 + 0.5 * np.sin(2 * np.pi * y / rng.uniform(18, 30))) ** 3
    inside = np.abs(x - rng.uniform(120, 300)) < rng.uniform(130, 220)
    return np.where(inside[..., None], slat + share[..., None] * (sky - slat), slat * 0.8)


def bookshelf(rng, x, y, half):
    wood = rng.choice([(48, 33, 22), (90, 75, 58), (110, 108, 104)])
    image = np.float32(wood + y[..., None] / 40)
    for shelf in np.arange(rng.uniform(20, 80), 620, 92):
        left = rng.uniform(-10, 0)
        while left < 460:
            wide = rng.uniform(9, 24)
            book = np.array([(left, shelf - rng.uniform(54, 80)), (left + wide, shelf)]) * half
            colour = mix(rng.choice(CLOTHES), (90, 70, 60), rng.uniform(0, 0.6))
            cv2.rectangle(image, *book.astype(int).tolist(), colour, -1)
            left += wide + 0.8 + 26 * (rng.random() < 0.08)
        image[(y >= shelf) & (y < shelf + 6)] = 150, 116, 84
    return image


def foliage(rng, x, y, half):
    image = np.float32([90, 120, 70] + (80 - y[..., None] / 5))
    for bright in np.linspace(0.4, 1.1, 300):  # from dark leaves behind to bright ones in front
        centre = (rng.uniform(-10, (440, 570)) * half).astype(int).tolist()
        axes = np.ceil(rng.uniform((5, 3), (20, 9)) * half).astype(int).tolist()
        tone = bright * rng.uniform((20, 70, 10), (110, 190, 80))
        cv2.ellipse(image, centre, axes, rng.uniform(0, 180), 0, 360, tone, -1, cv2.LINE_AA)
    return image


def bokeh(rng, x, y, half):
    image = np.float32(np.array([44, 40, 52]) * rng.uniform(0.5, 1.6) + y[..., None] / 16)
    for _ in range(36):
        centre = (rng.uniform(0, (440, 520)) * half).astype(int).tolist()
        tone, share = rng.uniform((120, 80, 40), (255, 220, 200)), rng.uniform(0.15, 0.6)
        disc = cv2.circle(image.copy(), centre, int(rng.uniform(8, 34) * half), tone, -1)
        image = cv2.addWeighted(disc, share, image, 1 - share, 0)
    return image


PAINTERS = (wall, brick, blinds, bookshelf, foliage, bokeh)
BACKDROPS = {painter.__name__: painter for painter in PAINTERS}
