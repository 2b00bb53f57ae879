"""The state of a task: the epoch that is kept, and a kill before the state is written."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import options
from common import devices
from common.errors import UserError
from training import task as tasks
from training.run import make_tasks, open_run


@pytest.fixture
def task(drawn, tmp_path):
    """A fresh task of a hold-out run of four epochs."""
    words = ["--data_dir", str(drawn / "train"), "--model_dir", str(tmp_path), "--epochs", "4"]
    words += ["--cache_dir", str(tmp_path / "cache"), "--model", "test_efficientnet"]
    words += ["--weights", "none", "--resize", "32", "24", "--lr", "0.01"]
    run = open_run(options.parse_args(words), devices.pick_device("cpu"))
    run.data[1] = run.data[0]

    def make(fold=0):
        return make_tasks(run, fold)[0]

    return make


def train_on(task, epochs, scores, monkeypatch):
    """Runs epochs whose scores are dictated; returns the weights after each."""
    weights = []
    left = iter(scores)
    monkeypatch.setattr(tasks, "macro_f1", lambda *_: next(left))
    for _ in range(epochs):
        task.run_epoch()
        weights.append({key: value.clone() for key, value in task.model.state_dict().items()})
    return weights


def test_killed_before_the_state_is_written_it_ends_the_same(task, monkeypatch):
    scores = [0.3, 0.5, 0.7, 0.4]
    one = task()
    train_on(one, 4, scores, monkeypatch)
    expected = load_file(one.folder / "best.safetensors")
    shutil.rmtree(one.folder)

    two = task()
    train_on(two, 2, scores, monkeypatch)
    before = (two.folder / "last.pt").read_bytes()
    train_on(two, 1, scores[2:], monkeypatch)
    (two.folder / "last.pt").write_bytes(before)  # as if killed after the weights were kept
    three = task()
    assert three.epoch == 2
    train_on(three, 2, scores[2:], monkeypatch)
    found = load_file(three.folder / "best.safetensors")
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert three.best["epoch"] == 3
    np.testing.assert_array_equal(three.best["probs"]["label"], one.best["probs"]["label"])


def test_equal_scores_keep_the_earlier_epoch(task, monkeypatch):
    one = task()
    weights = train_on(one, 3, [0.5, 0.7, 0.7], monkeypatch)
    assert one.best["epoch"] == 2 and one.best["score"] == 0.7
    kept = load_file(one.folder / "best.safetensors")
    assert all(torch.equal(value, weights[1][key]) for key, value in kept.items())


def test_the_state_of_another_fold_is_refused(task, monkeypatch):
    one = task()
    train_on(one, 1, [0.3], monkeypatch)
    assert task().epoch == 1
    shutil.copytree(one.folder, one.folder.parents[1] / "fold1/label")
    with pytest.raises(UserError, match=r"fold1/label/last\.pt is damaged or of another model"):
        task(fold=1)
    one.data.train = one.data.train[1:]  # one photo more could be read then
    with pytest.raises(UserError, match=r"last\.pt is damaged or of another model, other photos"):
        task()


def test_a_plateau_and_an_early_stop_go_by_the_scores(task, monkeypatch):
    one = task()
    one.options = one.options | {"scheduler": "plateau", "warmup_epochs": 0, "lr_patience": 1}
    one.options |= {"early_stop": 2, "epochs": 9}
    for score, stops, rate in (0.5, False, 1), (0.6, False, 1), (0.6, False, 1), (0.4, True, 0.5):
        train_on(one, 1, [score], monkeypatch)
        assert one.finished == stops and one.history[-1]["lr"] == pytest.approx(0.01 * rate)
    assert one.best["epoch"] == 2
