"""Submissions: order, the same pixels as in training, ensembles, wrong input."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import model_info
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import inference
from background.matte import Matting
from common.errors import UserError
from common.files import HOME
from experiment import ensemble
from labels import PROBS
from model import load_model, save_model


@pytest.fixture(scope="module")
def home(tiny):
    return tiny.home


@pytest.fixture(scope="module")
def runs(tiny):
    """A joint run of two folds with one view, and a split hold-out run with two."""
    return tiny.joint, tiny.split


@pytest.fixture
def predict(home, drawn, tmp_path):
    def go(*words, data=("--data_dir", str(drawn / "eval"))):
        base = ["--cache_dir", str(home / "cache"), "--output_dir", str(tmp_path / "out")]
        inference.main(
            [*base, "--matte_dir", str(home / "mattes"), *data, "--save_probs", *map(str, words)]
        )
        name, columns = ("output", 2) if "--data_dir" in data else ("predictions", 8)
        probs = pd.read_csv(tmp_path / f"out/{name}_probs.csv", dtype={"ImageID": str})
        answers = pd.read_csv(tmp_path / f"out/{name}.csv", dtype={"ImageID": str})
        assert answers.columns.tolist()[:2] == ["ImageID", "ans"]
        assert answers.shape[1] == columns
        assert answers.ImageID.tolist() == probs.ImageID.tolist()
        return probs.set_index("ImageID")[PROBS], answers.set_index("ImageID").ans

    return go


def test_submission_follows_info_csv(runs, predict, drawn):
    info = pd.read_csv(drawn / "eval/info.csv", dtype=str)
    for run in runs:
        probs, answers = predict("--model_dir", run)
        assert answers.index.tolist() == info.ImageID.tolist()
        assert (answers.to_numpy() == probs.to_numpy().argmax(1)).all()
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_a_photo_gets_the_probabilities_that_training_gave_it(runs, predict, drawn, which):
    """Of a run of folds, the model that did not see the photo is one of the two averaged."""
    data = ("--images", str(drawn / "train/images"))
    oof = pd.read_csv(runs[which] / "oof.csv", dtype={"image": str}).set_index("image")[PROBS]
    if which == 1:
        probs, _ = predict("--model_dir", runs[1], data=data)
        np.testing.assert_allclose(probs.loc[oof.index], oof, atol=2e-6)
    else:
        probs, _ = predict("--model_dir", runs[0], data=data)
        others = 2 * probs.loc[oof.index] - oof  # those of the model that did see it
        assert others.to_numpy().min() > -1e-5
        np.testing.assert_allclose(others.sum(axis=1), 1, atol=1e-4)


def test_ensembles_average_and_vote(runs, predict):
    a, b = (predict("--model_dir", run)[0] for run in runs)
    both, _ = predict("--model_dir", *runs)
    np.testing.assert_allclose(both, (a + b) / 2, atol=1e-6)
    weighted, _ = predict("--model_dir", *runs, "--ensemble_weights", 3, 1)
    np.testing.assert_allclose(weighted, (3 * a + b) / 4, atol=1e-6)
    votes, answers = predict("--model_dir", *runs, "--vote")
    assert (votes.to_numpy() > 0.24).sum(1).max() <= 3  # two folds and one run
    alone = predict("--model_dir", runs[1], "--vote")[1]
    assert (alone == b.to_numpy().argmax(1)).all()
    assert set(answers) <= set(range(18))


def test_flip_averages_both_sides(runs, predict, drawn, tmp_path):
    import cv2

    mirrored = tmp_path / "mirrored"
    mirrored.mkdir()
    names = sorted(path.name for path in (drawn / "eval/images").glob("*.jpg"))[:6]
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in names:
        photo = cv2.imread(str(drawn / "eval/images" / name))
        cv2.imwrite(str(plain / f"{name}.png"), photo)
        cv2.imwrite(str(mirrored / f"{name}.png"), photo[:, ::-1])
    a, _ = predict("--model_dir", runs[0], data=("--images", str(plain)))
    b, _ = predict("--model_dir", runs[0], data=("--images", str(mirrored)))
    both, _ = predict("--model_dir", runs[0], "--tta", "flip", data=("--images", str(plain)))
    # a flip after resizing and one before it may round a level of colour apart
    np.testing.assert_allclose(both, (a + b.to_numpy()) / 2, atol=5e-3)


@pytest.mark.parametrize("tta", ["scale", "both"])
def test_tta_is_a_plain_loop_over_torchvisions_variants(runs, predict, drawn, home, tta):
    import torch
    from helpers import identity, reference_warp, set_columns
    from torchvision.transforms.v2 import functional as tv

    from dataset import read_eval
    from model import load_model, probabilities
    from photos import store, views

    root, names = read_eval(drawn / "eval")
    view = views.build_views("none", "mean", "center", (32, 24))
    photos = store.load(root, names, view, home / "cache").batch(torch.arange(len(names)), 0)
    flips = (0, 1) if tta == "both" else (0,)
    total = np.zeros((len(names), 18))
    for fold in (0, 1):
        model, info = load_model(runs[0] / f"fold{fold}/label/best.safetensors")
        for flip, scale in [(flip, scale) for flip in flips for scale in (0.9, 1, 1.1)]:
            draw = set_columns(identity(1), flip=flip, scale=scale)[0]
            warped = torch.stack([reference_warp(photo, draw) for photo in photos])
            with torch.no_grad():
                logits = model(tv.normalize(warped, info.mean, info.std))
            total += probabilities(logits)["label"].numpy()
    expected = total / (2 * 3 * len(flips))
    found, _ = predict("--model_dir", runs[0], "--tta", tta)
    plain, _ = predict("--model_dir", runs[0])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert np.abs(plain.to_numpy() - expected).max() > 1e-3


def test_unreadable_photo_stops_or_gets_the_mean(runs, predict, drawn, tmp_path, capsys):
    data = tmp_path / "eval"
    shutil.copytree(drawn / "eval", data)
    info = pd.read_csv(data / "info.csv", dtype=str).ImageID
    (data / "images" / info[1]).write_bytes(b"")
    (data / "images" / info[2]).unlink()
    given = ("--data_dir", str(data))
    with pytest.raises(UserError, match=info[1]):
        predict("--model_dir", runs[0], data=given)
    assert not (tmp_path / "out/output.csv").exists()
    probs, answers = predict("--model_dir", runs[0], "--on_error", "skip", data=given)
    assert answers.index.tolist() == info.tolist()
    mean = probs.drop(index=[info[1], info[2]]).mean()
    np.testing.assert_allclose(probs.loc[info[1]], mean, atol=1e-6)
    assert f"unreadable, gets the mean prediction: {info[2]}" in capsys.readouterr().out


def test_wrong_runs_are_named(runs, predict, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        predict("--model_dir", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json: layout is missing"):
        predict("--model_dir", tmp_path)
    half = tmp_path / "half"
    shutil.copytree(runs[0], half)
    folds = (half / "folds.csv").rename(tmp_path / "folds.csv")
    with pytest.raises(UserError, match=r"folds\.csv does not exist"):
        predict("--model_dir", half)
    folds.rename(half / "folds.csv")
    weights = half / "fold1/label/best.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        predict("--model_dir", half)


def test_mattes_of_another_model_are_refused(runs, predict, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    path = other / "fold0/mask/best.safetensors"
    model, info = load_model(path)
    info.mattes["grabcut"]["version"] = -1
    save_model(model, path, info)
    for given in ([other], [runs[1], other]):  # also where the photos are open already
        with pytest.raises(UserError, match="grabcut mattes"):
            predict("--model_dir", *given)


def test_each_matting_network_has_mattes_of_its_own(monkeypatch, tmp_path):
    asked = []

    def opened(source, views, matting, *_):
        asked.append(matting.matte_dir)
        return SimpleNamespace(broken={}), {}

    monkeypatch.setattr(ensemble, "open_pixels", opened)
    source, args = (tmp_path / "images", ["a.jpg"]), SimpleNamespace(cache_dir=tmp_path)
    photos = ensemble.Photos(source, Matting(None), args, "cpu")
    for bg, network in (("none", "x"), ("rembg", "u2netp"), ("rembg", "a/b.onnx"), ("none", "x")):
        photos.pixels(model_info(bg=bg, rembg_model=network))
    photos.pixels(model_info(bg="none+rembg", rembg_model="u2netp"))
    assert asked == [None, None, tmp_path / "mattes/b", None]


@pytest.mark.parametrize("weights", [["nan"], ["inf", "1"], ["0", "1"], ["-1", "2"], ["1"]])
def test_weights_of_an_ensemble_are_numbers_one_a_run(runs, predict, weights):
    with pytest.raises(UserError, match="--ensemble_weights"):
        predict("--model_dir", *runs[:2], "--ensemble_weights", *weights)


def test_the_header_of_the_weights_counts_not_the_json_beside_it(runs, predict, tmp_path):
    other = shutil.copytree(runs[0], tmp_path / "other")
    expected = predict("--model_dir", runs[0])
    for text in ("", json.dumps({"size": [8, 8], "crop": "person"})):
        for path in other.glob("fold*/*/best.json"):
            path.write_text(text)
        found = predict("--model_dir", other)
        assert all(a.equals(b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": [16, 16]}, "is not what was saved"),
        ({"size": [0, 16]}, r"size\[0\] is 0"),
        ({"std": [0, 1, 1]}, r"std\[0\] is 0"),
        ({"mean": [float("nan"), 0, 0]}, r"mean\[0\] is nan"),
        ({"heads": ["colour"]}, r"heads\[0\] is 'colour'"),
        ({"heads": ["age"]}, "is not what was saved"),
        ({"crop": "nose"}, "is not what was saved|is no value of the option crop"),
        ({"model": 3}, "model is 3, which does not fit"),
        ({"sha256": "0"}, "is not what was saved"),
        ({"score": None}, "score is null"),
    ],
)
def test_an_edited_header_is_named(runs, predict, tmp_path, change, words):
    other = shutil.copytree(runs[0], tmp_path / "other")
    path = other / "fold1/label/best.safetensors"
    with safe_open(path, "pt") as file:
        info = json.loads(file.metadata()["info"])
    save_file(load_file(path), path, {"info": json.dumps(info | change)})
    with pytest.raises(UserError, match=rf"fold1/label/best\.safetensors.*{words}") as caught:
        predict("--model_dir", other)
    assert "\n" not in str(caught.value)


def test_weights_that_answer_nothing_are_named(runs, predict, tmp_path):
    other = shutil.copytree(runs[0], tmp_path / "other")
    path = other / "fold1/label/best.safetensors"
    model, info = load_model(path)
    model.head.bias.data[3] = float("nan")
    save_model(model, path, info)
    with pytest.raises(UserError, match=r"fold1/label/best\.safetensors: .* not finite"):
        predict("--model_dir", other)


def test_places_that_cannot_be_written_are_refused_before_any_work(runs, predict, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken/output.csv").mkdir(parents=True)
    for flag, path in (("output_dir", "file"), ("output_dir", "taken"), ("cache_dir", "file")):
        with pytest.raises(UserError, match=f"--{flag} .*give another"):
            predict("--model_dir", runs[0], f"--{flag}", tmp_path / path)


def test_weights_of_another_fold_are_named(runs, predict, tmp_path):
    other = shutil.copytree(runs[0], tmp_path / "other")
    shutil.copy(other / "fold1/label/best.safetensors", other / "fold0/label/best.safetensors")
    with pytest.raises(UserError, match=r"fold0/label/best\.safetensors was saved as fold1/label"):
        predict("--model_dir", other)


@pytest.mark.parametrize("change", [{"bg": "../../outside"}, {"crop": "x"}, {"bg_fill": "x"}])
def test_weights_of_a_stranger_name_no_folder_of_mattes(runs, predict, tmp_path, change):
    """The digest in the header is right: anybody can reckon it."""
    other = shutil.copytree(runs[0], tmp_path / "other")
    path = other / "fold0/label/best.safetensors"
    model, info = load_model(path)
    save_model(model, path, replace(info, **change))
    name = next(iter(change))
    with pytest.raises(UserError, match=rf"best\.safetensors: .* is no value of the option {name}"):
        predict("--model_dir", other)
    assert not list(tmp_path.rglob("outside*"))


def test_one_file_is_told_in_words_and_a_folder_in_a_table(runs, predict, drawn, tmp_path, capsys):
    folder = drawn / "train/images"
    probs, answers = predict("--model_dir", runs[1], data=("--images", str(folder)))
    table = pd.read_csv(tmp_path / "out/predictions.csv", index_col="ImageID")
    assert table.index.equals(probs.index) and table.ans.tolist() == answers.tolist()
    words = {"age": ["below 30", "30 to 59", "60 and over"], "gender": ["male", "female"]}
    words["mask"] = ["wear", "incorrect", "normal"]
    cube = probs.to_numpy().reshape(-1, 3, 2, 3)
    for axis, name in enumerate(("mask", "gender", "age"), 1):
        given = cube.sum(tuple({1, 2, 3} - {axis}))
        code = np.stack(np.unravel_index(answers, (3, 2, 3)))[axis - 1]
        assert table[name].tolist() == [words[name][k] for k in code]
        expected = given[np.arange(len(code)), code]
        np.testing.assert_allclose(table[f"p_{name}"], expected, atol=6e-5)
    row = table.iloc[3]
    capsys.readouterr()
    one, _ = predict("--model_dir", runs[1], data=("--images", str(folder / row.name)))
    told = f"{row['mask']}, {row.gender}, {row.age} ({probs.iloc[3].max():.2f})"
    assert told in capsys.readouterr().out.splitlines()
    np.testing.assert_allclose(one.iloc[0], probs.iloc[3], atol=2e-6)
    (tmp_path / "note.txt").write_text("no photo")
    with pytest.raises(UserError, match=r"note\.txt"):
        predict("--model_dir", runs[1], data=("--images", str(tmp_path / "note.txt")))


def test_other_photos_leave_the_submission_and_its_probabilities(runs, home, drawn, tmp_path):
    def go(*words):
        places = ["--output_dir", tmp_path / "out", "--cache_dir", home / "cache"]
        inference.main([*map(str, ["--model_dir", runs[0], *places, *words])])
        return {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    eval_dir = drawn / "eval"
    first = go("--data_dir", eval_dir, "--save_probs")
    later = go("--images", next((eval_dir / "images").iterdir()))
    assert later.keys() - first.keys() == {"predictions.csv"} and first.items() <= later.items()
    with pytest.raises(UserError, match="--images and --data_dir both name the photos"):
        go("--data_dir", eval_dir, "--images", eval_dir / "images")
    # Probabilities of other answers do not stay.
    assert go("--data_dir", eval_dir, "--tta", "flip").keys() == {"output.csv", "predictions.csv"}


def test_it_does_not_import_the_compiler_of_torch(runs, home, drawn, tmp_path):
    """Which takes a second, and which torchvision and timm would import."""
    words = ["--model_dir", runs[0], "--data_dir", drawn / "eval", "--cache_dir", home / "cache"]
    argv = [sys.executable, "-X", "importtime", "inference.py", *words, "--output_dir", tmp_path]
    done = subprocess.run([*map(str, argv)], cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "timm" in imported and "torch._dynamo" not in imported
