"""A parametric person: an identity, drawn as the layers of hair behind, body and head."""

import cv2
import numpy as np

from drawing.canvas import BLACK, CLOTHES, WHITE, Layer, curve, ellipse, fabric, mix, pick, whole

SKIN = [(247, 216, 190), (238, 200, 168), (226, 184, 150), (205, 158, 122), (160, 112, 82)]
HAIR = [(22, 18, 18), (40, 28, 24), (66, 44, 32), (100, 66, 42), (146, 104, 64)]
STYLES = ("crop", "part", "fringe", "receding", "long", "bob", "bun", "perm")


def identity(rng, gender, age):
    """All that stays the same over a person's photos, as a dict of numbers.

    gender 0 male or 1 female; age in years. Looks run ahead of or behind the age by some years,
    and every cue of gender overlaps, so that neither can be read off one feature.
    """
    woman = bool(gender)
    old = float(np.clip((age + rng.normal(0, 4) - 24) / 36, 0, 1.1))
    grey = np.clip((old - rng.uniform(0.45, 0.85)) * 2.4, 0, 0.9) * (rng.random() > 0.25)
    if woman:
        odds = [0.02, 0.05, 0, 0, 0.48 - 0.3 * old, 0.25, 0.17, 0.03 + 0.3 * old]
    else:
        odds = [0.3, 0.3, 0.28 - 0.2 * old, 0.3 * old**2, 0.03, 0.04, 0.01, 0.01]
    half = rng.normal(69 if woman else 74, 3)
    skin = mix(SKIN[rng.choice(5, p=[0.24, 0.34, 0.26, 0.11, 0.05])], (214, 168, 134), 0.2 * old)
    hair = mix(HAIR[rng.choice(5, p=[0.4, 0.27, 0.18, 0.1, 0.05])], (196, 194, 192), grey)
    return {
        "woman": woman,
        "old": old,
        "grey": grey,
        "skin": mix(skin, (222, 176, 140), rng.uniform(0, 0.4)),
        "hair": hair,
        "style": STYLES[rng.choice(8, p=np.array(odds) / sum(odds))],
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


def draw_person(rng, gender, age, scale):
    """{"who", "back", "body", "head"} of a person: identity and Layers, all but pose and mask.

    "back" is the hair behind the neck, or None; gender 0 or 1; age in years; scale pixels in a
    frame unit.
    """
    who = identity(rng, gender, age)
    back = draw_back_hair(rng, who, scale) if who["style"] in ("long", "bob", "perm") else None
    body, head = draw_body(rng, who, scale), draw_head(rng, who, scale)
    return {"who": who, "back": back, "body": body, "head": head}


def draw_body(rng, who, scale):
    """The layer of neck, shoulders and clothes."""
    layer = Layer((-250, -20, 250, 480), scale, who["unit"])
    neck, wide, skin = 0.54 if who["woman"] else 0.67, who["shoulder"], who["skin"]
    bare = [(neck, 0.4), (neck, 1.24), (neck * 1.35, 1.5), (wide, 2.0), (wide, 5)]
    layer.fill(curve(whole(bare), True), mix(skin, (180, 120, 90), 0.12))
    layer.tint((0, 1.06), (neck * 1.3, 0.27), mix(skin, (70, 34, 20), 0.6), 0.85)
    lines = [[(-neck * 0.7, y), (0, y + 0.06), (neck * 0.7, y)] for y in (1.14, 1.28)]
    layer.crease(lines, 0.25 * who["old"])
    kind = rng.choice(["tee", "shirt", "suit", "hood"], p=[0.3, 0.34, 0.16, 0.2])
    colour = pick(rng, CLOTHES)
    colour = mix(colour, (30, 32, 40), 0.7) if kind == "suit" else colour
    dark = mix(colour, BLACK, 0.35)
    if kind == "suit":
        layer.fill(whole([(neck * 1.1, 1.26), (0.4, 4.3)]), (238, 238, 242))
        if not who["woman"] and rng.random() < 0.7:
            tie = mix(pick(rng, CLOTHES), BLACK, 0.3)
            layer.fill(whole([(0.12, 1.46), (0.08, 1.62), (0.2, 4.3)]), tie)
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
    layer.fill(whole(np.stack([half_width(who, v), v], 1)), skin)
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


def draw_glasses(rng, layer):
    tone, rim = (
        mix((20, 20, 24), pick(rng, CLOTHES), rng.choice([0, 0.2, 0.6])),
        rng.uniform(1.2, 3.2),
    )
    lens = ellipse((0, 0), (1, 1), 40)
    lens = np.sign(lens) * np.abs(lens) ** rng.uniform(0.45, 1) * (0.33, 0.15)
    for side in (-1, 1):
        x, y = side * 0.44, 0.04
        layer.line(np.add(lens, (x, y)), tone, rim, closed=True)
        layer.line([(x + side * 0.33, y - 0.04), (side, y - 0.06)], tone, rim)
        layer.tint((x - 0.13, y - 0.05), (0.1, 0.06), WHITE, 0.22)
    layer.line(curve([(-0.12, 0.03), (0, -0.02), (0.12, 0.03)]), tone, rim)


def hair_shape(rng, who, bangs):
    """The outer and inner contour of the front hair: (80, 2) each, from left to right."""
    style, short = who["style"], who["style"] not in ("long", "bob", "perm")
    volume = {"crop": 0.07, "part": 0.14, "fringe": 0.14, "receding": 0.03, "perm": 0.27}
    volume = volume.get(style, 0.13) + rng.uniform(0, 0.07) * (style != "receding")
    end = {"long": 1.5, "bob": rng.uniform(0.75, 1.05), "perm": 0.55, "bun": 0.05}.get(style, 0.12)
    inset = {"long": 0.86, "bob": 0.84, "perm": 0.92}.get(style, 0.985)
    low = rng.normal(-0.82 if style == "receding" else -0.62 - 0.06 * who["old"], 0.05)
    down = np.linspace(end, 0, 20, endpoint=False)
    flare = 0.1 * down * (style in ("long", "bob"))
    wide = 1 + volume * (0.5 if short else 1.35)
    top = np.stack([np.cos(t := np.linspace(np.pi, 2 * np.pi, 40)), np.sin(t)], 1)
    top = np.sign(top) * np.abs(top) ** 0.88 * (wide, 0.97 + volume)
    outer = np.stack([-(wide + flare), down], 1)
    side = np.stack(
        [-inset * np.maximum(half_width(who, down.clip(0, 0.55)), 0.8) - flare, down], 1
    )
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
        outer += 0.06 * np.stack([np.cos(t := np.arange(80) * 1.4), np.sin(t)], 1)
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
        paths += np.stack([0.045 * np.cos(turn), 0.033 * np.sin(turn)], 2)
    draw_strands(rng, layer, who, paths[rng.permutation(count)])
    shine = mix(who["hair"], (255, 246, 230), 0.4)
    layer.tint((0.25 * rng.normal(), -0.88), (0.5, 0.1), shine, 0.35)


def draw_back_hair(rng, who, scale):
    """The layer of hair that falls behind neck and shoulders."""
    layer, long = Layer((-150, -190, 150, 330), scale, who["unit"]), who["style"] == "long"
    end = {"long": rng.uniform(1.6, 2.3), "bob": rng.uniform(0.95, 1.2), "perm": 0.75}[who["style"]]
    side = [(0, -1), (1.14, -0.2), (1.3, 0.45), (1.36 if long else 1.3, end * 0.6), (1.15, end)]
    layer.fill(curve(whole(side), True), mix(who["hair"], BLACK, 0.4))
    x, sway = rng.uniform(-1.25, 1.25, 90), rng.normal(0, 0.08, 90)
    across = [0.9 * x, 0.97 * x, x + sway, x, x - sway, x * rng.uniform(0.85, 1, 90)]
    across = np.stack(across, 1).clip(-1.28, 1.28)
    stop = end - rng.uniform(-0.04, 0.4, (90, 1))
    down = -0.2 + np.linspace(0, 1, 6) * (stop + 0.2)
    draw_strands(rng, layer, who, np.stack([across, down], 2), 0.3)
    return layer
