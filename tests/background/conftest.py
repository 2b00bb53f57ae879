"""Portraits with true mattes, a folder of some of them, and rembg's small network."""

import cv2
import pytest

import demo
from background import rembg_net
from dataset import find_images
from photos.reading import read_matte, read_photo


@pytest.fixture(scope="session")
def portraits(tmp_path_factory):
    """One photo of each person of a drawn competition: [(photo, true matte)], 256 x 192."""
    out = tmp_path_factory.mktemp("portraits") / "demo"
    demo.main(["--out", str(out), "--people", "24", "--eval_people", "3", "--size", "256", "192"])
    root, names = find_images(out / "train")
    picked = [name for i, name in enumerate(names) if i % 7 == i // 7 % 7]
    truths = [(out / "mattes_true/train" / name).with_suffix(".png") for name in picked]
    return [
        (read_photo(root / name), read_matte(truth))
        for name, truth in zip(picked, truths, strict=True)
    ]


@pytest.fixture(scope="session")
def net():
    return rembg_net.open_net(rembg_net.find_model("u2netp"), "cpu")


@pytest.fixture
def folder(tmp_path, portraits):
    """A plain folder of four people, two photos a folder; returns its `images`."""
    for i, (photo, _) in enumerate(portraits[:4]):
        path = tmp_path / f"images/p{i // 2}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photo[..., ::-1])
    return tmp_path / "images"
