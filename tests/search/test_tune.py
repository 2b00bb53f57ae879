"""The command: its flags, Ctrl-C, and real workers that are killed."""

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from launch import Command

import train
import tune
from common.errors import UserError
from common.files import read_json

TINY = ["--model", "test_efficientnet", "--weights", "none", "--resize", "32", "24"]
LR = {"low": 1e-4, "high": 1e-1, "log": True}


@pytest.mark.parametrize("in_training", [True, False])
def test_ctrl_c_stops_and_says_how_to_go_on(play, capsys, in_training, request):
    # A job in the background of a script is started with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupt(args):
        if len(play.calls) == 3:
            if in_training:
                sys.exit(130)  # as train.main does
            os.kill(os.getpid(), signal.SIGINT)

    play.before = interrupt
    with pytest.raises(SystemExit) as caught:
        play("--trials", "4", "--pruner", "none")
    assert caught.value.code == 130
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert play.states() == ["COMPLETE", "COMPLETE", "RUNNING"]
    command = shlex.split(said.split("go on with: ")[1])
    assert command[:2] == ["python", "tune.py"]
    tune.main(command[2:])
    assert play.states() == ["COMPLETE"] * 4


@pytest.mark.parametrize(
    ("words", "fixed", "message"),
    [
        ((), ["--name", "x"], "--name after --"),
        ((), ["--resume", "x"], "--resume after --"),
        ((), ["--fold=0"], "--fold after --"),
        ((), ["--k_fold", "2", "--workers", "2"], "--workers after --"),
        ((), ["--val_ratio", "0"], "--val_ratio 0 after --"),
        ((), ["--lr", "fast"], "'fast' is not a number"),
        ((), ["--fast"], "unrecognized arguments: --fast"),
        ((), ["--data_dir", "nowhere"], "nowhere is not a folder"),
        ((), ["--device", "abacus"], "--device abacus"),
        (("--storage", "mysqlite:x"), [], "--storage mysqlite:x"),
        (("--storage", "sqlite:////nowhere/tune.db"), [], "--storage sqlite:////nowhere"),
        (("--study", "../x"), [], "--study: '../x' is not the name of a folder"),
        (("--space", "nowhere.json"), [], r"nowhere.json does not exist"),
    ],
)
def test_wrong_words_are_refused_before_any_training(play, words, fixed, message):
    value = {"weight_decay": {"low": 0, "high": 1}}
    with pytest.raises(UserError) as caught:
        play("--trials", "1", *words, fixed=fixed, value=value)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not play.calls and not Path(play.storage.removeprefix("sqlite:///")).exists()


def test_hook_may_stop_a_run_that_then_resumes(drawn, tmp_path):
    words = ["--data_dir", str(drawn / "train"), "--cache_dir", str(tmp_path / "cache"), *TINY]
    words += ["--model_dir", str(tmp_path), "--epochs", "2", "--split_heads", "--k_fold", "2"]
    seen = []

    def stop(fold, epoch, score):
        seen.append((fold, epoch, score))
        if (fold, epoch) == (1, 0):
            raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        train.main([*words, "--name", "stopped"], stop)
    folder = tmp_path / "stopped"
    assert len(pd.read_csv(folder / "fold1/log.csv")) == 1
    train.main(["--resume", str(folder)], lambda *told: seen.append(told))
    assert [told[:2] for told in seen] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    logs = [pd.read_csv(folder / f"fold{fold}/log.csv").macro_f1 for fold in range(2)]
    np.testing.assert_allclose([told[2] for told in seen], np.concatenate(logs))
    whole = train.main([*words, "--name", "whole"])
    assert (whole / "oof.csv").read_bytes() == (folder / "oof.csv").read_bytes()


def test_folder_of_another_run_is_not_overwritten(drawn, tmp_path, space_file):
    words = ["--trials", "1", "--space", str(space_file({"lr": LR})), "--storage"]
    fixed = ["--data_dir", str(drawn / "train"), "--cache_dir", str(tmp_path / "cache"), *TINY]
    fixed += ["--model_dir", str(tmp_path), "--epochs", "1"]
    tune.main([*words, f"sqlite:///{tmp_path}/one.db", "--", *fixed])
    files = {path: path.read_bytes() for path in (tmp_path / "tune/trial0").glob("*.*")}
    with pytest.raises(
        UserError, match="trial0 is a run with another --seed: choose another --name"
    ):
        tune.main([*words, f"sqlite:///{tmp_path}/two.db", "--", *fixed, "--seed", "1"])
    assert all(path.read_bytes() == content for path, content in files.items()) and len(files) > 3


def test_killed_workers_lose_nothing(drawn, tmp_path, capsys, space_file):
    """Two workers are killed at their work; a third ends the search, to the same scores."""
    path = space_file({"lr": LR, "drop_rate": {"low": 0, "high": 0.5}})
    storage = f"sqlite:///{tmp_path}/tune.db"
    words = ["--trials", "1000", "--storage", storage, "--space", str(path), "--pruner", "none"]
    words += ["--", "--data_dir", str(drawn / "train"), "--cache_dir", str(tmp_path / "c"), *TINY]
    words += ["--model_dir", str(tmp_path / "runs"), "--epochs", "2", "--k_fold", "2"]
    workers = [Command(tmp_path, "tune", *words) for _ in range(2)]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # until both train, and at least one has ended a trial
        done = [list((tmp_path / "runs/tune").glob(f"trial*/{n}")) for n in ("m*.json", "fold*")]
        running = {path.parent for path in done[1]} - {path.parent for path in done[0]}
        if len(done[0]) >= 1 and len(running) == 2:
            break
        assert all(worker.running() for worker in workers), [w.told() for w in workers]
        time.sleep(0.01)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    study = optuna.load_study(study_name="tune", storage=storage)
    before = {t.number: t for t in study.get_trials()}
    left = [n for n, t in before.items() if t.state.name == "RUNNING"]
    assert left and len(before) >= 3
    count = len(before) + 1
    tune.main(["--trials", str(count), *words[2:]])
    after = study.get_trials()
    assert [t.state.name for t in after] == ["COMPLETE"] * count
    assert len({t.params["lr"] for t in after}) == count
    assert all(after[n].params == t.params for n, t in before.items())
    runs = {path.name for path in (tmp_path / "runs/tune").glob("trial?*") if path.is_dir()}
    assert runs == {f"trial{n}" for n in range(count)}
    command = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    best = study.best_trial
    for trial in (best, after[left[0]]):
        flags = []
        for name, value in trial.params.items():
            flags += [f"--{name}", f"{value:.6g}"]
        if trial is best:
            assert command[-len(flags) :] == flags
        again = train.main([*command[2 : -len(flags)], *flags])
        first = tmp_path / "runs/tune" / f"trial{trial.number}"
        assert (again / "oof.csv").read_bytes() == (first / "oof.csv").read_bytes(), trial.number
        assert read_json(again / "metrics.json")["macro_f1"] == trial.value
