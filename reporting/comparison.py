"""The answer of the report, and its sections that compare the runs and show each."""

import numpy as np
import pandas as pd

from labels import ATTRIBUTES, CLASS_NAMES
from reporting import figures, page, runs
from reporting.page import html
from reporting.runs import DIFFERENCE

TITLES = {"macro_f1": "macro F1", "accuracy": "accuracy"}
TITLES |= {name: f"{name} (macro F1)" for name in ATTRIBUTES}
POINTS = 5  # comparisons in the headline
CARDS = 12  # mistakes of each run that are shown


def headline(evidence):
    """{"main", "points", "notes"}: the best run; then the changes of one option that were tried in
    several conditions, or where there are none, the runs against the baseline.
    """
    scores, lines = {run: row["macro_f1"] for run, row in evidence.scores.items()}, []
    best = max(scores, key=scores.get)
    main = f"{best}: macro F1 {page.estimate(*scores[best])}"
    if len(scores) > 1:
        main += f", the best of {len(scores)} runs"
    for row in sorted(evidence.changes, key=lambda row: row["p"]):
        if row["conditions"] > 1:
            where = f" in {row['conditions']} conditions"
            lines.append(_answer(row, f"{row['option']} {row['to']}", row["from"], where))
    pooled, baseline = len(lines) > 0, evidence.baseline.name
    if not pooled:
        lines = [_answer(row, row["run"], baseline) for row in evidence.verdicts]
    if len(lines) > POINTS + 1:
        lines = [*lines[:POINTS], f"{len(lines) - POINTS} more in the comparison"]
    return {"main": main, "points": lines, "notes": _notes(evidence.groups, pooled)}


def _answer(row, what, rival, where=""):
    a, b, detectable = (page.number(row[name]) for name in ("a", "b", "detectable"))
    change = page.estimate(*(row[name] for name in DIFFERENCE), "+")
    flips = f"{row['won']:,.0f} photos won, {row['lost']:,.0f} lost"
    return (
        f"{what} ({b}) against {rival} ({a}){where}: {change} (detectable: {detectable}), "
        f"{page.chance(row['p'])}, {flips}: {row['verdict']}"
    )


def _notes(groups, pooled):
    """What the reader of the headline must know of its numbers."""
    several, single = len(groups) > 1, min(len(group.runs) for group in groups) == 1
    words = {
        "Difference of pooled macro F1 with its 95 % interval, by a bootstrap over people"
        + " and conditions" * pooled
        + ". Detectable: the smallest difference that so many people and seeds show with 80 % "
        'power. "No difference larger than .02" is a finding (two one-sided tests at 5 %), '
        '"undecided" is not: more people or seeds would tell.': several,
        "Of many comparisons some look good by luck: better and worse go by p values after Holm, "
        "over the rows of a table; all else is of each comparison alone.": len(groups) > 2,
        '"These two runs": with one seed a side the interval knows the chance of people, not that '
        "of training, and another seed may move the score by as much again.": several and single,
        "Some runs differ in the seed alone; joined by commas (--model_dir a,a2) they count as one "
        "configuration.": len(runs.distinct(groups)) < len(groups),
        "The epochs kept are the best on these very people, which flatters a score, and three "
        "models more than one: see what the last epochs score, or use --keep last.": any(
            "best" in group.options["keep"] for group in groups
        ),
    }
    return [text for text, holds in words.items() if holds]


def build(evidence):
    """Section "Runs": all of them and, of two or more, their comparison."""
    blocks, baseline = [_ranking(evidence)], evidence.baseline.name
    if len(evidence.groups) > 1:
        picture = figures.forest(pd.DataFrame(evidence.verdicts), baseline)
        blocks.append(html.figure(*picture, "Grey: no larger than .02."))
        lines = [
            {"run": run, "measure": TITLES[name]} | row
            for run, rows in evidence.compared.items()
            for name, row in rows.items()
        ]
        caption = f"Each run against {baseline}, over the same people."
        blocks.append(_compared(evidence, "comparison", lines, ["run", "measure"], caption))
    if evidence.changes:
        caption = (
            "Runs that differ in one option only, by macro F1. Over several conditions the "
            "difference is their mean, and people and conditions are both resampled."
        )
        blocks.append(_compared(evidence, "one_option", evidence.changes, runs.CHANGE, caption))
    intro = (
        "Out-of-fold: each photo is predicted by the model that never saw that person; the score "
        "is pooled over all of them, with the labels as given; of several seeds it is the mean. "
        "Intervals are 95 %, by a cluster bootstrap over people, and over seeds where there are "
        "several. Those of one score lie too low with fewer than 400 people or so: a draw may lose "
        "a rare class."
    )
    return {"title": "Runs", "intro": intro, "blocks": blocks}


def _ranking(evidence):
    names, lines = runs.differing(evidence.groups), []
    for group in evidence.groups:
        scores, line = evidence.scores[group.name], {"run": group.name, "seeds": len(group.runs)}
        line |= dict(zip(("macro_f1", "low", "high"), scores["macro_f1"], strict=True))
        line |= {name: scores[name][0] for name in ("accuracy", *ATTRIBUTES)} | group.extras
        lines.append(line | {name: group.options.get(name, "") for name in names})
    frame = pd.DataFrame(lines).sort_values("macro_f1", ascending=False)
    shown = frame.dropna(axis=1, how="all").drop(columns=["low", "high"])
    shown["macro_f1"] = page.estimates(frame[["macro_f1", "low", "high"]])
    caption = (
        "Runs by macro F1, with that of each attribute and the options in which they differ. Last "
        "epoch: the macro F1 if the last epochs were kept."
    )
    return page.keep(evidence, "runs", frame, caption, shown)


def _compared(evidence, name, lines, what, caption):
    """The table of rows of compare; `what`: the keys that say what is compared."""
    frame = pd.DataFrame(lines)
    shown = frame[what].copy()
    shown["before → after"] = frame.a.map(page.number) + " → " + frame.b.map(page.number)
    shown["difference, 95 % interval"] = page.estimates(frame[DIFFERENCE], "+")
    shown["detectable"], shown["p"] = frame.detectable, frame.p.map(page.chance)
    for side in ("won", "lost"):
        shown[f"photos {side}"] = frame[side].round().astype("Int64")
    return page.keep(evidence, name, frame, caption, shown.assign(verdict=frame.verdict))


def build_each(evidence):
    """Section "Each run"."""
    every = [runs.outcomes(evidence.rows, group) for group in evidence.groups]
    outcomes = pd.concat(every, ignore_index=True)
    mistakes, ages = outcomes[outcomes.wrong], error_by_age(outcomes)
    evidence.tables |= {"mistakes": mistakes, "error_by_age": ages}
    blocks = [_per_class(evidence)]
    for group in evidence.groups:
        by_age = figures.errors_by_age(ages[ages.run == group.name])
        parts = [
            _confusions(group.results[0]),
            html.figure(*by_age, "Lines: the mean over 5 years."),
            _surest(evidence.data, mistakes[mistakes.run == group.name]),
        ]
        blocks.append(html.details(group.name, parts, open=len(evidence.groups) == 1))
    intro = "Where each errs: F1 is the mean over the seeds, what else is shown is of the first."
    return {"title": "Each run", "intro": intro, "blocks": blocks}


def _per_class(evidence):
    """The table of F1, mean over the seeds, of the 18 classes ("label") and of each attribute."""
    frames = []
    for group in evidence.groups:
        results = [{"label": result} | result["attributes"] for result in group.results]
        for kind, names in ({"label": CLASS_NAMES} | ATTRIBUTES).items():
            f1 = np.mean([result[kind]["per_class_f1"] for result in results], 0)
            frames.append(pd.DataFrame({"run": group.name, "kind": kind, "class": names, "f1": f1}))
    frame = pd.concat(frames, ignore_index=True)
    wide = frame.pivot_table("f1", ["kind", "class"], "run", sort=False).droplevel("kind")
    shown = wide.map(lambda f1: html.shade(f"{f1:.3f}", f1)).reset_index(allow_duplicates=True)
    caption = "F1 of the 18 classes, and of the values of each attribute."
    return page.keep(evidence, "per_class_f1", frame, caption, shown, kind="heat")


def _confusions(result):
    blocks = html.heading("Confusion", "Rows: the label; columns: the prediction.")
    for name, values in ATTRIBUTES.items():
        blocks += page.heat(values, result["attributes"][name]["confusion"], name)
    return blocks + page.heat(CLASS_NAMES, result["confusion"], "18 classes")


def _surest(data, mistakes):
    """Cards of the first mistakes, one a person."""
    cards = []
    for row in mistakes.drop_duplicates("person").head(CARDS).itertuples():
        title = f"{row.prediction}, p {row.p_prediction:.2f}"
        lines = [f"label: {row.label}, p {row.p_label:.2f}", f"{row.age} years", row.image]
        cards.append(html.card([page.photo(data, row.image)], title, lines))
    return html.heading("The surest mistakes") + html.cards(cards)


def error_by_age(outcomes):
    """A frame with a row a run and year of age: people, images, and the share of images wrong, in
    the label and in each attribute. outcomes: of runs.outcomes().
    """
    how = {"people": ("person", "nunique"), "images": ("image", "size")}
    how |= {name: (name, "mean") for name in outcomes if name.startswith("wrong")}
    return outcomes.groupby(["run", "age"], as_index=False).agg(**how)
