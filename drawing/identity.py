"""What stays the same over a person's photos: the numbers that the portrait is drawn from."""

import numpy as np

from drawing.canvas import mix

SKIN = [(247, 216, 190), (238, 200, 168), (226, 184, 150), (205, 158, 122), (160, 112, 82)]
HAIR = [(22, 18, 18), (40, 28, 24), (66, 44, 32), (100, 66, 42), (146, 104, 64)]
STYLES = ("crop", "part", "fringe", "receding", "long", "bob", "bun", "perm")
LONG = ("long", "bob", "perm")  # the styles that hide the ears


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
