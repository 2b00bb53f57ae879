"""Parsing of flags: numbers in a range, choices, and options that an attribute may override."""

import argparse
import difflib
import math
import re

from common.errors import UserError
from labels import ATTRIBUTES

OVERRIDE = re.compile(rf"^({'|'.join(ATTRIBUTES)})=(.*)$")


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

    parse: str -> value; count: how many values make one (then it is a list); const: the value
    of the flag without words.
    """

    def __init__(self, *args, parse=str, count=1, bare=None, **kwargs):
        self.parse, self.count, self.bare = parse, count, bare
        kwargs["default"] = {"": kwargs["default"]}
        super().__init__(*args, nargs="+" if bare is None else "*", **kwargs)

    def __call__(self, parser, namespace, words, option_string=None):
        value = dict(self.default)
        base = []
        for word in words:
            override = OVERRIDE.match(word)
            if override:
                value[override[1]] = self._value(override[2].split(","), override[1])
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
            raise argparse.ArgumentError(self, f"takes {self.count} values{where}, not {words}")
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
            raise UserError(f"{word!r} is no {kind.__name__}") from None
        enough = low < value if above else low <= value
        if not (enough and value <= high and math.isfinite(value)):
            top = "" if high == float("inf") else f" and at most {high}"
            raise UserError(f"{word} is not {'above' if above else 'at least'} {low}{top}")
        return value

    return parse


def one_of(*choices):
    def parse(word):
        if word not in choices:
            raise UserError(f"{word!r} is none of {', '.join(choices)}")
        return word

    return parse


def switch(word):
    return one_of("on", "off")(word) == "on"


def adder(group):
    """A function that adds a PerTask option to an argparse group, its default in the help."""

    def add(flag, default, parse, help, count=1, bare=None):
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        shown = {False: "off", True: "on"}.get(shown, shown) if isinstance(shown, bool) else shown
        group.add_argument(
            flag,
            action=PerTask,
            default=default,
            parse=parse,
            count=count,
            bare=bare,
            metavar="V",
            help=f"{help} (default: {shown})",
        )

    return add


def typed(parse):
    """A parser of this module as the `type` of a plain argparse flag."""

    def convert(word):
        try:
            return parse(word)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert
