"""The 18 classes: a label is 6 * mask + 3 * gender + age group.

Whatever a run predicts with (one model or three), its prediction is an (N, 18) array of
probabilities in the order of this code, so that every run can be scored against every other.
"""

from itertools import product

import numpy as np

ATTRIBUTES = {
    "mask": ("wear", "incorrect", "normal"),
    "gender": ("male", "female"),
    "age": ("<30", "30-59", ">=60"),
}
IN_WORDS = ATTRIBUTES | {"age": ("below 30", "30 to 59", "60 and over")}
CLASSES = 18
CLASS_NAMES = tuple(" ".join(values) for values in product(*ATTRIBUTES.values()))
# What each kind of head predicts, and how many logits it has.
HEADS = {"label": CLASSES} | {name: len(values) for name, values in ATTRIBUTES.items()}
# What each layout trains: {task: the heads of its model}.
LAYOUTS = {
    "joint": {"label": ("label",)},
    "split": {name: (name,) for name in ATTRIBUTES},
    "shared": {"shared": tuple(ATTRIBUTES)},
}
PROBS = [f"p{i}" for i in range(CLASSES)]  # the columns of probabilities in every csv
OLD_FROM = 60  # years


def encode(mask, gender, age):
    """Class 0..17 of attribute codes: ints or integer arrays of one shape."""
    return 6 * mask + 3 * gender + age


def decode(label):
    """{"mask", "gender", "age"} codes of classes 0..17, an int or an integer array."""
    return {"mask": label // 6, "gender": label // 3 % 2, "age": label % 3}


def combine(predictions):
    """(N,) classes 0..17 from the codes of the heads: {"label"} or the three attributes."""
    codes = {head: np.asarray(value, np.int64) for head, value in predictions.items()}
    if "label" in codes:
        return codes["label"]
    return encode(*(codes[name] for name in ATTRIBUTES))


def joint(probs):
    """(N, 18) probabilities from those of the heads.

    probs: {"label": (N, 18)} is returned as it is; {"mask": (N, 3), "gender": (N, 2),
    "age": (N, 3)} is multiplied out, as if the attributes were independent given the photo.
    """
    if "label" in probs:
        return probs["label"]
    mask, gender, age = (np.asarray(probs[name]) for name in ATTRIBUTES)
    product = mask[:, :, None, None] * gender[:, None, :, None] * age[:, None, None, :]
    return product.reshape(len(mask), CLASSES)


def marginals(probs):
    """{"mask": (N, 3), "gender": (N, 2), "age": (N, 3)} summed from (N, 18) probabilities."""
    cube = np.asarray(probs).reshape(-1, 3, 2, 3)
    return {"mask": cube.sum((2, 3)), "gender": cube.sum((1, 3)), "age": cube.sum((1, 2))}


def age_group(age, old_from=OLD_FROM):
    """0, 1, 2 for ages below 30, below `old_from`, and from there on."""
    return int(age >= 30) + int(age >= old_from)
