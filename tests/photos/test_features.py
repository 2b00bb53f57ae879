"""Features of a frozen backbone: the same as running it, computed once."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import inference
import model as models
import train
from common.errors import UserError
from photos import features
from photos.store import Pixels

INFO = SimpleNamespace(model="test_efficientnet", mean=(0.5,) * 3, std=(0.25,) * 3, size=(32, 24))


def pixels(views=2, n=10, key="a"):
    random = np.random.default_rng(0)
    shape = (n, 3, 32, 24)
    layers = [{"pixels": random.integers(0, 256, shape, dtype=np.uint8)} for _ in range(views)]
    return Pixels(layers, {3: "broken"}, "cpu", key=key)


def same(one, other):
    every = torch.arange(one.count)
    return all(torch.equal(one.batch(every, v), other.batch(every, v)) for v in range(one.views))


def test_features_are_those_of_the_backbone(tmp_path, monkeypatch, capsys):
    seen = pixels()
    backbone = models.create("test_efficientnet", ("age",), (32, 24)).backbone.eval()
    made = features.load(seen, backbone, INFO, tmp_path, batch_size=4)
    assert (made.views, made.broken) == (2, {3: "broken"})
    photos, view = torch.tensor([7, 0, 3]), torch.tensor([0, 1, 1])
    found = made.batch(photos, view)
    for row, photo, number in zip(found, photos, view, strict=True):
        image = torch.from_numpy(np.array(seen.layers[number]["pixels"][photo]))[None]
        with torch.no_grad():
            expected = backbone((image / 255 - 0.5) / 0.25)[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)
    ones = torch.ones(3, dtype=torch.int64)
    assert torch.equal(made.batch(photos, 1), made.batch(photos, ones))

    [path] = tmp_path.glob("*.features.npy")
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        again = features.load(seen, backbone, INFO, tmp_path, batch_size=4)
        assert path.read_bytes() == whole and same(again, made)
        assert capsys.readouterr().out.count("features.npy is damaged") == 1

    monkeypatch.setattr(features, "_compute", None)  # from the cache from here on
    again = features.load(seen, backbone, INFO, tmp_path)
    assert same(again, made)
    with pytest.raises(TypeError):  # other pixels, other weights
        features.load(pixels(key="b"), backbone, INFO, tmp_path)
    other = models.create("test_efficientnet", ("age",), (32, 24)).backbone.eval()
    with pytest.raises(TypeError):
        features.load(seen, other, INFO, tmp_path)


def words(drawn, home):
    base = ["--data_dir", drawn / "train", "--model_dir", home, "--cache_dir", home / "cache"]
    base += ["--model", "test_efficientnet", "--weights", "none", "--resize", 32, 24]
    return [str(word) for word in base]


def test_a_run_on_features_predicts_as_its_whole_model(drawn, tmp_path):
    flags = ["--freeze", "all", "--epochs", "3", "--bg", "none+grabcut", "--split_heads"]
    flags += ["--matte_dir", str(tmp_path / "mattes")]
    folder = train.main([*words(drawn, tmp_path), *flags])
    oof = pd.read_csv(folder / "oof.csv", dtype={"image": str}).set_index("image")
    args = ["--model_dir", folder, "--images", drawn / "train", "--output_dir", tmp_path]
    args += ["--matte_dir", tmp_path / "mattes", "--cache_dir", tmp_path / "cache"]
    inference.main([*map(str, args), "--save_probs"])
    found = pd.read_csv(tmp_path / "output_probs.csv", index_col="ImageID").loc[oof.index]
    probs = [f"p{k}" for k in range(18)]
    assert len(oof) and oof[probs].to_numpy().std(0).max() > 0
    np.testing.assert_allclose(found[probs], oof[probs], atol=1e-5)


def test_the_backbone_is_untouched(drawn, tmp_path):
    base = words(drawn, tmp_path)
    one = train.main([*base, "--freeze", "all", "--epochs", "1"])
    two = train.main([*base, "--freeze", "all", "--epochs", "4", "--lr", "0.1"])
    one, two = (load_file(run / "fold0/label/best.safetensors") for run in (one, two))
    for key in one:
        assert torch.equal(one[key], two[key]) == (not key.startswith("head.")), key


def test_mixing_features_is_refused(drawn, tmp_path):
    with pytest.raises(UserError, match=r"--freeze all .* leave out --mixup"):
        train.main([*words(drawn, tmp_path), "--freeze", "all", "--mixup"])
