"""The sections of the report on each run: options, scores, confusion, curves, mistakes."""

import numpy as np
import pandas as pd

import metrics
from labels import ATTRIBUTES, CLASS_NAMES
from reporting import figures, page, runs
from reporting.comparison import TITLES
from reporting.page import html


def build(evidence):
    """Section "Each run"."""
    evidence.tables["per_class_f1"] = evidence.per_class_f1
    defaults, blocks = runs.default_options(), []
    for group in evidence.groups:
        result = metrics.score(evidence.labels, group.probs)
        bins = metrics.reliability(evidence.labels, group.probs)
        parts = [
            _measures(evidence, group),
            _options(group, defaults),
            _folds(evidence, group.runs[0]),
            _cost(group),
            _confusions(result),
            _curves(group.runs[0]),
            html.figure(
                figures.reliability(*bins, result["ece"]),
                "Below the line the model is surer than it should be; above, too modest.",
            ),
        ]
        title = f"{group.name}: macro F1 {page.estimate(*evidence.scores[group.name]['macro_f1'])}"
        if len(group.runs) > 1:
            title += f", {len(group.runs)} seeds, sd {evidence.seed_sd(group):.3f}"
        blocks.append(html.details(title, parts, open=len(evidence.groups) == 1))
    intro = (
        "Out-of-fold: each image is predicted by the model that never saw that person; the score "
        "is pooled over all of them, with the labels as given. Of several seeds, the scores are "
        "means and the pictures show the first."
    )
    return page.section("runs", "Each run", intro, blocks)


def _measures(evidence, group):
    rows = [
        (TITLES[name], page.number(value), page.interval(low, high))
        for name, (value, low, high) in evidence.scores[group.name].items()
    ]
    if not np.isnan(group.last_epoch):
        rows.append(("macro F1 by the last epoch", page.number(group.last_epoch), ""))
    frame = pd.DataFrame(rows, columns=["measure", "value", "95 % interval"])
    return page.table(frame, "Scores over people.")


def _options(group, defaults):
    texts = {"value": group.options, "default": defaults}
    frame = pd.DataFrame(texts, index=list(group.options)).rename_axis("option").fillna("")
    frame = frame[frame.value != frame.default].reset_index()
    return page.table(frame, "Options that differ from the defaults.", empty="All by default.")


def _folds(evidence, run):
    rows = evidence.rows.assign(prediction=run.predictions).groupby(run.oof.fold)
    frame = rows.agg(people=("person", "nunique")).reset_index()
    frame["macro F1"] = [metrics.macro_f1(fold.label, fold.prediction) for _, fold in rows]
    name = f"Folds of {run.folder.name}; their mean is not the pooled score."
    return page.table(frame, name) if len(frame) > 1 else ""


def _cost(group):
    texts = {
        "seconds": "{:,.0f} s of training",
        "images_per_s": "{:,.0f} images/s",
        "wait_share": "{:.0%} of the time spent waiting for data",
    }
    costs = group.costs
    parts = [text.format(costs[name]) for name, text in texts.items() if costs[name] >= 0]
    return html.text(", ".join(parts) + "." if parts else "")


def _confusions(result):
    blocks = html.heading("Confusion", "Rows: the label; columns: the prediction.")
    for name, values in ATTRIBUTES.items():
        blocks += page.heat(values, result["attributes"][name]["confusion"], name)
    return blocks + page.heat(CLASS_NAMES, result["confusion"], "18 classes")


def _curves(run):
    logs = {key: log for key, log in run.logs.items() if "epoch" in log and len(log)}
    if not logs:
        return html.text("This run kept no learning curves.")
    return html.figure(figures.learning_curves(logs), "A line a fold.")


# ---- errors


def build_errors(evidence):
    """Section "Errors": of every run as csv, of the best on the page."""
    best = evidence.best
    mistakes, by_age = evidence.mistakes[best], {}
    for group in evidence.groups:
        by_age[group.name] = error_by_age(evidence.rows, group.probs).assign(run=group.name)
    evidence.tables["mistakes"] = pd.concat(evidence.mistakes.values(), ignore_index=True)
    evidence.tables["error_by_age"] = pd.concat(by_age.values(), ignore_index=True)
    kinds = mistakes.wrong.value_counts().rename_axis("what is wrong").reset_index(name="images")
    kinds["share of mistakes"] = (kinds.images / len(mistakes)).map("{:.0%}".format)
    errs = f"errs on {len(mistakes):,} of {len(evidence.rows):,} photos"
    blocks = [
        page.keep(evidence, "mistake_kinds", kinds, "What is wrong in the wrong ones."),
        html.figure(
            figures.errors_by_age(by_age[best], best),
            "Points: one year of age; lines: the mean over five years.",
        ),
    ]
    intro = (
        f"{best}, the run with the best score, {errs}. The most confident stand under Label review."
    )
    return page.section("errors", "Errors", intro, blocks)


def error_by_age(rows, probs):
    """A frame with a row a year of age: age, people, images, the share of images wrong in label,
    mask, gender and age_group.
    """
    years, wrong = rows.age.astype(int), runs.wrong(rows, probs)
    result = wrong.rename(columns={"age": "age_group"}).groupby(years).mean()
    result.insert(0, "images", years.value_counts())
    result.insert(0, "people", rows.groupby(years).person.nunique())
    return result.reset_index()
