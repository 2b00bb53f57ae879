"""Frozen stages and layer-wise learning rates, against timm's own and a plain loop."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch

import model as models
from common.errors import UserError
from training import optimization

OPTIONS = {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 0.05}


def classifier(name="test_efficientnet", heads=("mask", "age")):
    torch.manual_seed(0)
    return models.create(name, heads, (32, 24))


def step(model):
    """One training step; returns {name: (before, after)} of the whole state."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = optimization.make_optimizer(model, OPTIONS)
    optimization.train_mode(model)
    sum(logits.square().sum() for logits in model(torch.randn(4, 3, 32, 24)).values()).backward()
    optimizer.step()
    return {key: (before[key], value) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_frozen_stages_stay_and_the_others_learn(name):
    model = classifier(name)
    optimization.freeze(model.backbone, 2)
    groups = timm.models.group_parameters(
        model.backbone, model.backbone.group_matcher(coarse=True), return_values=False
    )
    still = {f"backbone.{key}" for number in (0, 1) for key in groups[number]}
    assert still
    parameters = dict(model.named_parameters())
    for key, (before, after) in step(model).items():
        if key in still:
            assert torch.equal(before, after), key
        elif key in parameters and before.dim() > 1:
            assert not torch.equal(before, after), key
    for name, module in model.named_modules():  # running statistics too
        own = {f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)}
        assert not own or module.training != (own <= still)


def test_nothing_of_a_frozen_backbone_moves():
    model = classifier()
    optimization.freeze(model.backbone, "all")
    moved = {key for key, (a, b) in step(model).items() if not torch.equal(a, b)}
    assert moved == {"head.weight", "head.bias"}


def test_more_stages_than_there_are():
    with pytest.raises(UserError, match="--freeze 99: the backbone has 6 stages"):
        optimization.freeze(classifier().backbone, 99)


def test_only_matrices_decay():
    model = classifier()
    optimizer = optimization.make_optimizer(model, OPTIONS)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.05 if parameter.dim() > 1 else 0)


@pytest.mark.parametrize(
    "words", [["--shared_backbone", "--age_mse", "0.5"], ["--freeze", "2", "--ema", "0.9"]]
)
def test_fine_tuning_options_train_to_a_whole_run(tiny, words):
    folder = tiny.train("--name", "options", *words, "--epochs", "3")
    probs = pd.read_csv(folder / "oof.csv").filter(regex=r"^p\d+$")
    assert len(probs) and probs.shape[1] == 18 and np.isfinite(probs).all(axis=None)
