"""The search: its space, its trials with a played training, and real workers that are killed."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import sqlalchemy

import train
import tune
from common.errors import UserError
from common.files import HOME, locked, read_json
from training.loop import Diverged

TINY = ["--model", "test_efficientnet", "--weights", "none", "--resize", "32", "24"]
LR = {"low": 1e-4, "high": 1e-1, "log": True}


def write_space(path, value):
    path.write_text(json.dumps(value))
    return path


# ---- the search, with a training that is played


@pytest.fixture
def play(drawn, tmp_path, monkeypatch):
    """A function that searches with a played training, whose score of epoch e is e * 100 * lr.

    play.calls are the parsed flags of each run; play.before is called with them.
    """

    def training(words, on_epoch):
        if "--resume" in words:
            folder = Path(words[words.index("--resume") + 1])
            args = train.argparse.Namespace(**read_json(folder / "config.json")["options"])
        else:
            args = train.parse_args(words)
            folder = Path(args.model_dir, args.name)
            folder.mkdir()
            (folder / "folds.csv").write_text("")
            config = {"options": train.experiment.what(args), "layout": "", "data": {}}
            (folder / "config.json").write_text(json.dumps(config))
        search.calls.append(args)
        search.before(args)
        score = 100 * args.lr[""]
        for epoch in range(args.epochs[""]):
            on_epoch(0, epoch, score * (epoch + 1))
        result = {"macro_f1": score * args.epochs[""], "seconds": 1.5}
        (folder / "metrics.json").write_text(json.dumps(result))

    def search(*words, value=None, fixed=()):
        path = write_space(tmp_path / "space.json", value or {"lr": LR})
        words = ["--storage", search.storage, "--space", str(path), *words, "--"]
        places = ["--data_dir", str(drawn / "train"), "--model_dir", str(tmp_path / "runs")]
        return tune.main([*words, *places, "--epochs", "4", *fixed])

    search.calls, search.before = [], lambda args: None
    search.storage = f"sqlite:///{tmp_path}/tune.db"
    search.folder = tmp_path / "runs/tune"
    search.study = lambda: optuna.load_study(study_name="tune", storage=search.storage)
    monkeypatch.setattr(train, "main", training)
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hurry)
    yield search
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", hurry)


def hurry(connection, _):
    """SQLite without waiting for the disk at each commit."""
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA journal_mode=MEMORY")


def states(study):
    return [trial.state.name for trial in study.get_trials()]


def test_search_ends_with_its_trials_table_and_figures(play, capsys):
    play("--trials", "8", "--pruner", "none", value={"lr": LR, "mixup": {"choices": [0, 0.2]}})
    study, said = play.study(), capsys.readouterr().out
    assert states(study) == ["COMPLETE"] * 8
    assert len({args.lr[""] for args in play.calls}) == 8
    best = max(play.calls, key=lambda args: args.lr[""])
    assert f"best macro F1 {400 * best.lr['']:.4f}, of trial {best.name[5:]}" in said
    command = shlex.split(said.strip().splitlines()[-1])
    assert command[:2] == ["python", "train.py"] and "--name" not in command
    again = train.parse_args(command[2:])
    assert (again.lr, again.mixup) == (best.lr, best.mixup)
    theirs = study.trials_dataframe().sort_values("number")
    ours = pd.read_csv(play.folder / "trials.csv")
    np.testing.assert_allclose(ours.macro_f1, theirs.value)
    np.testing.assert_allclose(ours.lr, theirs.params_lr, rtol=1e-5)
    assert (ours.mixup == theirs.params_mixup.astype(float)).all() and (ours.seconds == 1.5).all()
    for name in ("history.png", "importance.png"):
        assert (play.folder / name).read_bytes().startswith(b"\x89PNG")


def test_small_search_says_why_it_has_no_importance(play, capsys):
    play("--trials", "1")
    assert "no importance.png: it takes 5 complete trials" in capsys.readouterr().out
    assert not (play.folder / "importance.png").exists()
    assert (play.folder / "history.png").exists()
    play("--trials", "1")
    assert len(play.calls) == 1  # nothing was left to do


def test_search_in_pieces_is_the_search_at_once(play, monkeypatch, tmp_path):
    for count in ("2", "11", "13"):  # from 10 on, TPE draws from what it knows
        play("--trials", count, "--pruner", "none")
    pieces = [args.lr for args in play.calls]
    play.calls, play.storage = [], f"sqlite:///{tmp_path}/other.db"
    play("--trials", "13", "--pruner", "none", fixed=["--model_dir", str(tmp_path / "other")])
    assert [args.lr for args in play.calls] == pieces
    assert len({str(lr) for lr in pieces}) == 13


def test_hopeless_trials_are_pruned(play):
    play("--trials", "20")
    study = play.study()
    found = {name: [t for t in study.trials if t.state.name == name] for name in states(study)}
    assert set(found) == {"COMPLETE", "PRUNED"}
    for trial in found["PRUNED"]:
        others = [t.intermediate_values for t in found["COMPLETE"] if t.number < trial.number]
        step = max(trial.intermediate_values)
        assert 1 <= step < 4 and len(others) >= tune.STARTUP
        assert trial.intermediate_values[step] < np.median([values[step] for values in others])
    ours = pd.read_csv(play.folder / "trials.csv").set_index("state")
    assert ours.macro_f1.loc["pruned"].isna().all()


def test_steps_are_shares_of_the_epochs(tmp_path):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    args = train.parse_args(["--split_heads", "--k_fold", "2", "--epochs", "2", "age=4"])
    search = tune.Search(study, None, [], [], tmp_path, 12)
    trial = study.ask()
    for epoch in range(4):
        tune.look(search, trial, tmp_path, args, 0, epoch, float(epoch))
    (tmp_path / "fold0").mkdir()
    (tmp_path / "fold0/metrics.json").write_text('{"macro_f1": 5.0}')
    tune.look(search, trial, tmp_path, args, 1, 0, 7.0)
    tune.look(search, trial, tmp_path, args, 1, 2, 9.0)  # epoch 1 was lost with a kill
    expected = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 6, 6, 6, *[7] * 6]
    values = study.trials[0].intermediate_values
    assert values == dict(enumerate(expected, 1))


def test_failed_trials_are_counted_and_the_search_goes_on(play, capsys):
    def diverges(args):
        if len(play.calls) == 2:
            raise Diverged("the loss is nan")

    play.before = diverges
    value = {"lr": LR, "mixup": {"choices": [0, 0.2]}}
    play("--trials", "8", "--pruner", "none", value=value, fixed=["--cutmix"])
    study = play.study()
    clash = [t.params["mixup"] == "0.2" for t in study.trials]
    assert any(clash) and not all(clash)
    assert states(study).count("FAIL") == sum(clash) + 1
    assert states(study).count("COMPLETE") == 8 - sum(clash) - 1
    errors = [t.user_attrs["error"] for t in study.trials if t.state.name == "FAIL"]
    assert "the loss is nan" in errors and len(set(errors)) == 2
    assert "failed: --mixup and --cutmix exclude each other" in capsys.readouterr().out


def test_error_of_every_trial_stops_the_first_which_then_goes_on(play):
    def unreadable(args):
        raise UserError("photo.jpg is unreadable")

    play.before = unreadable
    with pytest.raises(UserError, match="unreadable"):
        play("--trials", "3")
    assert states(play.study()) == ["RUNNING"]
    play.before = lambda args: None
    play("--trials", "3")
    assert states(play.study()) == ["COMPLETE"] * 3
    assert play.calls[0].lr == play.calls[1].lr


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
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert states(play.study()) == ["COMPLETE", "COMPLETE", "RUNNING"]
    command = shlex.split(said.split("goes on with: ")[1])
    assert command[:2] == ["python", "tune.py"]
    tune.main(command[2:])
    assert states(play.study()) == ["COMPLETE"] * 4


def test_trial_of_a_living_worker_is_left_alone(play):
    def interrupt(args):
        raise KeyboardInterrupt

    play.before = interrupt
    with pytest.raises(SystemExit):
        play("--trials", "3")
    play.before = lambda args: None
    with locked(play.folder / ".trial0.lock", wait=False) as free:
        assert free
        play("--trials", "3")
        assert states(play.study()) == ["RUNNING", "COMPLETE", "COMPLETE"]
    play("--trials", "3")
    assert states(play.study()) == ["COMPLETE"] * 3


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ((), {"fixed": ["--bg", "grabcut"]}, "has another --bg after --"),
        ((), {"fixed": ["--seed", "1"]}, "has another --seed after --"),
        (("--seed", "1"), {}, "has the --seed 0"),
        ((), {"value": {"lr": LR | {"high": 1.0}}}, 'another space ("lr" differs)'),
    ],
)
def test_another_plan_is_refused(play, words, options, message):
    play("--trials", "1")
    with pytest.raises(UserError) as caught:
        play("--trials", "2", *words, **options)
    assert message in str(caught.value) and "--study" in str(caught.value)
    play("--trials", "2", fixed=["--device", "cpu"])  # says where, not what
    assert states(play.study()) == ["COMPLETE"] * 2


def test_other_labels_and_foreign_studies_are_refused(play, drawn, tmp_path):
    play("--trials", "1")
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(drawn / "train/images")
    table = pd.read_csv(drawn / "train/train.csv", dtype=str)
    table.assign(age=["19", *table.age[1:]]).to_csv(data / "train.csv", index=False)
    with pytest.raises(UserError, match="other photos, labels"):
        play("--trials", "2", fixed=["--data_dir", str(data)])
    study = optuna.create_study(storage=play.storage, study_name="theirs")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(UserError, match=r"not one of tune\.py"):
        play("--trials", "2", "--study", "theirs")


def test_folder_of_another_run_is_not_overwritten(play):
    play("--trials", "1")
    Path(play.storage.removeprefix("sqlite:///")).unlink()
    with pytest.raises(UserError, match="trial0 is a run of something else"):
        play("--trials", "1", fixed=["--seed", "1"])


@pytest.mark.parametrize(
    ("words", "fixed", "message"),
    [
        ((), ["--name", "x"], "--name after --"),
        ((), ["--resume", "x"], "x has no config.json"),
        ((), ["--fold=0"], "--fold after --"),
        ((), ["--val_ratio", "0"], "--val_ratio 0 after --"),
        ((), ["--lr", "fast"], "'fast' is no float"),
        ((), ["--fast"], "unrecognized arguments: --fast"),
        ((), ["--data_dir", "nowhere"], "nowhere is no folder"),
        ((), ["--device", "abacus"], "--device abacus"),
        (("--storage", "mysqlite:x"), [], "--storage mysqlite:x"),
        (("--storage", "sqlite:////nowhere/tune.db"), [], "--storage sqlite:////nowhere"),
        (("--study", "../x"), [], "--study ../x"),
        (("--space", "nowhere.json"), [], r"nowhere.json does not exist"),
    ],
)
def test_wrong_words_are_refused_before_any_training(play, words, fixed, message):
    value = {"weight_decay": {"low": 0, "high": 1}}
    with pytest.raises(UserError) as caught:
        play("--trials", "1", *words, fixed=fixed, value=value)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not play.calls and not Path(play.storage.removeprefix("sqlite:///")).exists()


# ---- real training


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


def test_killed_workers_lose_nothing(drawn, tmp_path, capsys):
    """Two workers are killed at their work; a third ends the search, to the same scores."""
    path = write_space(tmp_path / "space.json", {"lr": LR, "drop_rate": {"low": 0, "high": 0.5}})
    storage = f"sqlite:///{tmp_path}/tune.db"
    words = [
        "--trials",
        "1000",
        "--storage",
        storage,
        "--space",
        str(path),
        "--pruner",
        "none",
        "--",
    ]
    words += ["--data_dir", str(drawn / "train"), "--cache_dir", str(tmp_path / "cache"), *TINY]
    words += ["--model_dir", str(tmp_path / "runs"), "--epochs", "3", "--k_fold", "2"]
    command = [sys.executable, "tune.py", *words]
    out = (tmp_path / "log").open("w")
    workers = [subprocess.Popen(command, cwd=HOME, stdout=out, stderr=out) for _ in range(2)]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # until both train, and at least one has ended a trial
        done = [list((tmp_path / "runs/tune").glob(f"trial*/{n}")) for n in ("m*.json", "fold*")]
        running = {path.parent for path in done[1]} - {path.parent for path in done[0]}
        if len(done[0]) >= 1 and len(running) == 2:
            break
        assert all(worker.poll() is None for worker in workers), (tmp_path / "log").read_text()
        time.sleep(0.01)
    for worker in workers:
        worker.kill()
        worker.wait()
    out.close()
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
