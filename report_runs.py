"""The sections of the report on runs: the answer, each run, their comparison."""

import numpy as np
import pandas as pd

import figures
import metrics
import page
import runs
from labels import ATTRIBUTES, CLASS_NAMES

SIGNIFICANT = 0.05
SIDE = 6  # photos that one run gets right and the other wrong, each way
COMPARED = 4  # comparisons whose photos are shown
TITLES = {"macro_f1": "macro F1", "accuracy": "accuracy"} | {
    name: f"{name} (macro F1)" for name in ATTRIBUTES
}


def compare_all(rows, groups, baseline):
    """[(group, metrics.compare result with "holm" in macro_f1)] of all groups but the baseline."""
    labels, persons = rows.label.to_numpy(int), rows.person.to_numpy()
    others = [group for group in groups if group is not baseline]
    found = [
        metrics.compare(labels, persons, baseline.predictions, group.predictions)
        for group in others
    ]
    holm = runs.holm([result["macro_f1"]["p"] for result in found])
    for result, p in zip(found, holm, strict=True):
        result["macro_f1"]["holm"] = float(p)
    return list(zip(others, found, strict=True))


def verdict(row):
    """Plain words for a row of macro_f1 with its Holm p value."""
    better = "better" if row["difference"] > 0 else "worse"
    if row["holm"] < SIGNIFICANT:
        return better
    if row["p"] < SIGNIFICANT:
        return f"perhaps {better}, but one of many comparisons"
    return "no evidence of a difference"


def headline(groups, scored, baseline, compared):
    """{"main", "points", "notes"}: the answer of the page."""
    words, notes = [], []
    for group, result in sorted(compared, key=lambda pair: -pair[1]["macro_f1"]["difference"]):
        row = result["macro_f1"]
        words.append(
            f"{group.name} vs {baseline.name}: {page.signed(row['difference'])} "
            f"{page.span(row['low'], row['high'], True)}, {page.chance(row['p'])}: {verdict(row)}"
        )
    if not compared:
        group = groups[0]
        values = scored[group.name]["measures"]
        value, low, high = values["macro_f1"]
        parts = ", ".join(f"{name} {page.number(values[name][0])}" for name in ATTRIBUTES)
        words = [f"{group.name}: macro F1 {page.number(value)} {page.span(low, high)}"]
        notes.append(f"Macro F1 of the attributes: {parts}.")
    else:
        notes.append(
            "Difference of pooled macro F1 with its 95 % interval, by a bootstrap over people; "
            "an interval that holds zero means: not shown, which is not the same as no effect."
        )
    if len(compared) > 1:
        notes.append(
            f"With {len(compared)} comparisons some look good by luck: the words go by p values "
            "after Holm, the intervals and p shown are of each comparison alone."
        )
    if compared and min(len(group.runs) for group in groups) == 1:
        notes.append(
            "Where a configuration has one seed, the interval knows the chance of people, not "
            "that of training: another seed may move the score by as much again."
        )
    if any("best" in group.options["keep"] for group in groups):
        notes.append(
            "The epochs kept are the best on these very people, which flatters a score, and three "
            "models more than one: see what the last epochs score, or use --keep last."
        )
    return {"main": words[0], "points": words[1:], "notes": notes}


# ---- each run


def build_runs(tables, rows, groups, scored, defaults):
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


# ---- comparison


def build_comparison(tables, rows, data, groups, scored, baseline, compared):
    """Section "Comparison" of two groups or more."""
    intro = (
        f"Each configuration against {baseline.name}, over the same people. Intervals by a "
        "cluster bootstrap over people, and over seeds where a configuration has several."
    )
    found = sorted(compared, key=lambda pair: -pair[1]["macro_f1"]["difference"])
    forest = [
        (group.name, *(result["macro_f1"][key] for key in ("difference", "low", "high")))
        for group, result in found
    ]
    f1 = tables["per_class_f1"].query("kind == 'label'")
    sides = {group.name: f1[f1.run == group.name].f1.to_numpy() for group in groups[:6]}
    note = "" if len(groups) <= 6 else "The first six runs; all are in per_class_f1.csv."
    blocks = [
        _ranking(tables, groups, scored, baseline, compared),
        page.figure(figures.forest(forest, baseline.name, "Did it help?")),
        _differences(tables, found),
        *_one_option(tables, rows, groups),
        page.figure(figures.per_class(sides), note),
        *_discordant(tables, rows, data, baseline, found),
    ]
    return page.section("comparison", "Comparison", intro, blocks)


def _ranking(tables, groups, scored, baseline, compared):
    results, names, lines = {g.name: r for g, r in compared}, runs.differing(groups), []
    for group in groups:
        values, row = scored[group.name], results.get(group.name, {}).get("macro_f1")
        line = {"run": group.name, "seeds": values["seeds"]}
        line |= {name: group.options.get(name, "") for name in names}
        line |= dict(zip(("macro_f1", "low", "high"), values["measures"]["macro_f1"], strict=True))
        line["sd_over_seeds"] = np.nan if values["sd"] is None else values["sd"]
        line |= {name: values["measures"][name][0] for name in ATTRIBUTES}
        if row:
            line |= {f"difference_{key}": row[key] for key in ("low", "high")}
            line |= {"difference": row["difference"], "p": row["p"], "p_holm": row["holm"]}
        line["last_epoch"] = runs.last_epoch(group)
        lines.append(line | {"verdict": verdict(row) if row else "baseline"} | runs.costs(group))
    frame = pd.DataFrame(lines).sort_values("macro_f1", ascending=False)
    tables["runs"] = frame = frame.round({"seconds": 1, "images_per_s": 1, "wait_share": 3})
    shown = frame[["run"]].copy()
    shown["macro F1, 95 % interval"] = [_with_span(*cells) for cells in _cells(frame, "")]
    shown[f"difference from {baseline.name}"] = [
        "" if np.isnan(cells[0]) else _with_span(*cells, sign=True)
        for cells in _cells(frame, "difference_")
    ]
    shown["verdict"] = frame.verdict
    if frame.last_epoch.notna().any():
        shown["by the last epoch"] = [page.number(value) for value in frame.last_epoch]
    if (frame.seeds > 1).any():
        shown["seeds (sd)"] = [
            f"{row.seeds} ({page.number(row.sd_over_seeds)})" for row in frame.itertuples()
        ]
    shown[[*names]] = frame[[*names]]
    caption = (
        "Runs by macro F1, and the options in which they differ. Macro F1 is of the epochs kept: "
        "where those were the best on these very people, it flatters, and the last epoch's, which "
        "nobody chose, is the fairer figure (--keep last)."
    )
    return page.table(shown, caption, "runs.csv")


def _cells(frame, prefix):
    value = "difference" if prefix else "macro_f1"
    return frame[[value, f"{prefix}low", f"{prefix}high"]].itertuples(index=False, name=None)


def _with_span(value, low, high, sign=False):
    show = page.signed if sign else page.number
    return f"{show(value)} {page.span(low, high, sign)}"


def _differences(tables, compared):
    lines = [
        {"run": group.name, "measure": TITLES[name]} | row
        for group, result in compared
        for name, row in result.items()
    ]
    tables["comparison"] = pd.DataFrame(lines)
    shown = []
    for group, result in compared:
        cells = {"run": group.name}
        for name in metrics.MEASURES[1:]:
            row = result[name]
            star = " *" if row["p"] < SIGNIFICANT else ""
            text = _with_span(row["difference"], row["low"], row["high"], sign=True)
            cells[TITLES[name]] = text + star
        shown.append(cells)
    caption = "Differences of accuracy and of each attribute; * p < .05, each alone."
    return page.table(pd.DataFrame(shown), caption, "comparison.csv")


def _one_option(tables, rows, groups):
    """Every change of one option, all else equal, pooled over the conditions it was tried in."""
    labels, persons, lines = rows.label.to_numpy(int), rows.person.to_numpy(), []
    for (option, old, new), pairs in runs.matched_pairs(groups).items():
        seeds = {len(group.runs) for pair in pairs for group in pair}
        # Unequal numbers of seeds make no pairs: then each condition stands alone.
        for pool in [pairs] if len(seeds) == 1 else [[pair] for pair in pairs]:
            a = [run for one, _ in pool for run in one.predictions]
            b = [run for _, other in pool for run in other.predictions]
            row = metrics.compare(labels, persons, a, b, paired=len(pool) > 1)["macro_f1"]
            lines.append(
                {"option": option, "from": old, "to": new, "conditions": len(pool)}
                | {key: row[key] for key in ("difference", "low", "high", "p")}
            )
    if not lines:
        return []
    frame = pd.DataFrame(lines).assign(holm=runs.holm([line["p"] for line in lines]))
    frame["verdict"] = [verdict(row) for row in frame.to_dict("records")]
    tables["one_option"] = frame
    shown = frame[["option", "from", "to", "conditions"]].copy()
    shown["difference, 95 % interval"] = [
        _with_span(*cells, sign=True)
        for cells in frame[["difference", "low", "high"]].itertuples(index=False, name=None)
    ]
    shown["p"] = [page.chance(value) for value in frame.p]
    shown["verdict"] = frame.verdict
    note = (
        "Runs that differ in one option only. Over several conditions the difference is their "
        "mean, and people and conditions are both resampled."
    )
    return [
        page.heading("One option at a time", note),
        page.table(shown, "Difference of macro F1.", "one_option.csv"),
    ]


def _discordant(tables, rows, data, baseline, compared):
    blocks, every = [], []
    for k, (group, _) in enumerate(compared):
        lost, won = runs.discordant(rows, baseline, group)
        for kind, table in (("lost", lost), ("won", won)):
            every.append(table.assign(run=group.name, change=kind))
        if k >= COMPARED:
            continue
        words = f"{group.name}: {len(won):,} photos won from {baseline.name}, {len(lost):,} lost"
        parts = [
            page.heading(f"{group.name} right, {baseline.name} wrong"),
            page.photo_cards(data, won.drop_duplicates("person").head(SIDE)),
            page.heading(f"{baseline.name} right, {group.name} wrong"),
            page.photo_cards(data, lost.drop_duplicates("person").head(SIDE)),
        ]
        blocks.append(page.details(words, parts, opened=k == 0))
    tables["discordant"] = pd.concat(every, ignore_index=True)
    note = "Photos that one run gets right and the other wrong, the surest mistakes first."
    return [page.heading("Where they disagree", note), *blocks]
