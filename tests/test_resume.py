"""Runs that are killed, interrupted, or started twice; two processes against one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

HOME = Path(__file__).resolve().parent.parent
TINY = ["--model", "test_efficientnet", "--weights", "none", "--resize", "32", "24"]


@pytest.mark.parametrize("command", ["train", "preprocess", "writes"])
def test_killed_again_and_again_ends_with_the_same_bytes(command):
    words = [sys.executable, HOME / "tests/kill.py", command, "--kills", "4"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    count = int(done.stdout.split("killed ")[1].split()[0])
    assert count >= 1 and "differing: nothing" in done.stdout


def start(words, **options):
    words = [sys.executable, str(HOME / "train.py"), *map(str, words)]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HOME, **options
    )


def test_a_stopped_run_says_how_to_go_on_and_keeps_its_last_epoch(drawn, tmp_path):
    words = [
        "--data_dir",
        drawn / "train",
        "--model_dir",
        tmp_path,
        *TINY,
        "--epochs",
        "500",
        "--cache_dir",
        tmp_path / "cache",
        "--batch_size",
        "4",
    ]
    first = start(words)
    state = tmp_path / "exp/fold0/label/last.pt"
    while not state.exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    second = start(["--resume", tmp_path / "exp"])
    _, error = second.communicate(timeout=120)
    assert second.returncode == 2 and "another process" in error
    assert len(error.strip().splitlines()) == 1
    first.send_signal(signal.SIGTERM)
    output, error = first.communicate(timeout=60)
    assert first.returncode == 130
    assert f"python train.py --resume {tmp_path / 'exp'}" in output
    assert "Traceback" not in error
    said = len(re.findall("^fold 0 epoch", output, re.M))
    logged = len(pd.read_csv(state.with_name("log.csv")))
    assert said <= logged <= said + 1


def test_two_processes_train_as_one(drawn, tmp_path):
    """Same weighted draw, same statistics, gathered predictions: equal but for rounding."""
    words = [
        "--data_dir",
        drawn / "train",
        "--cache_dir",
        tmp_path / "cache",
        *TINY,
        "--epochs",
        "2",
        "--weighted_sampler",
        "--k_fold",
        "2",
        "--batch_size",
        "37",
        "--criterion",
        "f1*0.4+focal*0.6",
        "--optimizer",
        "sgd",
        "--lr",
        "0.05",
    ]
    alone = start([*words, "--model_dir", tmp_path / "one"])
    assert alone.wait(120) == 0, alone.communicate()
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "train.py",
        *map(str, words),
        "--model_dir",
        str(tmp_path / "two"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        torchrun, capture_output=True, text=True, cwd=HOME, timeout=200, env=environment
    )
    assert done.returncode == 0, done.stderr
    one, two = (pd.read_csv(tmp_path / name / "exp/oof.csv") for name in ("one", "two"))
    assert one.image.tolist() == two.image.tolist()
    probs = [f"p{i}" for i in range(18)]
    np.testing.assert_allclose(one[probs], two[probs], atol=2e-3)
    for fold in range(2):
        ours, theirs = (
            pd.read_csv(tmp_path / name / f"exp/fold{fold}/label/log.csv")
            for name in ("one", "two")
        )
        np.testing.assert_allclose(ours.train_loss, theirs.train_loss, rtol=1e-3)
        np.testing.assert_allclose(ours.val_loss, theirs.val_loss, rtol=1e-3)
    ours, theirs = (
        json.loads((tmp_path / name / "exp/metrics.json").read_text()) for name in ("one", "two")
    )
    assert sum(ours["support"]) == sum(theirs["support"]) == 168
