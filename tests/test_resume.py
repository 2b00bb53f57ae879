"""Runs that are killed, interrupted, or started twice; two processes against one."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from launch import Command

import train
from common.files import HOME
from labels import PROBS

TINY = ["--model", "test_efficientnet", "--weights", "none", "--resize", "32", "24"]


@pytest.mark.parametrize("command", ["train", "writes"])
def test_killed_again_and_again_ends_with_the_same_bytes(command, drawn, tmp_path):
    killing = Command(tmp_path, "kill", command, drawn / "train", "--kills", "4")
    code, output, error = killing.wait(300)
    assert code == 0, output + error
    assert int(output.split("killed ")[1].split()[0]) >= 1 and "differing: nothing" in output


def test_a_stopped_run_says_how_to_go_on_and_keeps_its_last_epoch(drawn, tmp_path):
    places = ["--data_dir", drawn / "train", "--model_dir", tmp_path, "--cache_dir", tmp_path / "c"]
    first = Command(
        tmp_path, "train", *places, *TINY, "--epochs", "500", "--batch_size", "4", "--device", "cpu"
    )
    state = tmp_path / "exp/fold0/label/last.pt"
    while not state.exists():
        assert first.running(), first.told()
        time.sleep(0.05)
    code, _, error = Command(tmp_path, "train", "--resume", tmp_path / "exp").wait()
    assert code == 2 and "another process" in error
    assert len(error.strip().splitlines()) == 1
    first.send_signal(signal.SIGTERM)
    code, output, error = first.wait()
    assert code == 130
    assert error.splitlines()[-1].endswith(
        f"go on with: python train.py --resume {tmp_path / 'exp'} --device cpu"
    )
    assert "Traceback" not in error
    said = len(re.findall("^fold 0 epoch", output, re.M))
    logged = len(pd.read_csv(state.with_name("log.csv")))
    assert said <= logged <= said + 1


def test_two_processes_train_as_one(drawn, tmp_path):
    """Same weighted draw, same statistics, gathered predictions: equal but for rounding."""
    words = ["--data_dir", str(drawn / "train"), "--cache_dir", str(tmp_path / "cache"), *TINY]
    words += [
        "--epochs",
        "2",
        "--weighted_sampler",
        "--k_fold",
        "2",
        "--batch_size",
        "37",
        "--lr",
        "0.05",
    ]
    words += ["--criterion", "f1*0.4+focal*0.6", "--optimizer", "sgd", "--model_dir"]
    train.main([*words, str(tmp_path / "one")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    torchrun += ["2", "train.py", *words, str(tmp_path / "two")]
    done = subprocess.run(torchrun, capture_output=True, text=True, cwd=HOME, timeout=200)
    assert done.returncode == 0, done.stderr
    runs = [tmp_path / name / "exp" for name in ("one", "two")]
    one, two = (pd.read_csv(run / "oof.csv") for run in runs)
    assert one.image.tolist() == two.image.tolist()
    np.testing.assert_allclose(one[PROBS], two[PROBS], atol=2e-3)
    for fold in range(2):
        ours, theirs = (pd.read_csv(run / f"fold{fold}/label/log.csv") for run in runs)
        for loss in ("train_loss", "val_loss"):
            np.testing.assert_allclose(ours[loss], theirs[loss], rtol=1e-3)
    ours, theirs = (json.loads((run / "metrics.json").read_text()) for run in runs)
    assert sum(ours["support"]) == sum(theirs["support"]) == 168
