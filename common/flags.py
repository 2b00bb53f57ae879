"""Flags of commands: a row each, numbers in a range, choices, overrides by attribute."""

import argparse
import difflib
import math
import os
from dataclasses import dataclass
from typing import Any

from common.errors import UserError


@dataclass(frozen=True)
class Option:
    """A flag as one row of a table.

    parse: word -> value; a UserError or ValueError says what is wrong with the word. None is a
        switch without a value.
    bare: the value of the flag without a value; None if it needs one.
    count: how many values make one, which is then a list; "+" is one or more.
    by_attribute: `--lr BASE age=X` overrides it for the age model (see PerTask).
    runtime: it says where and how to run, not what is learned.
    env: an environment variable that holds the default. unset: what --help calls a default of None.
    """

    name: str
    default: Any
    parse: Any
    help: str
    bare: Any = None
    count: Any = 1
    by_attribute: bool = False
    runtime: bool = False
    env: str = ""
    unset: str = "none"

    def add_to(self, group, attributes=()):
        """Adds the flag to an argparse parser or group."""
        default = os.environ.get(self.env, self.default) if self.env else self.default
        words = {"default": default, "help": f"{self.help} (default: {self._shown()})"}
        if self.by_attribute:
            words |= {"action": PerTask, "parse": self.parse, "count": self.count}
            words |= {"bare": self.bare, "attributes": attributes, "metavar": "V"}
        elif self.parse is None:
            words = {"action": "store_true", "help": self.help}
        else:
            words |= {"type": typed(self.parse), "metavar": "V"}
            if self.count != 1:
                words["nargs"] = self.count
        group.add_argument(f"--{self.name}", **words)

    def _shown(self):
        if self.default is None:
            return self.unset
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        shown = " ".join(map(str, self.default)) if self.count != 1 else str(self.default)
        return f"${self.env} or {shown}" if self.env else shown


class Parser(argparse.ArgumentParser):
    """An argparse parser that wants flags in full; UserError for words that it does not take."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message):
        kind, _, words = message.partition(": ")
        if kind == "unrecognized arguments":
            known = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(words.split()[0].split("=")[0], known, 1, 0.75)
            message += f"; did you mean {near[0]}?" if near else "; --help lists the flags"
        raise UserError(message)


class PerTask(argparse.Action):
    """Parses `BASE [BASE ...] [attribute=VALUE[,VALUE ...]]` to {"": base, attribute: value}.

    parse, count, bare: as of Option; attributes: the names that may override.
    """

    def __init__(self, *args, parse=str, count=1, bare=None, attributes=(), **kwargs):
        self.parse, self.count, self.bare, self.attributes = parse, count, bare, attributes
        kwargs["default"] = {"": kwargs["default"]}
        super().__init__(*args, nargs="+" if bare is None else "*", **kwargs)

    def __call__(self, parser, namespace, words, option_string=None):
        value, base = dict(self.default), []
        for word in words:
            attribute, equals, text = word.partition("=")
            if equals and attribute in self.attributes:
                value[attribute] = self._value(text.split(","), attribute)
            else:
                base.append(word)
        if base:
            value[""] = self._value(base)
        elif not words:
            value[""] = self.bare
        setattr(namespace, self.dest, value)

    def _value(self, words, attribute=None):
        where = f" for {attribute}" if attribute else ""
        if len(words) != self.count:
            values = "1 value" if self.count == 1 else f"{self.count} values"
            raise argparse.ArgumentError(self, f"takes {values}{where}, not {' '.join(words)}")
        try:
            values = [self.parse(word) for word in words]
        except (ValueError, UserError) as error:
            raise argparse.ArgumentError(self, f"{error}{where}") from None
        return values if self.count > 1 else values[0]


def number(kind, low, high=float("inf"), above=False):
    """A parser of an int or float in low..high; `above` leaves out low itself."""

    def parse(word):
        try:
            value = kind(word)
        except ValueError:
            name = "a whole number" if kind is int else "a number"
            raise UserError(f"{word!r} is not {name}") from None
        enough = low < value if above else low <= value
        if not (enough and value <= high and math.isfinite(value)):
            top = "" if high == float("inf") else f" and at most {high}"
            raise UserError(f"{word} is not {'above' if above else 'at least'} {low}{top}")
        return value

    return parse


def one_of(*choices):
    """A parser that takes one of these words."""

    def parse(word):
        if word not in choices:
            raise UserError(f"{word!r} is none of {', '.join(choices)}")
        return word

    return parse


def switch(word):
    """True for "on", False for "off"."""
    return one_of("on", "off")(word) == "on"


def typed(parse):
    """A parser of this module as the `type` of a plain argparse flag."""

    def convert(word):
        try:
            return parse(word)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def weighted_sum(names):
    """A parser of a sum of named terms, each with an optional weight above 0, to [(name, weight)]:
    "f1*0.4+focal*0.6" gives [("f1", 0.4), ("focal", 0.6)], and "focal" [("focal", 1.0)].
    """

    def parse(word):
        terms = []
        for part in word.split("+"):
            name, star, weight = (piece.strip() for piece in part.partition("*"))
            try:
                weight = float(weight) if star else 1.0
            except ValueError:
                weight = math.nan
            if name not in names or not 0 < weight < math.inf:
                raise UserError(
                    f"{part.strip()!r} is not one of {', '.join(names)}; give one, or a sum with "
                    f"weights above 0 such as {names[-1]}*0.4+{names[0]}*0.6"
                )
            terms.append((name, weight))
        return terms

    return parse
