"""Searches the options of training: many runs, the next where the scores so far promise most.

python tune.py --trials 30                                  # the space of search_space.json
python tune.py --trials 30 --study split -- --split_heads --k_fold 5
python tune.py --space mine.json --storage sqlite:///tune.db -- --epochs 6 --bg none

The words after -- are flags of train.py, the same in each trial. The same command again goes on
where the search was, killed or not; started twice at the same time, it is two workers.
"""

import argparse
import contextlib
import json
import shlex
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.trial import TrialState

import labels
import options
import train
from common import devices, flags
from common.errors import UserError, run_command
from common.files import locked, read_json
from common.processes import say, world_size
from dataset import read_train
from experiment import reader, run_folder
from search import space, trials
from training import teaching
from training.task import Diverged

PLAN = "plan"  # the study's attribute that says what it searches
OWN = ("resume", "fold", "name")  # flags of train.py that a trial sets itself
SHOWN = 5  # of the best trials
STARTUP = 5  # complete trials before any is pruned


@dataclass
class Search:
    """A search as a worker knows it.

    fixed: the words after --; entries: [space.Entry]; folder: of the trials; length: the epochs
    of the longest trial.
    """

    study: optuna.Study
    args: argparse.Namespace
    fixed: list
    entries: list
    folder: Path
    length: int


def parse_args(argv):
    """(the flags of tune.py, the words after --)."""
    parser = flags.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--trials", type=flags.typed(flags.number(int, 1)), default=30,
        help="trials of the study in all, with those that earlier calls ended (default: 30)",
    )  # fmt: skip
    add(
        "--storage", default="sqlite:///tune.db", metavar="URL",
        help="database of the study, as SQLAlchemy writes it (default: sqlite:///tune.db)",
    )  # fmt: skip
    add(
        "--study", default="tune",
        help="its name, and its folder below the --model_dir of train.py (default: tune)",
    )  # fmt: skip
    add(
        "--space", type=Path, default=Path("search_space.json"),
        help="the flags to search and their values (default: search_space.json)",
    )  # fmt: skip
    add(
        "--pruner", choices=("median", "none"), default="median",
        help="median stops a trial that is below the median of the others at the same share of "
        "its epochs (default: median)",
    )  # fmt: skip
    add(
        "--seed", type=flags.typed(flags.number(int, 0)), default=0,
        help="of the search; that of the runs stands after -- (default: 0)",
    )  # fmt: skip
    cut = argv.index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:cut])
    if Path(args.study).name != args.study or args.study.startswith("."):
        raise UserError(f"--study {args.study}: give a name that a folder can have")
    return args, argv[cut + 1 :]


def main(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    args, fixed = parse_args(argv)
    if world_size() > 1:
        raise UserError("torchrun does not go with tune.py: start it once for each GPU instead")
    search = open_search(args, fixed)
    try:
        while run_next(search):
            pass
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 130:
            raise
        say(f"stopped; the search goes on with: {shlex.join(['python', 'tune.py', *argv])}")
        sys.exit(130)
    finish(search)


def open_search(args, fixed):
    """The Search, all of whose input is checked before anything is written or trained."""
    base = space.parsed(fixed)
    for word in fixed:
        flag = word.split("=")[0]
        if flag in {f"--{name}" for name in OWN}:
            raise UserError(f"{flag} after --: a trial sets it itself; leave it out")
    if not base.k_fold and not base.val_ratio:
        raise UserError("--val_ratio 0 after --: a search needs people held out to score")
    entries = space.read(args.space, fixed)
    devices.pick_device(base.device)
    table = read_train(base.data_dir)
    teaching.read(base, table)  # complains of its files
    data = run_folder.hashes(base) | {"": run_folder.fingerprint(table.frame)}
    what = run_folder.what(base)
    del what["name"]  # each trial has its own
    searched = {entry.key: vars(entry) for entry in entries}
    plan = {"options": what, "space": searched, "data": data, "seed": args.seed}
    folder = Path(base.model_dir, args.study)
    lengths = [*base.epochs.values()]
    lengths += [int(n) for e in entries if e.key.split()[0] == "epochs" for n in e.ends]
    with locked(folder / ".study.lock", wait=True):
        study = open_study(args, json.loads(json.dumps(plan)), max(lengths))
    return Search(study, args, fixed, entries, folder, max(lengths))


def open_study(args, plan, length):
    """The study in the storage, new or gone on with; UserError if it has another plan."""
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.NopPruner()
    if args.pruner == "median":
        pruner = optuna.pruners.MedianPruner(STARTUP, n_warmup_steps=length // 3)
    # Workers wait for each other's writes.
    waiting = {"connect_args": {"timeout": 60}} if args.storage.startswith("sqlite") else {}
    try:
        storage = optuna.storages.RDBStorage(args.storage, engine_kwargs=waiting)
        study = optuna.create_study(
            storage=storage,
            study_name=args.study,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
    except (SQLAlchemyError, ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--storage {args.storage}: no database can be opened or made there ({reason}); "
            "give e.g. sqlite:///tune.db"
        ) from None
    known = study.user_attrs.get(PLAN)
    if known is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(PLAN, known := plan)
    if known != plan:
        raise UserError(
            f"the study {args.study} in {args.storage} {difference(known, plan)}: choose another "
            "--study, or go on with what it had"
        )
    return study


def difference(known, plan):
    """What sets a plan apart from the one that the storage knows."""
    if known is None:
        return "is not one of tune.py"
    if known["data"] != plan["data"]:
        return "is about other photos, labels, --label_fixes or --pseudo"
    if known["space"] != plan["space"]:
        ours, theirs = known["space"], plan["space"]
        names = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        return f'searches another space ("{names[0]}" differs)'
    if known["seed"] != plan["seed"]:
        return f"has the --seed {known['seed']}"
    ours, theirs = known["options"], plan["options"]
    names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    return f"has another --{names[0]} after --"


def run_next(search):
    """Runs the next trial to its end; False if there is none left to this worker."""
    with contextlib.ExitStack() as held:
        # One worker at a time chooses; what it chose it keeps locked until the trial has ended.
        with locked(search.folder / ".study.lock", wait=True):
            trial = choose(search, held)
        if trial:
            run_trial(search, trial)
        return bool(trial)


def choose(search, held):
    """A started trial that no living process holds, else a new one, else None.

    Its lock is entered into `held`, an ExitStack; the kernel frees it when a worker is killed.
    """
    study, busy, ended = search.study, 0, 0
    known = study.get_trials(deepcopy=False)

    def hold(number):
        return held.enter_context(locked(search.folder / f".trial{number}.lock", wait=False))

    for trial in known:
        ended += trial.state.is_finished()
        if trial.state == TrialState.RUNNING:
            if hold(trial.number):
                return optuna.Trial(study, trial._trial_id)
            busy += 1
    if ended + busy >= search.args.trials:
        return None
    # A seed a trial: a worker that is started again, or beside another, draws other values.
    seed = np.random.SeedSequence([search.args.seed, len(known)]).generate_state(1)[0]
    study.sampler = optuna.samplers.TPESampler(seed=int(seed))
    trial = study.ask()
    hold(trial.number)
    return trial


def run_trial(search, trial):
    """Trains a trial, or the rest of it, and tells the study how it ended."""
    study, number = search.study, trial.number
    words = space.words({entry.key: entry.suggest(trial) for entry in search.entries})
    say(f"trial {number}: {shlex.join(words)}")
    folder = search.folder / f"trial{number}"
    own = ["--model_dir", str(search.folder), "--name", folder.name]
    try:
        args = space.parsed([*search.fixed, *words, *own])
        command = start(folder, args) or [*search.fixed, *words, *own]
        train.main(command, partial(look, search, trial, folder, args))
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        say(f"trial {number}: pruned")
    except (space.Contradiction, Diverged, torch.OutOfMemoryError) as error:
        reason = str(error).splitlines()[0]
        trial.set_user_attr("error", reason)
        study.tell(trial, state=TrialState.FAIL)
        say(f"trial {number}: failed: {reason}")
    else:
        result = read_json(folder / "metrics.json")
        trial.set_user_attr("seconds", result["seconds"])
        study.tell(trial, result["macro_f1"])
        for state in folder.glob("fold*/*/last.pt"):
            state.unlink()  # three times the size of the weights, and of no use any more
        best = study.best_trial
        say(f"best so far: macro F1 {best.value:.4f}, of trial {best.number}")


def start(folder, args):
    """The words that resume the trial's run, or None if it is to be begun.

    UserError if the folder holds another run.
    """
    if not (folder / "config.json").exists():
        shutil.rmtree(folder, ignore_errors=True)  # killed before its first epoch, at most
        return None
    if reader.read_config(folder)["options"] != run_folder.what(args):
        raise UserError(
            f"{folder} is a run of something else: remove {folder.parent}, or choose another "
            "--study"
        )
    return ["--resume", str(folder), "--device", args.device]


def look(search, trial, folder, args, fold, epoch, score):
    """Reports the score after an epoch; raises TrialPruned if the pruner gives the trial up.

    Trials of 4 and of 12 epochs are compared after the same share of their epochs: each fold has
    as many steps as the longest trial has epochs, and a shorter one fills them evenly. The value
    is the mean over this fold and those before it.
    """
    tasks = labels.LAYOUTS[options.layout_of(args)]
    epochs = max(options.for_task(args, task)["epochs"] for task in tasks)
    before = [
        read_json(reader.fold_folder(folder, k) / "metrics.json")["macro_f1"] for k in range(fold)
    ]
    value = float(np.mean([*before, score]))
    first, length = fold * search.length, search.length
    step = first + length * (epoch + 1) // epochs
    frozen = search.study.get_trials(deepcopy=False)[trial.number]
    last = max([first, *frozen.intermediate_values])
    for missing in range(last + 1, step + 1):
        trial.report(value, missing)
    final = step == length * max(args.k_fold, 1)  # trained to the end, it may as well be scored
    if not final and trial.should_prune():
        raise optuna.TrialPruned


def finish(search):
    """Says and writes what was found."""
    study, shown = search.study, []
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING):
        if state in states:
            shown.append(f"{states.count(state)} {state.name.lower()}")
    say(f"study {search.args.study}: {', '.join(shown)}")
    trials.write(study, search.folder)
    best = trials.best_first(study)
    if not best:
        raise UserError(f"no trial of {search.args.study} has a score; see {search.folder}")
    say("\nmacro F1  trial  flags")
    commands = [search_words(search, trial) for trial in best]
    for trial, words in zip(best[:SHOWN], commands, strict=False):
        say(f"{trial.value:8.4f}  {trial.number:5d}  {shlex.join(words)}")
    say(f"\nbest macro F1 {best[0].value:.4f}, of trial {best[0].number}; to train it again:")
    say(shlex.join(["python", "train.py", *search.fixed, *commands[0]]))


def search_words(search, trial):
    """The words that a finished trial added to the fixed ones."""
    frozen = optuna.trial.FixedTrial(trial.params)
    return space.words({entry.key: entry.suggest(frozen) for entry in search.entries})


if __name__ == "__main__":
    run_command(main)
