"""The space of a search: a JSON file of flags of train.py and the values they may take.

    {"lr":           {"low": 1e-4, "high": 3e-3, "log": true},
     "lr age":       {"low": 1e-5, "high": 1e-3, "log": true},
     "resize":       {"choices": ["128 96", "224 168"]}}

A key is a flag without its dashes, or a flag and an attribute: `lr age` is the X of `--lr age=X`,
and with `lr` in the space too, of `--lr BASE age=X`. A choice is what you would type; true and
false are on and off. Numbers are rounded to six digits, so that a command can repeat them.
"""

import contextlib
import math

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from common.errors import UserError
from common.files import read_json
from labels import ATTRIBUTES
from options import BY_ATTRIBUTE, LAYOUT_FLAGS, make_parser, parse_args, text_of
from training.run import check_names

# No attribute may override these, but they act on training rows only: trials stay comparable.
LABELS = ("label_fixes_level", "old_from", "drop_ages")


def to_argv(values):
    """The command line of {key: value}: `--lr 0.001 age=0.0003 --split_heads`, as a list."""
    by_flag, argv = {}, []
    for key, value in values.items():
        flag, _, attribute = key.partition(" ")
        by_flag.setdefault(flag, {})[attribute] = text_of(value)
    for flag, parts in by_flag.items():
        base = parts.pop("", "")
        if flag not in LAYOUT_FLAGS:
            argv += [f"--{flag}", *base.split()]
            argv += [f"{name}={','.join(value.split())}" for name, value in parts.items()]
        elif base != "off":  # train.py refuses --split_heads=yes
            argv.append(f"--{flag}" if base == "on" else f"--{flag}={base}")
    return argv


def suggest(trial, space, before=None):
    """{key: value} of an optuna Trial; the same again if asked again. before(key): called first."""
    values = {}
    for key, kind in space.items():
        if before:
            before(key)
        if isinstance(kind, CategoricalDistribution):
            values[key] = trial.suggest_categorical(key, kind.choices)
        else:
            ask = trial.suggest_int if isinstance(kind, IntDistribution) else trial.suggest_float
            values[key] = ask(key, kind.low, kind.high, log=kind.log)
    return values


def ends(kind):
    """All choices of a distribution, or its lowest and highest number."""
    return getattr(kind, "choices", None) or (kind.low, kind.high)


def read(path, fixed):
    """{key: optuna distribution} of the file; fixed: the flags that every trial has, as a list.

    UserError naming the file and the key for an unknown flag, a bad range, a value that the flag
    does not take, a flag that is fixed too, and a key of which no value goes with the fixed flags.
    """
    content, space = read_json(path), {}
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} is not a search space: write {{flag: values}}")
    try:
        for key, values in content.items():
            _check_key(key, fixed)
            space[key] = _distribution(values)
        for key in space:
            _check_values(key, space, fixed)
    except UserError as error:
        raise UserError(f'{path}: "{key}": {error}') from None
    return space


def _check_key(key, fixed):
    pairs = [f"{flag} {attribute}" for flag in BY_ATTRIBUTE for attribute in ATTRIBUTES]
    if key not in (*BY_ATTRIBUTE, *pairs, *LAYOUT_FLAGS, *LABELS):
        names = ", ".join(ATTRIBUTES)
        raise UserError(f'not a flag that can be searched, alone or with {names} as in "lr age"')
    flag = f"--{key.split()[0]}"
    if flag in [word.split("=")[0] for word in fixed]:
        raise UserError(f"{flag} is fixed on the command line too; leave out one of them")


def _distribution(values):
    match values:
        case {"choices": [_, *_] as choices} if len(values) == 1:
            texts = [text_of(choice) for choice in choices]
            if len(set(texts)) < len(texts) or not all(map(str.split, texts)):
                raise UserError("a choice is empty or there twice")
            return CategoricalDistribution(texts)
        case {"low": low, "high": high, **more} if (
            {type(low), type(high)} <= {int, float}
            and more.keys() <= {"log", "int"}
            and {*map(type, more.values())} <= {bool}
        ):
            whole, log = more.get("int", False), more.get("log", False)
            if whole and (low % 1 or high % 1):
                raise UserError('low and high must be whole numbers with "int": true')
            if not low < high or (log and low <= 0):
                raise UserError(f"low {low:g} must be below high {high:g}, and above 0 for log")
            return (IntDistribution if whole else FloatDistribution)(low, high, log=log)
    forms = '{"low": 1, "high": 2}, with "log": true or "int": true, or {"choices": [1, 2]}'
    raise UserError(f"write {forms}")


def _check_values(key, space, fixed):
    """UserError for a value that the flag does not take, or if none goes with the fixed flags."""
    values = ends(space[key])
    tried = list(values)
    if isinstance(space[key], FloatDistribution):
        tried.append(values[0] + (values[1] - values[0]) / math.pi)  # never a whole number
    for value in tried:
        try:
            check_names(make_parser().parse_args(to_argv({key: value})))
        except UserError as error:
            hint = "" if value in values else '; for whole numbers add "int": true'
            raise UserError(f"{error}{hint}") from None
    switches = [(flag, on) for flag in LAYOUT_FLAGS if flag in space for on in ends(space[flag])]
    layouts = [[], *(to_argv(dict([switch])) for switch in switches)]
    commands = [[*fixed, *to_argv({key: value}), *more] for more in layouts for value in values]
    for argv in commands:
        with contextlib.suppress(UserError):
            return parse_args(argv)
    return parse_args(commands[0])  # says why the first is refused
