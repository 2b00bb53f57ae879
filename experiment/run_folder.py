"""Makes run folders: the name, config.json, folds.csv; joins and resumes the run that is meant."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from argparse import Namespace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist

import options
from common import devices
from common.errors import UserError
from common.files import HOME, atomic, locked, read_bytes, write_csv, write_json
from common.processes import rank, world_size
from experiment.reader import read_config, read_folds

# Flags that name a file, or a run, whose content is part of the run.
FILES = ("label_fixes", "init_from")
# Flags that a run made like another (--from_run) does not take from it.
OF_A_CALL = {"name", "model_dir", "resume", "fold", "device", "wandb", "from_run", "config"}


def fingerprint(frame):
    """SHA-256 (first 16 hex digits) of the labelled photos of a table."""
    text = frame.sort_values("image")[["image", "age", "label"]].to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hashes(args):
    """{flag: SHA-256 (first 16 hex digits) of its file, or of the run's config} of the FILES."""
    found = {}
    for name in FILES:
        if path := getattr(args, name):
            path = Path(path, "config.json") if Path(path).is_dir() else Path(path)
            try:
                found[name] = hashlib.sha256(read_bytes(path)).hexdigest()[:16]
            except UserError as error:  # of a run to go on with, too
                raise UserError(f"--{name}: {error}") from None
    return found


def describe(args, tasks, table):
    """The config.json of a run; tasks: of options.tasks_of(); table: the dataset.Table."""
    return stamp(args.device) | {
        "layout": options.layout_of(args),
        "seed": args.seed,
        "options": vars(args),
        "tasks": tasks,
        "data": {
            "fingerprint": fingerprint(table.frame),
            "people": int(table.frame.person.nunique()),
            "images": len(table.frame),
            "notes": table.notes,
            "files": file_hashes(args),
        },
    }


def find_run(config, folds):
    """The folder of a run that exists and is meant, by --resume, by --fold together with --name, or
    because torchrun has restarted this process; else None. UserError if it is another run than
    that of describe() and of the frame (person, fold).
    """
    asked = config["options"]
    first, folder = Path(asked["model_dir"], asked["name"]), None
    if asked["resume"]:
        folder = Path(asked["resume"])
    elif asked["fold"] is not None and (first / "config.json").exists():
        folder = first
    elif int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0:
        for found in _numbered(first)[:-1]:
            if (found / "config.json").exists() and not _differing(read_config(found), config):
                folder = found
    if folder:
        _check_same(folder, config, folds)
    return folder


def make_run(config, folds, known):
    """The folder of this run with config.json and folds.csv in it, the same on every process.

    known: of find_run(); without it a new run takes the first free name of exp, exp2, exp3 ...
    """
    shared = [known]
    if rank() == 0 and not known:
        try:
            shared = [_make(config, folds)]
        except UserError as error:
            shared = [error]  # every process raises it, none waits for the others
    if world_size() > 1:
        dist.broadcast_object_list(shared)
    if isinstance(shared[0], UserError):
        raise shared[0]
    return shared[0]


def _make(config, folds):
    first = Path(config["options"]["model_dir"], config["options"]["name"])
    with locked(first.parent / ".lock", wait=True):  # folds may start at the same moment
        if joined := find_run(config, folds):
            return joined
        folder = _numbered(first)[-1]
        with atomic(folder) as begun:
            write_csv(begun / "folds.csv", folds)
            write_json(begun / "config.json", config)
    return folder


def _numbered(first):
    """exp, exp2, exp3 ... as far as they exist, and the first that does not."""
    found = [first]
    while found[-1].exists():
        found.append(first.with_name(f"{first.name}{len(found) + 1}"))
    return found


def _differing(theirs, ours):
    """Names of the options of training in which two config.json differ."""
    theirs, ours = (options.training_options(config["options"]) for config in (theirs, ours))
    return [name for name, value in ours.items() if theirs.get(name) != value]


def _check_same(folder, config, folds):
    """UserError unless the run has these options, folds and data."""
    theirs, asked, data = read_config(folder), config["options"], config["data"]
    if differing := _differing(theirs, config):
        raise UserError(f"{folder} is a run with another --{differing[0]}: choose another --name")
    if theirs["data"]["fingerprint"] != data["fingerprint"]:
        raise UserError(f"{folder} was trained on other photos or labels than {asked['data_dir']}")
    if not read_folds(folder).equals(folds):
        raise UserError(
            f"{folder}/folds.csv does not deal the people as --seed, --k_fold and --val_ratio do: "
            "it was changed, or is of another version; restore it, or train a new run"
        )
    for name, found in data["files"].items():
        if theirs["data"].get("files", {}).get(name) != found:
            raise UserError(
                f"{asked[name]} (--{name}) is not what {folder} was trained with: put the old "
                "file back, or train a new run"
            )


def stamp(device):
    """What config.json says of the moment; device: the value of --device."""
    return {
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, np)},
        },
        "hardware": f"{world_size()} x {devices.name_of(devices.pick_device(device))}",
    }


def _git_commit():
    try:
        ask = ["git", "-C", str(HOME), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _recorded_options(folder, args, missing=True):
    """The options in the config.json of a run; UserError if it is no run, or if its options of
    training are not those of this version; missing: also if it has none for a flag of ours.
    """
    config = read_config(folder)
    ours, theirs = map(options.training_options, (args, config["options"]))
    if unlike := ours.keys() ^ theirs.keys() if missing else theirs.keys() - ours.keys():
        commit = f", which was {config['git']}" if config.get("git") else ""
        raise UserError(
            f"{folder} was begun by a version that differs in --{min(unlike)}: go on with "
            f"that{commit}, or train it again"
        )
    return config["options"]


def resumed_args(args, argv):
    """The options of the run that --resume names, with the RUNTIME_FLAGS of the command line, whose
    options are `args`; UserError for any other flag.
    """
    recorded = _recorded_options(args.resume, args)
    given = {word[2:].split("=")[0] for word in argv if word.startswith("--")}
    for name in sorted(given - (options.RUNTIME_FLAGS - {"from_run", "config"})):
        raise UserError(f"--{name}: a resumed run goes on with its own options; leave it out")
    now = given | {"resume", "fold", "device", "wandb"}
    return Namespace(**vars(args) | {k: v for k, v in recorded.items() if k not in now})


def inherited_args(parser, args, argv):
    """The options of a command line with defaults of another run, --from_run, and over them those
    of a YAML file, --config, which may name the run too. `args`: of the command line alone.
    """
    words = _words_of(args.config) if args.config else []
    source = args.from_run or dict(pairwise(words)).get("--from_run")
    if source:
        recorded = _recorded_options(source, args, missing=False)
        parser.set_defaults(**{k: v for k, v in recorded.items() if k not in OF_A_CALL})
    try:
        parser.set_defaults(**vars(parser.parse_args(words)))
    except UserError as error:
        raise UserError(f"{args.config}: {error}") from None
    return parser.parse_args(argv)


def _words_of(path):
    """The words of a command line that a YAML file stands for."""
    import yaml

    try:
        node = yaml.compose(read_bytes(path), yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    flags = node.value if isinstance(node, yaml.MappingNode) else [(None, None)]
    if not all(isinstance(key, yaml.ScalarNode) for key, _ in flags):
        raise UserError(f"{path} has no lines like `lr: 3e-4 age=1e-4`")
    words = []
    for key, item in flags:
        name, value, row = key.value, item.value, options.ROWS.get(key.value)
        if name in ("help", "dry_run", "resume", "config"):
            raise UserError(f"{path}: {name} belongs on the command line")
        if f"--{name}" in words:
            raise UserError(f"{path} gives {name} twice: leave one out")
        if isinstance(item, yaml.SequenceNode):
            value = [word.value for word in value]
        elif isinstance(value, str):
            one = row and row.count == 1 and not row.by_attribute
            value = [value] if one and value else value.split()
        if not all(isinstance(word, str) for word in value):
            raise UserError(f"{path}: {name} is not like `lr: 3e-4 age=1e-4`")
        words += [f"--{name}", *value]
    return words
