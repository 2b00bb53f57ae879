"""Predictions of one model: its normalizations folded, the photos at once on a CPU."""

import numpy as np
import pytest
import torch
from helpers import model_info
from torch import nn

from experiment import predictions
from experiment.predictions import folded, predict
from model import create
from photos.store import Pixels

SIZE = (48, 32)
CLASSIFIERS = ("test_efficientnet", "resnet18", "test_vit")
OTHERS = ("repvgg_a0", "densenet121", "resnetv2_50")  # they also normalize what no convolution made


@pytest.fixture
def classifier():
    """A function that makes one with normalizations as training leaves them."""

    def make(name):
        model, generator = create(name, ("mask", "age"), SIZE).eval(), torch.manual_seed(1)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for tensor in (norm.running_mean, norm.bias.data):
                    tensor.normal_(0, 0.3, generator=generator)
                for tensor in (norm.running_var, norm.weight.data):
                    tensor.uniform_(0.5, 1.5, generator=generator)
        return model

    return make


def normalized(model, images):
    """How many batches of images a model normalizes."""
    with torch.profiler.profile() as profile:
        model(images)
    return sum(event.name == "aten::batch_norm" for event in profile.events())


@pytest.mark.parametrize("name", (*CLASSIFIERS, *OTHERS))
@torch.inference_mode()
def test_folded_models_predict_the_same(classifier, name):
    model, images = classifier(name), torch.randn(5, 3, *SIZE)
    wanted, state = model(images), {k: v.clone() for k, v in model.state_dict().items()}
    copy = folded(model, SIZE)
    for head, logits in copy(images).items():
        scale = wanted[head].abs().max()
        torch.testing.assert_close(logits / scale, wanted[head] / scale, rtol=0, atol=1e-5)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    left, all_ = normalized(copy, images), normalized(model, images)
    assert left < all_ or (copy is model and name == "test_vit")
    assert left == 0 or name in OTHERS


class Besides(nn.Module):
    """Uses what a convolution made once more than its normalization does."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x) + x


@torch.inference_mode()
def test_a_model_that_would_predict_otherwise_is_not_folded(classifier):
    model = classifier("test_efficientnet")
    model.backbone.bn1 = Besides(model.backbone.bn1)
    assert folded(model, SIZE) is model


def test_a_cpu_is_shown_few_photos_at_once_and_all_of_them(monkeypatch):
    photos = np.random.default_rng(0).integers(0, 256, (100, 3, 8, 8), dtype=np.uint8)
    pixels, sizes = Pixels([{"pixels": torch.from_numpy(photos)}], {}, "cpu"), []

    def model(batch):
        sizes.append(len(batch))
        return {"gender": batch.mean((2, 3))[:, :2]}

    monkeypatch.setattr(predictions, "folded", lambda model, _: model)
    info = model_info(heads=("gender",))
    found = predict(model, pixels, range(100), info, batch_size=1000)["gender"]
    assert max(sizes) <= 32 and sum(sizes) == 100
    means = photos.mean((2, 3)) / 255
    logits = torch.tensor((means - info.mean) / info.std)[:, :2]
    np.testing.assert_allclose(found, logits.softmax(1), atol=1e-6)


def test_views_are_averaged(monkeypatch):
    photos = np.random.default_rng(0).integers(0, 256, (2, 9, 3, 8, 8), dtype=np.uint8)
    pixels = Pixels([{"pixels": torch.from_numpy(view)} for view in photos], {}, "cpu")
    monkeypatch.setattr(predictions, "folded", lambda model, _: model)
    info = model_info(heads=("gender",))
    found = predict(lambda x: {"gender": x.mean((2, 3))[:, :2]}, pixels, range(9), info)["gender"]
    logits = torch.tensor((photos.mean((3, 4)) / 255 - info.mean) / info.std)[..., :2]
    np.testing.assert_allclose(found, logits.softmax(-1).mean(0), atol=1e-6)
