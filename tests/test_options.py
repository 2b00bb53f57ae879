"""The flags of training: overrides by attribute, wrong words, help, contradictions."""

import re
import subprocess
import sys

import pytest
from timm.optim import list_optimizers

import augment
import inference
import loss
import options
from common.errors import UserError
from common.files import HOME
from training import run


def parse(words=""):
    return options.make_parser().parse_args(words.split())


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        ("", "lr", {"": 1e-3}),
        ("--lr 3e-4", "lr", {"": 3e-4}),
        ("--lr 3e-4 age=1e-4", "lr", {"": 3e-4, "age": 1e-4}),
        ("--lr age=1e-4 3e-4 mask=1", "lr", {"": 3e-4, "age": 1e-4, "mask": 1.0}),
        ("--lr age=1e-4", "lr", {"": 1e-3, "age": 1e-4}),
        ("--resize 128 96 age=224,168", "resize", {"": [128, 96], "age": [224, 168]}),
        ("--resize mask=64,48", "resize", {"": [128, 96], "mask": [64, 48]}),
        ("--model resnet18 age=resnet34", "model", {"": "resnet18", "age": "resnet34"}),
        ("--scheduler cosine age=step", "scheduler", {"": "cosine", "age": "step"}),
        (
            "--criterion focal age=f1*0.4+focal*0.6",
            "criterion",
            {"": "focal", "age": "f1*0.4+focal*0.6"},
        ),
        ("--epochs 6 age=10", "epochs", {"": 6, "age": 10}),
        ("--optimizer SGD", "optimizer", {"": "sgd"}),
        ("", "weighted_sampler", {"": 0.0}),
        ("--weighted_sampler", "weighted_sampler", {"": 1.0}),
        ("--weighted_sampler 0.5", "weighted_sampler", {"": 0.5}),
        ("--weighted_sampler age=0.5", "weighted_sampler", {"": 0.0, "age": 0.5}),
        ("--class_weights", "class_weights", {"": 1.0}),
        ("", "cutmix_half", {"": False}),
        ("--cutmix_half", "cutmix_half", {"": True}),
        ("--cutmix_half off age=on", "cutmix_half", {"": False, "age": True}),
        ("--channels_last off", "channels_last", {"": False}),
        ("--lr 1 --lr 2", "lr", {"": 2.0}),
    ],
)
def test_a_value_and_its_overrides(words, name, expected):
    assert getattr(parse(words), name) == expected
    types = [type(value) for value in getattr(parse(words), name).values()]
    assert types == [type(value) for value in expected.values()]


def test_one_parse_leaves_no_trace_in_the_next():
    both = options.make_parser()
    both.parse_args(["--resize", "8", "8", "age=9,9", "--lr", "age=6"])
    assert vars(both.parse_args([])) == vars(parse())


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--lr fast", ["--lr", "'fast' is not a number"]),
        ("--lr 0", ["--lr", "'0' is not a number above 0"]),
        ("--lr nan", ["--lr", "nan"]),
        ("--lr inf", ["--lr", "inf"]),
        ("--lr 1e-3 age=low", ["--lr", "'low' is not a number", "for age"]),
        ("--lr 1e-3 1e-4", ["--lr", "give 1 value, not 1e-3 1e-4"]),
        ("--lr", ["--lr"]),
        ("--lr 1e-3 race=1", ["--lr", "race=1"]),
        ("--epochs 1.5", ["--epochs", "'1.5' is not a whole number"]),
        ("--epochs 0", ["--epochs", "'0' is not a whole number of at least 1"]),
        ("--resize 128", ["--resize", "give 2 values, not 128"]),
        ("--resize 128 96 age=224", ["--resize", "give 2 values, not 224 for age"]),
        ("--resize 4 4", ["--resize", "of 8 to 4096"]),
        ("--scheduler linear", ["--scheduler", "cosine, step, plateau, none"]),
        ("--scheduler cosine age=linear", ["--scheduler", "cosine, step, plateau, none", "age"]),
        ("--augmentation heavy", ["--augmentation", "none, light, strong"]),
        ("--bg_fill white", ["--bg_fill", "black, mean, blur, random"]),
        ("--crop nose", ["--crop", "none, center, face, person"]),
        ("--amp fp8", ["--amp", "auto, off, bf16, fp16"]),
        ("--cutmix_half yes", ["--cutmix_half", "on, off"]),
        ("--bg green", ["--bg", "'green' is not one of none"]),
        ("--bg none+none", ["--bg", "names a view twice"]),
        ("--criterion hinge", ["--criterion", "cross_entropy, focal, f1"]),
        ("--drop_rate 1", ["--drop_rate", "'1' is not a number of 0 to 0.95"]),
        ("--val_ratio 1", ["--val_ratio", "of 0 to 0.99"]),
        ("--on_error ignore", ["--on_error", "stop", "skip"]),
        ("--learning_rate 1", ["unrecognized arguments: --learning_rate", "mean --lr?"]),
        ("--n_folds 5", ["did you mean --k_fold?"]),
        ("--folds=5", ["did you mean --k_fold?"]),
        ("--img_size 64", ["did you mean --resize?"]),
        ("--patience 3", ["did you mean --early_stop?"]),
        ("--aug strong", ["did you mean --augmentation?"]),
        ("--pretrained", ["did you mean --weights?"]),
        ("--weighted", ["did you mean --weighted_sampler?"]),
        ("--amp_dtype bf16", ["did you mean --amp?"]),
        ("--colour red", ["unrecognized arguments: --colour", "--help lists"]),
        ("--seed -1", ["--seed", "'-1' is not a whole number of at least 0"]),
        ("--name ../../x", ["--name", "is not the name of a folder"]),
        ("--name .", ["--name", "is not the name of a folder"]),
        ("--name=", ["--name=: is empty"]),
        ("--epoch 1", ["unrecognized arguments: --epoch 1; did you mean --epochs?"]),
        ("--bg_filll=mean", ["did you mean --bg_fill?"]),
    ],
)
def test_wrong_words_are_refused_naming_the_flag_and_the_choices(words, parts):
    with pytest.raises(UserError) as caught:
        parse(words)
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


def test_a_wrong_flag_ends_in_one_line_and_code_2():
    for command in ("train", "inference", "preprocess", "report", "tune", "demo"):
        words = [sys.executable, f"{command}.py", "--seeed", "1"]
        done = subprocess.run(words, cwd=HOME, capture_output=True, text=True)
        start = f"{command}.py: error: unrecognized arguments: --seeed 1; "
        assert done.returncode == 2 and not done.stdout
        assert done.stderr.startswith(start) and len(done.stderr.splitlines()) == 1, done.stderr


def help_of_each_flag():
    """{flag: its help, in one line} as --help prints them."""
    text = options.make_parser().format_help()
    parts = re.split(r"\n  (--\w+)", text[text.index("\n\n") :])
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {flag: " ".join(words.split()) for flag, words in pairs}


def test_each_flag_has_a_help_line_that_tells_its_default():
    told = help_of_each_flag()
    assert set(told) == {f"--{name}" for name in options.ROWS}
    for name, row in options.ROWS.items():
        default = re.search(r"\(default: (.+?)\)(?= \w|$)", told[f"--{name}"])
        assert row.help.split()[0] in told[f"--{name}"]
        assert default or row.parse is None, name
        if row.default is not None and row.parse and not row.env:
            assert vars(parse(f"--{name} {default[1]}")) == vars(parse()), name


def test_help_and_a_wrong_flag_import_no_torch():
    """They are answered at once: what takes seconds to import has not been imported."""
    for command in ("train", "inference", "preprocess", "report", "tune", "demo"):
        for word in ("--help", "--seeed"):
            argv = [sys.executable, "-X", "importtime", f"{command}.py", word]
            done = subprocess.run(argv, cwd=HOME, capture_output=True, text=True)
            imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
            assert "argparse" in imported, done.stderr
            slow = {"torch", "timm", "cv2", "pandas", "scipy", "rembg", "optuna", "matplotlib"}
            assert not slow & imported, (command, word)


def test_choices_are_those_of_the_modules_that_act_on_them():
    assert options.STRENGTHS == augment.STRENGTHS and options.MIXES == augment.MIXES
    assert options.CRITERIA == loss.TERMS and tuple(augment.TTA) == inference.TTA


def test_names_of_timm_are_checked_before_anything_is_made():
    with pytest.raises(UserError, match=r"--model resnet1: timm has no such model.*resnet18"):
        run.check_names(parse("--model resnet1"))
    with pytest.raises(UserError, match="--optimizer sdg: timm has no such optimizer"):
        run.check_names(parse("--split_heads --optimizer adamw age=sdg"))
    run.check_names(parse("--optimizer SGD --model resnet18"))
    for name in {*list_optimizers()} - {"adahessian"}:
        run.check_names(parse(f"--optimizer {name}"))


def test_a_flag_may_be_given_again_for_one_attribute():
    """As the batch scripts do: --epochs $EPOCHS, and behind it what the user adds."""
    found = parse("--split_heads --lr 5e-4 --lr age=3e-4 --epochs 12 --epochs mask=4 age=6")
    assert found.lr == {"": 5e-4, "age": 3e-4}
    assert found.epochs == {"": 12, "mask": 4, "age": 6}
    assert parse("--split_heads --lr age=3e-4 --lr 5e-4").lr == {"": 5e-4}
    assert parse("--split_heads --lr age=3e-4").lr == {"": 1e-3, "age": 3e-4}


def test_places_and_devices_are_no_part_of_what_a_run_is():
    moved = parse("--data_dir a --cache_dir b --matte_dir c --device cuda:3 --name d --fold 0")
    assert options.training_options(moved) == options.training_options(parse())
    assert options.training_options(parse("--lr 2")) != options.training_options(parse())


def test_help_is_grouped_and_can_be_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "--weighted_sampler" in text and "data:" in text and "speed" in text


def test_the_words_and_defaults_of_the_baseline(monkeypatch):
    defaults = parse()
    assert (defaults.seed, defaults.val_ratio, defaults.log_interval) == (42, 0.2, 20)
    assert (defaults.name, defaults.data_dir, defaults.model_dir) == ("exp", "data/train", "runs")
    for name, value in {
        "resize": [128, 96],
        "batch_size": 32,  # 64 there; more steps serve small data
        "lr": 1e-3,
        "criterion": "cross_entropy",
        "lr_decay_step": 20,
    }.items():
        assert getattr(defaults, name) == {"": value}
    parse(
        "--seed 42 --epochs 1 --augmentation light --resize 128 96 --batch_size 64 "
        "--valid_batch_size 1000 --model resnet18 --optimizer SGD --lr 1e-3 --val_ratio 0.2 "
        "--criterion cross_entropy --lr_decay_step 20 --log_interval 20 --name exp "
        "--data_dir d --model_dir m"
    )
    monkeypatch.setenv("SM_CHANNEL_TRAIN", "/data/train/images")
    monkeypatch.setenv("SM_MODEL_DIR", "/models")
    assert (parse().data_dir, parse().model_dir) == ("/data/train/images", "/models")
    assert parse("--data_dir here").data_dir == "here"


def test_tasks_of_give_each_model_its_own_values():
    args = parse("--split_heads --lr 3e-4 age=1e-4 --resize 128 96 age=224,168 --criterion f1")
    options.check(args)
    for task in ("mask", "gender", "age"):
        chosen = options.tasks_of(args)[task]
        assert set(chosen) == {*options.BY_ATTRIBUTE, "heads", "years"}
        assert chosen["lr"] == (1e-4 if task == "age" else 3e-4)
        assert chosen["resize"] == ([224, 168] if task == "age" else [128, 96])
        assert chosen["criterion"] == {task: "f1"}
        assert chosen["epochs"] == parse().epochs[""]


def test_tasks_of_one_model():
    args = parse("--lr 2")
    options.check(args)
    chosen = options.tasks_of(args)["label"]
    assert (chosen["lr"], chosen["criterion"]) == (2.0, {"label": "cross_entropy"})


def test_with_a_shared_backbone_only_the_criteria_differ_by_head():
    args = parse("--shared_backbone --criterion focal age=f1 --class_weights 0 mask=1 --lr 2")
    options.check(args)
    chosen = options.tasks_of(args)["shared"]
    assert chosen["criterion"] == {"mask": "focal", "gender": "focal", "age": "f1"}
    assert chosen["class_weights"] == {"mask": 1.0, "gender": 0.0, "age": 0.0}
    assert chosen["lr"] == 2.0
    for flag, value in {"lr": "1", "epochs": "3", "model": "resnet18", "ema": "0.9"}.items():
        with pytest.raises(UserError, match=f"--{flag} age=.*--split_heads"):
            options.check(parse(f"--shared_backbone --{flag} age={value}"))


def test_overrides_need_the_models_that_they_name():
    for words in ("--lr 1 age=2", "--criterion focal age=f1", "--weighted_sampler mask=1"):
        with pytest.raises(UserError, match="--split_heads"):
            options.check(parse(words))
        options.check(parse(f"--split_heads {words}"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--split_heads --shared_backbone", "--split_heads and --shared_backbone exclude"),
        ("--mixup --cutmix", "--mixup and --cutmix exclude"),
        ("--cutmix_half --mixup 0.4", "--mixup and --cutmix_half exclude"),
        ("--split_heads --cutmix age=1 --cutmix_half", "--cutmix and --cutmix_half exclude"),
        ("--weights missing.safetensors", "--weights missing.safetensors: no such file"),
        ("--criterion f1 --label_smoothing 0.1", "--criterion f1 uses neither"),
        ("--split_heads --criterion age=f1 --class_weights", "--criterion f1 uses neither"),
        ("--val_ratio 0 --early_stop 2", "--early_stop goes by people held out"),
        ("--split_heads --val_ratio 0 --scheduler none age=plateau", "--scheduler plateau goes by"),
        ("--scheduler step --epochs 20", "give a --lr_decay_step below the 20 epochs"),
        ("--compile graphs --accumulate 2", "--compile graphs .*: leave --accumulate out"),
        ("--split_heads --keep best age=last --early_stop", "--keep last .* --early_stop does"),
    ],
)
def test_contradictions_are_refused(words, parts):
    with pytest.raises(UserError, match=parts) as caught:
        options.check(parse(words))
    assert "\n" not in str(caught.value)


def test_what_only_looks_like_a_contradiction_passes():
    options.check(parse("--split_heads --mixup 0 age=0.2 --cutmix 1 age=0"))
    options.check(parse("--criterion f1*0.4+focal*0.6 --label_smoothing 0.1"))
