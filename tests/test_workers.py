"""The folds of a run side by side: as one after the other, also where they are killed or fail."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from helpers import compare_runs, draw_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from common.errors import UserError
from common.files import HOME

WORDS = "--k_fold 3 --epochs 3 --batch_size 4 --resize 32 32 --weights none"
MODEL = ["--model", "test_efficientnet"]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The flags of a tiny run of three folds."""
    home = tmp_path_factory.mktemp("workers")
    data = draw_data(home, people=6, broken=False)
    return ["--data_dir", str(data), "--cache_dir", str(home / "cache"), *WORDS.split(), *MODEL]


@pytest.fixture(scope="module")
def alone(words, tmp_path_factory):
    """That run, trained one fold after the other with one thread."""
    return train.main([*words, "--model_dir", str(tmp_path_factory.mktemp("alone"))])


def start(*words):
    words = [sys.executable, HOME / "train.py", *words, "--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, words)), start_new_session=True, **pipes)


def start_and_wait(words, folder):
    """The process of a run that has saved its first state."""
    process = start(*words, "--model_dir", folder)
    while not list(folder.glob("exp/fold*/*/last.pt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def children(session):
    """Process ids of the workers of a session that have not ended."""
    words = ["ps", "-ww", "-o", "pid=", "-o", "stat=", "-o", "args=", "-s", str(session)]
    found = subprocess.run(words, capture_output=True, text=True)
    rows = [line.split(maxsplit=2) for line in found.stdout.splitlines()]
    return [int(pid) for pid, state, args in rows if "spawn_main" in args and state[0] != "Z"]


def wait_for_end(session):
    deadline = time.monotonic() + 20
    while children(session):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_workers_train_as_one_with_one_thread(words, alone, tmp_path):
    told, places = [], ["--model_dir", str(tmp_path), "--workers", "2"]
    folder = train.main([*words, *places], lambda *score: told.append(score))
    assert not compare_runs(alone, folder)
    logs = [pd.read_csv(folder / f"fold{fold}/log.csv").macro_f1 for fold in range(3)]
    expected = [(fold, k, score) for fold, log in enumerate(logs) for k, score in enumerate(log)]
    assert sorted(told) == [pytest.approx(row) for row in expected]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_goes_on_to_the_same_bytes_and_leaves_nobody(words, alone, tmp_path, number):
    first = start_and_wait(words, tmp_path)
    assert len(children(first.pid)) == 2
    first.send_signal(number)
    output, error = first.communicate(timeout=60)
    assert first.returncode == {signal.SIGTERM: 130, signal.SIGKILL: -9}[number], error
    wait_for_end(first.pid)
    assert not (tmp_path / "exp/oof.csv").exists()
    assert not error or number == signal.SIGKILL  # after which Python tells of a lock
    assert ("python train.py --resume" in output) == (number == signal.SIGTERM)
    again = start("--resume", tmp_path / "exp")
    output, error = again.communicate(timeout=120)
    assert again.returncode == 0, error
    assert not compare_runs(alone, tmp_path / "exp")
    assert output.count("an epoch: loss of") == 1 and output.count("macro F1 of mask") == 1


def test_a_worker_that_fails_ends_the_run_in_one_line(words, tmp_path):
    failing = ["--lr", "1e30", "--optimizer", "sgd", "--warmup_epochs", "0"]
    diverging = start(*words, *failing, "--model_dir", tmp_path / "diverging")
    killed = start_and_wait([*words, "--epochs", "500"], tmp_path / "killed")
    os.kill(children(killed.pid)[0], signal.SIGKILL)
    for process, code, reason in (diverging, 3, "lower --lr"), (killed, 2, "fewer --workers"):
        _, error = process.communicate(timeout=60)
        assert process.returncode == code and error.count("\n") == 1 and reason in error, error
        assert error.startswith("train.py: error: ") and not children(process.pid)


def test_workers_are_not_for_torchrun(words, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"--workers .* torchrun"):
        train.main([*words, "--model_dir", str(tmp_path), "--workers", "2"])


def test_the_models_of_a_split_run_train_side_by_side(words, tmp_path):
    """Two workers share the three models of a fold, also where they are killed on the way."""
    words, told = [*words, "--split_heads", "--fold", "1", "--epochs", "2", "age=3"], []
    alone = train.main([*words, "--model_dir", str(tmp_path / "alone")])
    both = [*words, "--model_dir", str(tmp_path / "both"), "--workers", "2"]
    folder = train.main(both, lambda *score: told.append(score))
    assert not compare_runs(alone, folder)
    log = pd.read_csv(folder / "fold1/log.csv").macro_f1
    assert told == [(1, k, pytest.approx(score)) for k, score in enumerate(log)] and len(log) == 3
    first = start_and_wait(words, tmp_path / "killed")
    first.kill()
    first.communicate(timeout=60)
    wait_for_end(first.pid)
    again = tmp_path / "killed/exp"
    assert not (again / "fold1/metrics.json").exists()
    train.main(["--resume", str(again), "--fold", "1"])
    assert not compare_runs(alone, again)
    for run in alone, folder, again:
        events = EventAccumulator(str(run / "fold1")).Reload()
        for name, epochs in ("18 classes", 3), ("mask", 2), ("age", 3):
            steps = [event.step for event in events.Scalars(f"{name}/macro_f1")]
            assert steps == [*range(1, epochs + 1)]
