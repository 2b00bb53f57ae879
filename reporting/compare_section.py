"""The answer of the report, and its section that compares runs."""

import numpy as np
import pandas as pd

import metrics
from labels import ATTRIBUTES
from reporting import figures, page, runs
from reporting.runs_section import TITLES

SIGNIFICANT = 0.05
POINTS = 5  # comparisons in the headline
SIDE = 6  # photos that one run gets right and the other wrong, each way
COMPARED = 4  # comparisons whose photos are shown


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


def one_option(rows, groups):
    """Frame of every change of one option, all else equal, pooled over the conditions it was tried
    in: option, from, to, conditions, difference, low, high, p, holm, verdict. Maybe without rows.
    """
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
    names = ["option", "from", "to", "conditions", "difference", "low", "high", "p"]
    frame = pd.DataFrame(lines, columns=names)
    frame["holm"] = runs.holm(frame.p.tolist())
    frame["verdict"] = [verdict(row) for row in frame.to_dict("records")]
    return frame


def headline(groups, scored, baseline, compared, changes):
    """{"main", "points", "notes"}: the answer of the page.

    changes: of one_option(). Where one was tried in several conditions, such changes are the
    answer; else it is the runs against the baseline.
    """
    pooled = changes[changes.conditions > 1].sort_values("p", kind="stable")
    if len(pooled):
        words = [
            f"{row['option']} {row['from']} → {row['to']}, in {row['conditions']} conditions: "
            + _answer(row)
            for row in pooled.to_dict("records")
        ]
    elif compared:
        found = sorted(compared, key=lambda pair: -pair[1]["macro_f1"]["difference"])
        words = [
            f"{group.name} vs {baseline.name}: {_answer(result['macro_f1'])}"
            for group, result in found
        ]
        if len(words) > POINTS + 1:
            words = [*words[:POINTS], f"{len(words) - POINTS} more in the table of runs"]
    else:
        measures = scored[groups[0].name]["measures"]
        value, low, high = measures["macro_f1"]
        words = [f"{groups[0].name}: macro F1 {page.number(value)} {page.span(low, high)}"]
    return {
        "main": words[0],
        "points": words[1:],
        "notes": _notes(groups, scored, compared, pooled),
    }


def _answer(row):
    return (
        f"{page.signed(row['difference'])} {page.span(row['low'], row['high'], True)}, "
        f"{page.chance(row['p'])}: {verdict(row)}"
    )


def _notes(groups, scored, compared, pooled):
    """What the reader of the headline must know of its numbers."""
    notes = []
    if compared:
        notes.append(
            "Difference of pooled macro F1 with its 95 % interval, by a bootstrap over people"
            + (" and conditions; " if len(pooled) else "; ")
            + "an interval that holds zero means: not shown, which is not the same as no effect."
        )
    else:
        measures = scored[groups[0].name]["measures"]
        parts = ", ".join(f"{name} {page.number(measures[name][0])}" for name in ATTRIBUTES)
        notes.append(f"Macro F1 of the attributes: {parts}.")
    if len(compared) > 1:
        notes.append(
            "Of many comparisons some look good by luck: the words go by p values after Holm, the "
            "intervals and p shown are of each comparison alone."
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
    return notes


def build(tables, rows, data, groups, scored, baseline, compared, changes):
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
        *_one_option(tables, changes),
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


def _one_option(tables, frame):
    """The table of one_option(), with its heading."""
    if not len(frame):
        return []
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
