import argparse
import hashlib
import json
import subprocess
import sys
import threading

import cv2
import numpy as np
import pandas as pd
import pytest

import demo
from common import errors
from common.files import HOME
from drawing import backdrop, competition, portrait, sketch
from photos import reading

PHOTOS = ["incorrect_mask", "mask1", "mask2", "mask3", "mask4", "mask5", "normal"]
SMALL = ["--people", "24", "--eval_people", "3", "--size", "64", "48"]


def draw(out, *flags):
    demo.main(["--out", str(out), *SMALL, *flags])
    return out


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def faces(folder):
    """The stems of the photos in a folder, without the junk that starts with a dot."""
    return sorted(path.stem for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn") / "demo", "--label_noise", "0.25")


def table(path):
    return pd.read_csv(path, dtype={"id": str})


def test_train_has_the_layout_of_the_competition(drawn):
    train = table(drawn / "train/train.csv")
    assert list(train) == ["id", "gender", "race", "age", "path"]
    assert len(train) == 24 and train["path"].is_unique
    assert set(train["gender"]) == {"male", "female"} and train["age"].between(18, 60).all()
    named = train["id"] + "_" + train["gender"] + "_Asian_" + train["age"].astype(str)
    assert (train["path"] == named).all()
    images = drawn / "train/images"
    folders = {p.name for p in images.iterdir() if p.is_dir() and not p.name.startswith(".")}
    assert folders == set(train["path"])
    for path in train["path"]:
        assert faces(images / path) == PHOTOS
        assert faces(drawn / "mattes_true/train" / path) == PHOTOS


def test_train_has_the_quirks_of_the_competition(drawn):
    ids = table(drawn / "train/train.csv")["id"]
    assert ids.duplicated().sum() == 1
    assert ids.str.fullmatch(r"\d{6}-1").sum() == 1
    images = drawn / "train/images"
    files = [p for p in images.rglob("*") if p.is_file()]
    junk = [p.name for p in files if p.name.startswith(".")]
    assert {".DS_Store", "._mask1.jpg"} <= set(junk)
    suffixes = pd.Series([p.suffix for p in files if not p.name.startswith(".")]).value_counts()
    assert suffixes.to_dict() == {".jpg": 24 * 7 - 16, ".jpeg": 8, ".png": 8}
    alpha = [cv2.imread(p, cv2.IMREAD_UNCHANGED).shape[2] == 4 for p in images.glob("*/*.png")]
    assert sum(alpha) == 1


def test_eval_hides_the_answers_and_truth_has_them(drawn):
    info, truth = table(drawn / "eval/info.csv"), table(drawn / "truth.csv")
    assert list(info) == ["ImageID", "ans"] and (info["ans"] == 0).all()
    assert info["ImageID"].str.fullmatch(r"[0-9a-f]{40}\.jpg").all() and len(info) == 21
    assert list(info["ImageID"]) == list(truth["ImageID"])
    assert {p.name for p in (drawn / "eval/images").iterdir()} == set(info["ImageID"])
    assert not truth["person"].is_monotonic_increasing
    for _, photos in truth.groupby("person"):
        assert sorted(photos["ans"] // 6) == [0] * 5 + [1, 2]
        assert photos["ans"].mod(6).nunique() == photos["age"].nunique() == 1
    group = np.digitize(truth["age"], [30, 60])
    assert (truth["ans"] % 3 == group).all()


def test_photos_and_mattes_have_the_size_asked_for(drawn):
    image_id = table(drawn / "eval/info.csv")["ImageID"][0]
    image = cv2.imread(drawn / "eval/images" / image_id, cv2.IMREAD_UNCHANGED)
    assert image.shape == (64, 48, 3)
    matte = drawn / "mattes_true/eval" / image_id.replace(".jpg", ".png")
    matte = cv2.imread(matte, cv2.IMREAD_UNCHANGED)
    assert matte.shape == (64, 48) and matte.dtype == np.uint8
    assert 0.2 < (matte > 127).mean() < 0.8
    assert matte[:5].max() == 0 and matte[-3, 24] == 255  # air above the head, a body below


def test_same_seed_same_bytes(drawn, tmp_path):
    again = digests(draw(tmp_path / "again", "--label_noise", "0.25"))
    assert again == digests(drawn) and len(again) > 300


def test_other_seed_other_people(tmp_path):
    found = {}
    for seed in (0, 1):
        args = argparse.Namespace(seed=seed, background_bias=0.0)
        person = competition.people(args, 1, 1)[0] | {"gender": 0, "age": 30}
        person |= {"path": "", "files": [f"{name}.jpg" for name in PHOTOS]}
        competition.draw_person(person, tmp_path / str(seed), seed, (64, 48))
        found[seed] = set(digests(tmp_path / str(seed)).values())
    assert len(found[0]) == len(found[1]) == 14 and not found[0] & found[1]


def test_more_people_and_more_threads_leave_the_others_as_they_were(drawn, tmp_path, monkeypatch):
    names, person = set(), competition.draw_person

    def watched(*args, **options):
        names.add(threading.current_thread().name)
        return person(*args, **options)

    monkeypatch.setattr(competition, "draw_person", watched)
    monkeypatch.setattr(reading, "cores", lambda: 4)
    flags = ["--people", "30", "--label_noise", "0.2"]
    more = digests(draw(tmp_path / "more", *flags))
    assert len(names) > 1
    for name, digest in digests(drawn / "mattes_true/eval").items():
        assert more[f"mattes_true/eval/{name}"] == digest
    truth = table(tmp_path / "more/truth_train.csv")
    before = table(drawn / "truth_train.csv")
    clean = (truth["noisy"][:24] == 0) & (before["noisy"] == 0)
    assert clean.sum() >= 12
    for path in before["path"][clean]:
        for name, digest in digests(drawn / "train/images" / path).items():
            assert more[f"train/images/{path}/{name}"] == digest


def test_label_noise_is_exact_and_recorded(drawn):
    train, truth = table(drawn / "train/train.csv"), table(drawn / "truth_train.csv")
    assert list(truth)[:4] == ["path", "gender", "age", "noisy"]
    assert list(truth["path"]) == list(train["path"])
    group = [np.digitize(frame["age"], [30, 60]) for frame in (train, truth)]
    gender, age = train["gender"] != truth["gender"], group[0] != group[1]
    assert list(truth["noisy"] == 1) == list(gender | age)
    assert truth["noisy"].sum() == round(0.25 * 24)
    assert gender.any() and age.any()
    assert (train["age"] == truth["age"])[~age].all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("people", [24, 60, 600])
def test_every_cell_has_people_and_the_shares_are_the_competitions(seed, people):
    args = argparse.Namespace(seed=seed, background_bias=0.0)
    found = pd.DataFrame(competition.people(args, 0, people))
    assert found.groupby(["gender", "group"]).size().min() >= 2 and len(found) == people
    assert found.groupby(["gender", "group"]).ngroups == 6
    assert (found["group"] == np.digitize(found["age"], [30, 60])).all()
    if people == 600:
        shares = found["group"].value_counts(normalize=True).sort_index()
        np.testing.assert_allclose(shares, [0.47, 0.45, 0.07], atol=0.03)
        assert abs(found["gender"].mean() - 0.61) < 0.02
        assert found["age"].between(18, 60).all() and found["age"].nunique() > 35


def test_background_bias_is_in_train_and_not_in_eval():
    def purity(bias, split):
        """The share of people whose backdrop is the commonest one of their cell."""
        args = argparse.Namespace(seed=3, background_bias=bias)
        found = pd.DataFrame(competition.people(args, split, 600))
        counts = found.groupby(["gender", "group"])["background"].value_counts()
        return counts.groupby(level=[0, 1]).max().sum() / 600

    kinds = len(backdrop.BACKDROPS)
    assert purity(1.0, 0) == 1
    assert abs(purity(0.8, 0) - (0.8 + 0.2 / kinds)) < 0.05
    assert purity(0.0, 0) == pytest.approx(1 / kinds, abs=0.08)
    assert purity(1.0, 1) == purity(0.0, 1) == pytest.approx(1 / kinds, abs=0.08)


@pytest.mark.parametrize(("gender", "age"), [(0, 60), (1, 20)])
def test_matte_is_what_two_backdrops_tell(monkeypatch, gender, age):
    """Alpha by triangulation: two greys behind the same person (Smith and Blinn 1996)."""
    size, rng = (256, 192), np.random.default_rng(gender)
    monkeypatch.setattr(competition.cv2, "convertScaleAbs", lambda image, alpha: image)
    who = portrait.identity(rng, gender, age)
    # Greys, since noise would be clipped on black and on white.
    dark = np.full_like(backdrop.draw_backdrop(rng, "wall", size), 64)
    for mask in [(None, None), ("kn95", "right"), ("cloth", "chin")]:
        (low, matte), (high, same) = (
            competition.draw_photo(np.random.default_rng(5), who, behind, size, mask)
            for behind in (dark, 3 * dark)
        )
        np.testing.assert_array_equal(matte, same)
        alpha = 255 - (high.astype(int) - low).mean(2) * 255 / 128
        assert np.abs(alpha - cv2.GaussianBlur(matte, (0, 0), 0.3)).max() < 60  # a little blur
        assert np.abs(alpha - matte).mean() < 1
        assert (low[matte == 0] < 80).mean() > 0.98 and 0.3 < (matte == 255).mean() < 0.8


def test_a_mask_changes_the_lower_face_only():
    who = portrait.identity(np.random.default_rng(0), 1, 25)
    frame = np.array([(35, 0, 96), (0, 48, 113)])
    bare = sketch.Sketch((256, 192), frame)
    portrait.draw_portrait(bare, who)
    changed = {}
    for worn in ("right", "nose", "chin"):
        masked = sketch.Sketch((256, 192), frame)
        portrait.draw_portrait(masked, who)
        portrait.draw_mask(np.random.default_rng(0), masked, who, "surgical", worn)
        change = np.abs(masked.pixels.astype(int) - bare.pixels).sum(2)
        rows = [int(113 + 48 * v) for v in (-0.4, 0.3, 0.62, 0.95)]  # brow, nose, mouth, chin
        assert change[: rows[0]].sum() == 0
        changed[worn] = (change[rows[1:], 96] > 30).tolist()
    assert changed == {
        "right": [True, True, True],
        "nose": [False, True, True],
        "chin": [False, False, True],
    }


def test_looks_age():
    """Old people are greyer, and not so clearly that 59 could be told from 60."""
    rng = np.random.default_rng(0)
    grey = {
        age: np.array([portrait.identity(rng, 0, age).grey for _ in range(200)])
        for age in (20, 45, 59, 60)
    }
    assert grey[20].mean() < 0.02 < grey[45].mean() < 0.7 * grey[59].mean()
    assert abs(grey[60].mean() - grey[59].mean()) < 0.5 * grey[60].std()


def test_a_drawn_competition_is_kept_and_others_are_not_touched(drawn, tmp_path, capsys):
    before = digests(drawn)
    draw(drawn, "--label_noise", "0.25")
    assert "kept" in capsys.readouterr().out and digests(drawn) == before
    with pytest.raises(errors.UserError, match="another --seed; remove it or choose another --out"):
        draw(drawn, "--label_noise", "0.25", "--seed", "9")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(errors.UserError, match="choose another --out"):
        draw(tmp_path)
    with pytest.raises(errors.UserError, match="choose another --out"):
        draw(tmp_path / "notes.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_crash_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("stop")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(competition, "draw_person", fail)
    with pytest.raises(RuntimeError, match="stop"):
        draw(tmp_path / "out")
    assert not any((tmp_path / "out").iterdir()) and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("flags", [[], ["--seed", "1"]])
def test_of_two_at_once_the_second_finds_what_the_first_drew(tmp_path, monkeypatch, flags, capsys):
    """While one draws, another finishes: the same competition is kept, another one is an error."""

    def meanwhile(out, args):
        monkeypatch.setattr(competition, "draw", first)
        draw(tmp_path / "out", *flags)
        first(out, args)

    first = competition.draw
    monkeypatch.setattr(competition, "draw", meanwhile)
    if flags:
        with pytest.raises(errors.UserError, match="another --seed"):
            draw(tmp_path / "out")
    else:
        draw(tmp_path / "out")
        assert "kept" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/demo.json").exists()


def test_help_loads_no_heavy_library():
    code = "import sys, demo; print(*{'cv2', 'torch', 'pandas', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME)
    assert done.returncode == 0 and not done.stdout.strip(), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--people", "23"], "--people.* '23' .*24"),
        (["--eval_people", "0"], "--eval_people.* '0' .*1"),
        (["--seed", "-1"], "--seed.* '-1' .*0"),
        (["--label_noise", "1.5"], "--label_noise.* '1.5' .*1"),
        (["--label_noise", "nan"], "--label_noise.* 'nan' "),
        (["--background_bias", "-0.1"], "--background_bias.* '-0.1' .*0"),
        (["--size", "8", "96"], "--size.* '8' .*32"),
    ],
)
def test_wrong_flags_are_named(tmp_path, flags, word):
    with pytest.raises(errors.UserError, match=word):
        demo.main(["--out", str(tmp_path / "out"), *flags])
    assert not any(tmp_path.iterdir())


def test_flags_are_recorded(drawn):
    flags = json.loads((drawn / "demo.json").read_text())
    assert flags == {
        "background_bias": 0.0,
        "eval_people": 3,
        "label_noise": 0.25,
        "people": 24,
        "seed": 0,
        "size": [64, 48],
    }
