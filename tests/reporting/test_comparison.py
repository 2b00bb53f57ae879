"""The answer of the report: changes of one option where they were tried twice, else runs."""

import numpy as np
import pandas as pd
import pytest
from helpers import macro_f1_sklearn

import labels
from experiment import reader
from reporting import comparison, runs

ROWS = pd.DataFrame(
    {
        "label": np.repeat(np.random.default_rng(0).permutation(np.arange(40) % 18), 7),
        "person": np.repeat([f"p{k}" for k in range(40)], 7),
    }
)


def group(name, errors, **options):
    """A Group of one run that errs in a share of the photos, the same ones for the same share."""
    rng = np.random.default_rng(7)
    wrong = rng.random(len(ROWS)) < errors
    answers = np.where(wrong, (ROWS.label + 1) % 18, ROWS.label)
    oof = pd.DataFrame(np.eye(18)[answers], columns=labels.PROBS).assign(label=ROWS.label)
    config = {"layout": "joint", "data": {}, "options": {"keep": {"": "last"}} | options}
    return runs.Group(name, [reader.FinishedRun(None, config, oof)])


def evidence(groups):
    return runs.Evidence(None, None, 0, groups, groups[0], ROWS)


def test_a_run_may_be_better_among_very_many():
    """With 2,000 draws the least p, 2 of 2,001, would be .059 after Holm's correction for 59."""
    groups = [group("a", 0.9), group("b", 0.1), *(group(f"c{k}", 0.9, lr=k) for k in range(58))]
    known = evidence(groups)
    assert known.compared["b"]["macro_f1"]["verdict"] == "better (these two runs)"


def test_a_run_may_be_called_as_a_column_is():
    known = evidence([group("class", 0.2), group("kind", 0.3)])
    comparison._per_class(known)
    assert set(known.tables["per_class_f1"].run) == {"class", "kind"}


def test_a_change_tried_in_two_conditions_is_the_answer():
    cells = {("none", 1e-3): 0.6, ("rembg", 1e-3): 0.3, ("none", 1e-4): 0.5, ("rembg", 1e-4): 0.2}
    groups = [group(f"{bg}-{lr}", errors, bg=bg, lr=lr) for (bg, lr), errors in cells.items()]
    known = evidence(groups)
    found, changes = comparison.headline(known), pd.DataFrame(known.changes)
    f1 = [macro_f1_sklearn(ROWS.label, one.runs[0].predictions) for one in groups]
    expected = (f1[1] - f1[0] + f1[3] - f1[2]) / 2
    row = changes.set_index("option").loc["bg"]
    assert row.difference == pytest.approx(expected) and row.low < expected < row.high
    assert found["main"].startswith(f"rembg-0.0001: macro F1 {max(f1):.3f} [")
    assert found["main"].endswith("], the best of 4 runs")
    before, after = (f1[0] + f1[2]) / 2, (f1[1] + f1[3]) / 2
    assert found["points"][0].startswith(
        f"bg rembg ({after:.3f}) against none ({before:.3f}) in 2 conditions: {expected:+.3f} ["
    )
    assert found["points"][0].endswith(": better")
    assert [point[:9] for point in found["points"]] == ["bg rembg ", "lr 0.0001"]
    assert "people and conditions" in found["notes"][0]
    assert not any("--keep last" in note for note in found["notes"])


def test_of_many_runs_the_best_are_named_and_the_others_counted():
    groups = [group(f"run{k}", 0.6 - 0.05 * k, lr=10.0**-k, epochs=k) for k in range(9)]
    known = evidence(groups)
    found = comparison.headline(known)
    assert not known.changes
    f1 = [macro_f1_sklearn(ROWS.label, one.runs[0].predictions) for one in groups]
    assert found["main"].startswith(f"run8: macro F1 {f1[8]:.3f} [")
    assert [point.split()[0] for point in found["points"]] == [
        "run8", "run7", "run6", "run5", "run4", "3",
    ]  # fmt: skip
    assert found["points"][-1] == "3 more in the comparison"
    first = found["points"][0]
    assert first.startswith(
        f"run8 ({f1[8]:.3f}) against run0 ({f1[0]:.3f}): {f1[8] - f1[0]:+.3f} ["
    )


def test_epochs_chosen_on_the_people_scored_are_pointed_out():
    kept = group("a", 0.5, keep={"": "last", "age": "best"})
    found = comparison.headline(evidence([kept]))
    assert found["main"].startswith("a: macro F1 ") and found["points"] == []
    assert "--keep last" in found["notes"][-1]


def test_differences_are_from_the_baseline_given():
    groups = [group("a", 0.5), group("b", 0.3), group("c", 0.1)]
    found = runs.Evidence(None, None, 0, groups, groups[1], ROWS)
    verdicts = pd.DataFrame(found.verdicts)
    assert list(verdicts.run) == ["c", "a"]
    f1 = [macro_f1_sklearn(ROWS.label, one.runs[0].predictions) for one in groups]
    assert verdicts.difference.tolist() == pytest.approx([f1[2] - f1[1], f1[0] - f1[1]])
    assert verdicts.verdict.tolist() == ["better (these two runs)", "worse (these two runs)"]


def test_seeds_that_no_comma_joins_are_no_conditions():
    groups = [group("a", 0.5), group("a2", 0.4), group("b", 0.3, bg="rembg")]
    known = evidence(groups)
    [change] = known.changes
    f1 = [macro_f1_sklearn(ROWS.label, one.runs[0].predictions) for one in groups]
    assert change["conditions"] == 1 and change["difference"] == pytest.approx(f1[2] - f1[0])
    found = comparison.headline(known)
    assert [point.split()[0] for point in found["points"]] == ["b", "a2"]
    assert any("joined by commas" in note for note in found["notes"])
    known = evidence([groups[0], groups[2]])
    assert not any("joined by commas" in note for note in comparison.headline(known)["notes"])
