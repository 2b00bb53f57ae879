"""What all tests share: no network, one thread a process, one drawn competition."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import common.errors  # noqa: F401  sets the limits of OpenCV, before test files import it

# Before anything imports torch or the hub's client, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = str(Path(tempfile.gettempdir(), f"empty-hub-{os.getpid()}"))
os.environ["OMP_NUM_THREADS"] = "1"
for variable in ("SM_CHANNEL_TRAIN", "SM_MODEL_DIR", "RANK", "WORLD_SIZE"):
    os.environ.pop(variable, None)

SLOW = ("harness", "workers", "resume", "train", "matte", "tune", "preprocess", "oof", "study")


def pytest_collection_modifyitems(items):
    """Slow files first: started last, one would keep a single core busy at the end."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in SLOW)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Some tests fork, which a thread pool would not survive."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """The folder of a drawn competition of 24 people (168 photos) and 6 in eval. Do not write."""
    import demo

    out = tmp_path_factory.mktemp("drawn") / "competition"
    words = ["--people", "24", "--eval_people", "6", "--size", "128", "96", "--seed", "0"]
    demo.main(["--out", str(out), *words])
    return out


@pytest.fixture(scope="session")
def tiny(drawn, tmp_path_factory):
    """Trained runs of a tiny model on the drawn competition. Do not write into them.

    joint: two folds, one view; split: a hold-out run with two views for mask; home: their folder;
    train(*words): one more run.
    """
    import train

    home = tmp_path_factory.mktemp("tiny")

    def go(*words):
        base = ["--data_dir", str(drawn / "train"), "--model_dir", str(home / "runs")]
        base += ["--cache_dir", str(home / "cache"), "--matte_dir", str(home / "mattes")]
        base += ["--model", "test_efficientnet", "--weights", "none", "--epochs", "1"]
        # Hot enough for a few steps to tell photos and folds apart.
        base += ["--lr", "1e-2", "--batch_size", "8", "--warmup_epochs", "0"]
        return train.main([*base, "--resize", "32", "24", *words])

    joint = go("--k_fold", "2", "--crop", "center")
    words = ["--resize", "32", "24", "age=40,30", "--bg", "none", "mask=none+grabcut"]
    split = go("--split_heads", *words, "--bg_fill", "random")
    return SimpleNamespace(home=home, joint=joint, split=split, train=go)
