"""A parametric portrait: who a person is, and the layers of back hair, body and head."""

import cv2
import numpy as np

from drawing.canvas import BLACK, CLOTHES, WHITE, Layer, curve, ellipse, mirror, mix, pattern

SKIN = [(247, 216, 190), (238, 200, 168), (226, 184, 150), (205, 158, 122), (160, 112, 82)]
HAIR = [(22, 18, 18), (40, 28, 24), (66, 44, 32), (100, 66, 42), (146, 104, 64)]
# Of each style of hair: how far it stands off the skull, where its sides end, its inner edge.
STYLES = {
    "crop": (0.1, 0.12, 0.985), "fringe": (0.17, 0.12, 0.985), "receding": (0.03, 0.12, 0.985),
    "long": (0.16, 1.5, 0.86), "bob": (0.16, 0.9, 0.84), "bun": (0.15, 0.06, 0.985),
}  # fmt: skip
LONG = ("long", "bob")  # the styles that hide the ears


def identity(rng, gender, age):
    """All that stays the same over a person's photos, as a dict of numbers.

    gender 0 male or 1 female; age in years. Looks run ahead of or behind the age by some years,
    and every cue of gender overlaps, so that neither can be read off one feature.
    """
    woman = bool(gender)
    old = float(np.clip((age + rng.normal(0, 4) - 24) / 36, 0, 1.1))
    grey = np.clip((old - rng.uniform(0.45, 0.85)) * 2.4, 0, 0.9) * (rng.random() > 0.25)
    odds = [0.6, 0.28 - 0.2 * old, 0.3 * old**2, 0.03, 0.04, 0.01]
    if woman:
        odds = [0.07, 0, 0, 0.48 - 0.3 * old, 0.27 + 0.3 * old, 0.18]
    half = rng.normal(69 if woman else 74, 3)
    skin = mix(SKIN[rng.choice(5, p=[0.24, 0.34, 0.26, 0.11, 0.05])], (214, 168, 134), 0.2 * old)
    hair = mix(HAIR[rng.choice(5, p=[0.4, 0.27, 0.18, 0.1, 0.05])], (196, 194, 192), grey)
    return {
        "woman": woman,
        "old": old,
        "grey": grey,
        "skin": mix(skin, (222, 176, 140), rng.uniform(0, 0.4)),
        "hair": hair,
        "style": rng.choice(list(STYLES), p=np.array(odds) / sum(odds)),
        "unit": (half, half * rng.normal(1.36, 0.04)),
        "jaw": rng.normal(0.3 if woman else 0.72, 0.15),
        "eye": rng.normal(0.079 if woman else 0.07, 0.005) * (1 - 0.12 * old),
        "space": rng.normal(0.43, 0.015),
        "brow": rng.normal(0.027 if woman else 0.047, 0.006),
        "nose": rng.normal(0.21 if woman else 0.25, 0.02),
        "mouth": rng.normal(0.34 if woman else 0.38, 0.02),
        "lips": rng.normal(0.072 if woman else 0.056, 0.008) * (1 - 0.25 * old),
        "makeup": max(0.0, rng.normal(0.45, 0.25)) * woman,
        "beard": rng.choice([0, 0.16, 0.32, 0.7], p=[0.45, 0.25, 0.17, 0.13]) * (not woman),
        "glasses": rng.random() < 0.22 + 0.2 * old,
        "parting": rng.choice([-0.4, 0.4]) * rng.random(),
        "shoulder": rng.normal(2.17 if woman else 2.4, 0.1),
    }


def half_width(who, v):
    """Half the width of the face at heights v: -1 the top of the skull, 1 the chin."""
    v = np.asarray(v, float)
    low = (1 - v.clip(0, 1) ** (2 + 0.8 * who["jaw"])) ** (0.64 - 0.1 * who["jaw"])
    return np.where(v < 0, np.sqrt(1 - v.clip(-1, 0) ** 2), low)


def draw_portrait(rng, gender, age, scale):
    """(identity, [Layer ...]) of a person: back hair (if long), body and head, no mask yet.

    gender 0 or 1; age in years; scale: pixels in a frame unit.
    """
    who = identity(rng, gender, age)
    back = [draw_back_hair(rng, who, scale)] if who["style"] in LONG else []
    return who, [*back, draw_body(rng, who, scale), draw_head(rng, who, scale)]


def draw_body(rng, who, scale):
    """The layer of neck, shoulders and a tee, a shirt or a suit."""
    layer = Layer((-250, -20, 250, 480), scale, who["unit"])
    neck, wide, skin = 0.54 if who["woman"] else 0.67, who["shoulder"], who["skin"]
    kind, colour = rng.choice(["tee", "shirt", "suit"], p=[0.45, 0.37, 0.18]), rng.choice(CLOTHES)
    if kind == "suit":
        colour = mix(colour, (30, 32, 40), 0.7)
    dark = mix(colour, BLACK, 0.35)
    side = [(neck, 1.28), (neck * 1.6, 1.38), (wide * 0.82, 1.64), (wide, 2.05)]
    side = curve([*side, (wide * 1.1, 2.75), (wide * 1.16, 5.7)])
    layer.fill(mirror(side), colour)
    layer.crease(pattern(rng), 0.45, 4)
    folds = [[(x, 2.3), (x * 1.06, 3.1), (x, 5)] for x in (-wide * 0.74, wide * 0.74)]
    folds += [[(x, 1.85), (x * rng.uniform(0.6, 1.5), 5)] for x in (-wide * 0.4, wide * 0.45)]
    layer.crease(folds, 0.2, 9)
    for x in (-wide, wide):
        layer.tint((x, 4.1), (0.95, 2), (10, 10, 16), 0.45)
    low = 2.6 if kind == "suit" else 1.55 + rng.uniform(0, 0.2)
    throat = [(neck, 0.4), (neck, 1.24), (neck * 1.1, 1.34), (neck * 0.7, low - 0.15), (0, low)]
    throat = mirror(throat)
    if kind == "suit":
        layer.fill(throat, (238, 238, 242))
        if not who["woman"]:
            layer.fill(mirror([(0.12, 1.4), (0.08, 1.62), (0.2, low)]), rng.choice(CLOTHES))
        throat[:, 1] = throat[:, 1].clip(0, 1.42)
    layer.fill(throat, mix(skin, (180, 120, 90), 0.12))
    layer.tint((0, 1.06), (neck * 1.3, 0.27), mix(skin, (70, 34, 20), 0.6), 0.85)
    lines = [[(-neck * 0.7, y), (0, y + 0.06), (neck * 0.7, y)] for y in (1.14, 1.28)]
    layer.crease(lines, 0.25 * who["old"])
    if kind == "tee":
        layer.line(curve(throat[2:-2]), dark, 6)
        return layer
    reach = neck * (1.3 if kind == "suit" else 0.8)
    collar = np.array([(neck, 1.18), (neck * 1.5, 1.44), (reach, low + 0.2), (0.04, low)])
    for side in (-1, 1):
        layer.fill(collar * (side, 1), mix(colour, WHITE, 0.12))
        layer.line(collar * (side, 1), dark, 1.4, closed=True)
    layer.line([(0, low), (0, 5)], dark, 1.6)
    return layer


def draw_head(rng, who, scale):
    """The layer of ears, face, front hair and glasses."""
    layer = Layer((-150, -190, 150, 250), scale, who["unit"])
    skin = who["skin"]
    shade, shine = mix(skin, (120, 60, 40), 0.45), mix(skin, WHITE, 0.5)
    pink = mix(skin, (226, 110, 100), 0.5)
    for side in (-1, 1):
        layer.fill(ellipse((side, 0.06), (0.13, 0.2)), mix(skin, shade, 0.3))
        layer.tint((side * 1.03, 0.06), (0.07, 0.12), shade, 0.6)
    v = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 33))
    layer.fill(mirror(np.stack([half_width(who, v), v], 1)), skin)
    for side in (-1, 1):
        layer.tint((side * 1.02, 0.45), (0.34, 0.6), shade, 0.55)
        layer.tint((side * 0.5, 0.34), (0.26, 0.16), pink, 0.28 + 0.2 * who["makeup"])
        layer.tint((side * 0.45, 0.22), (0.2, 0.1), shine, 0.35)
        layer.tint((side * 0.45, -0.06), (0.3, 0.12), shade, 0.3)
    layer.tint((0, 1), (0.6, 0.1), shade, 0.5)
    layer.tint((0, -0.42), (0.6, 0.2), shine, 0.35)
    draw_nose_mouth(rng, layer, who, shade, shine)
    draw_eyes(rng, layer, who, shade)
    draw_age(rng, layer, who)
    stubble = mix(skin, mix(mix(who["hair"], BLACK, 0.4), WHITE, 0.5 * who["grey"]), 0.9)
    for x, y, wide, high in [(0, 0.93, 0.5, 0.2), (-0.7, 0.6, 0.24, 0.3), (0.7, 0.6, 0.24, 0.3)]:
        layer.tint((x, y), (wide, high), stubble, who["beard"])
    layer.tint((0, 0.52), (0.4, 0.05), stubble, who["beard"])
    if who["glasses"]:
        draw_glasses(rng, layer)
    draw_hair(rng, layer, who)
    return layer


def draw_nose_mouth(rng, layer, who, shade, shine):
    wide = who["nose"]
    layer.tint((0, 0.2), (wide * 0.3, 0.17), shine, 0.5)
    layer.tint((0, 0.41), (wide * 1.2, 0.04), shade, 0.75)
    for side in (-wide, wide):
        layer.tint((side * 0.8, 0.2), (wide * 0.35, 0.18), shade, 0.45)
        layer.fill(ellipse((side * 0.5, 0.37), (wide * 0.24, 0.024)), mix(shade, BLACK, 0.6))
    wide, thick, smile = who["mouth"], who["lips"], rng.normal(0.015, 0.02)
    red = mix(mix(who["skin"], (176, 72, 70), 0.5), (190, 30, 56), 0.6 * who["makeup"])
    left, right = (-wide, 0.625 - smile), (wide, 0.625 - smile)
    lower = [left, (0, 0.615), right, (wide * 0.5, 0.63 + thick), (-wide * 0.5, 0.63 + thick)]
    layer.fill(curve(lower, True), mix(red, (255, 190, 180), 0.18))
    bow = [(x, 0.625 - thick * y) for x, y in ((-wide * 0.3, 1.1), (0, 0.75), (wide * 0.3, 1.1))]
    layer.fill(curve([left, *bow, right, (0, 0.65)], True), mix(red, (60, 10, 14), 0.12))
    layer.line(curve([left, (0, 0.64), right]), mix(red, (50, 8, 10), 0.75), 1.6)


def draw_eyes(rng, layer, who, shade):
    high, slant = who["eye"], rng.normal(0.015, 0.01)
    iris, lid = mix((54, 32, 20), (96, 66, 40), rng.random()), mix(shade, (30, 14, 10), 0.55)
    ink = mix(mix(who["hair"], (20, 14, 12), 0.5 - 0.3 * who["grey"]), who["skin"], 0.22)
    arch, lift = rng.uniform(0.04, 0.09), rng.normal(-0.17, 0.015)
    almond = [(-1, 0.15), (-0.45, -0.85), (0.2, -1), (0.75, -0.45), (1, 0), (0.5, 0.6)]
    almond = np.array([*almond, (-0.3, 0.7)])
    for side in (-1, 1):
        x, y = side * who["space"], 0.015
        shape = almond * (side * 0.225, high) + (x, y) - almond[:, :1] * (0, slant)
        layer.fill(curve(shape, True), (238, 232, 228))
        for size, tone in ((1, iris), (0.42, (8, 6, 8))):
            ball = ellipse((x, y), (0.1 * size, 0.074 * size))
            ball[:, 1] = ball[:, 1].clip(y - 0.8 * high, y + 0.55 * high)  # between the lids
            layer.fill(ball, tone)
        layer.fill(ellipse((x - 0.03, y - 0.03), (0.02, 0.015)), WHITE)
        lash = mix(lid, (10, 4, 6), 0.4 + 0.4 * who["makeup"])
        layer.line(curve(shape[:5]), lash, 1.8 + 1.6 * who["makeup"])
        layer.tint((x, y + 0.11), (0.16, 0.04), shade, 0.25 + 0.35 * who["old"])
        brow = np.array([(-1.1, 0.015), (-0.3, -arch * 0.7), (0.4, -arch), (1.25, 0.01)])
        brow = np.concatenate([brow, np.add(brow[::-1], (0, who["brow"]))])
        layer.fill(curve(brow * (side * 0.21, 1) + (x, lift), True), ink)


def draw_age(rng, layer, who):
    """Lines of forehead, eyes and cheeks, and spots: more of each with age."""
    old, lines = who["old"], []
    for y in -0.34 - 0.085 * np.arange(int(np.clip(rng.normal(5 * old - 1, 0.7), 0, 4))):
        (left, right), sag = rng.uniform(0.3, 0.6, 2), rng.normal(0.02, 0.015)
        lines.append([(-left, y + sag), (0, y - sag), (right, y + sag)])
    for side in (-1, 1):
        eye, mouth = side * who["space"], side * who["mouth"] * 1.25
        for slope in np.linspace(-0.5, 0.7, int(np.clip(rng.normal(5 * old - 1, 0.7), 0, 5))):
            path = np.array([(0.25, 0.06), (0.35, 0.1), (0.44, 0.2)]) * (side, slope)
            lines.append(np.add(path, (eye, 0.02)))
        lines.append([(side * who["nose"] * 1.25, 0.35), (mouth, 0.47), (mouth * 1.06, 0.62)])
        lines.append([(eye - 0.16, 0.16), (eye, 0.19), (eye + 0.16, 0.16)])
        if old > 0.6:
            lines.append([(mouth * 0.95, 0.68), (mouth, 0.82)])
    layer.crease(lines, 0.08 + 0.28 * old, 2)
    for spot in rng.uniform((-0.8, -0.5), (0.8, 0.6), (rng.poisson(3 + 7 * old), 2)):
        size = rng.uniform(0.012, 0.02 + 0.025 * old)
        layer.tint(spot, (size, size), mix(who["skin"], (110, 60, 40), 0.7), 0.5)
    rough = rng.normal(128, 2 + 4 * old, (55, 38, 1)).clip(0, 255).astype(np.uint8).repeat(4, 2)
    rough[..., 3] = 128
    rough = cv2.resize(rough, layer.pixels.shape[1::-1])
    layer.pixels = cv2.multiply(layer.pixels, rough, scale=1 / 128)


def draw_glasses(rng, layer):
    tone = mix((20, 20, 24), rng.choice(CLOTHES), rng.choice([0, 0.2, 0.6]))
    rim = rng.uniform(1.2, 3.2)
    lens = ellipse((0, 0), (1, 1))
    lens = np.sign(lens) * np.abs(lens) ** rng.uniform(0.45, 1) * (0.33, 0.15)
    for side in (-1, 1):
        layer.line(np.add(lens, (side * 0.44, 0.04)), tone, rim, closed=True)
        layer.line([(side * 0.77, 0), (side, -0.02)], tone, rim)
        layer.tint((side * 0.44 - 0.13, -0.01), (0.1, 0.06), WHITE, 0.22)
    layer.line(curve([(-0.12, 0.03), (0, -0.02), (0.12, 0.03)]), tone, rim)


def hair_shape(rng, who, bangs):
    """The outer and inner contour of the front hair: (80, 2) each, from left to right."""
    style, short = who["style"], who["style"] not in LONG
    volume, end, inset = STYLES[style]
    volume += rng.uniform(-0.03, 0.04)
    down = np.linspace(end, 0, 20, endpoint=False)
    flare = down * (0 if short else 0.1)
    top = np.linspace(np.pi, 2 * np.pi, 40)
    top = np.stack([np.cos(top), np.sin(top)], 1)
    top = np.sign(top) * np.abs(top) ** 0.88  # a little squarer than a circle
    wide = 1 + volume * (0.5 if short else 1.35)
    outer = np.stack([-wide - flare, down], 1)
    temple = inset * np.maximum(half_width(who, down.clip(0, 0.55)), 0.8)
    side = np.stack([-temple - flare, down], 1)
    if short:  # sideburns taper
        side += (down / end)[:, None] ** 1.5 * (outer - side)
    x, low = np.linspace(-1, 1, 40), rng.normal(-0.62 - 0.06 * who["old"], 0.05)
    y = low + rng.uniform(0.12, 0.3) * np.abs(x - who["parting"]) ** 1.6
    if bangs:
        y = rng.normal(-0.3, 0.05) + rng.normal(0, 0.04, 40) - 0.05 * x**2
    elif style == "receding":
        y = low - 0.2 + 0.12 * np.cos(3 * np.pi * x) * (np.abs(x) < 0.5)
    y = np.maximum(y, -0.97 * np.sqrt(1 - (0.93 * x) ** 2))
    y[[0, 1, -2, -1]] *= np.array([0.35, 0.7, 0.7, 0.35])
    brim = np.stack([x * inset * 0.95, y], 1)
    outer = np.concatenate([outer, top * (wide, 0.97 + volume), outer[::-1] * (-1, 1)])
    return outer, np.concatenate([side, brim, side[::-1] * (-1, 1)])


def draw_strands(rng, layer, who, paths, dark=0.0):
    """Draws paths (n, k, 2) in a dozen shades of the hair: salt and pepper where it greys."""
    for part in np.array_split(rng.permutation(paths), 12):
        white = who["grey"] * (1 - who["grey"]) * rng.normal(0, 50) + rng.uniform(0, 10)
        shade = np.array(who["hair"]) * rng.uniform(0.6, 1.4) + white
        layer.line(part, (1 - dark) * shade.clip(0, 255), rng.uniform(0.6, 1.8))


def draw_hair(rng, layer, who):
    style, steps = who["style"], np.linspace(0, 1, 9)
    bangs = style == "fringe" or (style in LONG and rng.random() < 0.4)
    outer, inner = hair_shape(rng, who, bangs)
    if style == "bun" and rng.random() < 0.6:
        layer.fill(ellipse((0, -1.2), (0.42, 0.3)), mix(who["hair"], BLACK, 0.2))
    layer.tint((0, inner[40, 1] + 0.06), (0.8, 0.09), mix(who["skin"], (60, 30, 20), 0.7), 0.4)
    layer.fill(np.concatenate([outer, inner[::-1]]), mix(who["hair"], BLACK, 0.15))
    # Strands along the contour, from the parting to a side ...
    start = 40 + 20 * who["parting"] + rng.integers(-9, 10, (150, 1))
    along = start + steps * rng.choice([-1, 1], (150, 1)) * rng.integers(6, 42, (150, 1))
    share = rng.uniform(0.02, 1, (150, 1)) * np.ones(9)
    if bangs or style in ("crop", "receding"):  # ... but where hair falls, from the crown down
        along[30:] = rng.integers(20, 60, (120, 1))
        share[30:] = 1 - rng.uniform(0.6, 1.04, (120, 1)) * steps
    along = along.astype(int).clip(0, 79)
    draw_strands(rng, layer, who, inner[along] + share[..., None] * (outer - inner)[along])
    shine = mix(who["hair"], (255, 246, 230), 0.4)
    layer.tint((0.25 * rng.normal(), -0.88), (0.5, 0.1), shine, 0.35)


def draw_back_hair(rng, who, scale):
    """The layer of hair that falls behind neck and shoulders."""
    layer = Layer((-150, -190, 150, 330), scale, who["unit"])
    end = rng.uniform(1.6, 2.3) if who["style"] == "long" else rng.uniform(0.95, 1.2)
    side = [(0, -1), (1.14, -0.2), (1.3, 0.45), (1.33, end * 0.6), (1.15, end)]
    layer.fill(curve(mirror(side), True), mix(who["hair"], BLACK, 0.4))
    x = rng.uniform(-1.25, 1.25, (90, 1)) + rng.normal(0, 0.05, (90, 6))
    down = -0.2 + np.linspace(0, 1, 6) * (end + 0.2 - rng.uniform(-0.04, 0.4, (90, 1)))
    draw_strands(rng, layer, who, np.stack([x.clip(-1.28, 1.28), down], 2), 0.3)
    return layer
