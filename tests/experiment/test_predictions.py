"""Predictions of one model: the photos at once on a CPU."""

import numpy as np
import torch
from helpers import model_info

from experiment.predictions import predict
from photos.store import Pixels


def test_a_cpu_is_shown_few_photos_at_once_and_all_of_them():
    photos = np.random.default_rng(0).integers(0, 256, (100, 3, 8, 8), dtype=np.uint8)
    pixels, sizes = Pixels([{"pixels": torch.from_numpy(photos)}], {}, "cpu"), []

    def model(batch):
        sizes.append(len(batch))
        return {"gender": batch.mean((2, 3))[:, :2]}

    info = model_info(heads=("gender",))
    found = predict(model, pixels, range(100), info, batch_size=1000)["gender"]
    assert max(sizes) <= 32 and sum(sizes) == 100
    means = photos.mean((2, 3)) / 255
    logits = torch.tensor((means - info.mean) / info.std)[:, :2]
    np.testing.assert_allclose(found, logits.softmax(1), atol=1e-6)
