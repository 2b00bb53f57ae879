"""The scripts: every shell script parses, wrong use ends with code 2, scores are scikit-learn's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

import inference

HOME = Path(__file__).resolve().parent.parent
SHELL = sorted((HOME / "scripts").glob("*.sh"))


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_shell_scripts_parse_and_stop_at_errors(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert script.name == "lib.sh" or "set -euo pipefail" in script.read_text()


def run(*words, **variables):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(HOME)} | variables
    words = [str(word) for word in words]
    return subprocess.run(words, capture_output=True, text=True, cwd=HOME, env=environment)


def test_folds_on_gpus_wants_its_flags():
    done = run("bash", "scripts/folds_on_gpus.sh", "--name", "x", GPUS="0")
    assert done.returncode == 2 and "--k_fold" in done.stderr


def test_ablation_refuses_an_unknown_layout():
    done = run("bash", "scripts/ablation.sh", LAYOUTS="round")
    assert done.returncode == 2 and "round" in done.stderr


def test_score_is_that_of_scikit_learn(tmp_path):
    random = np.random.default_rng(0)
    truth = pd.DataFrame({"ImageID": [f"{i}.jpg" for i in range(300)],
                          "ans": random.integers(0, 17, 300)})  # fmt: skip
    answers = truth.assign(ans=np.where(random.random(300) < 0.6, truth.ans, 17))
    truth.to_csv(tmp_path / "truth.csv", index=False)
    answers.sample(frac=1, random_state=1).to_csv(tmp_path / "output.csv", index=False)
    words = [sys.executable, "scripts/score.py", tmp_path / "output.csv", tmp_path / "truth.csv"]
    done = run(*words)
    expected = f1_score(truth.ans, answers.ans, labels=range(18), average="macro", zero_division=0)
    assert f"macro F1 {expected:.4f}" in done.stdout
    answers[:-1].to_csv(tmp_path / "output.csv", index=False)
    done = run(*words)
    assert done.returncode == 2 and "299.jpg" in done.stderr


def test_ensemble_takes_the_best_runs_over_all_people(tmp_path):
    """No hold-out run, no earlier ensemble; then it asks for their own out-of-fold score."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(HOME / "scripts/ensemble.sh", tmp_path / "scripts")
    python = tmp_path / ".venv/bin/python"  # runs the ranking, writes down the rest
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1" = - ] && exec {sys.executable} "$@"\necho "$@"\n')
    python.chmod(0o755)
    runs = {"a": (0.5, 5, {}), "b": (0.7, 5, {}), "c": (0.6, 5, {}), "hold": (0.9, 0, {})}
    runs["ensemble"] = 0.8, 5, {"oof_of": ["a", "b"]}
    for name, (score, folds, more) in runs.items():
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"macro_f1": score}))
        (folder / "config.json").write_text(json.dumps({"options": {"k_fold": folds}} | more))
        (folder / "oof.csv").write_text("")
    done = run("bash", tmp_path / "scripts/ensemble.sh", BEST="2", DATA="photos", OUT="out")
    assert done.returncode == 0, done.stderr
    commands = [line.split() for line in done.stdout.splitlines()]
    assert [words[0] for words in commands] == ["inference.py"] * 2
    submission, score = (inference.parse_args(words[1:]) for words in commands)
    assert submission.model_dir == score.model_dir == ["runs/b", "runs/c"]
    assert submission.tta == score.tta and submission.output_dir == "out"
    assert (score.oof, score.train_dir) == ("out/ensemble", "photos")
