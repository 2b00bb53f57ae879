"""What a search leaves: its table, its figures and the command of its best trial."""

import shlex

import numpy as np
import pandas as pd

from options import parse_args

LR = {"low": 1e-4, "high": 1e-1, "log": True}


def test_search_ends_with_its_trials_table_and_figures(play, capsys):
    play("--trials", "8", "--pruner", "none", value={"lr": LR, "mixup": {"choices": [0, 0.2]}})
    study, said = play.study(), capsys.readouterr().out
    assert play.states() == ["COMPLETE"] * 8
    assert len({args.lr[""] for args in play.calls}) == 8
    best = max(play.calls, key=lambda args: args.lr[""])
    assert f"best macro F1 {400 * best.lr['']:.4f}, of trial {best.name[5:]}" in said
    command = shlex.split(said.strip().splitlines()[-1])
    assert command[:2] == ["python", "train.py"] and "--name" not in command
    again = parse_args(command[2:])
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
    assert "no importance.png: it needs 5 complete trials" in capsys.readouterr().out
    assert not (play.folder / "importance.png").exists()
    assert (play.folder / "history.png").exists()
    play("--trials", "1")
    assert len(play.calls) == 1  # nothing was left to do
