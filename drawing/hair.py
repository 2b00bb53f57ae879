"""The hair of a portrait: before and behind the head, and the beard."""

import numpy as np

from drawing.canvas import BLACK, Layer, curve, directions, ellipse, mirror, mix
from drawing.identity import LONG, half_width


def hair_shape(rng, who, bangs):
    """The outer and inner contour of the front hair: (80, 2) each, from left to right."""
    style, short = who["style"], who["style"] not in LONG
    volume = {"crop": 0.07, "part": 0.14, "fringe": 0.14, "receding": 0.03, "perm": 0.27}
    volume = volume.get(style, 0.13) + rng.uniform(0, 0.07) * (style != "receding")
    end = {"long": 1.5, "bob": rng.uniform(0.75, 1.05), "perm": 0.55, "bun": 0.05}.get(style, 0.12)
    inset = {"long": 0.86, "bob": 0.84, "perm": 0.92}.get(style, 0.985)
    low = rng.normal(-0.82 if style == "receding" else -0.62 - 0.06 * who["old"], 0.05)
    down = np.linspace(end, 0, 20, endpoint=False)
    flare = 0.1 * down * (style in ("long", "bob"))
    wide = 1 + volume * (0.5 if short else 1.35)
    top = directions(np.linspace(np.pi, 2 * np.pi, 40))
    top = np.sign(top) * np.abs(top) ** 0.88 * (wide, 0.97 + volume)
    outer = np.stack([-(wide + flare), down], 1)
    temple = inset * np.maximum(half_width(who, down.clip(0, 0.55)), 0.8)
    side = np.stack([-temple - flare, down], 1)
    if short:  # sideburns taper
        side += (down / end)[:, None] ** 1.5 * (outer - side)
    x = np.linspace(-1, 1, 40)
    if bangs:
        y = rng.normal(-0.3, 0.05) + rng.normal(0, 0.04, 40) - 0.05 * x**2
    elif style == "receding":
        y = low + 0.12 * np.cos(3 * np.pi * x) * (np.abs(x) < 0.5) - 0.1 * (np.abs(x) > 0.5)
    else:
        y = low + rng.uniform(0.12, 0.3) * np.abs(x - who["parting"]) ** 1.6
    y = np.maximum(y, -0.97 * np.sqrt(1 - (0.93 * x) ** 2))
    y[[0, 1, -2, -1]] *= np.array([0.35, 0.7, 0.7, 0.35])
    brim = np.stack([x * inset * 0.95, y], 1)
    outer = np.concatenate([outer, top, outer[::-1] * (-1, 1)])
    if style == "perm":
        outer += 0.06 * directions(np.arange(80) * 1.4)
    return outer, np.concatenate([side, brim, side[::-1] * (-1, 1)])


def draw_strands(rng, layer, who, paths, dark=0.0):
    """Draws paths (n, k, 2) in a dozen shades of the hair: salt and pepper where it greys."""
    for part in np.array_split(paths, 12):
        white = who["grey"] * (1 - who["grey"]) * rng.normal(0, 50) + rng.uniform(0, 10)
        shade = np.array(who["hair"]) * rng.uniform(0.6, 1.4) + white
        layer.line(part, (1 - dark) * shade.clip(0, 255), rng.uniform(0.6, 1.8))


def draw_hair(rng, layer, who):
    style, count, steps = who["style"], 150, np.arange(9)
    bangs = style == "fringe" or (style in ("long", "bob") and rng.random() < 0.4)
    outer, inner = hair_shape(rng, who, bangs)
    if style == "bun" and rng.random() < 0.6:
        layer.fill(ellipse((0, -1.2), (0.42, 0.3)), mix(who["hair"], BLACK, 0.2))
    layer.tint((0, inner[40, 1] + 0.06), (0.8, 0.09), mix(who["skin"], (60, 30, 20), 0.7), 0.4)
    layer.fill(np.concatenate([outer, inner[::-1]]), mix(who["hair"], BLACK, 0.15))
    # Strands along the contour, from the parting to a side ...
    falls, side = bangs or style in ("crop", "receding"), rng.choice([-1, 1], count)
    start = 40 + (20 * side if falls else 20 * who["parting"] + rng.integers(-9, 10, count))
    far = side * rng.integers(6, 42, count)
    at = (start[:, None] + steps / 8 * far[:, None]).astype(int).clip(0, 79)
    share = rng.uniform(0.02, 1, (count, 1, 1)) * np.ones((9, 1))
    # ... and where hair is short or falls into the face, most of them from the crown down.
    fall = np.arange(count) % 5 < 4 * falls
    at[fall] = rng.integers(20, 60, (fall.sum(), 1))
    reach = rng.uniform(0.6, 1.04, (fall.sum(), 1, 1))
    share[fall] = 1 - np.linspace(0.04, 1, 9)[:, None] * reach
    paths = inner[at] + share * (outer[at] - inner[at])
    paths[fall, :, :1] += rng.normal(0, 0.05, (fall.sum(), 1, 1)) * (1 - share[fall]) ** 2
    if style == "perm":
        paths = np.repeat(paths, 3, 1)[:, 1:-1]
        paths = (paths[:, :-2] + paths[:, 1:-1] + paths[:, 2:]) / 3
        turn = np.arange(paths.shape[1]) * 0.9 + rng.uniform(0, 6, (count, 1))
        paths += directions(turn) * (0.045, 0.033)
    draw_strands(rng, layer, who, paths[rng.permutation(count)])
    shine = mix(who["hair"], (255, 246, 230), 0.4)
    layer.tint((0.25 * rng.normal(), -0.88), (0.5, 0.1), shine, 0.35)


def draw_back_hair(rng, who, scale):
    """The layer of hair that falls behind neck and shoulders."""
    layer, long = Layer((-150, -190, 150, 330), scale, who["unit"]), who["style"] == "long"
    end = {"long": rng.uniform(1.6, 2.3), "bob": rng.uniform(0.95, 1.2), "perm": 0.75}[who["style"]]
    side = [(0, -1), (1.14, -0.2), (1.3, 0.45), (1.36 if long else 1.3, end * 0.6), (1.15, end)]
    layer.fill(curve(mirror(side), True), mix(who["hair"], BLACK, 0.4))
    x, sway = rng.uniform(-1.25, 1.25, 90), rng.normal(0, 0.08, 90)
    across = [0.9 * x, 0.97 * x, x + sway, x, x - sway, x * rng.uniform(0.85, 1, 90)]
    across = np.stack(across, 1).clip(-1.28, 1.28)
    stop = end - rng.uniform(-0.04, 0.4, (90, 1))
    down = -0.2 + np.linspace(0, 1, 6) * (stop + 0.2)
    draw_strands(rng, layer, who, np.stack([across, down], 2), 0.3)
    return layer


def draw_beard(rng, layer, who):
    tone = mix(mix(who["hair"], (24, 20, 20), 0.4), (190, 188, 186), 0.5 * who["grey"])
    soft = mix(who["skin"], tone, 0.9)
    for x, y, wide, high in [(0, 0.93, 0.5, 0.16), (-0.7, 0.6, 0.24, 0.3), (0.7, 0.6, 0.24, 0.3)]:
        layer.tint((x, y), (wide, high), soft, who["beard"])
    layer.tint((0, 0.52), (0.4, 0.05), soft, who["beard"])
    v, u = rng.uniform((0.5, -1), (0.99, 1), (int(260 * who["beard"]), 2)).T
    start = np.stack([u * half_width(who, v), v], 1)[(v > 0.76) | (np.abs(u) > 0.62)]
    hairs = np.stack([start, start + rng.normal((0, 0.04), (0.015, 0.005), start.shape)], 1)
    layer.line(hairs, mix(tone, who["skin"], 0.35), 0.6)
