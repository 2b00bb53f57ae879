"""The space of a search: the words it becomes, and what is wrong with others."""

import shlex

import optuna
import pytest

from common.errors import UserError
from common.files import HOME
from options import parse_args
from search import space

LR = {"low": 1e-4, "high": 1e-1, "log": True}


@pytest.mark.parametrize("fixed", [[], ["--split_heads"], ["--shared_backbone", "--k_fold", "5"]])
def test_default_space_only_asks_what_train_takes(fixed):
    searched = space.read(HOME / "search_space.json", fixed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        values = space.suggest(trial, searched)
        args = parse_args([*fixed, *space.to_argv(values)])
        assert args.lr[""] == pytest.approx(trial.params["lr"], rel=1e-5)
        assert args.epochs[""] == trial.params["epochs"]
        assert str(args.criterion[""]) == trial.params["criterion"]


def test_overrides_choices_and_switches_become_flags(space_file):
    path = space_file(
        {
            "lr": {"low": 0.1, "high": 0.3},
            "resize": {"choices": ["128 96", [64, 48]]},
            "resize age": {"choices": ["224 168"]},
            "epochs age": {"low": 9, "high": 10, "int": True},
            "cutmix_half": {"choices": [True, False]},
            "split_heads": {"choices": [True, False]},
            "drop_ages": {"choices": [0, "58 59"]},
        }
    )
    searched = space.read(path, [])
    given = {"lr": 1 / 7, "resize": "64 48", "resize age": "224 168", "epochs age": 9}
    trial = optuna.trial.FixedTrial(
        given | {"cutmix_half": "off", "split_heads": "on", "drop_ages": "58 59"}
    )
    values = space.suggest(trial, searched)
    argv = space.to_argv(values)
    assert shlex.join(argv) == (
        "--lr 0.142857 --resize 64 48 age=224,168 --epochs age=9 --cutmix_half off --split_heads "
        "--drop_ages 58 59"
    )
    args = parse_args(argv)
    assert (args.epochs, args.split_heads) == ({"": 8, "age": 9}, True)


@pytest.mark.parametrize(
    ("value", "fixed", "parts"),
    [
        ({"learning_rate": LR}, "", ['"learning_rate"', "can be searched"]),
        ({"data_dir": {"choices": ["a"]}}, "", ['"data_dir"', "can be searched"]),
        ({"old_from age": {"choices": [59]}}, "", ['"old_from age"', "can be searched"]),
        ({"old_from": {"low": 57, "high": 61}}, "", ['"old_from"', '"int": true']),
        ({"lr race": LR}, "", ['"lr race"', "mask, gender, age"]),
        ({"lr": LR}, "--lr 1e-3", ['"lr"', "fixed on the command line too"]),
        ({"lr age": LR}, "--split_heads --lr=1e-3", ['"lr age"', "fixed on the command line too"]),
        ({"split_heads": {"low": 0, "high": 1}}, "", ['"split_heads"', "'0'"]),
        ({"split_heads": {"choices": [True]}}, "--shared_backbone", ["exclude each other"]),
        ({"epochs": {"low": 1, "high": float("inf"), "int": True}}, "", ["whole numbers"]),
        ({"lr": {"low": 1, "high": 1}}, "", ['"lr"', "low 1 must be below high 1"]),
        ({"lr": {"low": 0, "high": 1}}, "", ['"lr"', "'0' is not a number"]),
        (
            {"mixup": {"low": 0, "high": 1, "log": True}},
            "",
            ['"mixup"', "low 0 must be", "above 0 for log"],
        ),
        ({"lr": {"low": 0.1}}, "", ['"lr"', 'write {"low": 1']),
        ({"lr": {"low": True, "high": 2}}, "", ['"lr"', 'write {"low": 1']),
        ({"lr": {"low": 1, "high": float("inf")}}, "", ['"lr"', "inf"]),
        ({"lr": {"low": 1, "high": 2, "step": 1}}, "", ['"lr"', 'write {"low": 1']),
        ({"lr": {"low": 1, "high": 2, "log": 1}}, "", ['"lr"', '"log": true']),
        ({"lr": [1, 2]}, "", ['"lr"', '"choices": [1, 2]']),
        ({"drop_rate": {"low": 0, "high": 1}}, "", ['"drop_rate"', "of 0 to 0.95"]),
        ({"epochs": {"low": 4, "high": 12}}, "", ['"epochs"', '"int": true']),
        ({"epochs": {"low": 4.5, "high": 12, "int": True}}, "", ['"epochs"', "whole number"]),
        ({"augmentation": {"choices": ["heavy"]}}, "", ['"augmentation"', "none, light, strong"]),
        ({"augmentation": {"choices": []}}, "", ['"augmentation"', '"choices": [1, 2]']),
        ({"mixup": {"choices": ["0", 0]}}, "", ['"mixup"', "there twice"]),
        ({"mixup": {"choices": [None]}}, "", ['"mixup"', "is not a number"]),
        ({"mixup": {"choices": [" "]}}, "", ['"mixup"', "empty"]),
        ({"split_heads": {"choices": ["yes"]}}, "", ['"split_heads"', "'yes'"]),
        ({"lr age": LR}, "", ['"lr age"', "only --split_heads trains"]),
        ({"lr age": LR}, "--shared_backbone", ['"lr age"', "only --split_heads trains"]),
        ({"lr age": LR, "split_heads": {"choices": [False]}}, "", ["only --split_heads trains"]),
        ({"model": {"choices": ["resnet18", "resnet1"]}}, "", ['"model"', "resnet1"]),
        ({"mixup": {"low": 0.1, "high": 1}}, "--cutmix", ['"mixup"', "exclude each other"]),
        ({}, "", ["not a search space"]),
        ([1], "", ["not a search space"]),
    ],
)
def test_wrong_space_is_one_line_that_names_the_key(space_file, value, fixed, parts):
    path = space_file(value)
    with pytest.raises(UserError) as caught:
        space.read(path, fixed.split())
    message = str(caught.value)
    assert all(part in message for part in [str(path), *parts]), message
    assert "\n" not in message


def test_what_goes_with_some_value_passes(space_file):
    path = space_file({})
    space.read(space_file({"mixup": {"low": 0, "high": 1}}), ["--cutmix"])
    both = {"lr age": LR, "split_heads": {"choices": [True, False]}}
    assert len(space.read(space_file(both), [])) == 2
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        space.read(path, [])
