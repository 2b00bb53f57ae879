import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

import demo
import preprocess
from background import review
from common.errors import UserError

COMMAND = Path(preprocess.__file__).resolve()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "demo"
    demo.main(["--out", str(out), "--people", "24", "--eval_people", "3", "--size", "256", "192"])
    return out


def contents(folder, pattern="*"):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_train_eval_and_plain_folders(drawn, tmp_path, capsys):
    before = contents(drawn / "train/images"), contents(drawn / "eval/images")
    flags = ["--bg", "grabcut", "--limit", "84"]  # 12 people
    preprocess.main(["--data_dir", str(drawn / "train"), *flags])
    preprocess.main(["--data_dir", str(drawn / "eval/images"), "--bg", "grabcut"])
    assert (contents(drawn / "train/images"), contents(drawn / "eval/images")) == before
    out = capsys.readouterr().out
    assert "grabcut: 84 mattes made, 0 kept, 0 rejected" in out and "mean foreground" in out
    truths = sorted(contents(drawn / "mattes_true/train", "*.png"))[:84]
    assert sorted(contents(drawn / "train/mattes/grabcut", "*.png")) == truths
    some = truths[0]
    made = read(drawn / "train/mattes/grabcut" / some)
    assert made.dtype == np.uint8 and made.shape == read(drawn / "mattes_true/train" / some).shape
    assert len(contents(drawn / "eval/mattes/grabcut", "*.png")) == 21
    preview = read(drawn / "train/mattes/preview.png")
    assert preview.shape == (6 * 192, 2 * 2 * 144, 3)
    plain = tmp_path / "holiday"
    plain.mkdir()
    photo = next((drawn / "eval/images").glob("[!.]*.jpg"))
    (plain / "me.JPG").write_bytes(photo.read_bytes())
    preprocess.main(["--data_dir", str(plain), "--bg", "grabcut"])
    twin = drawn / "eval/mattes/grabcut" / f"{photo.stem}.png"
    assert (tmp_path / "holiday_mattes/grabcut/me.png").read_bytes() == twin.read_bytes()


def test_all_methods_and_scores(drawn, tmp_path, capsys):
    truth = drawn / "mattes_true/train"
    flags = ["--data_dir", str(drawn / "train"), "--matte_dir", str(tmp_path), "--limit", "4"]
    methods = ["grabcut", "rembg", "rembg_grabcut"]
    preprocess.main([*flags, "--bg", *methods, "--score", str(truth)])
    rows = capsys.readouterr().out.splitlines()[-3:]
    assert read(tmp_path / "preview.png").shape == (2 * 192, 2 * 4 * 144, 3)
    for row, method in zip(rows, methods, strict=True):
        made = contents(tmp_path / method, "*.png")
        assert len(made) == 4
        pairs = [(read(tmp_path / method / name), read(truth / name)) for name in made]
        ious = [jaccard_score(t.ravel() >= 128, m.ravel() >= 128) for m, t in pairs]
        name, photos, mean, median, low, _ = row.split()
        assert (name, photos) == (method, "4")
        expected = np.mean(ious), np.median(ious), np.percentile(ious, 5)
        assert (float(mean), float(median), float(low)) == pytest.approx(expected, abs=6e-4)


def test_killed_and_resumed_gives_the_same_bytes(drawn, tmp_path):
    def command(out):
        flags = [
            "--data_dir",
            drawn / "train",
            "--matte_dir",
            out,
            "--bg",
            "grabcut",
            "--limit",
            70,
        ]
        return [sys.executable, str(COMMAND), *map(str, flags)]

    black = drawn / "train/images"
    black = next(path for path in sorted(black.rglob("mask5.*")) if path.name[0] != ".")
    kept = black.read_bytes()
    cv2.imwrite(str(black), np.zeros((64, 48, 3), np.uint8))  # so that one matte is rejected
    try:
        killed, whole = tmp_path / "killed", tmp_path / "whole"
        process = subprocess.Popen(
            command(killed), stdout=subprocess.DEVNULL, start_new_session=True
        )
        while len(list(killed.rglob("[!.]*.png"))) < 15:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = contents(killed / "grabcut", "[!.]*.png")
        assert 15 <= len(done) < 70
        assert all(cv2.imdecode(np.frombuffer(d, np.uint8), 0) is not None for d in done.values())
        subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL)
        preprocess.main(command(whole)[2:])
    finally:
        black.write_bytes(kept)
    assert contents(killed) == contents(whole)
    assert len(contents(whole, "*.png")) == 70 + 1
    assert (whole / "grabcut/rejected.csv").read_text().count("blank") == 1


def brute_boundary_f(made, truth, reach):
    """By its definition: each boundary pixel looks for one of the other mask within reach."""

    def edge(mask):
        return [
            (y, x)
            for y, x in np.argwhere(mask)
            if not mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].all()
        ]

    def near(some, others):
        return np.mean([min(np.hypot(y - v, x - u) for v, u in others) <= reach for y, x in some])

    a, b = edge(made), edge(truth)
    precision, recall = near(a, b), near(b, a)
    return 2 * precision * recall / (precision + recall)


def test_boundary_f_is_its_definition():
    y, x = np.mgrid[0:120, 0:120]
    truth = np.hypot(y - 70, x - 50) < 40
    made = np.hypot(y - 70, x - 54) < 38
    reach = round(0.0075 * np.hypot(120, 120))
    ours = review.boundary_f(made, truth)
    assert 0.1 < ours < 0.9
    assert ours == pytest.approx(brute_boundary_f(made, truth, reach), abs=1e-6)
    assert review.boundary_f(truth, truth) == 1
    assert review.boundary_f(np.zeros_like(truth), truth) == 0
    assert review.iou(np.zeros_like(truth), np.zeros_like(truth)) == 1


def test_wrong_input(drawn, tmp_path):
    flags = ["--data_dir", str(drawn / "train")]
    for wrong, words in (
        (["--bg", "grabcat"], "none of grabcut rembg rembg_grabcut"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--device", "tpu"], "give auto, cpu or cuda"),
    ):
        with pytest.raises(UserError, match=words):
            preprocess.main([*flags, *wrong])
    with pytest.raises(UserError, match="has no mask of any photo"):
        preprocess.main([*flags, "--score", str(tmp_path)])
    assert not (tmp_path / "rembg_grabcut").exists()
    with pytest.raises(UserError, match="empty"):
        preprocess.main(["--data_dir", str(tmp_path / "empty")])
