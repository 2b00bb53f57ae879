"""Labels of training rows on the whole way: runs that mend labels or learn from eval."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import inference
import train
from common.errors import UserError
from common.files import write_csv
from dataset import read_train
from experiment import reader
from labels import ATTRIBUTES, HEADS, PROBS
from model import load_model, save_model
from training import run as folds
from training.task import Task


@pytest.fixture(scope="module")
def go(drawn, tmp_path_factory):
    """A function that trains a tiny model and returns its run folder and what it trained on."""
    home = tmp_path_factory.mktemp("labels")

    def run(*words, resume=None):
        base = ["--data_dir", drawn / "train", "--model_dir", home / "runs", "--eval_dir"]
        base += [drawn / "eval", "--cache_dir", home / "cache", "--matte_dir", home / "mattes"]
        base += ["--model", "test_efficientnet", "--weights", "none", "--resize", "32", "24"]
        words = ["--resume", resume] if resume else [*base, "--epochs", "2", *words]
        made, original = [], folds.Data
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folds, "Data", lambda *a: made.append(original(*a)) or made[-1])
            return train.main([*map(str, words)]), made

    run.home = home
    run.predict = ["--data_dir", drawn / "eval", "--cache_dir", home / "cache", "--save_probs"]
    return run


@pytest.fixture(scope="module")
def plain(go):
    return go("--name", "plain", "--k_fold", "2", "--epochs", "1")


@pytest.fixture(scope="module")
def pseudo(go, plain, drawn):
    """(file of inference.py, the median of its highest probabilities)."""
    words = [*go.predict, "--model_dir", plain[0], "--output_dir", go.home / "output"]
    inference.main([*map(str, words)])
    path = go.home / "output/output_probs.csv"
    return path, float(pd.read_csv(path)[PROBS].max(axis=1).median())


def oof_of(folder):
    return pd.read_csv(folder / "oof.csv", dtype={"image": str, "person": str})


def test_scores_and_folds_are_those_of_the_labels_as_given(go, plain, drawn, tmp_path):
    frame = read_train(drawn / "train").frame
    person = frame.drop_duplicates("person").iloc[0]
    other = ATTRIBUTES["gender"][1 - person.gender]
    (tmp_path / "fixes.csv").write_text(
        "id,field,from,to,confidence,note\n"
        f"{person.id},gender,{ATTRIBUTES['gender'][person.gender]},{other},sure,\n"
    )
    drop = int(frame.age[frame.age_group == 1].mode()[0])
    words = ["--label_fixes", tmp_path / "fixes.csv", "--old_from", "50", "--drop_ages", drop]
    folder, made = go("--name", "mended", "--k_fold", "2", "--epochs", "1", *words)
    assert (folder / "folds.csv").read_bytes() == (plain[0] / "folds.csv").read_bytes()
    ours, theirs = oof_of(folder), oof_of(plain[0])
    assert ours.drop(columns=PROBS).equals(theirs.drop(columns=PROBS))
    assert ours.label.tolist() == frame.sort_values("image").label.tolist()
    assert (ours[PROBS] != theirs[PROBS]).any(axis=None)
    for data, before in zip(made, plain[1], strict=True):
        assert (data.valid == before.valid).all()
        assert data.train.tolist() == [row for row in before.train if frame.age[row] != drop]
        assert all((data.truth[head] == before.targets[head]).all() for head in HEADS)
        moved = frame.age.between(50, 59) | (frame.person == person.person)
        assert ((data.targets["label"] != data.truth["label"]) == moved).all()
    options = json.loads((folder / "config.json").read_text())["options"]
    assert options["old_from"] == 50 and options["drop_ages"] == [drop]


def test_photos_of_eval_train_and_never_validate(go, plain, pseudo, drawn):
    path, least = pseudo
    words = ["--pseudo", path, "--pseudo_min", least, "--epochs", "1"]
    folder, made = go("--name", "pseudo", "--k_fold", "2", *words)
    frame, probs = read_train(drawn / "train").frame, pd.read_csv(path)
    assert (folder / "folds.csv").read_bytes() == (plain[0] / "folds.csv").read_bytes()
    ours, theirs = oof_of(folder), oof_of(plain[0])
    assert ours.drop(columns=PROBS).equals(theirs.drop(columns=PROBS))
    assert reader.read_config(folder)["data"]["pseudo_is_mean"] is True
    sure = np.flatnonzero(probs[PROBS].max(axis=1) >= least)
    assert 0 < len(sure) < len(probs) == 42
    for data, before in zip(made, plain[1], strict=True):
        assert (data.valid == before.valid).all() and data.valid.max() < len(frame)
        assert data.train.tolist() == [*before.train, *(len(frame) + sure)]
        joined = data.train[len(before.train) :]
        assert [data.names[row] for row in joined] == probs.ImageID[sure].tolist()
        assert (data.targets["label"][joined] == probs[PROBS].to_numpy()[sure].argmax(1)).all()


def test_each_fold_is_taught_by_models_that_never_saw_its_people(
    go, plain, pseudo, drawn, tmp_path
):
    path = pseudo[0].with_name("output_probs_by_fold.csv")
    kept = pd.read_csv(path)
    least = float(kept[PROBS].max(axis=1).median())
    mean = kept.groupby("ImageID", sort=False)[PROBS].mean().to_numpy()
    assert np.allclose(mean, pd.read_csv(pseudo[0])[PROBS], atol=1e-6)

    # What the models of one fold say: inference with a run of which both folds are that one.
    words = ["--pseudo", path, "--pseudo_min", least, "--epochs", "1", "--k_fold", "2"]
    folder, made = go("--name", "by_fold", *words)
    assert reader.read_config(folder)["data"]["pseudo_is_mean"] is False
    count, sizes = len(read_train(drawn / "train").frame), []
    for fold, (data, before) in enumerate(zip(made, plain[1], strict=True)):
        one = go.home / f"fold{fold}"
        shutil.copytree(plain[0], one)
        model, info = load_model(plain[0] / f"fold{fold}/label/best.safetensors")
        other = one / f"fold{1 - fold}/label"
        save_model(model, other / "best.safetensors", replace(info, place=f"fold{1 - fold}/label"))
        inference.main([*map(str, go.predict), "--model_dir", str(one), "--output_dir", str(one)])
        probs = pd.read_csv(one / "output_probs.csv")[PROBS].to_numpy()
        sure = np.flatnonzero(probs.max(axis=1) >= least)
        sizes.append(len(sure))
        assert (data.valid == before.valid).all()
        assert data.train.tolist() == [*before.train, *(count + sure)]
        assert (data.targets["label"][count + sure] == probs[sure].argmax(1)).all()
    assert sum(sizes) == 42 and sizes[0] != sizes[1]
    assert oof_of(folder).drop(columns=PROBS).equals(oof_of(plain[0]).drop(columns=PROBS))

    write_csv(tmp_path / "mixed.csv", kept.sample(frac=1, random_state=0))
    words[1] = tmp_path / "mixed.csv"
    _, mixed = go("--name", "mixed", *words)
    for data, first in zip(mixed, made, strict=True):
        names = [{data.names[row] for row in data.train} for data in (data, first)]
        assert names[0] == names[1]


@pytest.mark.parametrize(
    ("words", "change", "message"),
    [
        (["--seed", "1"], None, r"no model held out the people of fold 0: .* --seed"),
        (["--k_fold", "3"], None, r"no model held out the people of fold 0: .* --k_fold"),
        (["--k_fold", "0", "--val_ratio", "0"], None, r"nobody is held out here: give output_prob"),
        ([], lambda table: table[:-1], "is not whole: the folds have different photos"),
        ([], lambda table: table[:42], "no model held out the people of fold 1"),
        ([], lambda table: pd.concat([table, table[:1]]), "line 86: .* stands on line 2 too"),
    ],
)
def test_a_file_by_fold_that_cannot_teach_a_run(go, pseudo, tmp_path, words, change, message):
    path = pseudo[0].with_name("output_probs_by_fold.csv")
    if change:
        write_csv(tmp_path / "changed.csv", change(pd.read_csv(path)))
        path = tmp_path / "changed.csv"
    runs = sorted((go.home / "runs").iterdir())
    with pytest.raises(UserError, match=message):
        go("--name", "wrong", "--k_fold", "2", "--pseudo", path, *words)
    assert sorted((go.home / "runs").iterdir()) == runs


def test_probabilities_by_fold_of_several_runs(go, plain, pseudo, drawn, tmp_path):
    """Averaged with the weights of the runs; left out where the folds differ, an old file too."""
    path = pseudo[0].with_name("output_probs_by_fold.csv")
    words = [*map(str, go.predict), "--output_dir", str(tmp_path), "--model_dir"]
    second, _ = go("--name", "second", "--k_fold", "2", "--epochs", "1", "--lr", "0.01")
    inference.main([*words, str(second)])
    ours, theirs = pd.read_csv(path), pd.read_csv(tmp_path / path.name)
    assert ours[["ImageID", "held_out"]].equals(theirs[["ImageID", "held_out"]])
    inference.main([*words, str(plain[0]), str(second), "--ensemble_weights", "3", "1"])
    both = pd.read_csv(tmp_path / path.name)
    assert np.allclose(both[PROBS], 0.75 * ours[PROBS] + 0.25 * theirs[PROBS], atol=2e-7)
    other, _ = go("--name", "other", "--k_fold", "2", "--epochs", "1", "--seed", "1")
    inference.main([*words, str(plain[0]), str(other)])
    assert (tmp_path / "output_probs.csv").is_file() and not (tmp_path / path.name).exists()


def test_a_resumed_run_ends_with_the_same_bytes_and_wants_the_same_file(
    go, pseudo, drawn, tmp_path, monkeypatch
):
    """Two views, random backgrounds; a photo of eval is broken."""
    path, least = tmp_path / "probs.csv", pseudo[1]
    shutil.copy(pseudo[0], path)
    shutil.copytree(drawn / "eval", tmp_path / "eval")
    victim = pd.read_csv(path).ImageID[pd.read_csv(path)[PROBS].max(axis=1).argmax()]
    (tmp_path / "eval/images" / victim).write_bytes(b"no photo")
    words = ["--pseudo", path, "--pseudo_min", least, "--eval_dir", tmp_path / "eval"]
    words += ["--bg", "none+grabcut", "--bg_fill", "random", "--on_error", "skip"]
    whole, made = go("--name", "whole", *words)
    assert victim in made[0].names
    assert victim not in [made[0].names[row] for row in made[0].train]
    assert made[0].train.max() >= 168 > made[0].valid.max()
    mattes = list((go.home / "mattes/grabcut").glob("*.png"))  # of eval, which has no folders
    assert len(mattes) == 41

    run_epoch = Task.run_epoch

    def stop(task):
        run_epoch(task)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Task, "run_epoch", stop)
        go("--name", "broken", *words)
    broken = whole.with_name("broken")
    kept = path.read_text()
    write_csv(path, pd.read_csv(path)[::-1])
    with pytest.raises(UserError, match=r"probs\.csv \(--pseudo\) is not what .*broken"):
        go(resume=broken)
    path.write_text(kept)
    go(resume=broken)
    for name in ("fold0/label/best.safetensors", "oof.csv"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
