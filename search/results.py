"""What a search found: a table of its trials, two figures, and the command of the best."""

import shlex
import warnings

import matplotlib
import optuna
from matplotlib import pyplot
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from common.errors import UserError
from common.files import atomic, write_csv
from common.processes import say
from search.space import to_argv

ENOUGH = 5  # complete trials from which importance is drawn
SHOWN = 5  # of the best trials


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
        say(f"{trial.value:8.4f}  {trial.number:5d}  {shlex.join(to_argv(trial.params))}")
    say(f"\nbest macro F1 {best[0].value:.4f}, of trial {best[0].number}; to train it again:")
    say(shlex.join(["python", "train.py", *search.fixed, *to_argv(best[0].params)]))


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
