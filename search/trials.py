"""What a search found: a table of its trials, the best of them, and two figures."""

import pandas as pd
from optuna.trial import TrialState

from common.files import atomic, write_csv
from common.processes import say
from reporting import figures
from search.space import text

ENOUGH = 5  # complete trials from which importance is drawn


def table(study):
    """One row a trial: trial, state, macro_f1 (if complete), last_macro_f1 (that it reported),
    seconds, a column a key of the space, error.
    """
    rows = []
    for trial in study.get_trials(deepcopy=False):
        reported = trial.intermediate_values
        row = {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "macro_f1": trial.value if trial.state == TrialState.COMPLETE else None,
            "last_macro_f1": reported[max(reported)] if reported else None,
            "seconds": trial.user_attrs.get("seconds"),
        }
        row |= {key: text(value) for key, value in trial.params.items()}
        rows.append(row | {"error": trial.user_attrs.get("error")})
    frame = pd.DataFrame(rows)
    return frame[[name for name in frame if name != "error"] + ["error"]]


def best_first(study):
    """The complete trials, the best first, the earlier of two equals first."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (-trial.value, trial.number))


def write(study, folder):
    """Writes trials.csv, history.png and, if there is enough to tell, importance.png."""
    import matplotlib

    frame = table(study)
    write_csv(folder / "trials.csv", frame)
    params = {key for trial in best_first(study) for key in trial.params}
    complete = int((frame.state == "complete").sum())
    with matplotlib.rc_context(figures.STYLE):
        _history(frame, folder / "history.png")
        if complete >= ENOUGH and len(params) >= 2:
            _importance(study, folder / "importance.png")
            return
    say(
        f"no importance.png: it takes {ENOUGH} complete trials of two flags or more, and there "
        f"are {complete} of {len(params)}"
    )


def _figure(width, height):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure, path):
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, transparent=False, facecolor="white")


def _history(frame, path):
    """The score of each trial in their order, and the best so far."""
    figure, axes = _figure(8, 3.6)
    complete, pruned = (frame[frame.state == state] for state in ("complete", "pruned"))
    axes.plot(complete.trial, complete.macro_f1, "o", color=figures.BLUE, label="complete")
    axes.plot(
        pruned.trial, pruned.last_macro_f1, "x", color=figures.ORANGE, label="pruned, last score"
    )
    best = complete.macro_f1.cummax()
    axes.step(complete.trial, best, where="post", color=figures.GREEN, label="best so far")
    axes.set(title="Macro F1 of the trials", xlabel="trial", ylabel="macro F1")
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=3)
    _save(figure, path)


def _importance(study, path):
    """How much of the score each key decides, by PED-ANOVA (Watanabe et al. 2023)."""
    from optuna.importance import get_param_importances

    shares = get_param_importances(study)
    names = list(shares)[::-1]
    figure, axes = _figure(8, 1.2 + 0.35 * len(names))
    axes.barh(names, [shares[name] for name in names], color=figures.BLUE)
    axes.set(title="What decides the score", xlabel="share of importance")
    axes.grid(axis="y", visible=False)
    _save(figure, path)
