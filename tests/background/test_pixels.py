"""Two commands at the same time on one folder of mattes, with photos of equal names."""

import multiprocessing

import cv2
import pytest
import torch

from background import pixels
from background.matte import Matting
from dataset import find_images
from photos.reading import read_photo
from photos.views import build_views

# Not a plain fork: a thread of OpenCV may hold a lock at that moment, which the child then awaits.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["background.pixels"])
VIEWS = build_views("grabcut", "black", "none", (32, 24))
CPU, REPLACED = torch.device("cpu"), "is the matte of another photo"


@pytest.fixture
def other(folder):
    """The photos of `folder`, mirrored, under the same names."""
    for name in find_images(folder)[1]:
        path = folder.parent / "other/images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), read_photo(folder / name)[:, ::-1, ::-1])
    return folder.parent / "other/images"


def opened(images, matte_dir):
    """uint8 (N, 3, H, W), with a cache of its own."""
    source, cache = find_images(images), images.parent / "cache"
    found, _ = pixels.open_pixels(source, VIEWS, Matting(matte_dir), cache, CPU)
    return found.batch(torch.arange(len(source[1])), 0)


def run(images, matte_dir, outcomes, ready, go):
    """Opens pixels in a process, which waits for `go` once the mattes are made."""
    pixels.devices.barrier = lambda: (ready.set(), go.wait(60))
    try:
        outcomes.put(opened(images, matte_dir).numpy())
    except Exception as error:
        outcomes.put(f"{type(error).__name__}: {error}")


def started(images, matte_dir):
    """(process, queue of its outcome, event of the mattes that are made, event that it awaits)."""
    rest = CONTEXT.SimpleQueue(), CONTEXT.Event(), CONTEXT.Event()
    process = CONTEXT.Process(target=run, args=(images, matte_dir, *rest))
    process.start()
    return process, *rest


def test_a_matte_replaced_by_another_command_is_an_error(folder, other):
    shared = folder.parent / "shared"
    expected = opened(other, folder.parent / "own")
    (other.parent / "cache").rename(other.parent / "first")
    one, outcome, ready, go = started(folder, shared)
    assert ready.wait(60)
    two, its_outcome, _, its_go = started(other, shared)
    its_go.set()
    assert (its_outcome.get() == expected.numpy()).all()
    go.set()
    message = outcome.get()
    for process in (one, two):
        process.join(60)
        assert process.exitcode == 0
    assert REPLACED in message and str(shared / "grabcut") in message
    again = opened(folder, shared)
    assert (again == opened(folder, folder.parent / "own")).all()
    assert not (again == expected).all()


def test_commands_at_the_same_time_get_their_own_mattes_or_an_error(folder, other):
    shared = folder.parent / "shared"
    expected = {images: opened(images, images.parent / "own") for images in (folder, other)}
    for number in range(6):
        for images in expected:
            (images.parent / "cache").rename(images.parent / f"cache{number}")
        running = {images: started(images, shared) for images in expected}
        for _, _, _, go in running.values():
            go.set()
        for images, (process, outcome, *_) in running.items():
            found = outcome.get()
            process.join(60)
            told = isinstance(found, str) and "UserError" in found and REPLACED in found
            assert told or (found == expected[images].numpy()).all(), found
