"""A parametric portrait: the layers of hair behind, of the body and of the head."""

import cv2
import numpy as np

from drawing.canvas import BLACK, CLOTHES, WHITE, Layer, curve, ellipse, fabric, mirror, mix, pick
from drawing.hair import draw_back_hair, draw_beard, draw_hair
from drawing.identity import LONG, half_width, identity


def draw_portrait(rng, gender, age, scale):
    """{"who", "back", "body", "head"} of a person: identity and Layers, all but pose and mask.

    "back" is the hair behind the neck, or None; gender 0 or 1; age in years; scale pixels in a
    frame unit.
    """
    who = identity(rng, gender, age)
    back = draw_back_hair(rng, who, scale) if who["style"] in LONG else None
    body, head = draw_body(rng, who, scale), draw_head(rng, who, scale)
    return {"who": who, "back": back, "body": body, "head": head}


def draw_body(rng, who, scale):
    """The layer of neck, shoulders and clothes."""
    layer = Layer((-250, -20, 250, 480), scale, who["unit"])
    neck, wide, skin = 0.54 if who["woman"] else 0.67, who["shoulder"], who["skin"]
    bare = [(neck, 0.4), (neck, 1.24), (neck * 1.35, 1.5), (wide, 2.0), (wide, 5)]
    layer.fill(curve(mirror(bare), True), mix(skin, (180, 120, 90), 0.12))
    layer.tint((0, 1.06), (neck * 1.3, 0.27), mix(skin, (70, 34, 20), 0.6), 0.85)
    lines = [[(-neck * 0.7, y), (0, y + 0.06), (neck * 0.7, y)] for y in (1.14, 1.28)]
    layer.crease(lines, 0.25 * who["old"])
    kind = rng.choice(["tee", "shirt", "suit", "hood"], p=[0.3, 0.34, 0.16, 0.2])
    colour = pick(rng, CLOTHES)
    colour = mix(colour, (30, 32, 40), 0.7) if kind == "suit" else colour
    dark = mix(colour, BLACK, 0.35)
    if kind == "suit":
        layer.fill(mirror([(neck * 1.1, 1.26), (0.4, 4.3)]), (238, 238, 242))
        if not who["woman"] and rng.random() < 0.7:
            tie = mix(pick(rng, CLOTHES), BLACK, 0.3)
            layer.fill(mirror([(0.12, 1.46), (0.08, 1.62), (0.2, 4.3)]), tie)
    side = [(neck, 1.28), (neck * 1.6, 1.38), (wide * 0.82, 1.64), (wide, 2.05)]
    side = curve([*side, (wide * 1.1, 2.75), (wide * 1.16, 5.7)])
    if kind in ("shirt", "suit"):
        low = 2.05 if kind == "suit" else 1.77
        throat = np.array([(-neck * 0.5, low - 0.17), (0, low), (neck * 0.5, low - 0.17)])
    else:
        low = 1.42 + rng.uniform(0.1, 0.4 if who["woman"] else 0.25)
        throat = curve([(-neck * 0.8, low - 0.05), (0, low + 0.08), (neck * 0.8, low - 0.05)])
    layer.cloth(np.concatenate([side, side[::-1] * (-1, 1), throat]), fabric(rng, colour))
    if kind in ("tee", "hood"):
        rim = np.concatenate([[(-neck, 1.26)], throat, [(neck, 1.26)]])
        layer.line(curve(rim), dark, 6 if kind == "tee" else 15)
    else:
        flap = [(neck, 1.18), (neck * 1.5, 1.44), (neck * 0.8, 1.95), (0.04, low)]
        if kind == "suit":
            flap = [(neck, 1.2), (neck * 1.6, 1.5), (neck * 1.5, 2.2), (0.04, 2.6)]
        for collar in (np.array(flap), np.array(flap) * (-1, 1)):
            layer.fill(collar, mix(colour, WHITE, 0.12))
            layer.line(collar, dark, 1.4, closed=True)
        layer.line([(0, low), (0, 5)], dark, 1.6)
        for y in np.arange(2.2, 4, 0.42):
            layer.fill(ellipse((0.08, y), (0.04, 0.03)), mix(colour, WHITE, 0.5))
    if kind == "hood":
        for x in (-0.25, 0.25):
            layer.line(curve([(x, 1.86), (x * 1.2, 2.2), (x, 2.65)]), (228, 226, 220), 3.5)
    folds = [[(x, 2.3), (x * 1.06, 3.1), (x, 5)] for x in (-wide * 0.74, wide * 0.74)]
    folds += [[(x, 1.85), (x * rng.uniform(0.6, 1.5), 5)] for x in (-wide * 0.4, wide * 0.45)]
    layer.crease(folds, 0.2, 9)
    for x in (-wide, wide):
        layer.tint((x, 4.1), (0.95, 2), (10, 10, 16), 0.45)
    return layer


def draw_head(rng, who, scale):
    """The layer of ears, face, front hair and glasses; no mask."""
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
    if who["beard"]:
        draw_beard(rng, layer, who)
    if who["glasses"]:
        draw_glasses(rng, layer)
    draw_hair(rng, layer, who)
    layer.trim([(-1.15, -1), (1.15, 1.3)])  # the mask is still to come
    return layer


def draw_nose_mouth(rng, layer, who, shade, shine):
    wide = who["nose"]
    layer.tint((0, 0.2), (wide * 0.3, 0.17), shine, 0.5)
    layer.tint((0, 0.41), (wide * 1.2, 0.04), shade, 0.75)
    for side in (-wide, wide):
        layer.tint((side * 0.8, 0.2), (wide * 0.35, 0.18), shade, 0.45)
        layer.tint((side * 0.95, 0.34), (wide * 0.3, 0.06), shade, 0.5)
        layer.fill(ellipse((side * 0.5, 0.37), (wide * 0.24, 0.024), 10), mix(shade, BLACK, 0.6))
    layer.tint((0, 0.28), (wide * 0.4, 0.06), shine, 0.5)
    wide, thick, smile = who["mouth"], who["lips"], rng.normal(0.015, 0.02)
    red = mix(mix(who["skin"], (176, 72, 70), 0.5), (190, 30, 56), 0.6 * who["makeup"])
    left, right = (-wide, 0.625 - smile), (wide, 0.625 - smile)
    bow = [(-wide * 0.3, 0.625 - thick * 1.1), (0, 0.625 - thick * 0.75)]
    lower = [left, (0, 0.615), right, (wide * 0.5, 0.63 + thick), (-wide * 0.5, 0.63 + thick)]
    layer.fill(curve(lower, True), mix(red, (255, 190, 180), 0.18))
    upper = [left, *bow, (wide * 0.3, 0.625 - thick * 1.1), right, (0, 0.65)]
    layer.fill(curve(upper, True), mix(red, (60, 10, 14), 0.12))
    layer.line(curve([left, (0, 0.64), right]), mix(red, (50, 8, 10), 0.75), 1.6)
    layer.tint((0, 0.625 + thick * 0.8), (wide * 0.35, 0.025), (255, 225, 220), 0.4)
    layer.tint((0, 0.625 + thick * 2.3), (wide * 0.6, 0.04), shade, 0.5)


def draw_eyes(rng, layer, who, shade):
    high, slant = who["eye"], rng.normal(0.015, 0.01)
    iris, lid = mix((54, 32, 20), (96, 66, 40), rng.random()), mix(shade, (30, 14, 10), 0.55)
    ink = mix(mix(who["hair"], (20, 14, 12), 0.5 - 0.3 * who["grey"]), who["skin"], 0.22)
    arch, lift = rng.uniform(0.04, 0.09), rng.normal(-0.17, 0.015)
    ball = np.array([0.1, 0.074])
    almond = [(-1, 0.15), (-0.45, -0.85), (0.2, -1), (0.75, -0.45), (1, 0), (0.5, 0.6)]
    almond = np.array([*almond, (-0.3, 0.7)])
    for side in (-1, 1):
        x, y = side * who["space"], 0.015
        shape = almond * (side * 0.225, high) + (x, y) - almond[:, :1] * (0, slant)
        layer.fill(curve(shape, True), (238, 232, 228))
        part, cover = layer.window(curve(shape, True))
        before = part.copy()
        layer.fill(ellipse((x, y), ball), mix(iris, BLACK, 0.35))
        layer.fill(ellipse((x, y), ball * 0.8), iris)
        layer.fill(ellipse((x, y), ball * 0.42, 12), (8, 6, 8))
        part[:] = cv2.blendLinear(before, part, 1 - cover, cover)  # the lids clip the iris
        layer.fill(ellipse((x - 0.03, y - 0.03), ball * 0.2, 8), WHITE)
        lash, dark = curve(shape[:5]), 0.4 + 0.4 * who["makeup"]
        layer.line(lash, mix(lid, (10, 4, 6), dark), 1.8 + 1.6 * who["makeup"])
        layer.line(lash - (0, 0.04 + 0.015 * who["old"]), mix(shade, lid, 0.25), 1)
        layer.tint((x, y + 0.11), (0.16, 0.04), shade, 0.25 + 0.35 * who["old"])
        brow = np.array([(-1.1, 0.015), (-0.3, -arch * 0.7), (0.4, -arch), (1.25, 0.01)])
        thick = np.array([(0, who["brow"])] * 3 + [(0, 0.004)])[::-1]
        brow = np.concatenate([brow, brow[::-1] + thick]) * (side * 0.21, 1) + (x, lift)
        layer.fill(curve(brow, True), ink)


def draw_age(rng, layer, who):
    """Lines of forehead, eyes and cheeks, and spots: more of each with age."""
    old, lines, fans, folds = who["old"], [], [], []
    for y in -0.34 - 0.085 * np.arange(int(np.clip(rng.normal(5 * old - 1, 0.7), 0, 4))):
        (left, right), sag = rng.uniform(0.3, 0.6, 2), rng.normal(0.02, 0.015)
        lines.append([(-left, y + sag), (0, y - sag), (right, y + sag)])
    for side in (-1, 1):
        eye, mouth = side * who["space"], side * who["mouth"] * 1.25
        for slope in np.linspace(-0.5, 0.7, int(np.clip(rng.normal(5 * old - 1, 0.7), 0, 5))):
            path = np.array([(0.25, 0.06), (0.35, 0.1), (0.44, 0.2)]) * (side, slope)
            fans.append(np.add(path, (eye, 0.02)))
        folds.append([(side * who["nose"] * 1.25, 0.35), (mouth, 0.47), (mouth * 1.06, 0.62)])
        for y in (0.16, 0.21)[: 1 + (old > 0.7)]:
            folds.append([(eye - 0.16, y), (eye, y + 0.03), (eye + 0.16, y)])
        if old > 0.6:
            folds += [[(mouth * 0.95, 0.68), (mouth, 0.82)]]
            folds += [[(side * 0.06, -0.1), (side * 0.07, -0.2)]]
    layer.crease(lines, 0.1 + 0.24 * old, 2)
    layer.crease(fans, 0.1 + 0.26 * old)
    layer.crease(folds, 0.05 + 0.3 * old, 2.6)
    for spot in rng.uniform((-0.8, -0.5), (0.8, 0.6), (rng.poisson(3 + 7 * old), 2)):
        size = rng.uniform(0.012, 0.02 + 0.025 * old)
        layer.tint(spot, (size, size), mix(who["skin"], (110, 60, 40), 0.7), 0.5)
    rough = rng.normal(128, 2 + 4 * old, (55, 38, 1)).clip(0, 255).astype(np.uint8).repeat(4, 2)
    rough[..., 3] = 128
    rough = cv2.resize(rough, layer.pixels.shape[1::-1])
    layer.pixels = cv2.multiply(layer.pixels, rough, scale=1 / 128)


def draw_glasses(rng, layer):
    tone = mix((20, 20, 24), pick(rng, CLOTHES), rng.choice([0, 0.2, 0.6]))
    rim = rng.uniform(1.2, 3.2)
    lens = ellipse((0, 0), (1, 1), 40)
    lens = np.sign(lens) * np.abs(lens) ** rng.uniform(0.45, 1) * (0.33, 0.15)
    for side in (-1, 1):
        x, y = side * 0.44, 0.04
        layer.line(np.add(lens, (x, y)), tone, rim, closed=True)
        layer.line([(x + side * 0.33, y - 0.04), (side, y - 0.06)], tone, rim)
        layer.tint((x - 0.13, y - 0.05), (0.1, 0.06), WHITE, 0.22)
    layer.line(curve([(-0.12, 0.03), (0, -0.02), (0.12, 0.03)]), tone, rim)
