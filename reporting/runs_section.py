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
    ages = {name: error_by_age(frame) for name, frame in evidence.outcomes.items()}
    mistakes = {group.name: evidence.mistakes(group.name) for group in evidence.groups}
    evidence.tables["per_class_f1"] = per_class_f1(evidence.groups)
    evidence.tables["mistakes"] = pd.concat(mistakes.values(), ignore_index=True)
    frames = [frame.assign(run=name) for name, frame in ages.items()]
    evidence.tables["error_by_age"] = pd.concat(frames, ignore_index=True)
    defaults, blocks = runs.default_options(), []
    for group in evidence.groups:
        name, result, first = group.name, group.results[0], group.runs[0]
        curves = figures.learning_curves(first.logs) if first.logs else "No learning curves."
        bins = metrics.reliability(first.oof.label.to_numpy(), first.probs)
        parts = [
            _measures(evidence.scores[name], group),
            _options(group.options, defaults),
            _folds(first),
            _kinds(mistakes[name]),
            _confusions(result),
            html.figure(figures.errors_by_age(ages[name]), "Lines: the mean over five years."),
            html.figure(curves, "A line a fold."),
            html.figure(
                figures.reliability(*bins, result["ece"]),
                "Below the line the model is surer than it should be; above, too modest.",
            ),
        ]
        title = f"{name}: macro F1 {page.estimate(*evidence.scores[name]['macro_f1'])}"
        if len(group.runs) > 1:
            title += f", {len(group.runs)} seeds"
        blocks.append(html.details(title, parts, open=len(evidence.groups) == 1))
    intro = (
        "Out-of-fold: each image is predicted by the model that never saw that person; the score "
        "is pooled over all of them, with the labels as given. Of several seeds, the scores are "
        "means and the pictures show the first."
    )
    return {"title": "Each run", "intro": intro, "blocks": blocks}


def _measures(scores, group):
    rows = [(TITLES[name], page.estimate(*score)) for name, score in scores.items()]
    rows += [(name, page.number(value)) for name, value in group.figures.items() if value >= 0]
    frame = pd.DataFrame(rows, columns=["measure", "value, 95 % interval"])
    frame["measure"] = frame.measure.str.replace("_", " ")
    return page.table(frame, "Scores over people; what training took.")


def _options(options, defaults):
    frame = pd.DataFrame({"value": options, "default": defaults}, index=list(options)).fillna("")
    frame = frame[frame.value != frame.default].reset_index(names="option")
    return page.table(frame, "Options that differ from the defaults.", empty="All by default.")


def _folds(run):
    folds = run.oof.assign(prediction=run.predictions).groupby("fold")
    frame = folds.agg(people=("person", "nunique")).reset_index()
    frame["macro F1"] = [metrics.macro_f1(fold.label, fold.prediction) for _, fold in folds]
    name = f"Folds of {run.folder.name}; their mean is not the pooled score."
    return page.table(frame, name) if len(frame) > 1 else ""


def _kinds(mistakes):
    kinds = mistakes.wrong.value_counts().rename_axis("what is wrong").reset_index(name="images")
    kinds["share"] = kinds.images / len(mistakes)
    return page.table(kinds, f"What is wrong in {len(mistakes):,} mistakes.", empty="No mistakes.")


def _confusions(result):
    blocks = html.heading("Confusion", "Rows: the label; columns: the prediction.")
    for name, values in ATTRIBUTES.items():
        blocks += page.heat(values, result["attributes"][name]["confusion"], name)
    return blocks + page.heat(CLASS_NAMES, result["confusion"], "18 classes")


def per_class_f1(groups):
    """Frame (run, kind, class, f1) of the 18 classes (kind "label") and of the values of each
    attribute, mean over the seeds.
    """
    frames = []
    for group in groups:
        results = [{"label": result} | result["attributes"] for result in group.results]
        for kind, names in ({"label": CLASS_NAMES} | ATTRIBUTES).items():
            f1 = np.mean([result[kind]["per_class_f1"] for result in results], 0)
            frames.append(pd.DataFrame({"run": group.name, "kind": kind, "class": names, "f1": f1}))
    return pd.concat(frames, ignore_index=True)


def error_by_age(outcomes):
    """A frame with a row a year of age: age, people, images, the share of images wrong in label,
    mask, gender and age_group. outcomes: of runs.outcomes().
    """
    years, wrong = outcomes.groupby("age"), outcomes.wrong
    frame = years.agg(people=("person", "nunique"), images=("image", "size"))
    for column in ("label", *ATTRIBUTES):
        differ = wrong != "" if column == "label" else wrong.str.contains(column)
        name = "age_group" if column == "age" else column
        frame[name] = differ.groupby(outcomes.age).mean()
    return frame.reset_index()
