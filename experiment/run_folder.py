"""Makes run folders: the name, config.json, folds.csv; joins and resumes the run that is meant."""

import hashlib
import os
import platform
import subprocess
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist

import options
from common.errors import UserError
from common.files import HOME, locked, write_csv, write_json
from common.processes import rank, say, world_size
from dataset import split_people
from experiment import pseudo
from experiment.reader import all_folds, finished, read_config, read_folds

FILES = ("label_fixes", "pseudo")  # flags that name a file whose content is part of the run


def fingerprint(frame):
    """SHA-256 (first 16 hex digits) of the labelled photos of a table."""
    text = frame.sort_values("image")[["image", "age", "label"]].to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hashes(args):
    """{flag: SHA-256 (first 16 hex digits) of its file} of the given FILES."""
    paths = {name: getattr(args, name) for name in FILES}
    return {
        name: hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
        for name, path in paths.items()
        if path
    }


def find_run(args, table):
    """The folder of a run that exists and is meant, by --resume, by --fold together with --name, or
    because torchrun has restarted this process; else None. UserError if it is another run.
    """
    first = Path(args.model_dir, args.name)
    if args.resume:
        folder = Path(args.resume)
    elif args.fold is not None and (first / "config.json").exists():
        folder = first
    elif int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0:
        wanted = options.training_options(args)
        folders = [f for f in _numbered(first) if (f / "config.json").exists()]
        same = [f for f in folders if _recorded(read_config(f)) == wanted]
        if not same:
            return None
        folder = same[-1]
    else:
        return None
    _check_same(folder, args, table)
    return folder


def make_run(args, table, tasks):
    """The folder of this run with config.json and folds.csv in it, the same on every process.

    A new run, with `tasks` in its config.json, takes the first free name of exp, exp2, exp3 ...;
    one that find_run() finds is joined.
    """
    folder = None
    if rank() == 0:
        try:
            folder = find_run(args, table) or _make(args, table, tasks)
        except UserError as error:
            if world_size() == 1:
                raise
            folder = error  # every process raises it, none waits for the others
    if world_size() > 1:
        shared = [folder]
        dist.broadcast_object_list(shared)
        folder = shared[0]
    if isinstance(folder, UserError):
        raise folder
    return folder


def _recorded(config):
    return options.training_options(config["options"])


def _check_same(folder, args, table):
    """UserError unless the run has the options of `args` and the data of `table`."""
    config, wanted = read_config(folder), options.training_options(args)
    differing = [k for k, v in wanted.items() if _recorded(config).get(k) != v]
    if differing:
        raise UserError(f"{folder} is a run with another --{differing[0]}: choose another --name")
    if config["data"]["fingerprint"] != fingerprint(table.frame):
        raise UserError(f"{folder} was trained on other photos or labels than {args.data_dir}")
    if not read_folds(folder).equals(_deal(args, table)):
        raise UserError(
            f"{folder}/folds.csv does not deal the people as --seed, --k_fold and --val_ratio do: "
            "it was changed, or is of another version; restore it, or train a new run"
        )
    for name, found in file_hashes(args).items():
        if config["data"].get("files", {}).get(name) != found:
            path = getattr(args, name)
            raise UserError(
                f"{path} (--{name}) is not what {folder} was trained with: put the old file back, "
                "or train a new run"
            )


def _numbered(first):
    """exp, exp2, exp3 ... as far as they exist."""
    found, number = [], 1
    while (path := first.with_name(first.name + (str(number) if number > 1 else ""))).exists():
        found.append(path)
        number += 1
    return found


def _make(args, table, tasks):
    first = Path(args.model_dir, args.name)
    first.parent.mkdir(parents=True, exist_ok=True)
    with locked(first.parent / ".lock", wait=True):  # folds may start at the same moment
        joined = find_run(args, table)
        if joined:
            return joined
        number = len(_numbered(first)) + 1
        folder = first.with_name(first.name + (str(number) if number > 1 else ""))
        folds = _deal(args, table)
        folder.mkdir()
        write_csv(folder / "folds.csv", folds)
        write_json(folder / "config.json", _config(args, table) | {"tasks": tasks})
    return folder


def _deal(args, table):
    return split_people(table.frame, args.seed, args.k_fold, args.val_ratio)


def _config(args, table):
    layout = options.layout_of(args)
    return stamp() | {
        "layout": layout,
        "seed": args.seed,
        "options": vars(args),
        "data": {
            "fingerprint": fingerprint(table.frame),
            "people": int(table.frame.person.nunique()),
            "images": len(table.frame),
            "notes": table.notes,
            "files": file_hashes(args),
            "pseudo_is_mean": bool(args.pseudo) and pseudo.is_mean(args.pseudo),
        },
    }


def stamp():
    """What config.json says of the moment: command, time, commit, versions, hardware."""
    return {
        "command": " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "hardware": _hardware(),
    }


def _git_commit():
    try:
        ask = ["git", "-C", str(HOME), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _hardware():
    if torch.cuda.is_available():
        return f"{world_size()} x {torch.cuda.get_device_name()}"
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def resumed_args(args, argv):
    """The options of the run that --resume names; `args` are those of the command line `argv`.

    Only RUNTIME_FLAGS may be given besides: they replace the recorded ones. UserError if it is no
    run, if another flag was given, or if it was begun by a version with other options.
    """
    config = read_config(args.resume)
    recorded = config["options"]
    known, every = options.training_options(args).keys(), vars(args).keys()
    commit = f", which was {config['git']}" if config.get("git") else ""
    for word, names in ("without", known - recorded.keys()), ("with", recorded.keys() - every):
        if names:
            raise UserError(
                f"{args.resume} was begun by a version {word} --{min(names)}: go on with that"
                f"{commit}, or train it again"
            )
    given = [word[2:].split("=")[0] for word in argv if word.startswith("--")]
    changing = [name for name in given if name not in options.RUNTIME_FLAGS]
    if changing:
        raise UserError(
            f"--{changing[0]}: a resumed run goes on with its own options; leave it out"
        )
    now = {*given, "resume", "fold", "device"}  # the last two are of this call, not of the run
    return Namespace(**vars(args) | {k: v for k, v in recorded.items() if k not in now})


def folds_to_train(args, folder):
    """The folds of the run, or those of --fold, that are not finished yet."""
    folds = all_folds(folder)
    chosen = folds if args.fold is None else args.fold
    unknown = sorted(set(chosen) - set(folds))
    if unknown:
        raise UserError(f"--fold {unknown[0]}: {folder} has the folds {folds[0]} to {folds[-1]}")
    done = [fold for fold in chosen if finished(folder, fold)]
    if done:
        say(f"finished already: fold {', '.join(map(str, done))}")
    return [fold for fold in chosen if fold not in done]
