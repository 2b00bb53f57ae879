"""What of a model decays, and runs with the options of fine-tuning."""

import numpy as np
import pandas as pd
import pytest
import torch

import model as models
from common.errors import UserError
from training import optimization

OPTIONS = {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 0.05}


def classifier(name="test_efficientnet", heads=("mask", "age")):
    torch.manual_seed(0)
    return models.create(name, heads, (32, 24))


def test_only_matrices_decay():
    model = classifier()
    optimizer = optimization.make_optimizer(model, OPTIONS)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.05 if parameter.dim() > 1 else 0)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "nadam", "lion", "rmsprop", "lamb"])
def test_every_optimizer_changes_the_weights(name):
    model = classifier()
    optimizer = optimization.make_optimizer(model, OPTIONS | {"optimizer": name})
    before = [parameter.detach().clone() for parameter in model.parameters()]
    sum(value.square().sum() for value in model(torch.randn(2, 3, 32, 24)).values()).backward()
    optimizer.step()
    pairs = zip(before, model.parameters(), strict=True)
    assert not any(torch.equal(old, new) for old, new in pairs if new.grad.any())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adahessian", "of first order; try adamw"),  # it asks for the gradients of gradients
        ("adamm", "no such optimizer"),
        ("bnbadam", "CUDA required for bitsandbytes"),
    ],
)
def test_an_optimizer_that_cannot_be_had_is_refused(name, message):
    with pytest.raises(UserError, match=f"--optimizer {name}: .*{message}"):
        optimization.make_optimizer(classifier(), OPTIONS | {"optimizer": name})


@pytest.mark.parametrize(
    "words", [["--shared_backbone", "--age_mse", "0.5"], ["--drop_path", "0.1", "--ema", "0.9"]]
)
def test_fine_tuning_options_train_to_a_whole_run(tiny, words):
    folder = tiny.train("--name", "options", *words, "--epochs", "3")
    probs = pd.read_csv(folder / "oof.csv").filter(regex=r"^p\d+$")
    assert len(probs) and probs.shape[1] == 18 and np.isfinite(probs).all(axis=None)
