"""What a JSON value must hold: a description, and one check that names the file and the key."""

from dataclasses import dataclass

from common.errors import UserError

NAMES = {str: "text", bool: "true or false", dict: "an object", None: "null"}


@dataclass(frozen=True)
class Number:
    """A finite number of low..high; with kind float a whole one will do too."""

    kind: type = float
    low: float = -1e300
    high: float = 1e300

    def __str__(self):
        name = "a number" if self.kind is float else "a whole number"
        low = f" of at least {self.low}" if self.low > -1e300 else ""
        return name + (f" of {self.low} to {self.high}" if self.high < 1e300 else low)


COUNT = Number(int, 0, 2**31)
SHARE = Number(float, 0, 1)


def check(value, shape, path):
    """Returns the value if it has the shape; UserError that names the file and the key if not.

    shape: a Number, str, bool, dict or None (null); a set of texts to choose from; a tuple of
    shapes of which one fits; [shape] for a list, [shape, n] for one of n items; {key: shape} for
    an object that has these keys, but for those that end in ?, and perhaps others; {str: shape}
    for one of any keys.
    """
    for problem in _problems(value, shape):
        raise UserError(f"{path}: {problem}")
    return value


def shown(value):
    """A JSON value in a message."""
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(value)) or repr(value)[:60]


def _problems(value, shape, key=""):
    """Yields what does not fit, and where, in words."""
    both = isinstance(shape, list) and isinstance(value, list)
    if both and (len(shape) == 1 or len(value) == shape[1]):
        for number, item in enumerate(value):
            yield from _problems(item, shape[0], f"{key}[{number}]")
    elif isinstance(shape, dict) and isinstance(value, dict):
        named = dict.fromkeys(value, shape[str]) if str in shape else shape
        for name, inner in named.items():
            bare = name if str in shape else name.removesuffix("?")
            where = f"{key}.{bare}" if key else bare
            if bare in value:
                yield from _problems(value[bare], inner, where)
            elif bare == name:
                yield f"{where} is missing; restore the file"
    elif not _is(value, shape):
        yield f"{key or 'all'} is {shown(value)}, not {_told(shape)}; restore it"


def _is(value, shape):
    if isinstance(shape, tuple):
        return any(not any(_problems(value, one)) for one in shape)
    if isinstance(shape, set):
        return isinstance(value, str) and value in shape
    if isinstance(shape, Number):
        return type(value) in (int, shape.kind) and shape.low <= value <= shape.high
    return value is None if shape is None else isinstance(shape, type) and isinstance(value, shape)


def _told(shape):
    if isinstance(shape, tuple):
        return " or ".join(map(_told, shape))
    if isinstance(shape, set):
        return "one of " + ", ".join(sorted(shape))
    if isinstance(shape, list):
        return "a list" + "".join(f" of {count}" for count in shape[1:])
    return "an object" if isinstance(shape, dict) else str(NAMES.get(shape, shape))
