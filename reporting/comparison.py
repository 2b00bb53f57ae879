"""The answer of the report, and its sections that compare the runs and show each."""

from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from experiment.comparison import MEASURES, SIGNIFICANT
from labels import ATTRIBUTES, CLASS_NAMES
from reporting import figures, page, runs
from reporting.page import html
from reporting.runs import DIFFERENCE, FIGURES

TITLES = {"macro_f1": "macro F1", "accuracy": "accuracy"}
TITLES |= {name: f"{name} (macro F1)" for name in ATTRIBUTES}
SCORE = ["macro_f1", "low", "high"]
POINTS = 5  # comparisons in the headline
SHOWN = 4  # comparisons whose photos are shown
CARDS = 6  # photos that one run gets right and the other wrong, each way


def headline(evidence):
    """{"main", "points", "notes"}: the best run; then the changes of one option that were tried in
    several conditions, or where there are none, the runs against the baseline.
    """
    scores = {name: page.estimate(*row["macro_f1"]) for name, row in evidence.scores.items()}
    main, baseline = f"{evidence.best}: macro F1 {scores[evidence.best]}", evidence.baseline.name
    pooled = evidence.changes[evidence.changes.conditions > 1]
    if len(pooled):
        lines = [
            f"{row['option']} {row['to']} ({page.number(row['b'])}) against {row['from']} "
            f"({page.number(row['a'])}), in {row['conditions']} conditions: {_answer(row)}"
            for row in pooled.sort_values("p", kind="stable").to_dict("records")
        ]
    else:
        against = f"against {baseline} {scores[baseline]}"
        lines = [
            f"{row['run']} {scores[row['run']]} {against}: {_answer(row)}"
            for row in evidence.verdicts.to_dict("records")
        ]
    if len(scores) > 1:
        main += f", the best of {len(scores)} runs"
    if len(lines) > POINTS + 1:
        lines = [*lines[:POINTS], f"{len(lines) - POINTS} more in the comparison"]
    return {"main": main, "points": lines, "notes": _notes(evidence, len(pooled) > 0)}


def _answer(row):
    change = page.estimate(*(row[name] for name in DIFFERENCE), "+")
    chance = f"(detectable: {page.number(row['detectable'])}), {page.chance(row['p'])}"
    flips = f"{row['won']:,.0f} photos won, {row['lost']:,.0f} lost"
    return f"{change} {chance}, {flips}: {row['verdict']}"


def _notes(evidence, pooled):
    """What the reader of the headline must know of its numbers."""
    groups, scores = evidence.groups, evidence.scores[evidence.best]
    several, single = len(groups) > 1, min(len(group.runs) for group in groups) == 1
    attributes = ", ".join(f"{name} {page.number(scores[name][0])}" for name in ATTRIBUTES)
    words = {
        f"Macro F1 of the attributes: {attributes}.": not several,
        "Difference of pooled macro F1 with its 95 % interval, by a bootstrap over people"
        + " and conditions" * pooled
        + ". Detectable: the smallest difference that so many people and seeds show with 80 % "
        "power. No difference larger than .02 is a finding (two one-sided tests at 5 %); undecided "
        "is none: more people or seeds would tell.": several,
        "Of many comparisons some look good by luck: the words go by p values after Holm, the "
        "intervals and p shown are of each comparison alone.": len(groups) > 2,
        "These two runs: with one seed a side the interval knows the chance of people, not that of "
        "training, and another seed may move the score by as much again.": several and single,
        "A run of some folds is scored over the people of these folds alone.": any(
            run.missing for group in groups for run in group.runs
        ),
        "The epochs kept are the best on these very people, which flatters a score, and three "
        "models more than one: see what the last epochs score, or use --keep last.": any(
            "best" in group.options["keep"] for group in groups
        ),
    }
    return [text for text, holds in words.items() if holds]


def build(evidence):
    """Section "Comparison" of two groups or more."""
    baseline = evidence.baseline.name
    intro = (
        f"Each configuration against {baseline}, over the same people. Intervals by a "
        "cluster bootstrap over people, and over seeds where a configuration has several."
    )
    blocks = [
        _ranking(evidence),
        html.figure(*figures.forest(evidence.verdicts, baseline), "Grey: no larger than .02."),
        _differences(evidence),
        _one_option(evidence),
        _disagreements(evidence),
    ]
    return {"title": "Comparison", "intro": intro, "blocks": blocks}


def _said(frame):
    """What the page shows of the comparisons in the rows of a frame."""
    shown = pd.DataFrame({"difference, 95 % interval": page.estimates(frame[DIFFERENCE], "+")})
    shown["detectable"], shown["p"] = frame.detectable, frame.p.map(page.chance)
    flips = zip(frame.won, frame.lost, strict=True)
    shown["won / lost"] = [f"{won:,.0f} / {lost:,.0f}" for won, lost in flips]
    return shown.assign(verdict=frame.verdict)


def _ranking(evidence):
    names, lines = runs.differing(evidence.groups), []
    for group in evidence.groups:
        scores, line = evidence.scores[group.name], {"run": group.name, "seeds": len(group.runs)}
        line |= {name: group.options.get(name, "") for name in names}
        line |= dict(zip(SCORE, scores["macro_f1"], strict=True))
        lines.append(line | {name: scores[name][0] for name in ATTRIBUTES} | group.figures)
    frame = pd.DataFrame(lines).sort_values("macro_f1", ascending=False).set_index("run")
    verdicts = evidence.verdicts.set_index("run")
    shown = page.estimates(frame[SCORE]).to_frame("macro F1, 95 % interval").join(_said(verdicts))
    shown["verdict"] = shown.verdict.fillna("baseline")
    shown = shown.join(frame[["last_epoch", "sd_over_seeds", *names]].dropna(axis=1, how="all"))
    ends = {name: f"difference_{name}" for name in ("low", "high", "low90", "high90")}
    against = verdicts[[*FIGURES, "holm", "verdict"]].rename(columns=ends | {"holm": "p_holm"})
    frame = frame.join(against).reset_index()
    caption = (
        f"Runs by macro F1, compared with {evidence.baseline.name}, and the options in which they "
        "differ. Macro F1 is of the epochs kept: where those were the best on these very people, "
        "it flatters, and the last epoch's, which nobody chose, is the fairer figure (--keep last)."
    )
    return page.keep(evidence, "runs", frame, caption, shown.reset_index())


def _differences(evidence):
    frame = pd.DataFrame(
        {"run": run, "measure": TITLES[name]} | row
        for run, rows in evidence.compared.items()
        for name, row in rows.items()
    )
    frame.loc[frame.measure == TITLES["macro_f1"], "holm"] = evidence.verdicts.holm.to_numpy()
    stars = np.where(frame.p < SIGNIFICANT, " *", "")
    values = frame.b.map(page.number) + ": " + page.estimates(frame[DIFFERENCE], "+")
    texts = frame.assign(text=values + stars)
    shown = texts.pivot(index="run", columns="measure", values="text")
    shown = shown.loc[[*evidence.compared], [TITLES[name] for name in MEASURES[1:]]].reset_index()
    caption = (
        f"Accuracy and macro F1 of each attribute: differences from {evidence.baseline.name}; "
        "* p < .05, each alone."
    )
    return page.keep(evidence, "comparison", frame, caption, shown)


def _one_option(evidence):
    """The table of changes of one option, with its heading; nothing if there are none."""
    frame = evidence.changes
    if not len(frame):
        return ""
    shown = frame[runs.CHANGE].copy()
    shown["macro F1"] = frame.a.map(page.number) + " → " + frame.b.map(page.number)
    note = (
        "Runs that differ in one option only. Over several conditions the difference is their "
        "mean, and people and conditions are both resampled."
    )
    heading, caption = html.heading("One option at a time", note), "Difference of macro F1."
    return heading + page.keep(evidence, "one_option", frame, caption, shown.join(_said(frame)))


def _disagreements(evidence):
    """Photos that the baseline gets right and another run wrong, or the other way round."""
    note = "Photos that one run gets right and the other wrong, the surest mistakes first."
    blocks, baseline = html.heading("Where they disagree", note), evidence.baseline.name
    ours = evidence.mistakes(baseline)
    for run in evidence.verdicts.run[:SHOWN]:
        theirs = evidence.mistakes(run)
        won, lost = ours[~ours.image.isin(theirs.image)], theirs[~theirs.image.isin(ours.image)]
        sides = {f"{len(won):,} photos won": won, f"{len(lost):,} photos lost": lost}
        parts = [html.heading(title) + _cards(evidence.data, side) for title, side in sides.items()]
        blocks += html.details(f"{run} against {baseline}", parts)
    return blocks


def _cards(data, mistakes):
    """Cards of the first mistakes (of runs.mistakes), one a person."""
    cards = []
    for row in mistakes.drop_duplicates("person").head(CARDS).itertuples():
        label = f"label: {row.label}, p {row.p_label:.2f}"
        lines = [label, f"{row.age} years", f"{row.person} {PurePosixPath(row.image).name}"]
        title = f"{row.prediction}, p {row.p_prediction:.2f}"
        cards.append(html.card([page.photo(data, row.image)], title, lines))
    return html.cards(cards)


def build_each(evidence):
    """Section "Each run"."""
    outcomes = evidence.outcomes
    evidence.tables["mistakes"] = outcomes[outcomes.wrong != ""]
    ages = {run: error_by_age(frame) for run, frame in outcomes.groupby("run", sort=False)}
    evidence.tables["error_by_age"] = pd.concat(ages.values())
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
    """The table of F1, mean over the seeds, of the 18 classes (kind "label") and of the values of
    each attribute.
    """
    frames = []
    for group in evidence.groups:
        results = [{"label": result} | result["attributes"] for result in group.results]
        for kind, names in ({"label": CLASS_NAMES} | ATTRIBUTES).items():
            f1 = np.mean([result[kind]["per_class_f1"] for result in results], 0)
            frames.append(pd.DataFrame({"run": group.name, "kind": kind, "class": names, "f1": f1}))
    frame = pd.concat(frames, ignore_index=True)
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


def error_by_age(outcomes):
    """A frame with a row a year of age: age, people, images, the share of images wrong in label,
    mask, gender and age_group, run. outcomes: of one run, as of runs.outcomes().
    """
    words = {"label": ".", "mask": "mask", "gender": "gender", "age_group": "age"}
    wrong = {column: outcomes.wrong.str.contains(word) for column, word in words.items()}
    how = {"person": "nunique", "image": "size"} | dict.fromkeys(words, "mean") | {"run": "first"}
    frame = outcomes.assign(**wrong).groupby("age", as_index=False).agg(how)
    return frame.rename(columns={"person": "people", "image": "images"})
