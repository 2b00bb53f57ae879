"""Which epoch is kept and scored: the best on the people held out, or the last."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score

import train
from training import checkpoint

PROBS = [f"p{i}" for i in range(18)]
LAYOUTS = {"joint": ["label"], "split": ["mask", "gender", "age"]}


@pytest.fixture(scope="module", params=LAYOUTS)
def runs(drawn, tmp_path_factory, request):
    """(tasks, {"best", "last": run folder}) of one configuration; its scores go up and down."""
    home = tmp_path_factory.mktemp("keep")
    words = ["--data_dir", drawn / "train", "--model_dir", home / "runs", "--cache_dir", home]
    words += ["--model", "test_efficientnet", "--weights", "none", "--resize", "32", "24"]
    words += ["--k_fold", "2", "--epochs", "4", "--lr", "0.02", "--scheduler", "none"]
    words += ["--split_heads"] if request.param == "split" else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "forget_states", lambda place: None)
        folders = {
            keep: train.main([*map(str, words), "--name", keep, "--keep", keep])
            for keep in ("best", "last")
        }
    return LAYOUTS[request.param], folders


def read(path):
    return json.loads(path.read_text())


def test_the_last_epoch_is_kept_whatever_its_score(runs):
    tasks, folders = runs
    worse = 0
    for fold in ("fold0", "fold1"):
        for task in tasks:
            best, last = (folders[keep] / fold / task for keep in ("best", "last"))
            logs = [pd.read_csv(place / "log.csv").macro_f1.tolist() for place in (best, last)]
            assert logs[0] == logs[1]  # the choice is none of training's business
            assert read(best / "best.json")["epoch"] == 1 + logs[0].index(max(logs[0]))
            assert read(last / "best.json")["epoch"] == 4
            worse += logs[0][-1] < max(logs[0])
            state = torch.load(last / "last.pt", weights_only=True)["model"]
            kept = load_file(last / "best.safetensors")
            assert all(torch.equal(value, state[name]) for name, value in kept.items())
    assert worse  # else the two runs are the same, and this test shows nothing


def test_a_run_says_what_its_last_epochs_would_have_scored(runs, capsys):
    _, folders = runs
    results = {keep: read(folder / "metrics.json") for keep, folder in folders.items()}
    oof = pd.read_csv(folders["last"] / "oof.csv")
    answers = oof[PROBS].to_numpy().argmax(1)
    theirs = f1_score(oof.label, answers, labels=range(18), average="macro", zero_division=0)
    assert results["last"]["macro_f1"] == pytest.approx(theirs)
    for result in results.values():
        assert result["last_epoch"]["macro_f1"] == pytest.approx(theirs)
    assert results["best"]["macro_f1"] != pytest.approx(theirs)
    train.main(["--resume", str(folders["best"])])
    assert f"(2 folds; last epoch {theirs:.4f})" in capsys.readouterr().out
