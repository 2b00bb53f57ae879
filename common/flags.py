"""Flags of commands: a row each, numbers in a range, choices, overrides by attribute."""

import argparse
import difflib
import os
import re
import sys
from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from common.processes import counted
from common.schema import ABOVE_0
from common.schema import Number as number


@dataclass(frozen=True)
class Option:
    """A flag as one row of a table."""

    name: str
    default: Any
    parse: Any  # word -> value, or a UserError that says what is wrong with it; None is a switch
    help: str
    bare: Any = None  # the value of the flag without a value; None if it needs one
    count: Any = 1  # how many values make one, which is then a list; "+" is one or more
    by_attribute: bool = False  # `--lr BASE age=X` overrides it for the age model (see PerTask)
    runtime: bool = False  # it says where and how to run, not what is learned
    env: str = ""  # an environment variable that holds the default
    unset: str = "none"  # what --help calls a default of None

    def add_to(self, group, attributes=()):
        """Adds the flag to an argparse parser or group."""
        default = self.default
        if given := os.environ.get(self.env):
            default = given if self.count == 1 else [given]
        words = {"default": default, "metavar": "V"}
        if self.by_attribute:
            words |= {"action": PerTask, "option": self, "attributes": attributes}
        elif self.parse is None:
            words |= {"nargs": "?", "const": True, "type": switch, "metavar": "on|off"}
        else:
            words |= {"type": self.parse, "nargs": None if self.count == 1 else self.count}
        if self.default is None and self.unset == "none" and self.count == 1:
            # As --help calls it: to be without what --from_run or --config has.
            words["type"] = lambda word: None if word == "none" else self.parse(word)
        text = f"{self.help} (default: {self.shown()})"
        group.add_argument(f"--{self.name}", help=text, **words)

    def takes(self, value, attributes=()):
        """Whether this value, read from a file, is one that the flag can give."""
        if self.by_attribute:
            named = isinstance(value, dict) and "" in value and value.keys() <= {"", *attributes}
            return named and all(map(self._takes_one, value.values()))
        return self._takes_one(value) or (value is None and self.default is None)

    def _takes_one(self, value):
        items = [value] if self.count == 1 else value
        if not (isinstance(items, list) and items and self.count in ("+", len(items))):
            return False
        words = [{"True": "on", "False": "off"}.get(str(item), str(item)) for item in items]
        try:
            return [(self.parse or switch)(word) for word in words] == items
        except UserError:
            return False

    def shown(self):
        """The default as --help and docs/flags.md show it."""
        if self.default is None:
            return self.unset
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        shown = str(self.default) if self.count == 1 else " ".join(map(str, self.default))
        return f"${self.env} or {shown}" if self.env else shown


# What other tools call our flags, where the name is not much like ours.
ELSEWHERE = {
    "k_fold": "folds num_folds n_splits cv",
    "resize": "img_size image_size imgsz input_size",
    "early_stop": "patience early_stopping_patience",
    "weights": "pretrained checkpoint",
    "lr": "learning_rate base_lr",
    "batch_size": "bs train_batch_size",
    "model": "arch architecture backbone net encoder",
    "criterion": "loss loss_fn",
    "scheduler": "lr_scheduler",
    "weight_decay": "wd",
    "clip_grad": "grad_clip max_norm",
    "drop_rate": "dropout",
    "amp": "fp16 bf16 half mixed_precision precision",
    "accumulate": "grad_accum gradient_accumulation_steps",
    "model_dir": "run runs checkpoint ckpt weights",
    "device": "gpu gpus cuda",
}


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises a UserError for words that it does not take."""

    def parse_known_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else args
        for flag, word in zip(["", *words], words, strict=False):
            if not word or re.fullmatch(r"--\w+=", word):
                self.error(f"{word or flag}: is empty; give a value, or leave the flag out")
        return super().parse_known_args(words, namespace)

    def error(self, message):
        kind, _, words = message.partition(": ")
        if kind == "unrecognized arguments":
            flag = words.split()[0].split("=")[0]
            known = [flag for action in self._actions for flag in action.option_strings]
            name = flag.strip("-").replace("-", "_").lower()
            near = [f"--{ours}" for ours, theirs in ELSEWHERE.items() if name in theirs.split()]
            near = [ours for ours in [f"--{name}", *near] if ours in known]
            near += difflib.get_close_matches(flag, known, 1, 0.9)
            near += [ours for ours in known if ours.startswith(flag) or flag.startswith(f"{ours}_")]
            near += difflib.get_close_matches(flag, known, 1, 0.75)
            message += f"; did you mean {near[0]}?" if near else "; --help lists the flags"
        raise UserError(message)


def make_parser(table, description=None, attributes=()):
    """The Parser of a table {title of a group: [Option]}."""
    how = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=description, formatter_class=how, allow_abbrev=False)
    for title, rows in table.items():
        group = parser.add_argument_group(title)
        for row in rows:
            row.add_to(group, attributes)
    return parser


class PerTask(argparse.Action):
    """Parses `BASE [BASE ...] [attribute=VALUE[,VALUE ...]]` to {"": base, attribute: value}, by an
    Option; attributes: the names that may override.
    """

    def __init__(self, *args, option, attributes, default, **kwargs):
        self.option, self.attributes = option, attributes
        kwargs["nargs"] = "+" if option.bare is None else "*"
        super().__init__(*args, default={"": default}, **kwargs)

    def __call__(self, parser, namespace, words, option_string=None):
        given = {}
        for word in words:
            attribute, equals, text = word.partition("=")
            if equals and attribute in self.attributes:
                given[attribute] = text.split(",")
            else:
                given.setdefault("", []).append(word)
        values = {name: self._value(name, given[name]) for name in sorted(given)}
        values = values or {"": self.option.bare}
        # A value for all models replaces what was there, others change it.
        kept = {} if "" in values else getattr(namespace, self.dest)
        setattr(namespace, self.dest, kept | values)

    def _value(self, attribute, words):
        where, count = f" for {attribute}" if attribute else "", self.option.count
        try:
            if len(words) != count:
                raise UserError(f"give {counted(count, 'value')}, not {' '.join(words)}")
            values = [self.option.parse(word) for word in words]
        except UserError as error:
            raise argparse.ArgumentError(self, f"{error}{where}") from None
        return values if count > 1 else values[0]


def folder_name(word):
    """The name of a new folder, which stays in the folder that it is made in."""
    if word.startswith(".") or set(word) & set("/\\\0") or len(os.fsencode(word)) > 200:
        raise UserError(f"{word!r} is not the name of a folder: give letters and digits, no path")
    return word


def one_of(*choices):
    """A parser that takes one of these words."""

    def parse(word):
        if word not in choices:
            raise UserError(f"{word!r} is not one of {', '.join(choices)}")
        return word

    return parse


def switch_or(*others):
    """A parser of "on" (True), "off" (False) and these words, which it takes as they are."""
    known = one_of("on", "off", *others)
    return lambda word: {"on": True, "off": False}.get(known(word), word)


switch = switch_or()


def weighted_sum(names):
    """A parser of a sum of named terms, each with an optional weight above 0, to [(name, weight)]:
    "f1*0.4+focal*0.6" gives [("f1", 0.4), ("focal", 0.6)], and "focal" [("focal", 1.0)].
    """
    known, positive = one_of(*names), number(float, ABOVE_0)

    def parse(word):
        terms = [part.partition("*") for part in word.split("+")]
        try:
            return [(known(n.strip()), positive(w) if star else 1.0) for n, star, w in terms]
        except UserError as error:
            more = f"give one, or a sum such as {names[-1]}*0.4+{names[0]}*0.6"
            raise UserError(f"{error}; {more}") from None

    return parse
