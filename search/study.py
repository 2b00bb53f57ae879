"""The study of a search: opens it, and runs its trials one by one.

Optuna keeps the trials, chooses their values and says which to prune. Which worker runs which
trial is decided here, by locks that the kernel frees when a process ends: an interrupted trial
resumes its own run at once, which Optuna's heartbeat would start anew, and later.
"""

import argparse
import contextlib
import json
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

import options
from common import devices
from common.errors import UserError
from common.files import locked, read_json
from common.processes import say
from experiment.reader import fold_folder, read_config
from experiment.run_folder import file_hashes, fingerprint
from search import space as spaces
from training.loop import Diverged
from training.run import check_names, read_inputs

PLAN = "tune.py"  # the attribute of a study that says what it searches
# Flags of train.py that a trial sets itself, or whose options a search would not see; with
# --workers its folds would not be scored one after the other, as the pruner compares them.
OWN = ("--resume", "--fold", "--name", "--from_run", "--config", "--dry_run", "--workers")
STARTUP = 5  # complete trials before any is pruned


@dataclass
class Search:
    """A search as a worker knows it."""

    study: optuna.Study
    args: argparse.Namespace  # the flags of tune.py
    fixed: list  # the flags of train.py that every trial has
    space: dict  # {key: optuna distribution}
    folder: Path  # of the trials
    longest: int  # epochs of the longest trial
    train: Callable  # train.main(argv, on_epoch)


def open_search(args, fixed, train):
    """The Search, all of whose input is checked before anything is written or trained."""
    for flag in [word.split("=")[0] for word in fixed]:
        if flag in OWN:
            raise UserError(f"{flag} after --: not for a trial; leave it out")
    base = options.parse_args(fixed)
    if not base.k_fold and not base.val_ratio:
        raise UserError("--val_ratio 0 after --: a search needs people held out to score")
    check_names(base)
    space = spaces.read(args.space, fixed)
    devices.pick_device(base.device)
    table, *_ = read_inputs(base)
    plan = {"train.csv": fingerprint(table.frame), "--seed": args.seed}
    plan |= {f"file as --{name}": content for name, content in file_hashes(base).items()}
    plan |= {f'"{key}" in its space': str(kind) for key, kind in space.items()}
    plan |= {f"--{name} after --": value for name, value in options.training_options(base).items()}
    epochs = [spaces.ends(kind) for key, kind in space.items() if key.split()[0] == "epochs"]
    longest = max(map(int, sum(epochs, tuple(base.epochs.values()))))
    folder, study = Path(base.model_dir, args.study), open_study(args, plan, longest)
    return Search(study, args, fixed, space, folder, longest, train)


def open_study(args, plan, longest):
    """The study in --storage, new or continued; UserError if it has another plan."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Workers wait for each other's writes.
    waiting = {"timeout": 60} if args.storage.startswith("sqlite") else {}
    median = optuna.pruners.MedianPruner(STARTUP, n_warmup_steps=longest // 3)
    for left in (2, 1, 0):  # tries, while another worker makes the tables
        try:
            storage = optuna.storages.RDBStorage(args.storage, {"connect_args": waiting})
            break
        except (SQLAlchemyError, ImportError, RuntimeError) as error:
            where = f"--storage {args.storage} cannot be opened ({str(error).splitlines()[0]})"
        if not left:
            raise UserError(f"{where}; give e.g. sqlite:///tune.db")
        time.sleep(0.3)
    study = optuna.create_study(
        storage=storage, study_name=args.study, direction="maximize", load_if_exists=True,
        pruner=median if args.pruner == "median" else optuna.pruners.NopPruner(),
    )  # fmt: skip
    plan = json.loads(json.dumps(plan))
    if not study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr(PLAN, plan)
    known = study.user_attrs.get(PLAN, {})
    for name in {**plan, **known}:
        if known.get(name) != plan.get(name):
            what = f"has another {name}" if known else "was not made by this tune.py"
            raise UserError(
                f"the study {args.study} in {args.storage} {what}: choose another --study, or "
                "give the same as when it began"
            )
    return study


def run_next(search):
    """Runs a trial to its end: one that no living process holds, else a new one; False if none."""
    study = search.study
    with contextlib.ExitStack() as held:

        def hold(number):
            return held.enter_context(locked(search.folder / f".trial{number}.lock", wait=False))

        # One worker at a time chooses; it keeps its trial locked until the trial has ended.
        with locked(search.folder / ".study.lock", wait=True):
            known = study.get_trials(deepcopy=False)
            left = (t for t in known if t.state == TrialState.RUNNING and hold(t.number))
            if started := next(left, None):
                trial = optuna.Trial(study, started._trial_id)
            elif len(known) < search.args.trials:
                # A seed a trial: a worker that starts later, or beside another, draws other values.
                seed = np.random.SeedSequence([search.args.seed, len(known)]).generate_state(1)[0]
                study.sampler = optuna.samplers.TPESampler(seed=int(seed))
                trial = study.ask()
                hold(trial.number)
            else:
                return False
        run_trial(search, trial)
        return True


def run_trial(search, trial):
    """Trains a trial, or the rest of it, and tells the study how it ended."""
    chosen = spaces.to_argv(spaces.suggest(trial, search.space))
    say(f"trial {trial.number}: {shlex.join(chosen)}")
    folder = search.folder / f"trial{trial.number}"
    argv = [*search.fixed, *chosen, "--model_dir", str(search.folder), "--name", folder.name]
    try:
        args = options.parse_args(argv)  # refuses values that contradict each other
    except UserError as error:
        return fail(search.study, trial, error)
    try:
        search.train(resuming(folder, args) or argv, partial(report_epoch, search, trial, args))
    except optuna.TrialPruned:
        search.study.tell(trial, state=TrialState.PRUNED)
        return say(f"trial {trial.number}: pruned")
    except (Diverged, torch.OutOfMemoryError) as error:
        return fail(search.study, trial, error)
    result = read_json(folder / "metrics.json")
    trial.set_user_attr("seconds", result["seconds"])
    search.study.tell(trial, result["macro_f1"])
    best = search.study.best_trial
    return say(f"best so far: macro F1 {best.value:.4f}, of trial {best.number}")


def fail(study, trial, error):
    trial.set_user_attr("error", str(error).splitlines()[0])
    study.tell(trial, state=TrialState.FAIL)
    say(f"trial {trial.number}: failed: {trial.user_attrs['error']}")


def resuming(folder, args):
    """The flags that resume a trial's run, None if it has none yet; UserError if it is another."""
    if not (folder / "config.json").exists():
        shutil.rmtree(folder, ignore_errors=True)  # killed before its first epoch, at most
        return None
    if options.training_options(read_config(folder)["options"]) != options.training_options(args):
        raise UserError(
            f"{folder} is a run with other flags: remove {folder.parent}, or choose another --study"
        )
    return ["--resume", str(folder), "--device", args.device]


def report_epoch(search, trial, args, fold, epoch, score):
    """Reports the score after an epoch; raises TrialPruned if the pruner gives the trial up.

    Trials of 4 and of 12 epochs are compared after the same share of them: each fold has as many
    steps as the longest trial has epochs. The value is the mean over this fold and those before.
    """
    epochs = max(chosen["epochs"] for chosen in options.tasks_of(args).values())
    run = Path(args.model_dir, args.name)
    before = [read_json(fold_folder(run, k) / "metrics.json")["macro_f1"] for k in range(fold)]
    first = fold * search.longest
    step = first + search.longest * (epoch + 1) // epochs
    reported = search.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    for missing in range(max([first, *reported]) + 1, step + 1):
        trial.report(float(np.mean([*before, score])), missing)
    final = step == search.longest * max(args.k_fold, 1)  # trained to the end: it gets its score
    if not final and trial.should_prune():
        raise optuna.TrialPruned
