"""A run with the options of another, or of a file."""

import json
import shutil

import pytest

import options
import train
from common.errors import UserError
from experiment.reader import read_config


def given(*words):
    return vars(train.parse_args([*map(str, words)]))


def test_the_options_of_another_run_with_changes(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("SM_MODEL_DIR", "elsewhere")
    recorded = read_config(tiny.split)["options"]
    found = given("--from_run", tiny.split, "--lr", "3e-4", "--resize", "mask=48,36")
    changed = {"lr": {"": 3e-4}, "resize": recorded["resize"] | {"mask": [48, 36]}}
    own = {"from_run": str(tiny.split), "name": "exp", "model_dir": "elsewhere"}
    assert found == recorded | changed | own
    assert recorded["resize"].keys() == {"", "age"} and recorded["lr"] != changed["lr"]
    joint = given("--from_run", tiny.joint, "--k_fold", 0)
    assert joint == read_config(tiny.joint)["options"] | {"k_fold": 0} | own | {
        "from_run": str(tiny.joint)
    }
    with pytest.raises(UserError, match="exclude each other"):
        given("--from_run", tiny.split, "--shared_backbone")
    fixed = tmp_path / "fixed"
    shutil.copytree(tiny.joint, fixed)
    config = json.loads((fixed / "config.json").read_text())
    config["options"] |= {"label_fixes": "fixes.csv", "matte_dir": "mattes"}
    (fixed / "config.json").write_text(json.dumps(config))
    assert given("--from_run", fixed)["label_fixes"] == "fixes.csv"
    without = given("--from_run", fixed, "--label_fixes", "none", "--init_from", "none")
    assert without["label_fixes"] is without["init_from"] is None
    words = ["--bg", "none", "--resize", 32, 24, "--split_heads", "off", "--shared_backbone"]
    assert given("--from_run", tiny.split, *words)["shared_backbone"] is True


def test_a_file_of_flags(tiny, tmp_path):
    path = tmp_path / "idea.yaml"
    path.write_text(
        "lr: 3e-4 age=1e-4  # hotter\nresize: [64, 48]\nsplit_heads: on\nmixup:\n"
        "data_dir: my photos\ndrop_ages: [57, 58]\nbg: none mask=rembg\n"
    )
    words = ["--lr", "3e-4", "age=1e-4", "--resize", "64", "48", "--split_heads", "--mixup"]
    words += ["--drop_ages", "57", "58", "--bg", "none", "mask=rembg", "--data_dir", "my photos"]
    typed = vars(options.parse_args(words)) | {"config": str(path)}
    assert given("--config", path) == typed
    changed = typed | {"mixup": {"": 0.4}, "lr": {"": 3e-4, "age": 2e-4}, "seed": 7}
    assert given("--config", path, "--mixup", 0.4, "--lr", "age=2e-4", "--seed", 7) == changed
    path.write_text(f"from_run: {tiny.joint}\nepochs: 3\n")
    named = {"from_run": str(tiny.joint), "config": str(path), "epochs": {"": 3}}
    named |= {"model_dir": "runs", "name": "exp"}
    assert given("--config", path) == read_config(tiny.joint)["options"] | named


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lrr: 3", r"unrecognized arguments: --lrr 3; did you mean --lr\?"),
        ("lr: fast", "'fast' is not a number"),
        ("lr: age=1e-4", "only --split_heads trains"),
        ("split_heads: yes", "'yes' is not one of on, off"),
        ("lr: {age: 1}", "lr is not like"),
        ("- lr", "has no lines like"),
        ("[lr, model]: 1", "has no lines like"),
        ("", "has no lines like"),
        ("lr: 1e-3\nlr: 1e-4", "gives lr twice"),
        ("dry_run: on", "dry_run belongs on the command line"),
        ("resume: runs/exp", "resume belongs on the command line"),
        ("lr: [", "not valid YAML"),
        ("lr: " + "[" * 9999, "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "unrecognized arguments: --a"),
        ("data_dir:", "expected one argument"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_like_flags(tmp_path, text, words):
    path = tmp_path / "idea.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        given("--config", path)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_a_source_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        given("--from_run", tmp_path)
    with pytest.raises(UserError, match=r"no\.yaml does not exist"):
        given("--config", tmp_path / "no.yaml")
    with pytest.raises(UserError, match="--from_run: a resumed run goes on with its own"):
        given("--resume", tiny.joint, "--from_run", tiny.split)
    (tmp_path / "config.json").write_text(
        (tiny.joint / "config.json").read_text().replace('"lr": {', '"rate": 1, "lr": {')
    )
    with pytest.raises(UserError, match="begun by a version that differs in --rate"):
        given("--from_run", tmp_path)


def test_a_run_like_another_says_so_and_has_its_results(tiny, drawn):
    again = train.main(["--from_run", str(tiny.joint), "--model_dir", str(tiny.home / "like")])
    recorded = json.loads((again / "config.json").read_text())["options"]
    assert recorded["from_run"] == str(tiny.joint)
    assert (again / "oof.csv").read_bytes() == (tiny.joint / "oof.csv").read_bytes()
