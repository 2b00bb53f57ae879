"""Photos of a drawn person: a mask on the face, a pose, a light, a backdrop."""

import copy
import functools

import cv2
import numpy as np

from drawing.canvas import CLOTHES, WHITE, curve, ellipse, fabric, mix, pick, whole
from drawing.portrait import half_width

MARGIN = 24  # frame units of backdrop around the frame, for the jitter of the camera
BACKDROPS = ("wall", "studio", "brick", "bookshelf", "foliage", "bokeh", "blinds", "wallpaper")
MASKS = ("surgical", "kn95", "n95", "cloth", "black")
# --- the mask ----------------------------------------------------------------------------------

TONES = {
    "surgical": [(160, 200, 226), (236, 240, 242), (232, 180, 196), (130, 176, 190), (40, 42, 48)],
    "kn95": [(244, 244, 240), (236, 232, 222), (60, 62, 66), (214, 196, 176)],
    "n95": [(240, 238, 230), (226, 230, 236), (170, 196, 214)],
    "cloth": CLOTHES,
    "black": [(22, 22, 24), (34, 34, 38), (46, 48, 56)],
}


def draw_mask(rng, head, who, kind, worn):
    """A head Layer with a mask on. worn: "right", "nose" (bare) or "chin" (mouth bare)."""
    face, layer = copy.copy(head), copy.copy(head)
    face.pixels, layer.pixels = head.pixels.copy(), np.zeros_like(head.pixels)
    top = rng.normal({"right": 0.13, "nose": 0.46, "chin": 0.76}[worn], 0.02)
    low = rng.uniform(0, 0.05) + {"right": 1.05, "nose": 1.1, "chin": 1.14}[worn]
    peak, deep = top - {"surgical": 0.04, "kn95": 0.14, "n95": 0.1}.get(kind, 0.09), low - top
    if kind == "n95":  # a cup that leaves the cheeks bare
        reach = np.array([0.3, 0.62, 0.74, 0.66, 0.3])
        right = np.stack([reach, top + deep * np.array([-0.05, 0.16, 0.5, 0.84, 1])], 1)
    else:
        v = top + deep * np.array([0.1, 0.3, 0.55, 0.8, 1])
        reach = half_width(who, v.clip(0, 0.93)) * {"surgical": 0.97, "kn95": 0.96}.get(kind, 0.985)
        reach[4] = {"surgical": 0.42, "kn95": 0.16}.get(kind, 0.32)
        reach[3] = max(reach[3], 1.4 * reach[4])
        right = np.stack([reach, v], 1)
    shape = curve(whole([(0, peak), *right]), True)
    tone = pick(rng, TONES[kind])
    dark, light = mix(tone, (20, 20, 30), 0.32), mix(tone, WHITE, 0.5)
    hook = 0.85 if who["style"] in ("long", "bob", "perm") else 1.02  # hair hides the ears
    for side in (-1, 1):
        for corner, ear in ((right[0], -0.06), (right[3], 0.24)):
            strap = dark if kind == "black" else (232, 232, 232)
            face.line([corner * (side, 1), (side * hook, ear)], strap, 2.2)
    face.tint((0, peak - 0.02), (0.6, 0.06), mix(who["skin"], (70, 30, 20), 0.6), 0.4)
    if kind == "cloth":
        layer.cloth(shape, fabric(rng, tone))
    else:
        layer.fill(shape, tone)
    for side in (-1, 1):
        layer.tint((side * 0.95, top + deep / 2), (0.3, deep * 0.6), dark, 0.65)
    layer.tint((0, low), (0.7, deep * 0.22), dark, 0.7)
    layer.tint((0, top + deep * 0.33), (0.3, deep * 0.2), light, 0.45)
    draw_seams(layer, kind, right, (peak, top, deep), (tone, dark, light))
    layer.line(shape, mix(tone, dark, 0.5), 1, closed=True)
    over(face.pixels, layer.pixels)
    return face


def draw_seams(layer, kind, edge, heights, tones):
    """What tells one kind of mask from another: pleats, a seam, a valve."""
    (peak, top, deep), (tone, dark, light) = heights, tones
    if kind == "surgical":
        layer.line(curve([(-0.32, top), (0, top + 0.015), (0.32, top)]), light, 2.4)
        for y in top + deep * np.array([0.32, 0.5, 0.68]):
            x = 0.93 * np.interp(y, edge[:, 1], edge[:, 0])
            pleat = curve([(-x, y - 0.03), (0, y + 0.07), (x, y - 0.03)])
            layer.line(pleat, dark, 1.3)
            layer.line(np.add(pleat, (0, 0.02)), light, 1)
    elif kind == "kn95":
        for x, colour in ((0, dark), (0.025, light)):
            layer.line([(x, peak + 0.05), (x, top + deep)], colour, 1.6)
        for side in (-1, 1):
            layer.line([(side * 0.2, top + 0.02), (side * 0.75, top + deep * 0.3)], dark, 1)
    elif kind == "n95":
        if sum(tone) > 690:
            valve = ellipse((0.3, top + deep * 0.6), (0.17, 0.13))
            layer.fill(valve, mix(tone, dark, 0.4))
            layer.line(valve, dark, 1.4, closed=True)
        y = top + deep * 0.6
        layer.line(curve([(-0.6, y), (0, y + deep * 0.12), (0.6, y)]), dark, 1.4)
        layer.line([(-0.22, top), (0.22, top)], (196, 196, 200), 4)
    else:
        layer.line(curve([(0, peak), (0.07, top + deep / 2), (0, top + deep)]), dark, 1.4)


# --- the photo ---------------------------------------------------------------------------------


def render_scale(size):
    """(pixels in a frame unit while drawing, how many times smaller the photo is in the end)."""
    times = int(np.ceil(256 / size[0]))
    return size[0] * times / 512, times


def over(below, above):
    """Lays one premultiplied RGBA picture over another, in place (Porter and Duff 1984)."""
    rest = cv2.bitwise_not(cv2.extractChannel(above, 3))
    cv2.add(cv2.multiply(below, cv2.merge([rest] * 4), scale=1 / 255), above, below)


def place(frame, layer, origin, zoom, roll, scale, turn=(0, 0)):
    """Warps a layer over a frame, (h, w, 4) uint8, in place.

    origin: the face's centre in the frame; zoom; roll in radians; turn: how far, in frame units,
    the middle of the face moves against its edge, as it does when a head turns or nods.
    """
    left, top, right, bottom = layer.box
    cos, sin = np.cos(roll), np.sin(roll)
    corners = np.array([(left, top), (left, bottom), (right, top), (right, bottom)])
    corners = corners @ np.array([(cos, sin), (-sin, cos)]) * zoom + origin
    low = np.floor(corners.min(0) * scale).astype(int).clip(0)
    high = np.minimum(np.ceil(corners.max(0) * scale).astype(int), frame.shape[1::-1])
    # The map is smooth: it is worked out at every 8th pixel and interpolated.
    size = -(-(high - low) // 8)
    x = (low[0] + np.arange(size[0]) * 8 + 4) / scale - origin[0]
    y = (low[1] + np.arange(size[1])[:, None] * 8 + 4) / scale - origin[1]
    u, v = (cos * x + sin * y) / zoom, (cos * y - sin * x) / zoom
    if any(turn):
        bump = np.exp(-((u / 52) ** 2) - (v / 80) ** 2)
        u, v = u - turn[0] * bump, v - turn[1] * bump
    grid = (np.stack([u - left, v - top], 2) * layer.scale - 0.5).astype(np.float32)
    grid = cv2.resize(grid, (size * 8).tolist())[: high[1] - low[1], : high[0] - low[0]]
    warped = cv2.remap(layer.pixels, grid, None, cv2.INTER_LINEAR)
    over(frame[low[1] : high[1], low[0] : high[0]], warped)


@functools.cache
def grain(height, width):
    """Fixed sensor noise around 128, larger than a photo: each photo takes another part of it."""
    noise = np.random.default_rng(0).normal(128, 32, (height + 64, width + 64, 3))
    return noise.clip(0, 255).astype(np.uint8)


def light(rng, centre, sun):
    """Gains of a light from one side, uint8 (12, 9, 3) where 128 is 1, to be resized."""
    tilt, strength = sun + rng.normal(0, 0.3), rng.uniform(0.1, 0.55)
    x = (np.arange(9) + 0.5) / 9 - centre[0]
    y = (np.arange(12)[:, None] + 0.5) / 12 - centre[1]
    ramp = 1 + strength * (np.cos(tilt) * x * 1.8 - np.sin(tilt) * y)
    gain, warm = np.exp(rng.normal(0, 0.09)), rng.normal(0.01, 0.05)
    gains = gain * ramp[..., None] * (1 + warm, 1.0, 1 - warm)
    return (128 * gains.clip(0.4, 1.9)).astype(np.uint8)


def draw_photo(rng, person, backdrop, mask, worn, size, sun):
    """One photo of a person: ((H, W, 3) uint8 RGB, (H, W) uint8 matte, 255 on the person).

    person of draw_person and backdrop of draw_backdrop, both at render_scale(size); mask one of
    MASKS, or None for a bare face; worn "right", "nose" or "chin"; sun the angle of the light.
    The draws of rng do not depend on the backdrop.
    """
    scale, times = render_scale(size)
    height, width = size[0] * times, size[1] * times
    head = person["head"]
    if mask:
        head = draw_mask(rng, head, person["who"], mask, worn)
    middle = np.array([width / scale / 2, 226]) + rng.normal(0, (13, 10))
    zoom, roll = 1.1 * np.exp(rng.normal(0, 0.05)), rng.normal(0, 0.05)
    left, top = rng.integers(0, 2 * int(MARGIN * scale) + 1, 2)
    frame = backdrop[top : top + height, left : left + width].copy()
    if person["back"]:
        place(frame, person["back"], middle, zoom, roll * 0.7, scale)
    place(frame, person["body"], middle + rng.normal(0, 4, 2), zoom, roll * 0.25, scale)
    place(frame, head, middle, zoom, roll, scale, rng.normal(0, (8, 5)))
    matte = cv2.extractChannel(frame, 3)
    gains = light(rng, middle * scale / (width, height), sun)
    gains = cv2.resize(gains, (width, height), interpolation=cv2.INTER_LINEAR)
    image = cv2.multiply(cv2.cvtColor(frame, cv2.COLOR_RGBA2RGB), gains, scale=1 / 128)
    soft = rng.uniform(0, 0.9) * scale
    if soft > 0.35:
        image = cv2.GaussianBlur(image, (3, 3), soft)
    if times > 1:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        matte = cv2.resize(matte, size[::-1], interpolation=cv2.INTER_AREA)
    share, (x, y) = rng.uniform(0.04, 0.2), rng.integers(0, 64, 2)
    noise = grain(*size)[y : y + size[0], x : x + size[1]]
    return cv2.addWeighted(image, 1, noise, share, -128 * share), matte


# --- the backdrop ------------------------------------------------------------------------------


def draw_backdrop(rng, kind, size, poster=None):
    """What is behind a person, uint8 RGBA of alpha 0, MARGIN wider than the photo all round.

    kind one of BACKDROPS; poster: None, or somebody else of draw_person, to hang on the wall.
    """
    scale, times = render_scale(size)
    pad = 2 * int(MARGIN * scale) + 1
    height, width = size[0] * times + pad, size[1] * times + pad
    half = scale / 2  # backdrops are out of focus: half the resolution will do
    y, x = np.mgrid[: -(-height // 2), : -(-width // 2)].astype(np.float32) / half
    image = np.ascontiguousarray(PAINTERS[kind](rng, x, y).clip(0, 255).astype(np.uint8))
    if kind in SCATTERS:
        SCATTERS[kind](rng, image, half)
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
            place(frame, layer, centre, 0.52, 0.0, half)
    part[:] = frame[..., :3]
    cv2.rectangle(part, (0, 0), part.shape[1::-1], (30, 26, 24), max(1, int(6 * half)))


def two(rng, low):
    """Two related colours of a room."""
    first = rng.uniform(low, 235) + rng.normal(0, 18, 3)
    return first, first * rng.uniform(0.6, 0.85) + rng.normal(0, 12, 3)


def wall(rng, x, y):
    first, second = two(rng, 140)
    share = (x > rng.uniform(20, 400) + 0.05 * y) * 0.35 + y / 1400
    return first + share[..., None] * (second - first)


def studio(rng, x, y):
    first, second = two(rng, 90)
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
    first, second = two(rng, 110)
    step = rng.uniform(22, 50)
    waves = np.sin(2 * np.pi * x / step) * (np.sin(np.pi * y / step) if rng.random() < 0.6 else 1)
    return first + (waves * 1.5).clip(0, 1)[..., None] * (second - first)


def books(rng, image, half):
    for shelf in np.arange(rng.uniform(20, 80), 620, 92):
        x = rng.uniform(-10, 0)
        while x < 460:
            wide, high = rng.uniform(9, 24), rng.uniform(54, 80)
            colour = mix(pick(rng, CLOTHES), (90, 70, 60), rng.uniform(0, 0.6))
            box = np.array([(x, shelf - high), (x + wide, shelf)]) * half
            cv2.rectangle(image, *box.astype(int).tolist(), colour, -1)
            x += wide + 0.8 + 26 * (rng.random() < 0.08)
        box = np.array([(0, shelf), (480, shelf + 6)]) * half
        cv2.rectangle(image, *box.astype(int).tolist(), (150, 116, 84), -1)


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


PAINTERS = {"wall": wall, "studio": studio, "brick": brick, "bookshelf": bookshelf}


PAINTERS |= {"foliage": foliage, "bokeh": bokeh, "blinds": blinds, "wallpaper": wallpaper}


SCATTERS = {"bookshelf": books, "foliage": leaves, "bokeh": lamps}
