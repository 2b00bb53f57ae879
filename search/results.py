"""What a search found: a table of its trials, two figures, and the command of the best."""

import shlex
import warnings

import matplotlib
import optuna
import pandas as pd
from matplotlib import pyplot
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from common.errors import UserError
from common.files import atomic, write_csv
from common.processes import say
from options import text_of
from search.space import to_argv

ENOUGH = 5  # complete trials from which importance is drawn
SHOWN = 5  # of the best trials


def finish(search):
    """Writes trials.csv, history.png and importance.png, and says which trials are the best."""
    trials = search.study.get_trials(deepcopy=False)
    frame = table(trials)
    counts = ", ".join(f"{count} {state}" for state, count in frame.state.value_counts().items())
    say(f"study {search.args.study}: {counts}")
    write_csv(search.folder / "trials.csv", frame)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete:
        raise UserError(f"no trial has a score; {search.folder}/trials.csv says why")
    draw(search.study, len(complete), search.folder)
    say("\nmacro F1  trial  flags")
    best = sorted(complete, key=lambda trial: -trial.value)[:SHOWN]
    for trial in best:
        say(f"{trial.value:8.4f}  {trial.number:5d}  {shlex.join(to_argv(trial.params))}")
    say(f"\nbest macro F1 {best[0].value:.4f}, of trial {best[0].number}; to train it again:")
    say(shlex.join(["python", "train.py", *search.fixed, *to_argv(best[0].params)]))


def table(trials):
    """One row a trial: trial, state, macro_f1 (if complete), last_macro_f1 (that it reported),
    seconds, a column a key of the space (as typed), error.
    """
    rows = []
    for trial in trials:
        reported = trial.intermediate_values
        row = {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "macro_f1": trial.value if trial.state == TrialState.COMPLETE else None,
            "last_macro_f1": reported[max(reported)] if reported else None,
            "seconds": trial.user_attrs.get("seconds"),
        }
        row |= {key: text_of(value) for key, value in trial.params.items()}
        rows.append(row | {"error": trial.user_attrs.get("error")})
    frame = pd.DataFrame(rows)
    return frame[[*frame.columns.drop("error"), "error"]]


def draw(study, complete, folder):
    """Draws history.png and, if the complete trials are enough, importance.png (PED-ANOVA)."""
    matplotlib.use("agg")  # opens no window
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        figures = {"history": plots.plot_optimization_history(study, target_name="macro F1")}
        if complete >= ENOUGH and len(study.best_params) >= 2:
            figures["importance"] = plots.plot_param_importances(study, target_name="macro F1")
        else:
            say(f"no importance.png: it needs {ENOUGH} complete trials and two flags to search")
        for name, axes in figures.items():
            with atomic(folder / f"{name}.png") as temporary:
                axes.figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight")
            pyplot.close(axes.figure)
