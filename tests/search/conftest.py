"""What the tests of the search share: files of a space, and a search whose training is played."""

import json
from pathlib import Path

import optuna
import pytest
import sqlalchemy

import train
import tune
from options import parse_args

LR = {"low": 1e-4, "high": 1e-1, "log": True}


@pytest.fixture
def space_file(tmp_path):
    """A function that writes a value as space.json and returns its path."""

    def write(value):
        path = tmp_path / "space.json"
        path.write_text(json.dumps(value))
        return path

    return write


@pytest.fixture
def play(drawn, tmp_path, monkeypatch, space_file):
    """A function that searches with a played training, whose score of epoch e is e * 100 * lr.

    play.calls are the parsed flags of each run; play.before is called with them.
    """

    def training(argv, on_epoch):
        args = parse_args(argv)
        folder = Path(args.model_dir, args.name)
        folder.mkdir(exist_ok=True)
        search.calls.append(args)
        search.before(args)
        score = 100 * args.lr[""]
        for epoch in range(args.epochs[""]):
            on_epoch(0, epoch, score * (epoch + 1))
        result = {"macro_f1": score * args.epochs[""], "seconds": 1.5}
        (folder / "metrics.json").write_text(json.dumps(result))
        return folder

    def search(*argv, value=None, fixed=()):
        argv = ["--storage", search.storage, "--space", str(space_file(value or {"lr": LR})), *argv]
        places = ["--data_dir", str(drawn / "train"), "--model_dir", str(tmp_path / "runs")]
        return tune.main([*argv, "--", *places, "--epochs", "4", *fixed])

    search.calls, search.before = [], lambda args: None
    search.storage = f"sqlite:///{tmp_path}/tune.db"
    search.folder = tmp_path / "runs/tune"
    search.study = lambda: optuna.load_study(study_name="tune", storage=search.storage)
    search.states = lambda: [trial.state.name for trial in search.study().get_trials()]
    monkeypatch.setattr(train, "main", training)
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hurry)
    yield search
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", hurry)


def hurry(connection, _):
    """SQLite without waiting for the disk at each commit."""
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA journal_mode=MEMORY")
