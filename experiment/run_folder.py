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
from common.files import HOME, locked, read_bytes, write_csv, write_json
from common.processes import rank, say, world_size
from dataset import split_people
from experiment import pseudo
from experiment.reader import all_folds, finished, read_config, read_folds

FILES = ("label_fixes", "pseudo")  # flags that name a file whose content is part of the run
OF_A_CALL = {"name", "model_dir", "resume", "fold", "device", "wandb", "from_run", "config"}


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
    first, folder = Path(args.model_dir, args.name), None
    if args.resume:
        folder = Path(args.resume)
    elif args.fold is not None and (first / "config.json").exists():
        folder = first
    elif int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0:
        wanted = options.training_options(args)
        for found in _numbered(first)[:-1]:
            if (found / "config.json").exists() and _recorded(read_config(found)) == wanted:
                folder = found
    if folder:
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
            folder = error  # every process raises it, none waits for the others
    if world_size() > 1:
        shared = [folder]
        dist.broadcast_object_list(shared)
        folder = shared[0]
    if isinstance(folder, UserError):
        raise folder
    return folder


def _make(args, table, tasks):
    first = Path(args.model_dir, args.name)
    with locked(first.parent / ".lock", wait=True):  # folds may start at the same moment
        folder = find_run(args, table)
        if not folder:
            folder = _numbered(first)[-1]
            folds = _deal(args, table)
            folder.mkdir()
            write_csv(folder / "folds.csv", folds)
            write_json(folder / "config.json", _config(args, table) | {"tasks": tasks})
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
            raise UserError(
                f"{getattr(args, name)} (--{name}) is not what {folder} was trained with: put the "
                "old file back, or train a new run"
            )


def _numbered(first):
    """exp, exp2, exp3 ... as far as they exist, and the first that does not."""
    found = [first]
    while found[-1].exists():
        found.append(first.with_name(f"{first.name}{len(found) + 1}"))
    return found


def _deal(args, table):
    return split_people(table.frame, args.seed, args.k_fold, args.val_ratio)


def _config(args, table):
    return stamp() | {
        "layout": options.layout_of(args),
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


def _recorded_options(folder, args, complete):
    """The options in the config.json of a run; UserError if it is no run, or if this version does
    not know one of them, or, if they must be `complete`, has one more.
    """
    config = read_config(folder)
    recorded = config["options"]
    commit = f", which was {config['git']}" if config.get("git") else ""
    more = options.training_options(args).keys() - recorded.keys() if complete else ()
    for word, names in ("without", more), ("with", recorded.keys() - vars(args).keys()):
        if names:
            raise UserError(
                f"{folder} was begun by a version {word} --{min(names)}: go on with that{commit}, "
                "or train it again"
            )
    return recorded


def resumed_args(args, argv):
    """The options of the run that --resume names; `args` are those of the command line `argv`.

    Only RUNTIME_FLAGS may be given besides: they replace the recorded ones. UserError if another
    flag was given, and as of _recorded_options().
    """
    recorded = _recorded_options(args.resume, args, complete=True)
    given = {word[2:].split("=")[0] for word in argv if word.startswith("--")}
    changing = sorted(given - (options.RUNTIME_FLAGS - {"from_run", "config"}))
    if changing:
        raise UserError(
            f"--{changing[0]}: a resumed run goes on with its own options; leave it out"
        )
    now = given | OF_A_CALL - {"name", "model_dir", "from_run", "config"}
    return Namespace(**vars(args) | {k: v for k, v in recorded.items() if k not in now})


def inherited_args(parser, args, argv):
    """The options of a command line with defaults of another run, --from_run, and over them those
    of a YAML file, --config, which may name the run too. `args`: of the command line alone.
    """
    words = _words_of(args.config) if args.config else []
    source = args.from_run or _parsed(parser, args.config, words).from_run
    if source:
        recorded = _recorded_options(source, args, complete=False)
        parser.set_defaults(**{k: v for k, v in recorded.items() if k not in OF_A_CALL})
    parser.set_defaults(**vars(_parsed(parser, args.config, words)))
    return parser.parse_args(argv)


def _parsed(parser, path, words):
    try:
        return parser.parse_args(words)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _words_of(path):
    """The words of a command line that a YAML file stands for."""
    import yaml

    try:
        table = yaml.load(read_bytes(path), yaml.BaseLoader)  # all values as they are written
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    words = []
    for name, value in table.items() if isinstance(table, dict) else [("", {})]:
        row = options.ROWS.get(name)
        if isinstance(value, str):
            one = row and row.count == 1 and not row.by_attribute
            value = [value] if one and value else value.split()
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise UserError(f"{path}: {name or 'all'} is not like `lr: 3e-4 age=1e-4`")
        words += [f"--{name}", *value]
    return words


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
