"""gradcam.py against Grad-CAM written out with autograd, and on a run with a real model."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import draw_data, draw_run, model_info, read_tables, write_matte

import model as models
import report
from common.errors import UserError
from dataset import read_train
from labels import ATTRIBUTES, decode, marginals
from photos.reading import matte_path
from reporting import gradcam

SIZE = [96, 96]


@pytest.fixture(scope="module")
def small():
    """A tiny Classifier of the 18 classes, and its info."""
    torch.manual_seed(0)
    model = models.create("test_resnet", ["label"], SIZE).eval()
    torch.nn.init.normal_(model.head.weight)
    mean, std = models.normalization(model)
    return model, model_info(heads=("label",), size=SIZE, mean=tuple(mean), std=tuple(std))


def test_maps_are_gradcam_written_out(small):
    model, info = small
    images = torch.randint(0, 256, (3, 3, *SIZE), dtype=torch.uint8)
    found = gradcam.maps(model, info, images, "age")
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (info.mean, info.std))
    for image, cam in zip(images, found, strict=True):
        features = model.backbone.forward_features((image[None] / 255 - mean) / std)
        logits = model.head(model.backbone.forward_head(features))[0]
        codes = torch.from_numpy(decode(np.arange(18))["age"])
        value = torch.stack([logits[codes == k].exp().sum().log() for k in range(3)]).max()
        (slope,) = torch.autograd.grad(value, features)
        weights = slope.mean((2, 3), keepdim=True)
        expected = torch.relu((weights * features).sum(1, keepdim=True))
        expected = torch.nn.functional.interpolate(expected, SIZE, mode="bilinear")[0, 0]
        assert cam == pytest.approx(expected.detach().numpy(), rel=1e-3, abs=1e-6)
    assert found.max() > 0


def test_attribute_logits_are_log_marginals():
    logits = torch.randn(5, 18, generator=torch.Generator().manual_seed(0))
    expected = marginals(logits.softmax(1).numpy())
    for name in ATTRIBUTES:
        found = gradcam.attribute_logits({"label": logits}, name).softmax(1).numpy()
        assert found == pytest.approx(expected[name], abs=1e-6)
        assert gradcam.attribute_logits({name: logits}, name) is logits


def test_transformers_have_no_feature_map():
    vit = models.create("test_vit", ["age"], SIZE).eval()
    with pytest.raises(UserError, match="test_vit has no feature map"):
        gradcam.maps(
            vit, model_info(model="test_vit"), torch.zeros(1, 3, *SIZE, dtype=torch.uint8), "age"
        )


def test_backbones_whose_last_stage_is_no_map_of_one_size():
    """hrnet ends in a list of maps, and lists stages that are no modules of its own."""
    hrnet = models.create("hrnet_w18_small", ["age"], SIZE).eval()
    images, info = torch.zeros(1, 3, *SIZE, dtype=torch.uint8), model_info(size=SIZE)
    with pytest.raises(UserError, match="no feature map"):
        gradcam.maps(hrnet, info, images, "age")


def test_choice_spreads_over_people():
    rows = pd.DataFrame({"label": [0] * 7 + [1] * 2, "person": list("aaabbbbcc")})
    run = type("run", (), {"oof": pd.DataFrame({"fold": [1, 1, 1, 1, 1, 1, 2, 1, 1]})})
    chosen = gradcam.choose(rows, run, 2, seed=0)
    assert len(chosen) == 4 and 6 not in chosen
    assert set(rows.person[chosen[:2]]) == {"a", "b"}


def test_energy_is_the_mean_share_on_the_person_without_empty_maps():
    matte = np.zeros((8, 2, 5))
    matte[:, 0] = 1

    def look(shares):  # maps with that share of their energy on the upper half
        cam = np.zeros((8, 2, 5))
        cam[:, 0], cam[:, 1] = np.nan_to_num(shares)[:, None], np.nan_to_num(1 - shares)[:, None]
        return {"age": (None, cam, matte)}

    shares = np.array([0.7, np.nan, 0.8, 1, np.nan, 0.8, np.nan, np.nan])
    found = {"a": look(np.full(8, 0.5)), "b": look(shares), "c": look(np.full(8, np.nan))}
    a, b, c = gradcam.energy(found).itertuples()
    assert (a.run, a.energy, a.area, a.photos) == ("a", 0.5, 0.5, 8)
    assert (b.run, b.photos, b.energy) == ("b", 4, pytest.approx(0.825))
    assert c.photos == 0 and np.isnan(c.energy)


def test_page_shows_where_runs_look(small, tmp_path, capsys):
    model, info = small
    data = draw_data(tmp_path, people=12, broken=False)
    table = read_train(data)
    half = np.zeros((64, 48), np.uint8)
    half[:, :24] = 255
    for name in table.frame.image:
        write_matte(matte_path(data / "mattes", "rembg", name), half, data / "images" / name)
    # As preprocess.py --limit leaves them: too few to count.
    write_matte(matte_path(data / "mattes", "rembg_grabcut", name), half, data / "images" / name)
    names = []
    for name in ("a", "b", "c"):
        draw_run(tmp_path / name, table.frame, 2.0)
        names.append(str(tmp_path / name))
    places = {"a": "fold0/label", "c": "fold1/label"}
    for name, place in places.items():
        path = tmp_path / name / "fold0" / "label" / "best.safetensors"
        models.save_model(model, path, replace(info, place=place))
    out = tmp_path / "report.html"
    words = ["--data_dir", str(data), "--model_dir", *names, "--out", str(out)]
    report.main([*words, "--cam_images", "1"])
    page, tables = out.read_text(), read_tables(out)
    energy = tables["cam_energy"]
    assert "(matte: rembg)" in page
    assert set(energy.run) == {"a"} and list(energy.attribute) == list(ATTRIBUTES)
    assert energy.area.to_numpy() == pytest.approx(0.5)
    assert ((energy.energy > 0.2) & (energy.energy < 0.8)).all()
    assert page.count('alt="wear male <30: ') == 0 and page.count('alt="wear male &lt;30: ') == 3
    printed = capsys.readouterr().out
    assert "b is left out" in printed and "does not exist" in page
    assert "c is left out" in printed and "was saved as fold1/label" in page
    for path in (data / "mattes/rembg").rglob("*.png"):
        path.write_bytes(b"damaged")
    report.main([*words, "--cam_images", "1"])
    assert "No share on the person is measured" in out.read_text()
