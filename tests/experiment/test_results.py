"""What a run leaves: the scores of some folds or all, curves for TensorBoard and wandb."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import macro_f1_sklearn
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import inference
import train
from common.errors import UserError
from experiment.reader import read_run
from labels import CLASS_NAMES, PROBS


def test_one_fold_alone_is_scored_and_predicts_and_the_others_follow(tiny, drawn, tmp_path, capsys):
    words = ["--model_dir", str(tmp_path), "--k_fold", "3", "--epochs", "2"]
    folder = tiny.train(*words, "--fold", "0")
    out = capsys.readouterr().out
    assert out.splitlines()[-1].endswith("; 1 of 3 folds done, missing 1, 2")
    run, folds = read_run(folder), pd.read_csv(folder / "folds.csv", dtype={"person": str})
    assert set(run.oof.person) == set(folds.person[folds.fold == 0]) and run.missing == [1, 2]
    score = macro_f1_sklearn(run.oof.label, run.predictions)
    assert json.loads((folder / "metrics.json").read_text())["macro_f1"] == pytest.approx(score)
    assert f"macro F1 {score:.4f} over {len(run.oof)} photos (1 fold" in out

    base = ["--model_dir", str(folder), "--data_dir", str(drawn / "eval")]
    base += ["--cache_dir", str(tiny.home / "cache"), "--output_dir", str(tmp_path / "out")]
    inference.main(base)
    assert "exp: 1 of 3 folds done, missing 1, 2" in capsys.readouterr().out
    first = (tmp_path / "out/output.csv").read_text()
    inference.main([*base[:2], *base[4:6], "--oof", str(tmp_path / "scored")])
    scored = read_run(tmp_path / "scored")
    assert scored.missing == [1, 2] and scored.oof.image.equals(run.oof.image)

    capsys.readouterr()
    train.main(["--resume", str(folder)])
    assert "missing" not in capsys.readouterr().out
    whole = tiny.train(*words)
    for name in ("oof.csv", "fold2/label/best.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert read_run(folder).missing == []
    inference.main(base)
    assert (tmp_path / "out/output.csv").read_text() != first


class Wandb(SimpleNamespace):
    """A stand-in of the package that keeps what it is given."""

    def __init__(self):
        super().__init__(started=[], logged=[], ended=0, Image=lambda image: image)

    def init(self, **how):
        self.started.append(how)

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.ended += 1


def test_curves_options_and_confusion_for_tensorboard_and_wandb(tiny, tmp_path, monkeypatch):
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    words = ["--split_heads", "--epochs", "2", "--wandb", "masks", "--model_dir", str(tmp_path)]
    folder = tiny.train(*words, "--lr", "1e-2", "age=2e-2")
    logs = pd.read_csv(folder / "fold0/log.csv"), pd.read_csv(folder / "fold0/age/log.csv")
    score = json.loads((folder / "fold0/metrics.json").read_text())["macro_f1"]
    of_wandb = {}
    for values in wandb.logged:
        for name, value in values.items():
            of_wandb.setdefault(name, []).append(value)

    events = EventAccumulator(str(folder / "fold0"), {"images": 0, "tensors": 0}).Reload()
    for name, log in (("18 classes", logs[0]), ("age", logs[1])):
        tag = f"{name}/macro_f1"
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        np.testing.assert_allclose(found, log[["epoch", "macro_f1"]], rtol=1e-6)
        np.testing.assert_allclose(of_wandb[tag], log.macro_f1)
    assert events.Images("fold/confusion")[0].width == 18 * 20
    options = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"0.01 age=0.02" in options
    np.testing.assert_allclose(events.Scalars("fold/macro_f1")[0].value, score)
    [start] = wandb.started
    assert (start["project"], start["name"], wandb.ended) == ("masks", "exp/fold0", 1)
    assert start["config"]["lr"] == "0.01 age=0.02" and of_wandb["fold/macro_f1"] == [score]
    oof = pd.read_csv(folder / "oof.csv")
    [image] = of_wandb["fold/confusion"]
    codes = oof.label, oof[PROBS].to_numpy().argmax(1)
    shares = confusion_matrix(*codes, labels=range(18), normalize="true")
    np.testing.assert_allclose(image[10::20, 10::20], 255 - 255 * shares, atol=1)
    text = events.Tensors("fold/confusion/text_summary")[0].tensor_proto.string_val[0].decode()
    lines = [line.split(" | ") for line in text.splitlines()]
    assert lines[0][1:] == [line[0] for line in lines[2:]] == list(CLASS_NAMES)
    counts = confusion_matrix(*codes, labels=range(18))
    assert [[int(cell) for cell in line[1:]] for line in lines[2:]] == counts.tolist()


def test_without_wandb_the_flag_is_refused_before_a_run_is_made(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="--wandb: install wandb"):
        tiny.train("--wandb", "masks", "--model_dir", str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()
