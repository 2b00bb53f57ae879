"""A parametric portrait: who a person is, and how clothes, face, hair and mask are painted.

Outlines are of the right side, from top to bottom, in the units of sketch.py; shapes of features
are of a size of about 1 and are placed and stretched.
"""

from types import SimpleNamespace

import numpy as np

from drawing.backdrop import CLOTHES
from drawing.sketch import BLACK, ROUND, mirror, mix

# Of each measure of a person: its mean of men and of women, and its spread.
MEASURES = {
    "half": (74, 69, 3), "tall": (1.36, 1.36, 0.04), "jaw": (0.72, 0.3, 0.15),
    "neck": (0.67, 0.54, 0.03), "shoulder": (2.4, 2.17, 0.1), "eye": (0.085, 0.096, 0.007),
    "brow": (0.06, 0.04, 0.007), "nose": (0.25, 0.21, 0.02), "mouth": (0.4, 0.36, 0.02),
    "lips": (0.066, 0.085, 0.01), "makeup": (0, 0.4, 0.2),
}  # fmt: skip
SKIN = [(247, 216, 190), (238, 200, 168), (226, 184, 150), (205, 158, 122), (160, 112, 82)]
HAIR = [(22, 18, 18), (40, 28, 24), (66, 44, 32), (100, 66, 42), (146, 104, 64)]
# The outer contour of each style of hair, down to where its side ends at the face.
STYLES = {
    "crop": [(0.66, -1.2), (1.14, -0.8), (1.09, -0.2), (1.02, 0.16), (0.95, 0.12)],
    "quiff": [(0.6, -1.34), (1.16, -0.95), (1.1, -0.2), (1.02, 0.16), (0.95, 0.12)],
    "thin": [(0.64, -1.08), (1.08, -0.7), (1.09, -0.1), (1.02, 0.14), (0.96, 0.12)],
    "bun": [(0.6, -1.16), (1.08, -0.7), (1.06, -0.2), (1, 0.06), (0.96, 0.02)],
    "long": [(0.7, -1.26), (1.26, -0.7), (1.26, 0.4), (1.36, 1.7), (1, 1.9), (0.82, 0.7), (0.9, 0)],
    "bob": [(0.7, -1.26), (1.28, -0.7), (1.3, 0.3), (1.3, 1), (0.9, 1.04), (0.8, 0.6), (0.9, 0)],
}
LONG = ("long", "bob")  # the styles that fall on the shoulders
# The contour of the hair on the forehead, from the side to the middle.
FRINGES = {
    "open": [(0.94, -0.22), (0.86, -0.5), (0.45, -0.72), (0, -0.78)],
    "bangs": [(0.92, -0.2), (0.84, -0.34), (0.4, -0.38), (0, -0.34)],
    "receding": [(0.94, -0.24), (0.78, -0.56), (0.5, -0.86), (0.24, -0.74), (0, -0.74)],
}
EYE = [(-1, 0.2), (-0.5, -0.9), (0.3, -1.1), (1.1, -0.1), (0.4, 0.8), (-0.4, 0.8)]
BROW = [(-1, -0.3), (-0.2, -1), (0.5, -1.1), (1.2, 0.6), (0.4, 0.2), (-0.3, 0.5), (-1, 0.8)]
UPPER_LIP = [(-1, 0), (-0.3, -1.2), (0, -0.8), (0.3, -1.2), (1, 0), (0, 0.5)]
LOWER_LIP = [(-1, 0), (0, -0.2), (1, 0), (0.5, 1.3), (-0.5, 1.3)]
# Lines that come with age, in the order in which they come.
WRINKLES = np.array([
    [(0.26, 0.33), (0.46, 0.46), (0.5, 0.64)], [(0.28, 0.16), (0.43, 0.2), (0.58, 0.15)],
    [(0, -0.4), (0.3, -0.42), (0.5, -0.37)], [(0.68, 0.04), (0.8, 0.1), (0.88, 0.2)],
    [(0, -0.5), (0.25, -0.52), (0.42, -0.48)], [(0.68, -0.02), (0.8, 0), (0.9, 0.02)],
    [(0.46, 0.68), (0.5, 0.76), (0.48, 0.86)], [(0, -0.3), (0.25, -0.32), (0.4, -0.29)],
])  # fmt: skip
# Of each kind of mask: its colours; how far its middle rises above its upper edge; half the width
# of its lower edge.
MASKS = {
    "surgical": ([(160, 200, 226), (236, 240, 242), (232, 180, 196), (40, 42, 48)], 0.06, 0.46),
    "kn95": ([(244, 244, 240), (236, 232, 222), (60, 62, 66), (214, 196, 176)], 0.2, 0.2),
    "cloth": (CLOTHES, 0.12, 0.36),
}
# How a mask may be worn: (height of its upper edge, of its lower edge) on the face; "nose" leaves
# the nose bare, "chin" the mouth too.
WORN = {"right": (0.13, 1.08), "nose": (0.46, 1.13), "chin": (0.76, 1.17)}


def identity(rng, gender, age):
    """All that stays the same over a person's photos.

    gender 0 male or 1 female; age in years. Looks run ahead of or behind the age by some years,
    and every cue of gender overlaps, so that neither can be read off one feature.
    """
    who = {name: rng.normal(row[gender], row[2]) for name, row in MEASURES.items()}
    old = float(np.clip((age + rng.normal(0, 4) - 24) / 36, 0, 1.1))
    grey = np.clip((old - rng.uniform(0.45, 0.85)) * 2.4, 0, 0.9) * (rng.random() > 0.25)
    odds = [0.5, 0.32 - 0.2 * old, 0.3 * old**2, 0.01, 0.03, 0.04]
    if gender:
        odds = [0.07, 0.03, 0, 0.18, 0.45 - 0.3 * old, 0.27 + 0.3 * old]
    skin = mix(SKIN[rng.choice(5, p=[0.24, 0.34, 0.26, 0.11, 0.05])], (214, 168, 134), 0.2 * old)
    hair = mix(HAIR[rng.choice(5, p=[0.4, 0.27, 0.18, 0.1, 0.05])], (196, 194, 192), grey)
    return SimpleNamespace(
        **who,
        old=old,
        grey=grey,
        skin=skin,
        hair=hair,
        style=rng.choice(list(STYLES), p=np.array(odds) / sum(odds)),
        fringe=rng.choice(["open", "bangs"], p=[0.7, 0.3]),
        beard=rng.choice([0, 0.16, 0.32, 0.7], p=[0.45, 0.25, 0.17, 0.13]) * (not gender),
        wrinkles=int(np.clip(rng.normal(9 * old - 1, 1), 0, len(WRINKLES))),
        glasses=rng.choice([0, 0.02, 0.04], p=[0.78 - 0.2 * old, 0.12, 0.1 + 0.2 * old]),
        cloth=rng.choice(CLOTHES),
    )


def half_width(who, v):
    """Half the width of the face at heights v: -1 the top of the skull, 1 the chin."""
    low = (1 - v.clip(0, 1) ** (2 + 0.8 * who.jaw)) ** (0.64 - 0.1 * who.jaw)
    return np.where(v < 0, np.sqrt(1 - v.clip(-1, 0) ** 2), low)


def draw_portrait(sketch, who):
    """Paints a person of identity without a mask, from back to front."""
    hair = [*STYLES[who.style], *FRINGES["receding" if who.style == "thin" else who.fringe]]
    neck, wide, skin = who.neck, who.shoulder, who.skin
    dark = mix(skin, (90, 44, 30), 0.55)
    if who.style in LONG:
        back = mirror([(0, -1), (1.2, -0.6), *hair[2:5], (0, 1)])
        sketch.fill(back, mix(who.hair, BLACK, 0.4))
    side = [(neck, 1.2), (neck * 1.5, 1.38), (wide * 0.86, 1.6), (wide * 1.04, 2.1)]
    sketch.fill(mirror([*side, (wide * 1.12, 3), (wide * 1.16, 6)]), who.cloth)
    throat = [(neck, 0.3), (neck, 1.2), (neck * 1.16, 1.36), (neck * 0.6, 1.6), (0, 1.6)]
    sketch.fill(np.add(mirror(throat), (0, 0.1)), mix(who.cloth, BLACK, 0.4))
    sketch.fill(mirror(throat), mix(skin, (120, 70, 50), 0.25))
    sketch.fill(ROUND, mix(skin, (70, 34, 20), 0.6), (0, 0.8), (neck, 0.5))  # a shadow
    if who.style == "bun":
        sketch.fill(ROUND, mix(who.hair, BLACK, 0.2), (0, -1.22), (0.4, 0.3))
    sketch.fill(ROUND, mix(skin, dark, 0.4), (1, 0.06), (0.14, 0.22))
    v = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 25))
    sketch.fill(mirror(np.stack([half_width(who, v), v], 1)), skin)
    sketch.fill(mirror([(0, hair[0][1]), *hair]), who.hair)
    draw_features(sketch, who, dark)
    if who.glasses:
        rims = [np.add(np.multiply(ROUND, (0.36, 0.2)), (x, 0.04)) for x in (-0.44, 0.44)]
        sketch.lines(rims, (40, 36, 40), who.glasses, closed=True)
        sketch.lines([[(-0.1, 0), (0.1, 0)]], (40, 36, 40), who.glasses)


def draw_features(sketch, who, dark):
    """Light and shade, eyes, nose, mouth, and the lines of age."""
    skin, nose, mouth, lips = who.skin, who.nose, (0, 0.63), (who.mouth, who.lips)
    blush, beard = 0.1 + 0.15 * who.makeup, who.beard * (1 - 0.5 * who.grey)
    sketch.shade([
        (1.05, 0.4, 0.36, 0.7, (0.25, 0.35, 0.4)),  # the sides
        (0.5, -0.95, 0.3, 0.14, -0.35), (0, -1.15, 0.5, 0.1, 0.2),  # the hair
        (0.45, -0.06, 0.26, 0.12, (0.12, 0.2, 0.22)),  # the sockets of the eyes
        (0.43, 0.12, 0.16, 0.06, 0.1 + 0.25 * who.old),  # and the bags under them
        (0.52, 0.34, 0.26, 0.17, (-0.04 * blush, blush, blush)),
        (0, 0.42, nose * 1.2, 0.06, 0.22), (nose * 0.8, 0.2, 0.07, 0.18, 0.12),
        (0.7, 0.62, 0.24, 0.3, beard), (0, 0.93, 0.5, 0.2, beard), (0, 0.52, 0.4, 0.06, beard / 2),
        (who.shoulder, 3.9, 0.8, 2, 0.5), (0.74 * who.shoulder, 3.5, 0.1, 1.5, 0.45),  # sleeves
        (0.3 * who.shoulder, 3.4, 0.12, 1.4, 0.35),  # and folds
    ])  # fmt: skip
    red = mix(mix(skin, (176, 72, 70), 0.5), (190, 30, 56), 0.6 * who.makeup)
    brow = mix(mix(who.hair, (20, 14, 12), 0.5 - 0.3 * who.grey), skin, 0.22)
    lash = mix(dark, (20, 10, 8), 0.5 + 0.4 * who.makeup)
    sketch.fill(EYE, lash, (0.435, -0.005), (0.245, 1.1 * who.eye))
    sketch.fill(EYE, (238, 232, 228), (0.43, 0.015), (0.22, 0.9 * who.eye))
    sketch.fill(ROUND, (44, 28, 20), (0.43, 0.01), (0.07, 0.7 * who.eye))
    sketch.fill(BROW, brow, (0.45, -0.19), (0.23, who.brow))
    sketch.fill(ROUND, mix(dark, BLACK, 0.5), (nose * 0.5, 0.37), (nose * 0.24, 0.026))
    sketch.fill(LOWER_LIP, mix(red, (255, 190, 180), 0.18), mouth, lips)
    sketch.fill(UPPER_LIP, mix(red, (60, 10, 14), 0.2), mouth, lips)
    wrinkles = WRINKLES[: who.wrinkles]
    wrinkles = np.concatenate([wrinkles, wrinkles * (-1, 1)])
    sketch.lines(wrinkles, mix(skin, dark, 0.35 + 0.3 * who.old), 0.025)


def draw_mask(rng, sketch, who, kind, worn):
    """Paints a mask of MASKS over the face, as WORN says."""
    colours, rise, foot = MASKS[kind]
    top, low = WORN[worn] + rng.normal(0, 0.02, 2)
    tone, v = rng.choice(colours), top + (low - top) * np.array([0, 0.1, 0.4, 0.75, 1])
    reach = half_width(who, v.clip(0, 0.93)) * 0.97
    edge = np.stack([[*reach[:3], max(reach[3], 1.3 * foot), foot], v], 1)
    loops = np.array([[edge[1], (0.95, -0.06)], [edge[3], (0.95, 0.24)]])
    sketch.lines([*loops, *loops * (-1, 1)], (226, 226, 226), 0.03)
    sketch.fill(mirror([(0, top - rise), *edge]), tone)
    pleats = [[(-x, y - 0.03), (0, y + 0.05), (x, y - 0.03)] for x, y in edge[1:4] * (0.85, 1)]
    sketch.lines(pleats, mix(tone, (20, 20, 30), 0.3), 0.025)
