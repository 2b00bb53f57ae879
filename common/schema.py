"""What a JSON value must hold: a description, and one check that names the file and the key."""

import math
from dataclasses import dataclass

from common.errors import UserError

ABOVE_0 = 1e-30  # as the least value


@dataclass(frozen=True)
class Number:
    """A finite number of low..high; with kind float a whole one will do too. Called with a word, it
    returns the number that this is, or raises a UserError.
    """

    kind: type = float
    low: float = -1e300
    high: float = 1e300

    def __str__(self):
        name = "a number" if self.kind is float else "a whole number"
        if self.high < 1e300:
            return f"{name} of {self.low} to {self.high}"
        return name + {-1e300: "", ABOVE_0: " above 0"}.get(self.low, f" of at least {self.low}")

    def __call__(self, word):
        try:
            value = self.kind(word)
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high:
            raise UserError(f"{word!r} is not {self}")
        return value


COUNT = Number(int, 0, 2**31)
SHARE = Number(float, 0, 1)


def check(value, shape, path, key=""):
    """Returns the value if it has the shape; UserError that names the file and the key if not.

    shape: a Number, str, bool, dict or None (null); a set of texts to choose from; a tuple of
    shapes of which one fits; [shape] for a list, [shape, n] for one of n items; {key: shape} for
    an object that has these keys, but for those that end in ?, and perhaps others; {str: shape}
    for one of any keys.
    """
    fitting = [one for one in (shape if isinstance(shape, tuple) else (shape,)) if _is(value, one)]
    if not fitting:
        raise UserError(f"{path}: {key or 'all'} is {shown(value)}, which does not fit; restore it")
    shape = fitting[0]
    if isinstance(shape, list):
        for number, item in enumerate(value):
            check(item, shape[0], path, f"{key}[{number}]")
    elif isinstance(shape, dict):
        if str in shape:
            shape = {f"{name}?": shape[str] for name in value}
        for name, inner in shape.items():
            bare = name.removesuffix("?")
            where = f"{key}.{bare}" if key else bare
            if bare in value:
                check(value[bare], inner, path, where)
            elif bare == name:
                raise UserError(f"{path}: {where} is missing; restore the file")
    return value


def shown(value):
    """A JSON value in a message."""
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(value)) or repr(value)[:60]


def _is(value, shape):
    """Whether a value is of this shape, which is no tuple; of a list or an object, itself alone."""
    match shape:
        case Number():
            return type(value) in (int, shape.kind) and shape.low <= value <= shape.high
        case set():
            return isinstance(value, str) and value in shape
        case list():
            return isinstance(value, list) and len(value) in (shape[1:] or [len(value)])
        case dict():
            return isinstance(value, dict)
    return isinstance(value, shape or type(None))
