"""report.py and its parts, on a small drawn table and runs whose mistakes are planted."""

import base64
import json
import re
import subprocess
import sys
from html import escape

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers import MISLABELLED, draw_data, draw_run, macro_f1_sklearn, read_tables
from sklearn.metrics import accuracy_score, f1_score

import metrics
import report
from common.errors import UserError
from common.files import HOME
from labels import CLASS_NAMES, CLASSES, PROBS, decode
from photos.reading import default_matte_dir
from reporting import assemble, runs


@pytest.fixture(scope="module")
def written(runs_drawn):
    """(page, tables) of a report on two configurations, a with two seeds."""
    root, _ = runs_drawn
    out, a = root / "out" / "report.html", f"{root / 'a'},{root / 'a2'}"
    for name in ("cam_energy", "mine"):  # of an older page, and of the user
        (out.parent / "report_tables").mkdir(parents=True, exist_ok=True)
        (out.parent / f"report_tables/{name}.csv").write_text("older")
    words = ["--data_dir", root / "train", "--model_dir", a, root / "b", "--out", out]
    report.main([*map(str, words), "--cam_images", "0"])
    return out.read_text(), read_tables(out)


def oof_of(folder):
    oof = pd.read_csv(folder / "oof.csv").sort_values("image", ignore_index=True)
    return oof, oof[PROBS].to_numpy().argmax(1)


def test_page_stands_alone(written, runs_drawn):
    page, tables = written
    assert "mine" in tables and "cam_energy" not in tables
    assert len(page.encode()) < 8e6
    assert not re.search("https?:|<script[^>]|@import|url\\((?!#)", page)
    assert page.count("<script>") == 1 and "default-src 'none'" in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    files = [link for link in links if not link.startswith(("data:", "#"))]
    assert files
    for link in files:
        assert (runs_drawn[0] / "out" / link).is_file(), link
    anchors = {link[1:] for link in links if link.startswith("#") and link != "#"}
    ids = re.findall(r' id="([^"]*)"', page)
    assert anchors <= set(ids) and len(ids) == len(set(ids)) and len(anchors) == 4
    pictures = [link for link in links if link.startswith("data:image/webp")]
    assert len(pictures) > 60
    for link in set(pictures):
        coded = np.frombuffer(base64.b64decode(link.split(",")[1]), np.uint8)
        assert cv2.imdecode(coded, cv2.IMREAD_COLOR) is not None


def test_page_has_the_numbers_of_sklearn(written, runs_drawn):
    page, tables = written
    root, _ = runs_drawn
    found = {name: oof_of(root / name) for name in ("a", "a2", "b")}
    f1 = {name: macro_f1_sklearn(pair[0].label, pair[1]) for name, pair in found.items()}
    mean = (f1["a"] + f1["a2"]) / 2
    table = tables["runs"].set_index("run")
    assert list(table.index) == ["b", "a"]
    assert table.macro_f1["a"] == pytest.approx(mean)
    assert float(table.sd_over_seeds["a"]) == pytest.approx(np.std([f1["a"], f1["a2"]], ddof=1))
    assert float(table.last_epoch["a"]) == pytest.approx(0.015) and table.last_epoch["b"] == ""
    assert table.seconds["a"] == 5.5
    for text in (f"{f1['b']:.3f}", f"{f1['b'] - mean:+.3f}", ") against a (0.", ">0.015<"):
        assert text in page
    compared = tables["comparison"].set_index("measure")
    assert list(compared.run.unique()) == ["b"]
    one = compared.loc["macro F1"]
    assert one.difference == pytest.approx(f1["b"] - mean)
    right = {name: pair[1] == pair[0].label for name, pair in found.items()}
    won = np.mean([(right["b"] & ~right[name]).sum() for name in ("a", "a2")])
    assert float(one.won) == won and f">{won:,.0f}<" in page
    assert f"(detectable: {one.detectable:.3f})" in page and f">{one.verdict}<" in page
    assert (compared.verdict[1:] == "").all()
    oof, predictions = found["b"]
    assert compared.b["accuracy"] == pytest.approx(accuracy_score(oof.label, predictions))
    age = decode(oof.label.to_numpy())["age"], decode(predictions)["age"]
    assert compared.b["age (macro F1)"] == pytest.approx(f1_score(*age, average="macro"))
    per_class = tables["per_class_f1"].query("run == 'b' and kind == 'label'")
    expected = f1_score(oof.label, predictions, labels=range(18), average=None, zero_division=0)
    assert list(per_class["class"]) == list(CLASS_NAMES)
    assert per_class.f1.to_numpy() == pytest.approx(expected)
    option = tables["one_option"].iloc[0]
    assert (option.option, option["from"], option.to) == ("lr", 0.001, 0.0003)


def test_page_shows_who_is_wrong(written, runs_drawn):
    page, tables = written
    root, table = runs_drawn
    oof, predictions = oof_of(root / "b")
    mistakes = tables["mistakes"].query("run == 'b'")
    assert set(mistakes.image) == set(oof.image[oof.label != predictions])
    assert (np.diff(mistakes.p_prediction) <= 0).all()
    surest = mistakes.iloc[0]
    assert f"label: {escape(surest.label)}, p {surest.p_label:.2f}" in page
    by_age = tables["error_by_age"].query("run == 'b'").set_index("age")
    ages = table.frame.set_index("image").age[oof.image].to_numpy()
    gender = decode(oof.label.to_numpy())["gender"] != decode(predictions)["gender"]
    for year in (24, 60):
        assert by_age.wrong_gender[year] == pytest.approx(gender[ages == year].mean())
    people = table.frame.person.unique()
    found = tables["suspects"]
    assert list(found) == ["id", "field", "from", "to", "confidence", "note"]
    assert set(zip(found.note[:2], found.field[:2], strict=True)) == {
        (people[k], field) for k, field in MISLABELLED.items()
    }
    assert (found["from"][:2] != found.to[:2]).all()
    assert (np.diff(found.confidence) <= 0).all()
    assert "gender: female → male?" in page


def test_data_alone(runs_drawn, capsys):
    root, table = runs_drawn
    out = root / "eda.html"
    report.main(["--data_dir", str(root / "train" / "images"), "--out", str(out)])
    page, tables = out.read_text(), read_tables(out)
    assert "36 people, 252 photos" in capsys.readouterr().out
    assert "Each run" not in page
    counts = tables["classes"].set_index("label").images
    assert counts.to_dict() == table.frame.label.value_counts().to_dict() | {
        k: 0 for k in range(CLASSES) if k not in set(table.frame.label)
    }
    for label, rows in table.frame.groupby("label"):
        name = escape(f"{label}  {CLASS_NAMES[label]}")
        words = f"{len(rows)} photos of {rows.person.nunique()} people"
        assert f"<b>{name}</b><span>{words}</span>" in page
    assert list(tables) == ["classes"]


def test_mattes_are_looked_for_where_the_runs_had_them(runs_drawn, tmp_path):
    root, table = runs_drawn
    elsewhere = tmp_path / "mattes"
    run = draw_run(tmp_path / "far", table.frame, 2.0, matte_dir=str(elsewhere))
    groups = runs.read_groups([str(root / "a"), str(run)])
    beside = assemble.find_mattes(None, groups, table)
    assert beside == default_matte_dir(table.root) != elsewhere  # it does not exist yet
    elsewhere.mkdir()
    assert assemble.find_mattes(None, groups, table) == elsewhere
    assert assemble.find_mattes(str(root), groups, table) == root


def test_runs_of_some_folds_are_marked_and_compared_with_their_like(runs_drawn, tmp_path, capsys):
    root, table = runs_drawn
    for name, folds in (("a", [0]), ("b", [0]), ("c", [0, 1])):
        folder = draw_run(tmp_path / name, table.frame, 2.0, seed=len(folds))
        oof = pd.read_csv(folder / "oof.csv")
        oof = oof[oof.fold.isin(folds)]
        oof.to_csv(folder / "oof.csv", index=False)
        scores = metrics.score(oof.label, oof[PROBS].to_numpy()) | {"folds": [], "seconds": 5.5}
        (folder / "metrics.json").write_text(json.dumps(scores))
    out, data = tmp_path / "report.html", ["--data_dir", str(root / "train"), "--cam_images", "0"]

    def write(*names):
        runs = [str(tmp_path / name) if name != "full" else str(root / "a") for name in names]
        report.main([*data, "--model_dir", *runs, "--out", str(out), "--baseline", runs[-1]])

    write("a", "b")
    assert list(read_tables(out)["runs"].run) == ["a (1 of 3 folds)", "b (1 of 3 folds)"]
    assert "a (1 of 3 folds): macro F1 0." in capsys.readouterr().out
    write("c")
    assert "c (2 of 3 folds): macro F1 0." in capsys.readouterr().out
    write("a", "full", "c")  # of folds that all have
    found = read_tables(out)["runs"].set_index("run").macro_f1
    names = [str(tmp_path / "a"), str(root / "a"), "c"]  # two are called a
    assert set(found.index) == {f"{name} (1 of 3 folds)" for name in names}
    alone = pd.read_csv(root / "a/oof.csv").query("fold == 0")
    expected = f1_score(alone.label, alone[PROBS].to_numpy().argmax(1), average="macro")
    assert found[f"{root / 'a'} (1 of 3 folds)"] == pytest.approx(expected, abs=1e-3)
    for path in (tmp_path / "b").glob("*.csv"):  # the same folds by other numbers
        frame = pd.read_csv(path)
        frame.assign(fold=(frame.fold + 1) % 3).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"/[ab]: no fold is finished in all runs"):
        write("a", "b")
    with pytest.raises(UserError, match="compare runs of the same folds"):
        write("b", "c")
    with pytest.raises(UserError, match=r"--baseline .* write it as it stands there"):
        report.parse_args(["--model_dir", "runs/a", "--baseline", "a"])


def spoil_half(folder):
    path = folder / "oof.csv"
    path.write_text(path.read_text()[:900])


def spoil_label(folder):
    oof = pd.read_csv(folder / "oof.csv")
    oof.loc[oof.person == oof.person.min(), "label"] = (oof.label + 1) % CLASSES
    oof.to_csv(folder / "oof.csv", index=False)


def spoil_people(folder):
    oof = pd.read_csv(folder / "oof.csv")
    oof[oof.person != oof.person.min()].to_csv(folder / "oof.csv", index=False)


def spoil_columns(folder):
    pd.read_csv(folder / "oof.csv").drop(columns="p17").to_csv(folder / "oof.csv", index=False)


def spoil_rows(folder):
    oof = pd.read_csv(folder / "oof.csv")
    pd.concat([oof, oof[:1]]).to_csv(folder / "oof.csv", index=False)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "not a run of train.py"),
        (lambda folder: (folder / "config.json").write_text('{"a"'), "not valid JSON"),
        (lambda folder: (folder / "oof.csv").unlink(), "--resume"),
        (lambda folder: (folder / "oof.csv").write_text(""), "not a readable csv"),
        (spoil_half, "line 5: p7 is not a number"),
        (spoil_columns, "column p17 is missing"),
        (spoil_rows, "occurs twice"),
        (spoil_people, "oof.csv and metrics.json differ"),
        (spoil_label, "oof.csv and metrics.json differ"),
    ],
)
def test_a_run_that_is_none(runs_drawn, tmp_path, spoil, message):
    root, table = runs_drawn
    folder = draw_run(tmp_path / "c", table.frame, 2.0)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        report.main(
            ["--data_dir", str(root / "train"), "--model_dir", str(root / "a"), str(folder)]
        )
    assert "\n" not in str(caught.value)


def test_arguments_that_do_not_fit(runs_drawn, tmp_path):
    root, _ = runs_drawn
    a, data = str(root / "a"), ["--data_dir", str(root / "train")]
    with pytest.raises(UserError, match=r"nothing is not a run .* no config\.json"):
        report.main([*data, "--model_dir", str(root / "nothing")])
    with pytest.raises(UserError, match=r"--baseline .* none of the runs"):
        report.main([*data, "--model_dir", a, "--baseline", str(root / "b")])
    with pytest.raises(UserError, match="twice"):
        report.main([*data, "--model_dir", a, a])
    with pytest.raises(UserError, match=r"--matte_dir .* is not a folder"):
        report.main([*data, "--matte_dir", str(root / "nothing")])
    other = draw_data(tmp_path, people=6)
    with pytest.raises(UserError, match=r"has 210 images .* which the data lacks"):
        report.main(["--data_dir", str(other), "--model_dir", a])
    for wrong in (["--cam_images", "-1"], ["--baseline", "a"], ["--no_such_flag"]):
        with pytest.raises(UserError, match=wrong[0]):
            report.parse_args(wrong)


def test_wrong_flags_are_told_before_anything_heavy_is_imported():
    code = "import report, sys; report.parse_args([]); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True)
    assert "report" in run.stdout.split(), run.stderr
    assert not {"torch", "pandas", "cv2", "matplotlib"} & set(run.stdout.split())
