"""The section of the report on each run: options, scores, confusion, curves, calibration."""

import numpy as np
import pandas as pd

import metrics
from labels import ATTRIBUTES, CLASS_NAMES
from reporting import figures, page, runs

TITLES = {"macro_f1": "macro F1", "accuracy": "accuracy"} | {
    name: f"{name} (macro F1)" for name in ATTRIBUTES
}


def build(tables, rows, groups, scored, defaults):
    """Section "Each run". scored: {name: runs.scores}; defaults: {flag: text}."""
    labels = rows.label.to_numpy(int)
    blocks, every = [], []
    for group in groups:
        result = metrics.score(labels, group.probs)
        every += _class_rows(group, labels)
        blocks.append(
            page.details(
                _title(group, scored[group.name]),
                [
                    _measures(group, scored[group.name]),
                    _options(group, defaults),
                    _folds(group, rows),
                    _cost(group),
                    *_confusions(result),
                    *_curves(group),
                    page.figure(
                        figures.reliability(
                            *metrics.reliability(labels, group.probs), result["ece"]
                        ),
                        "Below the line the model is surer than it should be; above, too modest.",
                    ),
                ],
                opened=len(groups) == 1,
            )
        )
    tables["per_class_f1"] = pd.DataFrame(every)
    intro = (
        "Out-of-fold: each image is predicted by the model that never saw that person; the score "
        "is pooled over all of them, with the labels as given. Of several seeds, the scores are "
        "means and the pictures show the first."
    )
    return page.section("runs", "Each run", intro, blocks)


def _title(group, scored):
    value, low, high = scored["measures"]["macro_f1"]
    seeds = "" if scored["seeds"] == 1 else f", {scored['seeds']} seeds, sd {scored['sd']:.3f}"
    return f"{group.name}: macro F1 {page.number(value)} {page.span(low, high)}{seeds}"


def _measures(group, scored):
    rows = [
        (TITLES[name], page.number(value), page.span(low, high))
        for name, (value, low, high) in scored["measures"].items()
    ]
    if not np.isnan(runs.last_epoch(group)):
        rows.append(("macro F1 by the last epoch", page.number(runs.last_epoch(group)), ""))
    frame = pd.DataFrame(rows, columns=["measure", "value", "95 % interval"])
    return page.table(frame, "Scores over people.")


def _options(group, defaults):
    options = group.options
    changed = [
        (name, text, defaults.get(name, ""))
        for name, text in options.items()
        if text != defaults.get(name)
    ]
    frame = pd.DataFrame(changed, columns=["option", "value", "default"])
    return page.table(frame, "Options that differ from the defaults.", empty="All by default.")


def _cost(group):
    cost = runs.costs(group)
    parts = []
    if cost["seconds"] > 0:
        parts.append(f"{cost['seconds']:,.0f} s of training")
    if cost["images_per_s"] > 0:
        parts.append(f"{cost['images_per_s']:,.0f} images/s")
    if cost["wait_share"] >= 0:
        parts.append(f"{cost['wait_share']:.0%} of the time spent waiting for data")
    return page.text(", ".join(parts) + ".") if parts else None


def _folds(group, rows):
    run, labels = group.runs[0], rows.label.to_numpy(int)
    found = []
    for fold in sorted(run.oof.fold.unique()):
        at = (run.oof.fold == fold).to_numpy()
        value = metrics.macro_f1(labels[at], run.predictions[at])
        found.append((int(fold), rows.person[at].nunique(), value))
    if len(found) < 2:
        return None
    frame = pd.DataFrame(found, columns=["fold", "people", "macro F1"])
    return page.table(frame, f"Folds of {run.folder.name}; their mean is not the pooled score.")


def _confusions(result):
    blocks = [page.heading("Confusion", "Rows: the label; columns: the prediction.")]
    for name, values in ATTRIBUTES.items():
        part = result["attributes"][name]
        blocks.append(page.heat(values, part["confusion"], name))
    blocks.append(page.heat(CLASS_NAMES, result["confusion"], "18 classes"))
    return blocks


def _curves(group):
    logs = {key: log for key, log in group.runs[0].logs.items() if "epoch" in log and len(log)}
    if not logs:
        return [page.text("This run kept no learning curves.")]
    return [page.figure(figures.learning_curves(logs), "A line a fold.")]


def _class_rows(group, labels):
    """Rows of per_class_f1.csv: the 18 classes and the values of each attribute, mean of seeds."""
    scores = [metrics.score(labels, run.probs) for run in group.runs]
    parts = {"label": (CLASS_NAMES, [score["per_class_f1"] for score in scores])}
    for name, values in ATTRIBUTES.items():
        parts[name] = values, [score["attributes"][name]["per_class_f1"] for score in scores]
    return [
        {"run": group.name, "kind": kind, "class": name, "f1": float(f1)}
        for kind, (names, f1s) in parts.items()
        for name, f1 in zip(names, np.mean(f1s, 0), strict=True)
    ]
