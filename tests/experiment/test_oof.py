"""Out-of-fold scores of inference: the stored ones without TTA, nobody predicted by a model that
saw them, one more run for the report.
"""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

import inference
import report
import train
from common.errors import UserError
from experiment import ensemble, oof
from experiment.reader import read_run
from labels import PROBS

KEYS = ["image", "person", "fold", "label"]
ROUNDING = 2e-6  # the file has 7 digits; a matrix product may round one level apart


@pytest.fixture(scope="module")
def other(tiny):
    """A run of another layout, with other folds."""
    return tiny.train("--k_fold", "3", "--seed", "7", "--shared_backbone")


@pytest.fixture
def score(tiny, tmp_path):
    """Calls inference.py --oof and reads what it wrote: (oof, metrics, config)."""

    def go(*words, folder="scored"):
        folder = tmp_path / folder
        words = ["--cache_dir", tiny.home / "cache", "--oof", folder, "--model_dir", *words]
        inference.main([str(word) for word in words])
        read = [json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "config")]
        return read_oof(folder), *read

    return go


def read_oof(folder):
    return pd.read_csv(folder / "oof.csv", dtype={"image": str, "person": str})


def probs_of(folder):
    return read_oof(folder)[PROBS].to_numpy()


def test_without_tta_it_is_the_stored_one(tiny, other, score, capsys):
    for run in (tiny.joint, tiny.split, other):
        found, result, config = score(run)
        stored = read_oof(run)
        assert found[KEYS].equals(stored[KEYS])
        np.testing.assert_allclose(found[PROBS], stored[PROBS], rtol=0, atol=ROUNDING)
        theirs = json.loads((run / "metrics.json").read_text())
        assert result["macro_f1"] == pytest.approx(theirs["macro_f1"])
        assert result["attributes"] == theirs["attributes"]
        for ours, fold in zip(result["folds"], theirs["folds"], strict=True):
            assert ours["macro_f1"] == pytest.approx(fold["macro_f1"])
        assert f"scored: macro F1 {theirs['macro_f1']:.4f}" in capsys.readouterr().out
        trained = json.loads((run / "config.json").read_text())
        added = {"tta": "none", "vote": False, "decision": "argmax"}
        assert config["options"] == trained["options"] | added
        assert config["layout"] == trained["layout"]


def test_nobody_is_predicted_by_a_model_that_saw_them(tiny, other):
    """The model of a fold is asked for the people held out there, once each, and for no others."""
    for folder in (tiny.joint, tiny.split, other):
        folds = pd.read_csv(folder / "folds.csv", dtype={"person": str}).set_index("person").fold
        run, asked = read_run(folder), []
        names = run.oof.image.sample(frac=1, random_state=0).tolist()

        def predict(fold, rows, folds=folds, names=names, asked=asked):
            images = [names[row] for row in rows]
            assert (folds[[image.split("/")[0] for image in images]] == fold).all()
            asked += images
            return np.array([[names.index(image)] * 18 for image in images], float)

        probs = oof.predict(run, {fold: fold for fold in set(folds)}, names, predict)
        assert sorted(asked) == run.oof.image.tolist()
        assert [names[int(row[0])] for row in probs] == run.oof.image.tolist()


def test_runs_are_averaged_as_for_eval(tiny, other, score):
    """Runs of other folds too: each run predicts with its own models."""
    a, b = probs_of(tiny.joint), probs_of(other)
    found, result, config = score(tiny.joint, other, "--ensemble_weights", 3, 1)
    np.testing.assert_allclose(found[PROBS], (3 * a + b) / 4, atol=ROUNDING)
    assert found[KEYS].equals(read_oof(tiny.joint)[KEYS])
    expected = f1_score(
        found.label, ((3 * a + b) / 4).argmax(1), labels=range(18), average="macro", zero_division=0
    )
    assert result["macro_f1"] == pytest.approx(expected)
    assert config["layout"] == "ensemble" and config["options"]["k_fold"] == "2 | 3"
    assert config["options"]["ensemble"] == [f"{tiny.joint}=3", f"{other}=1"]
    votes, _, config = score(tiny.joint, other, "--vote")
    expected = (np.eye(18)[a.argmax(1)] + np.eye(18)[b.argmax(1)]) / 2
    np.testing.assert_allclose(votes[PROBS], expected, atol=2e-3)
    assert config["options"]["vote"] is True


def square_root_prior(labels):
    """(frequency)^-1/2 of the 18 classes, one image in place of none."""
    return 1 / np.sqrt(labels.value_counts().reindex(range(18), fill_value=1).to_numpy())


def test_the_prior_of_a_fold_knows_the_others_only(tiny, score, capsys):
    stored = read_oof(tiny.joint)
    found, result, _ = score(tiny.joint, "--decision", "prior")
    for fold in (0, 1):
        held = stored.fold == fold
        expected = stored.loc[held, PROBS].to_numpy() * square_root_prior(stored[~held].label)
        expected /= expected.sum(1, keepdims=True)
        np.testing.assert_allclose(found.loc[held, PROBS], expected, rtol=0, atol=2e-5)
    said = re.search(r"argmax (\S+), decision prior (\S+)", capsys.readouterr().out)
    plain, weighted = map(float, said.groups())
    assert weighted == pytest.approx(result["macro_f1"], abs=6e-5)
    assert plain == pytest.approx(
        json.loads((tiny.joint / "metrics.json").read_text())["macro_f1"], abs=6e-5
    )


def test_the_prior_for_eval_is_that_of_the_training_labels(tiny, drawn, tmp_path):
    words = ["--model_dir", tiny.joint, "--cache_dir", tiny.home / "cache", "--save_probs"]
    words += ["--data_dir", drawn / "eval", "--output_dir", tmp_path, "--decision", "prior"]

    def predicted(*more):
        inference.main([*map(str, words), *more])
        probs = pd.read_csv(tmp_path / "output_probs.csv")[PROBS].to_numpy()
        return probs, pd.read_csv(tmp_path / "output.csv").ans

    (found, answers), (plain, before) = predicted(), predicted("--decision", "argmax")
    expected = plain * square_root_prior(read_oof(tiny.joint).label)
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=2e-6)
    assert (answers == found.argmax(1)).all() and (answers != before).any()
    everybody = tiny.train("--val_ratio", "0")
    with pytest.raises(UserError, match=r"no run has an oof\.csv, whose labels --decision"):
        predicted("--model_dir", str(everybody))
    assert len(predicted("--model_dir", str(everybody), str(tiny.joint))[1]) == len(answers)


def moved(run, folder, **options):
    """A copy of a run whose config has other options."""
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["options"] |= options
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_training_photos_that_moved(tiny, drawn, score, tmp_path):
    gone = moved(tiny.joint, tmp_path / "gone", data_dir=str(tmp_path / "no"), matte_dir=None)
    with pytest.raises(UserError, match=r"no is not a folder.*--train_dir"):
        score(gone)
    assert not (tmp_path / "scored").exists()
    gone = moved(gone, tmp_path / "further", matte_dir="/proc/mattes")
    found, _, _ = score(gone, "--train_dir", drawn / "train")
    np.testing.assert_allclose(found[PROBS], probs_of(tiny.joint), atol=ROUNDING)
    changed = tmp_path / "train"
    shutil.copytree(drawn / "train", changed)
    table = (changed / "train.csv").read_text()
    (changed / "train.csv").write_text(table.replace(",female,", ",male,", 1))
    with pytest.raises(UserError, match=r"labels 7 images .* unlike the data: .*--train_dir"):
        score(gone, "--train_dir", changed)


def test_unreadable_photos(tiny, drawn, score, tmp_path):
    """One that training left out stays out; another one that broke since stops."""
    data = tmp_path / "train"
    shutil.copytree(drawn / "train", data)
    photos = sorted((data / "images").glob("*/*.jpg"))
    photos[3].write_bytes(b"")
    run = tiny.train("--data_dir", str(data), "--k_fold", "2", "--on_error", "skip")
    found, _, _ = score(run)
    assert len(found) == len(read_oof(tiny.joint)) - 1
    np.testing.assert_allclose(found[PROBS], probs_of(run), atol=ROUNDING)
    photos[8].write_bytes(b"")
    with pytest.raises(UserError, match=rf"{photos[8].name}.*readable in training"):
        score(run, folder="again")
    assert not (tmp_path / "again").exists()


def test_the_report_takes_it_as_one_more_run(tiny, drawn, score, tmp_path):
    score(tiny.joint, "--tta", "both", folder="tta")
    score(tiny.joint, "--decision", "prior", "--tta", "both", folder="prior")
    score(tiny.joint, tiny.joint, "--tta", "both", folder="ensemble")
    folders = [tiny.joint, *(tmp_path / name for name in ("tta", "prior", "ensemble"))]
    words = ["--data_dir", drawn / "train", "--out", tmp_path / "report.html"]
    words += ["--cam_images", 1, "--model_dir", *folders]
    report.main([str(word) for word in words])
    page = (tmp_path / "report.html").read_text()
    assert page.count("has no models of its own") == 3
    tables = tmp_path / "report_tables"
    runs = pd.read_csv(tables / "runs.csv", keep_default_na=False).set_index("run")
    assert runs.tta.to_dict() == {
        tiny.joint.name: "none",
        "tta": "both",
        "prior": "both",
        "ensemble": "both",
    }
    assert runs.decision["prior"] == "prior" and runs.layout["tta"] == "joint"
    assert runs.layout["ensemble"].startswith("ensemble of ")
    for name in ("tta", "prior"):
        expected = json.loads((tmp_path / name / "metrics.json").read_text())["macro_f1"]
        assert float(runs.macro_f1[name]) == pytest.approx(expected)
    pairs = pd.read_csv(tables / "one_option.csv", keep_default_na=False)
    pairs = set(zip(pairs.option, pairs["from"], pairs.to, strict=True))
    assert {("tta", "none", "both"), ("decision", "argmax", "prior")} <= pairs


def test_a_folder_of_scores_is_no_run_to_go_on_with(tiny, drawn, score, tmp_path):
    score(tiny.joint)
    folder = str(tmp_path / "scored")
    for call in (
        lambda: inference.main(["--model_dir", folder, "--data_dir", str(drawn / "eval")]),
        lambda: train.main(["--resume", folder]),
        lambda: score(folder, folder="again"),
    ):
        with pytest.raises(UserError, match=r"no models; give .*exp$"):
            call()


def test_what_cannot_be_scored(tiny, other, score, tmp_path):
    everybody = tiny.train("--val_ratio", "0")
    with pytest.raises(UserError, match=r"no oof\.csv"):
        score(everybody)
    with pytest.raises(UserError, match=r"which .* lacks: compare runs"):
        score(other, tiny.split)
    with pytest.raises(UserError, match=r"one fold.*--k_fold"):
        score(tiny.split, "--decision", "prior")
    swapped = moved(tiny.joint, tmp_path / "swapped")
    folds = pd.read_csv(swapped / "folds.csv", dtype={"person": str})
    folds.assign(fold=1 - folds.fold).to_csv(swapped / "folds.csv", index=False)
    with pytest.raises(UserError, match="holds out this person elsewhere"):
        score(swapped)
    for words in (["--images", "x"], ["--data_dir", "x"], ["--save_probs"]):
        with pytest.raises(UserError, match=f"leave out {words[0]}"):
            inference.parse_args(["--oof", "x", *words])
    with pytest.raises(UserError, match="--train_dir is for --oof"):
        inference.parse_args(["--train_dir", "x"])


def test_it_writes_over_nothing_but_itself(tiny, score, tmp_path, monkeypatch):
    kept = moved(tiny.joint, tmp_path / "kept")
    with pytest.raises(UserError, match=r"holds .* already"):
        score(tiny.joint, folder="kept")
    for fold in ("fold0", "fold1"):  # what is left has the names of ours
        shutil.rmtree(kept / fold)
    with pytest.raises(UserError, match=r"holds config\.json already"):
        score(tiny.joint, folder="kept")
    assert probs_of(kept).tolist() == probs_of(tiny.joint).tolist()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        score(tiny.joint, folder="file")
    first, _, _ = score(tiny.joint)
    again, _, config = score(tiny.joint, "--tta", "flip")
    assert config["options"]["tta"] == "flip" and not again.equals(first)
    monkeypatch.setattr(ensemble, "rank", lambda: 1)
    with pytest.raises(FileNotFoundError):
        score(tiny.joint, folder="of_rank_1")
