"""Files of a run that were edited, cut or lost: one line that names the file and the key."""

import json
import shutil

import pandas as pd
import pytest

import inference
import report
from common.errors import UserError
from experiment import reader, results
from labels import PROBS


@pytest.fixture
def run(tiny, tmp_path):
    """A copy of a run of two folds, to write into."""
    return shutil.copytree(tiny.joint, tmp_path / "run")


def rewrite(path, change):
    """Applies a function to the value in a JSON file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def put(*keys):
    """A change: the value at the path `keys` is set to the last of them."""
    *way, last, new = keys

    def change(value):
        for key in way:
            value = value[key]
        value[last] = new

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("layout", "huge"), "layout is 'huge'"),
        (put("layout", "split"), "layout and seed contradict the options"),
        (put("seed", 7), "layout and seed contradict the options"),
        (put("seed", "x"), "seed is 'x', which does not fit"),
        (put("options", []), "options is a list, which does not fit"),
        (put("options", "seed", 1.5), "options.seed is 1.5"),
        (put("options", "split_heads", "no"), "options.split_heads is 'no'"),
        (put("options", "lr", {"": "fast"}), "is no value of the option lr"),
        (put("options", "resize", {"": [0, 0]}), "is no value of the option resize"),
        (put("options", "name", "../x"), "'../x' is no value of the option name"),
        (put("data", 5), "data is 5, which does not fit"),
        (put("data", "people", -1), "data.people is -1"),
        (put("data", "fingerprint", None), "data.fingerprint is null, which does not fit"),
        (put("oof_of", "x"), "oof_of is 'x', which does not fit"),
        (lambda value: value.pop("options"), "options is missing"),
        (lambda value: value["options"].pop("data_dir"), "options.data_dir is missing"),
    ],
)
def test_an_edited_config_is_named_wherever_a_run_is_read(run, tmp_path, change, words):
    rewrite(run / "config.json", change)
    for read in (
        lambda: reader.read_run(run),
        lambda: inference.main(["--model_dir", str(run), "--output_dir", str(tmp_path / "out")]),
        lambda: report.main(["--model_dir", str(run), "--out", str(tmp_path / "page.html")]),
    ):
        with pytest.raises(UserError, match=rf"config\.json: .*{words}") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"', "[" * 100_000, '{"a": NaN', "\ufeff{}"])
@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_a_file_of_another_kind_is_named(run, name, text):
    (run / name).write_text(text)
    with pytest.raises(UserError, match=name) as caught:
        reader.read_run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("macro_f1", float("nan")), "macro_f1 is nan"),
        (put("macro_f1", 0.999), "differ in the macro_f1"),
        (put("confusion", 0, [0]), r"confusion\[0\] is a list, which does not fit"),
        (lambda value: value.pop("confusion"), "confusion is missing"),
        (put("last_epoch", {"macro_f1": "x"}), "last_epoch.macro_f1 is 'x'"),
    ],
)
def test_edited_scores_are_named(run, change, words):
    rewrite(run / "metrics.json", change)
    with pytest.raises(UserError, match=rf"metrics\.json.* {words}"):
        reader.read_run(run)


@pytest.mark.parametrize("lost", ["last_confusion", "macro_f1", "oof.csv"])
def test_lost_scores_of_a_fold_are_named(run, lost):
    place = run / "fold1"
    if lost == "oof.csv":
        (place / lost).unlink()
    else:
        rewrite(place / "metrics.json", lambda value: value.pop(lost))
    with pytest.raises(UserError, match=rf"fold1/.*{lost}"):
        results.collect(run)


def at(column, value, row=3):
    """A change of one cell of a table."""

    def change(table):
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table[:-1], "differ in the confusion"),
        (lambda table: table[table.fold == 0], "differ in the confusion"),
        (lambda table: table[:0], "has no rows"),
        (lambda table: pd.concat([table, table[:1]]), "line 170: this image occurs twice"),
        (at("p0", -5), "line 5: p0 is not a number of 0 to 1"),
        (at("p17", 50), "line 5: p17 is not a number of 0 to 1"),
        (at("p3", "nan"), "line 5: p3 is not a number"),
        (at("p3", "inf"), "line 5: p3 is not a number"),
        (at("p3", "x"), "line 5: p3 is not a number"),
        (lambda table: table.assign(p1=0.9), "line 2: p0 to p17 do not sum to 1"),
        (at("fold", 7), "line 5: folds.csv holds out this person elsewhere"),
        (at("fold", -1), "line 5: fold is not a whole number"),
        (at("person", "nobody"), "line 5: folds.csv holds out this person elsewhere"),
        (at("label", 18), "line 5: label is not a whole number of 0 to 17"),
        (at("label", 1.5), "line 5: label is not a whole number"),
        (at("image", ""), "line 5: image is empty"),
        (lambda table: table.drop(columns="fold"), "column fold is missing"),
        (lambda table: table.assign(**table[PROBS[::-1]].set_axis(PROBS, axis=1)), "differ in"),
    ],
)
def test_predictions_are_checked_against_folds_and_scores(run, change, words):
    path = run / "oof.csv"
    change(pd.read_csv(path, dtype={"person": str})).to_csv(path, index=False)
    with pytest.raises(UserError, match=rf"oof\.csv.* {words}") as caught:
        reader.read_run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table[:-1], "does not list the 24 people of the run once"),
        (lambda table: pd.concat([table[:-1], table[:1]]), "does not list the 24 people"),
        (lambda table: table.assign(fold=table.fold * 2), r"the folds \[0, 2\], the run 2"),
        (lambda table: table.assign(fold=table.fold - 1), r"the folds \[-1, 0\], the run 2"),
        (at("fold", "x"), "line 5: fold is not a whole number"),
        (lambda table: table.rename(columns={"person": "who"}), "column person is missing"),
    ],
)
def test_edited_folds_are_named(run, change, words):
    path = run / "folds.csv"
    change(pd.read_csv(path, dtype={"person": str})).to_csv(path, index=False)
    with pytest.raises(UserError, match=rf"(folds|oof)\.csv.* ({words}|holds out)"):
        reader.read_run(run)


def test_what_training_writes_is_read_back(tiny):
    for folder in (tiny.joint, tiny.split):
        found = reader.read_run(folder)
        assert found.oof.image.is_monotonic_increasing and found.seconds > 0
