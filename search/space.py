"""The space that tune.py searches: a JSON file of flags of train.py and the values they may take.

    {"lr":           {"low": 1e-4, "high": 3e-3, "log": true},
     "epochs":       {"low": 4, "high": 12, "int": true},
     "lr age":       {"low": 1e-5, "high": 1e-3, "log": true},
     "resize":       {"choices": ["128 96", "224 168"]},
     "augmentation": {"choices": ["light", "strong"]}}

A key is a flag without its dashes, or a flag and an attribute: `lr age` is the X of `--lr age=X`,
and with `lr` in the space too, of `--lr BASE age=X`. A choice is what would be typed; true and
false are on and off. Numbers are cut to six digits, so that they can be typed again.
"""

import math
from dataclasses import dataclass

import options
import train
from common import flags
from common.errors import UserError
from common.files import read_json
from labels import ATTRIBUTES

LAYOUTS = ("split_heads", "shared_backbone")  # flags without a value
# Flags that no attribute may override, but that act on training rows only, so may be searched.
LABELS = ("label_fixes_level", "old_from", "drop_ages", "pseudo_min")


class Contradiction(UserError):
    """Flags that train.py refuses together."""


@dataclass(frozen=True)
class Entry:
    """One key of the space: numbers from low to high, or choices as they are typed."""

    key: str
    choices: tuple = ()
    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False

    def suggest(self, trial):
        """The text of the value that an optuna Trial takes here; the same one if asked again."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        ask = trial.suggest_int if self.whole else trial.suggest_float
        return text(ask(self.key, self.low, self.high, log=self.log))

    @property
    def ends(self):
        """Texts of all choices, or of the lowest and highest number."""
        return self.choices or (text(self.low), text(self.high))


def text(value):
    """A value of the file, or a suggested number, as it is typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def words(values):
    """The words of a command line of {key: text}: `--lr 0.001 age=0.0003 --split_heads`."""
    flags = {}
    for key, value in values.items():
        flag, _, attribute = key.partition(" ")
        flags.setdefault(flag, {})[attribute] = value
    result = []
    for flag, parts in flags.items():
        if flag in LAYOUTS:
            result += [f"--{flag}"] if parts[""] == "on" else []
            continue
        result += [f"--{flag}", *parts.pop("", "").split()]
        result += [f"{name}={','.join(value.split())}" for name, value in parts.items()]
    return result


def parsed(command, parse=train.parse_args):
    """train.parse_args(command); Contradiction if it refuses the words."""
    try:
        return parse(command)
    except UserError as error:
        raise Contradiction(str(error)) from None


def read(path, fixed):
    """[Entry] of the file; fixed: the words that every trial has besides.

    UserError naming the file and the key for an unknown flag, a bad range, a value that the flag
    does not take, a flag that is fixed too, and a key of which no value goes with the fixed ones.
    """
    values = read_json(path)
    if not isinstance(values, dict) or not values:
        raise UserError(f"{path} is no search space: it must be {{flag: values}}")
    parser = flags.Parser()
    options.add_to(parser)
    given = {word[2:].split("=")[0] for word in fixed if word.startswith("--")}
    entries = []
    for key, value in values.items():
        try:
            entries.append(_entry(key, value, parser, given))
        except UserError as error:
            raise UserError(f'{path}: "{key}": {error}') from None
    _check_together(path, entries, fixed)
    return entries


def _entry(key, value, parser, given):
    flag, *attribute = key.split(" ")
    by_task = options.per_task(parser.parse_args([]))
    if flag not in (*by_task, *LAYOUTS, *LABELS):
        raise UserError("not a flag that can be searched (README.md has them)")
    if attribute and (len(attribute) > 1 or attribute[0] not in ATTRIBUTES or flag not in by_task):
        raise UserError(f'after {flag} may stand one of {", ".join(ATTRIBUTES)}, as in "lr age"')
    if flag in given:
        raise UserError(f"--{flag} is fixed on the command line too; leave out one of them")
    entry = _range(key, value) if isinstance(value, dict) and "low" in value else None
    entry = entry or _choices(key, value)
    tried = list(entry.ends)
    if not entry.choices and not entry.whole:
        tried.append(text(entry.low + (entry.high - entry.low) / math.pi))  # never a whole number
    for word in tried:
        try:
            parsed(words({key: word}), parser.parse_args)
        except UserError as error:
            whole = '; whole numbers need "int": true' if "no int" in str(error) else ""
            raise UserError(f"{error}{whole}") from None
    return entry


def _range(key, value):
    low, high, rest = value["low"], value.get("high"), set(value) - {"low", "high", "log", "int"}
    if rest:
        raise UserError(f"{sorted(rest)[0]} is none of low, high, log, int")
    for name in ("log", "int"):
        if not isinstance(value.get(name, False), bool):
            raise UserError(f"{name} must be true or false")
    whole, log = value.get("int", False), value.get("log", False)
    for name, number in (("low", low), ("high", high)):
        right = isinstance(number, (int, float)) and not isinstance(number, bool)
        if not right or not math.isfinite(number) or (whole and number != int(number)):
            raise UserError(f"{name} must be a {'whole ' if whole else ''}number, not {number!r}")
    if low >= high:
        raise UserError(f"low {low:g} is not below high {high:g}")
    if log and low <= 0:
        raise UserError(f"low {low:g} is not above 0, as log needs it")
    kind = int if whole else float
    return Entry(key, low=kind(low), high=kind(high), log=log, whole=whole)


def _choices(key, value):
    choices = value.get("choices") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(choices, list) or not choices:
        raise UserError(
            'must be {"low": .., "high": ..}, with "log" or "int": true, or {"choices": [..]}'
        )
    for choice in choices:
        parts = choice if isinstance(choice, list) and choice else [choice]
        if not all(isinstance(part, (str, int, float)) for part in parts):
            raise UserError(f"a choice is a text, a number, true or false, not {choice!r}")
    texts = tuple(text(choice) for choice in choices)
    if not all(choice.split() for choice in texts):
        raise UserError("a choice is empty")
    twice = [choice for choice in texts if texts.count(choice) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice")
    if key in LAYOUTS and not set(texts) <= {"on", "off"}:
        raise UserError("takes the choices true and false")
    return Entry(key, choices=texts)


def _check_together(path, entries, fixed):
    """UserError if no value of some entry goes with the fixed words, in any layout searched."""
    layouts = [fixed]
    for entry in entries:
        if entry.key in LAYOUTS:
            layouts += [[*fixed, *words({entry.key: word})] for word in entry.choices]
    for entry in entries:
        if entry.key in LAYOUTS:
            continue
        for layout in layouts:
            errors = [_refusal([*layout, *words({entry.key: word})]) for word in entry.ends]
            if not all(errors):
                break
        else:
            raise UserError(f'{path}: "{entry.key}": {errors[0]}')


def _refusal(command):
    """What train.py has against a command line, or None."""
    try:
        parsed(command)
    except Contradiction as error:
        return str(error)
    return None
