"""The study: which trial runs next, how it ends, and what another plan is."""

import numpy as np
import optuna
import pandas as pd
import pytest

from common.errors import UserError
from common.files import locked
from options import parse_args, tasks_of
from search.study import STARTUP, Search, report_epoch
from training.loop import Diverged
from training.run import check_models

LR = {"low": 1e-4, "high": 1e-1, "log": True}


def test_search_in_pieces_is_the_search_at_once(play, monkeypatch, tmp_path):
    for count in ("2", "11", "13"):  # from 10 on, TPE draws from what it knows
        play("--trials", count, "--pruner", "none")
    pieces = [args.lr for args in play.calls]
    play.calls, play.storage = [], f"sqlite:///{tmp_path}/other.db"
    play("--trials", "13", "--pruner", "none", fixed=["--model_dir", str(tmp_path / "other")])
    assert [args.lr for args in play.calls] == pieces
    assert len({str(lr) for lr in pieces}) == 13


def test_a_trial_that_was_stopped_between_two_values_draws_the_other_as_it_would_have(
    play, tmp_path, monkeypatch
):
    value = {"lr": LR, "mixup": {"low": 0.0, "high": 0.5}}
    play("--trials", "2", "--pruner", "none", value=value)
    whole = [(args.lr, args.mixup) for args in play.calls]
    for stop in (0, 1, 2):  # values before the stop
        play.calls, play.storage = [], f"sqlite:///{tmp_path}/other{stop}.db"
        how = {"value": value, "fixed": ["--model_dir", str(tmp_path / f"other{stop}")]}
        left, suggest = iter(range(stop)), optuna.Trial.suggest_float

        def stopped(trial, *words, left=left, suggest=suggest, **more):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return suggest(trial, *words, **more)

        with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
            patch.setattr(optuna.Trial, "suggest_float", stopped)
            play("--trials", "2", "--pruner", "none", **how)
        play("--trials", "2", "--pruner", "none", **how)
        assert [(args.lr, args.mixup) for args in play.calls][-2:] == whole


def test_hopeless_trials_are_pruned(play):
    play("--trials", "20")
    study = play.study()
    found = {name: [t for t in study.trials if t.state.name == name] for name in play.states()}
    assert set(found) == {"COMPLETE", "PRUNED"}
    for trial in found["PRUNED"]:
        others = [t.intermediate_values for t in found["COMPLETE"] if t.number < trial.number]
        step = max(trial.intermediate_values)
        assert 1 <= step < 4 and len(others) >= STARTUP
        assert trial.intermediate_values[step] < np.median([values[step] for values in others])
    ours = pd.read_csv(play.folder / "trials.csv").set_index("state")
    assert ours.macro_f1.loc["pruned"].isna().all()


def test_steps_are_shares_of_the_epochs(tmp_path):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    places = ["--model_dir", str(tmp_path), "--name", "run"]
    args = parse_args([*places, "--split_heads", "--k_fold", "2", "--epochs", "2", "age=4"])
    search = Search(study, None, [], {}, tmp_path, 12, None)
    trial = study.ask()
    for epoch in range(4):
        report_epoch(search, trial, args, 0, epoch, float(epoch))
    (tmp_path / "run/fold0").mkdir(parents=True)
    (tmp_path / "run/fold0/metrics.json").write_text('{"macro_f1": 5.0}')
    report_epoch(search, trial, args, 1, 0, 7.0)
    report_epoch(search, trial, args, 1, 2, 9.0)  # epoch 1 was lost with a kill
    expected = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 6, 6, 6, *[7] * 6]
    values = study.trials[0].intermediate_values
    assert values == dict(enumerate(expected, 1))


def test_failed_trials_are_counted_and_the_search_goes_on(play, capsys):
    def diverges(args):
        if len(play.calls) == 2:
            raise Diverged("fold 0", "the loss is nan")

    play.before = diverges
    value = {"lr": LR, "mixup": {"choices": [0, 0.2]}}
    play("--trials", "8", "--pruner", "none", value=value, fixed=["--cutmix"])
    study = play.study()
    clash = [t.params["mixup"] == "0.2" for t in study.trials]
    assert any(clash) and not all(clash)
    assert play.states().count("FAIL") == sum(clash) + 1
    assert play.states().count("COMPLETE") == 8 - sum(clash) - 1
    errors = [t.user_attrs["error"] for t in study.trials if t.state.name == "FAIL"]
    assert sum("the loss is nan" in error for error in errors) == 1 and len(set(errors)) == 2
    assert "failed: --mixup and --cutmix exclude each other" in capsys.readouterr().out


def test_a_model_that_cannot_be_built_fails_its_trial_alone(play):
    play.before = lambda args: check_models(args, tasks_of(args), 0)
    fixed = ["--resize", "40", "40", "--weights", "none"]
    value = {"lr": LR, "model": {"choices": ["vit_tiny_patch16_224", "resnet18"]}}
    play("--trials", "6", "--pruner", "none", value=value, fixed=fixed)
    told = pd.read_csv(play.folder / "trials.csv").set_index("model")
    assert set(told.state["vit_tiny_patch16_224"]) == {"fail"}
    assert set(told.state["resnet18"]) == {"complete"}
    assert told.error["vit_tiny_patch16_224"].str.contains("patches of 16 x 16").all()


def test_error_of_every_trial_stops_the_first_which_then_goes_on(play):
    def unreadable(args):
        raise UserError("photo.jpg is unreadable")

    play.before = unreadable
    with pytest.raises(UserError, match="unreadable"):
        play("--trials", "3")
    assert play.states() == ["RUNNING"]
    play.before = lambda args: None
    play("--trials", "3")
    assert play.states() == ["COMPLETE"] * 3
    assert play.calls[0].lr == play.calls[1].lr


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
        assert play.states() == ["RUNNING", "COMPLETE", "COMPLETE"]
    play("--trials", "3")
    assert play.states() == ["COMPLETE"] * 3


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ((), {"fixed": ["--bg", "grabcut"]}, "has another --bg after --"),
        ((), {"fixed": ["--seed", "1"]}, "has another --seed after --"),
        (("--seed", "1"), {}, "has another --seed:"),
        ((), {"value": {"lr": LR | {"high": 1.0}}}, 'has another "lr" in its space'),
    ],
)
def test_another_plan_is_refused(play, words, options, message):
    play("--trials", "1")
    with pytest.raises(UserError) as caught:
        play("--trials", "2", *words, **options)
    assert message in str(caught.value) and "--study" in str(caught.value)
    play("--trials", "2", fixed=["--device", "cpu"])  # says where, not what
    assert play.states() == ["COMPLETE"] * 2


def test_other_labels_and_foreign_studies_are_refused(play, drawn, tmp_path):
    play("--trials", "1")
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(drawn / "train/images")
    table = pd.read_csv(drawn / "train/train.csv", dtype=str)
    table.assign(age=["19", *table.age[1:]]).to_csv(data / "train.csv", index=False)
    with pytest.raises(UserError, match=r"another train\.csv"):
        play("--trials", "2", fixed=["--data_dir", str(data)])
    study = optuna.create_study(storage=play.storage, study_name="theirs")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(UserError, match=r"not made by this tune\.py"):
        play("--trials", "2", "--study", "theirs")
