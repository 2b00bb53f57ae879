"""The folds of a run side by side: as one after the other, also where they are killed or fail."""

import multiprocessing
import os
import signal
import subprocess
import time

import pandas as pd
import pytest
from helpers import compare_runs, draw_data
from launch import Command, warm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from common.errors import UserError
from training.loop import Diverged

WORDS = "--k_fold 3 --epochs 6 --batch_size 4 --resize 32 32 --weights none"
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


def own_workers():
    """The processes that this one has started and that have not ended."""
    return [process for process in multiprocessing.active_children() if process.daemon]


@pytest.fixture
def quick_workers(monkeypatch):
    """Workers are forked from a process that has imported torch, for new ones take seconds."""
    context = warm()
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)  # which train.main makes a KeyboardInterrupt
    assert not own_workers()


def kill_at_start(folder, *words):
    """Kills a command with two new workers once it has saved a state; none may stay behind."""
    folder.mkdir(exist_ok=True)
    command = Command(folder, "train", *words, "--workers", "2", "--model_dir", folder)
    while not list(folder.glob("exp/fold*/*/last.pt")):
        assert command.running(), command.told()
        time.sleep(0.01)
    workers = sessions(command.pid)
    assert len(workers) == 2
    command.send_signal(signal.SIGKILL)
    code, output, error = command.wait()
    assert code == -signal.SIGKILL, error
    assert output.count("an epoch: loss of") <= 1  # said by one for all of them
    deadline = time.monotonic() + 20
    while sessions(command.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return folder / "exp"


def sessions(session):
    """Process ids of the workers of a session that have not ended."""
    words = ["ps", "-ww", "-o", "pid=", "-o", "stat=", "-o", "args=", "-s", str(session)]
    found = subprocess.run(words, capture_output=True, text=True)
    rows = [line.split(maxsplit=2) for line in found.stdout.splitlines()]
    return [int(pid) for pid, state, args in rows if "spawn_main" in args and state[0] != "Z"]


def test_two_workers_train_as_one_also_after_kills(words, alone, tmp_path, capfd, quick_workers):
    """The whole run is killed, then it is stopped, then a worker is killed, then it ends."""
    again, told = ["--resume", str(kill_at_start(tmp_path, *words)), "--workers", "2"], []

    def stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    def kill(*_):
        own_workers()[0].kill()

    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        train.main(again, stop)
    error = capfd.readouterr().err
    assert caught.value.code == 130 and not own_workers()
    assert error == f"stopped; go on with: python train.py {' '.join(again[:2])}\n"
    with pytest.raises(UserError, match="fewer --workers"):
        train.main(again, kill)
    assert not capfd.readouterr().err and not (tmp_path / "exp/oof.csv").exists()
    folder = train.main(again, lambda *score: told.append(score))
    assert not compare_runs(alone, folder)
    logs = [pd.read_csv(folder / f"fold{fold}/log.csv").macro_f1 for fold in range(3)]
    expected = {(fold, k): score for fold, log in enumerate(logs) for k, score in enumerate(log)}
    assert all(score == pytest.approx(expected[fold, k]) for fold, k, score in told)


def test_a_run_that_diverges_in_a_worker_ends_in_one_line(words, tmp_path, capfd, quick_workers):
    failing = ["--lr", "1e30", "--optimizer", "sgd", "--warmup_epochs", "0", "--workers", "2"]
    with pytest.raises(Diverged, match="lower --lr") as caught:
        train.main([*words, *failing, "--model_dir", str(tmp_path)])
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    assert not capfd.readouterr().err


def test_workers_are_not_for_torchrun(words, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"--workers .* torchrun"):
        train.main([*words, "--model_dir", str(tmp_path), "--workers", "2"])


def test_the_models_of_a_split_run_train_side_by_side(words, tmp_path, capfd, quick_workers):
    """Two workers share the three models of a fold, also where they are killed on the way."""
    words, told = [*words, "--split_heads", "--fold", "1", "--epochs", "2", "age=3"], []
    alone = train.main([*words, "--model_dir", str(tmp_path / "alone")])
    both = [*words, "--model_dir", str(tmp_path / "both"), "--workers", "2"]
    capfd.readouterr()
    folder = train.main(both, lambda *score: told.append(score))
    output, _ = capfd.readouterr()
    assert output.count("macro F1 of mask") == 1
    assert not compare_runs(alone, folder)
    log = pd.read_csv(folder / "fold1/log.csv").macro_f1
    assert told == [(1, k, pytest.approx(score)) for k, score in enumerate(log)] and len(log) == 3
    again = kill_at_start(tmp_path / "killed", *words)
    assert not (again / "fold1/metrics.json").exists()
    train.main(["--resume", str(again), "--fold", "1"])
    assert not compare_runs(alone, again)
    for run in alone, folder, again:
        events = EventAccumulator(str(run / "fold1")).Reload()
        for name, epochs in ("18 classes", 3), ("mask", 2), ("age", 3):
            steps = [event.step for event in events.Scalars(f"{name}/macro_f1")]
            assert steps == [*range(1, epochs + 1)]
