"""The study of a search: opens it, runs its trials one by one, and says what it found.

Optuna keeps the trials, chooses their values and says which to prune. Which worker runs which
trial is decided here, by locks that the kernel frees when a process ends: an interrupted trial
resumes its own run at once, which Optuna's heartbeat would start anew, and later.
"""

import argparse
import contextlib
import gc
import json
import shlex
import time
import warnings
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
from common.files import atomic, locked, read_json, write_csv
from common.processes import say
from experiment.reader import fold_folder
from experiment.run_folder import file_hashes, fingerprint
from search import space as spaces
from training.loop import Diverged
from training.run import check_models, check_names, read_inputs

PLAN = "tune.py"  # the attribute of a study that says what it searches
# Flags of train.py that a trial sets itself, or whose options a search would not see; with
# --workers its folds would not be scored one after the other, as the pruner compares them.
OWN = ("--resume", "--fold", "--name", "--from_run", "--config", "--dry_run", "--workers")
STARTUP = 5  # complete trials before any is pruned
ENOUGH = 5  # complete trials from which importance is drawn
SHOWN = 5  # of the best trials


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
    # The locks that part the trials lie there.
    plan["--model_dir after --"] = str(Path(base.model_dir).resolve())
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
                raise UserError(f"{where}; give e.g. sqlite:///tune.db") from None
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
                trial = study.ask()
                hold(trial.number)
            else:
                return False
        run_trial(search, trial)
        return True


def run_trial(search, trial):
    """Trains a trial, or the rest of it, and tells the study how it ended."""

    def seed(key):
        """Each value has its own: a trial that was stopped between two draws the same, a worker
        that starts later or beside another draws others.
        """
        words = [search.args.seed, trial.number, *key.encode()]
        own = np.random.SeedSequence(words).generate_state(1)[0]
        search.study.sampler = optuna.samplers.TPESampler(seed=int(own))

    chosen, name = spaces.suggest(trial, search.space, seed), f"trial{trial.number}"
    chosen = spaces.to_argv(chosen)
    say(f"trial {trial.number}: {shlex.join(chosen)}")
    argv = [*search.fixed, *chosen, "--model_dir", str(search.folder), "--name", name]
    try:
        args = options.parse_args(argv)  # refuses values that contradict each other
    except UserError as error:
        return fail(search.study, trial, error)
    argv += ["--fold", *map(str, range(max(args.k_fold, 1)))]  # goes on with a run of that name
    try:
        folder = search.train(argv, partial(report_epoch, search, trial, args))
    except optuna.TrialPruned:
        search.study.tell(trial, state=TrialState.PRUNED)
        return say(f"trial {trial.number}: pruned")
    except (Diverged, torch.OutOfMemoryError) as error:
        return fail(search.study, trial, error)
    except UserError:
        try:  # of this trial alone, or of all?
            check_models(args, options.tasks_of(args), 0)
        except UserError as error:
            return fail(search.study, trial, error)
        raise
    finally:  # the parts of a run refer to each other, and a GPU may lack room for two
        gc.collect()
        torch.cuda.empty_cache()
    result = read_json(folder / "metrics.json")
    trial.set_user_attr("seconds", result["seconds"])
    search.study.tell(trial, result["macro_f1"])
    best = search.study.best_trial
    return say(f"best so far: macro F1 {best.value:.4f}, of trial {best.number}")


def fail(study, trial, error):
    trial.set_user_attr("error", str(error).splitlines()[0])
    study.tell(trial, state=TrialState.FAIL)
    say(f"trial {trial.number}: failed: {trial.user_attrs['error']}")


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


def finish(search):
    """Writes trials.csv, history.png and importance.png, and says which trials are the best."""
    study, folder = search.study, search.folder
    frame = table(study)
    counts = ", ".join(f"{count} {state}" for state, count in frame.state.value_counts().items())
    say(f"study {search.args.study}: {counts}")
    write_csv(folder / "trials.csv", frame)
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if not complete:
        raise UserError(f"no trial has a score; {folder}/trials.csv says why")
    draw(study, len(complete), folder)
    say("\nmacro F1  trial  flags")
    best = sorted(complete, key=lambda trial: -trial.value)[:SHOWN]
    for trial in best:
        say(f"{trial.value:8.4f}  {trial.number:5d}  {shlex.join(spaces.to_argv(trial.params))}")
    say(f"\nbest macro F1 {best[0].value:.4f}, of trial {best[0].number}; to train it again:")
    say(shlex.join(["python", "train.py", *search.fixed, *spaces.to_argv(best[0].params)]))


def table(study):
    """Optuna's table of the trials: trial, state, last_macro_f1 (reported or final), macro_f1 (if
    complete), a column a key of the space, and seconds and error where there are some.
    """
    frame = study.trials_dataframe(("number", "state", "value", "params", "user_attrs"))
    frame.columns = frame.columns.str.replace("^(params|user_attrs)_", "", regex=True)
    frame = frame.rename(columns={"number": "trial", "value": "last_macro_f1"})
    frame.state = frame.state.str.lower()
    frame.insert(2, "macro_f1", frame.last_macro_f1.where(frame.state == "complete"))
    return frame


def draw(study, complete, folder):
    """Draws history.png and, if the complete trials are enough, importance.png (PED-ANOVA)."""
    import matplotlib
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    matplotlib.use("agg")  # opens no window
    experimental = {"action": "ignore", "category": optuna.exceptions.ExperimentalWarning}
    with matplotlib.rc_context(), warnings.catch_warnings(**experimental):
        figures = {"history": plots.plot_optimization_history(study, target_name="macro F1")}
        if complete >= ENOUGH and len(study.best_params) >= 2:
            figures["importance"] = plots.plot_param_importances(study, target_name="macro F1")
        else:
            say(f"no importance.png: it needs {ENOUGH} complete trials and two flags to search")
        for name, axes in figures.items():
            with atomic(folder / f"{name}.png") as temporary:
                axes.figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight")
            pyplot.close(axes.figure)
