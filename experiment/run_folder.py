"""The run folder: its name, its config, its folds, and what is collected from them."""

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

import labels
import options
from common.errors import UserError
from common.files import HOME, locked, write_csv, write_json
from common.processes import rank, say, world_size
from dataset import split_people
from experiment.reader import all_folds, finished, read_config, read_folds

HOW = ("resume", "device", "fold")  # flags that say how to run, not what
FILES = ("label_fixes", "pseudo")  # flags that name a file whose content is part of the run


def fingerprint(frame):
    """SHA-256 (first 16 hex digits) of the labelled photos of a table."""
    text = frame.sort_values("image")[["image", "age", "label"]].to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def what(args):
    """The options that make a run what it is, as they stand in config.json."""
    return {name: value for name, value in vars(args).items() if name not in HOW}


def hashes(args):
    """{flag: SHA-256 (first 16 hex digits) of its file} of the given FILES."""
    paths = {name: getattr(args, name) for name in FILES}
    return {
        name: hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
        for name, path in paths.items()
        if path
    }


def open_run(args, table):
    """The folder of this run, with config.json and folds.csv in it, the same on every process.

    A new run takes the first free name of exp, exp2, exp3 ... With --fold, or where torchrun has
    restarted it, the run of that name is joined if its options and data are the same.
    """
    folder = _open_run(args, table) if rank() == 0 else None
    if world_size() > 1:
        shared = [folder]
        dist.broadcast_object_list(shared)
        folder = shared[0]
    if isinstance(folder, UserError):
        raise folder
    return folder


def _open_run(args, table):
    try:
        return _join(args, table) or _create(args, table)
    except UserError as error:
        if world_size() == 1:
            raise
        return error  # every process raises it, none waits for the others


def _join(args, table):
    """The run that exists already and is meant, else None."""
    first = Path(args.model_dir, args.name)
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    if args.resume:
        folder = Path(args.resume)
    elif args.fold is not None and (first / "config.json").exists():
        folder = first
    elif restarted:
        folders = [f for f in _numbered(first) if (f / "config.json").exists()]
        same = [f for f in folders if read_config(f)["options"] == what(args)]
        if not same:
            return None
        folder = same[-1]
    else:
        return None
    config = read_config(folder)
    if config["options"] != what(args):
        differing = [k for k, v in what(args).items() if config["options"].get(k) != v]
        raise UserError(f"{folder} is a run with another --{differing[0]}: choose another --name")
    if config["data"]["fingerprint"] != fingerprint(table.frame):
        raise UserError(f"{folder} was trained on other photos or labels than {args.data_dir}")
    for name, found in hashes(args).items():
        if config["data"].get("files", {}).get(name) != found:
            path = getattr(args, name)
            raise UserError(
                f"{path} (--{name}) is not what {folder} was trained with: put the old file back, "
                "or train a new run"
            )
    return folder


def _numbered(first):
    """exp, exp2, exp3 ... as far as they exist."""
    found, number = [], 1
    while (path := first.with_name(first.name + (str(number) if number > 1 else ""))).exists():
        found.append(path)
        number += 1
    return found


def _create(args, table):
    first = Path(args.model_dir, args.name)
    first.parent.mkdir(parents=True, exist_ok=True)
    with locked(first.parent / ".lock", wait=True):  # folds may start at the same moment
        joined = _join(args, table)
        if joined:
            return joined
        number = len(_numbered(first)) + 1
        folder = first.with_name(first.name + (str(number) if number > 1 else ""))
        folds = split_people(table.frame, args.seed, args.k_fold, args.val_ratio)
        folder.mkdir()
        write_csv(folder / "folds.csv", folds)
        write_json(folder / "config.json", _config(args, table))
    return folder


def _config(args, table):
    layout = options.layout_of(args)
    return stamp() | {
        "layout": layout,
        "seed": args.seed,
        "options": what(args),
        "tasks": {task: options.for_task(args, task) for task in labels.LAYOUTS[layout]},
        "data": {
            "fingerprint": fingerprint(table.frame),
            "people": int(table.frame.person.nunique()),
            "images": len(table.frame),
            "notes": table.notes,
            "files": hashes(args),
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


def read_args(folder, given, known):
    """The options of the run in `folder`, for --resume; `given` are the words on the command line,
    `known` the names of all options.

    UserError if it is no run, if flags were given that would change what it is, or if it was begun
    by a version with fewer options.
    """
    config = read_config(folder)
    missing = [name for name in known if name not in HOW and name not in config["options"]]
    if missing:
        commit = f", which was {config['git']}" if config.get("git") else ""
        raise UserError(
            f"{folder} was begun by a version without --{missing[0]}: go on with that{commit}, or "
            "train it anew"
        )
    changing = [
        word for word in given if word.startswith("--") and word[2:].split("=")[0] not in HOW
    ]
    if changing:
        raise UserError(f"{changing[0]}: a resumed run goes on with its own options; leave it out")
    return Namespace(**config["options"])


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


def people_of(folder, fold, frame, pixels):
    """(train, valid): int64 rows of the table in this fold, without unreadable photos."""
    mine = frame.person.map(read_folds(folder).set_index("person").fold).to_numpy()
    readable = np.ones(len(frame), bool)
    for stored in pixels.values():
        readable[[row for row in stored.broken if row < len(frame)]] = False  # behind: eval
    train, valid = (
        np.flatnonzero(readable & (mine != fold)),
        np.flatnonzero(readable & (mine == fold)),
    )
    if not len(train):
        raise UserError(f"{folder} fold {fold}: nobody is left to train on")
    return train, valid
