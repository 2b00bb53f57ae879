"""The section of the report on each run: scores, confusion, mistakes by age, curves."""

import numpy as np
import pandas as pd

from labels import ATTRIBUTES, CLASS_NAMES
from reporting import figures, page
from reporting.comparison import TITLES
from reporting.page import html


def build(evidence):
    """Section "Each run"."""
    ages = {name: error_by_age(frame) for name, frame in evidence.outcomes.items()}
    wrong = [evidence.mistakes(group.name) for group in evidence.groups]
    evidence.tables["mistakes"] = pd.concat(wrong, ignore_index=True)
    frames = [frame.assign(run=name) for name, frame in ages.items()]
    evidence.tables["error_by_age"] = pd.concat(frames, ignore_index=True)
    blocks = [_per_class(evidence)]
    for group in evidence.groups:
        scores, first = evidence.scores[group.name], group.runs[0]
        parts = [
            _measures(scores, group),
            _confusions(group.results[0]),
            html.figure(*figures.errors_by_age(ages[group.name]), "Lines: the mean over 5 years."),
        ]
        if first.logs:
            parts.append(html.figure(*figures.learning_curves(first.logs), "A line a fold."))
        title = f"{group.name}: macro F1 {page.estimate(*scores['macro_f1'])}"
        if len(group.runs) > 1:
            title += f", {len(group.runs)} seeds"
        blocks.append(html.details(title, parts, open=len(evidence.groups) == 1))
    intro = (
        "Out-of-fold: each image is predicted by the model that never saw that person; the score "
        "is pooled over all of them, with the labels as given. Of several seeds, the scores are "
        "means and the pictures show the first."
    )
    return {"title": "Each run", "intro": intro, "blocks": blocks}


def _per_class(evidence):
    frame = per_class_f1(evidence.groups)
    wide = frame.pivot_table("f1", ["kind", "class"], "run", sort=False).droplevel("kind")
    shown = wide.map(lambda f1: html.shade(f"{f1:.3f}", f1)).reset_index()
    caption = "F1 of the 18 classes, and of the values of each attribute."
    return page.keep(evidence, "per_class_f1", frame, caption, shown, kind="heat")


def _measures(scores, group):
    rows = [(TITLES[name], page.estimate(*score)) for name, score in scores.items()]
    rows += [(name, page.number(value)) for name, value in group.figures.items() if value >= 0]
    rows.append(("calibration error", page.number(np.mean([one["ece"] for one in group.results]))))
    frame = pd.DataFrame(rows, columns=["measure", "value, 95 % interval"])
    frame["measure"] = frame.measure.str.replace("_", " ")
    return page.table(frame, "Scores over people; what training took.")


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
    words = {"label": ".", "mask": "mask", "gender": "gender", "age_group": "age"}
    wrong = {column: outcomes.wrong.str.contains(word) for column, word in words.items()}
    how = {"person": "nunique", "image": "size"} | dict.fromkeys(words, "mean")
    frame = outcomes.assign(**wrong).groupby("age", as_index=False).agg(how)
    return frame.rename(columns={"person": "people", "image": "images"})
