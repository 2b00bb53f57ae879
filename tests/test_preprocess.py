import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from launch import Command, run_two
from sklearn.metrics import jaccard_score

import demo
import preprocess
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
    assert preview.shape == (2 * 192, 12 * 144, 3)
    plain = tmp_path / "holiday"
    plain.mkdir()
    photo = next((drawn / "eval/images").glob("[!.]*.jpg"))
    (plain / "me.JPG").write_bytes(photo.read_bytes())
    preprocess.main(["--data_dir", str(plain), "--bg", "grabcut"])
    same = drawn / "eval/mattes/grabcut" / f"{photo.stem}.png"
    assert (tmp_path / "holiday_mattes/grabcut/me.png").read_bytes() == same.read_bytes()


def test_all_methods_and_scores(drawn, tmp_path, capsys):
    truth = drawn / "mattes_true/train"
    flags = ["--data_dir", str(drawn / "train"), "--matte_dir", str(tmp_path), "--limit", "4"]
    methods = ["grabcut", "rembg", "rembg_grabcut"]
    preprocess.main([*flags, "--bg", *methods, "--score", str(truth)])
    rows = capsys.readouterr().out.splitlines()[-3:]
    assert read(tmp_path / "preview.png").shape == (4 * 192, 4 * 144, 3)
    for row, method in zip(rows, methods, strict=True):
        made = contents(tmp_path / method, "*.png")
        assert len(made) == 4
        pairs = [(read(tmp_path / method / name), read(truth / name)) for name in made]
        ious = [jaccard_score(t.ravel() >= 128, m.ravel() >= 128) for m, t in pairs]
        name, photos, mean, median, low, _ = row.split()
        assert (name, photos) == (method, "4")
        expected = np.mean(ious), np.median(ious), np.percentile(ious, 5)
        assert (float(mean), float(median), float(low)) == pytest.approx(expected, abs=6e-4)


def test_two_processes_make_the_same_mattes_and_one_preview_of_all(drawn, tmp_path, capsys):
    flags = ["--data_dir", drawn / "train", "--bg", "grabcut", "--limit", "20"]
    flags = [*map(str, flags), "--score", str(drawn / "mattes_true/train"), "--matte_dir"]
    preprocess.main([*flags, str(tmp_path / "one")])
    score = capsys.readouterr().out.splitlines()[-1]
    found = run_two(tmp_path, "preprocess", *flags, tmp_path / "two")
    (code, output, error), (other, *quiet) = found
    assert code == other == 0 and quiet == ["", ""], error
    assert "grabcut: 10 mattes made" in output and output.count(score) == 1
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert len(one) == 20 + 3 + 2 and one == two  # the list of the digests of photos, and its lock


def test_help_and_wrong_flags_answer_without_heavy_imports():
    code = "import sys, preprocess; preprocess.parse_args([]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=COMMAND.parent, stdout=subprocess.PIPE
    )
    assert not {"torch", "cv2", "pandas", "onnxruntime"} & set(done.stdout.decode().split())


def test_defaults_are_shown_once(capsys):
    with pytest.raises(SystemExit):
        preprocess.parse_args(["--help"])
    shown = capsys.readouterr().out
    assert "None" not in shown and shown.count("(default:") == 10


def test_killed_and_resumed_gives_the_same_bytes(drawn, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    flags = ["--data_dir", drawn / "train", "--bg", "grabcut", "--limit", "70", "--matte_dir"]
    black = drawn / "train/images"
    black = next(path for path in sorted(black.rglob("mask5.*")) if path.name[0] != ".")
    kept = black.read_bytes()
    cv2.imwrite(str(black), np.zeros((64, 48, 3), np.uint8))  # so that one matte is rejected
    try:
        command = Command(tmp_path, "preprocess", *flags, killed)
        while len(list(killed.rglob("[!.]*.png"))) < 15:
            assert command.running(), "it ended before it could be killed"
            time.sleep(0.01)
        os.killpg(command.pid, signal.SIGKILL)
        command.wait()
        done = contents(killed / "grabcut", "[!.]*.png")
        assert 15 <= len(done) < 70
        assert all(cv2.imdecode(np.frombuffer(d, np.uint8), 0) is not None for d in done.values())
        for folder in killed, whole:
            preprocess.main([str(word) for word in [*flags, folder]])
    finally:
        black.write_bytes(kept)
    assert contents(killed) == contents(whole)
    assert len(contents(whole, "*.png")) == 70 + 1
    assert (whole / "grabcut/rejected.csv").read_text().count("blank") == 1


def test_wrong_input(drawn, tmp_path):
    flags = ["--data_dir", str(drawn / "train")]
    for wrong, words in (
        (["--bg", "grabcat"], "not one of grabcut, rembg, rembg_grabcut"),
        (["--limit", "0"], "--limit: '0' is not a whole number"),
        (["--device", "tpu"], "give auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:x"], "give auto, cpu, cuda or cuda:N"),
    ):
        with pytest.raises(UserError, match=words):
            preprocess.main([*flags, *wrong])
    with pytest.raises(UserError, match="has no mask of any photo"):
        preprocess.main([*flags, "--score", str(tmp_path)])
    assert not (tmp_path / "rembg_grabcut").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^--matte_dir .*file: is not a folder"):
        preprocess.main([*flags, "--matte_dir", str(tmp_path / "file")])
    masks = sorted(path.relative_to(drawn) for path in drawn.glob("mattes_true/train/*/*.png"))[:1]
    (tmp_path / "masks" / masks[0].parent.name).mkdir(parents=True)
    (tmp_path / "masks" / masks[0].parent.name / masks[0].name).touch()
    flags += ["--matte_dir", str(tmp_path / "mattes"), "--bg", "grabcut", "--limit", "1"]
    with pytest.raises(UserError, match="png: is not a readable image"):
        preprocess.main([*flags, "--score", str(tmp_path / "masks")])
    cv2.imwrite(str(tmp_path / "masks" / masks[0].parent.name / masks[0].name),
                cv2.imread(str(drawn / masks[0]), 0) // 255)  # fmt: skip
    with pytest.raises(UserError, match="png: its values go to 1; 255 is the person"):
        preprocess.main([*flags, "--score", str(tmp_path / "masks")])
    with pytest.raises(UserError, match="empty"):
        preprocess.main(["--data_dir", str(tmp_path / "empty")])
