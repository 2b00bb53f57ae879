"""The pixel store against crashes, damage and rivals."""

import hashlib
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from noise_photos import NAMES, PHOTO, load, pasted, pixels, resized, write, write_matte

from common import files as common_files
from common.errors import UserError
from photos import reading, store
from photos.store import Pixels

# Not a plain fork: a thread of OpenCV may hold a lock at that moment, which the child then awaits.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["photos.store"])


def files(root):
    return {path: path.stat().st_mtime_ns for path in (root.parent / "cache").glob("*.npy")}


def test_the_second_load_reads_what_the_first_wrote(made):
    root, *_ = made
    first, before = pixels(root, PHOTO), files(root)
    assert len(before) == 1
    assert (pixels(root, PHOTO) == first).all() and files(root) == before


def test_whatever_changes_the_pixels_is_built_anew(made):
    root, photos, alphas = made
    view = replace(PHOTO, method="rembg", fill="mean")
    pixels(root, view)
    for changed in (
        {"size": (32, 20)},
        {"crop": "center"},
        {"crop": "face"},
        {"fill": "black"},
        {"method": "grabcut"},
    ):
        before = len(files(root))
        pixels(root, replace(view, **changed))
        assert len(files(root)) == before + 1, changed
    photo, alpha = 255 - photos[1], 255 - alphas[2]
    write(root / NAMES[1], photo)
    write_matte(root, "rembg", NAMES[1], alphas[1])
    found = pixels(root, view)
    assert (found[1] == resized(pasted(photo, alphas[1], (124, 116, 104)), (32, 24))).all()
    write_matte(root, "rembg", NAMES[2], alpha)
    found = pixels(root, view)
    assert (found[2] == resized(pasted(photos[2], alpha, (124, 116, 104)), (32, 24))).all()


def test_photos_of_the_same_size_and_time_are_told_apart_by_name(tmp_path):
    names = ["1.bmp", "2.bmp"]
    for name, grey in zip(names, (10, 200), strict=True):
        write(tmp_path / "images" / name, np.full((32, 24, 3), grey, np.uint8))
        os.utime(tmp_path / "images" / name, ns=(0, 0))
    found = pixels(tmp_path / "images", PHOTO, names=names)
    assert (pixels(tmp_path / "images", PHOTO, names=names[::-1]) == found[::-1]).all()


def test_a_broken_photo_stops(made):
    root, photos, _ = made
    (root / NAMES[2]).write_bytes(b"no photo")
    for _ in range(2):
        with pytest.raises(UserError, match=r"b/1\.png: is not a readable image; .*_error skip"):
            load(root, PHOTO)
        assert files(root) == {}
    (root / NAMES[4]).unlink()
    with pytest.raises(UserError, match=r"b/1\.png.*\(and 1 more\)"):
        load(root, PHOTO)
    for index in (2, 4):
        write(root / NAMES[index], photos[index])
    assert (pixels(root, PHOTO)[2] == resized(photos[2], (32, 24))).all()


def test_a_broken_photo_is_left_out_and_counted(made):
    root, photos, _ = made
    (root / NAMES[2]).write_bytes(b"no photo")
    first = load(root, PHOTO, on_error="skip")
    before = files(root)
    second = load(root, PHOTO, on_error="skip")
    assert files(root) == before
    for loaded in (first, second):
        assert list(loaded.broken) == [2] and "b/1.png: is not a readable" in loaded.broken[2]
        found = loaded.batch(torch.tensor([1, 2]), 0).numpy()
        assert (found[0] == resized(photos[1], (32, 24))).all() and not found[1].any()
    with pytest.raises(UserError, match=r"b/1\.png"):
        load(root, PHOTO)


def test_a_photo_that_could_not_be_read_once_is_not_broken_for_good(made, monkeypatch):
    root, photos, _ = made
    with monkeypatch.context() as patch:
        patch.setattr(store, "read_bytes", fails_at(NAMES[2], store.read_bytes))
        assert list(load(root, PHOTO, on_error="skip").broken) == [2]
    found = load(root, PHOTO)
    assert not found.broken
    assert (found.batch(torch.tensor([2]), 0).numpy() == resized(photos[2], (32, 24))).all()


def fails_at(name, read):
    def failing(path):
        if path.as_posix().endswith(name):
            raise UserError(f"{path} cannot be read (Input/output error)")
        return read(path)

    return failing


def test_a_matte_that_is_missing_or_does_not_fit_is_named(made):
    root, *_ = made
    view = replace(PHOTO, method="rembg", fill="mean")
    path = reading.matte_path(root.parent / "mattes", "rembg", NAMES[0])
    write(path, np.zeros((10, 10), np.uint8))
    with pytest.raises(UserError, match=r"rembg/a/1\.png: is \(10, 10\), its photo \(64, 48\)"):
        load(root, view)
    path.unlink()
    for on_error in ("stop", "skip"):  # which is about photos
        with pytest.raises(UserError, match=r"rembg/a/1\.png does not exist"):
            load(root, view, on_error=on_error)


def test_a_matte_of_another_photo_is_an_error(made):
    root, photos, alphas = made
    view = replace(PHOTO, method="rembg", fill="mean")
    write(root / NAMES[3], photos[0])
    for on_error in ("stop", "skip"):
        with pytest.raises(UserError, match=r"b/2\.png is the matte of another photo"):
            load(root, view, on_error=on_error)
    assert files(root) == {}
    write_matte(root, "rembg", NAMES[3], alphas[3])
    found = pixels(root, view)
    assert (found[3] == resized(pasted(photos[0], alphas[3], (124, 116, 104)), (32, 24))).all()
    write(reading.matte_path(root.parent / "mattes", "rembg", NAMES[3]), alphas[3])  # of no photo
    with pytest.raises(UserError, match=r"b/2\.png is the matte of another photo"):
        load(root, view)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "no note"])
def test_a_damaged_store_is_built_again(made, damage, capsys):
    root, *_ = made
    expected = pixels(root, PHOTO)
    [path] = files(root)
    whole = path.read_bytes()
    if damage == "no note":
        path.with_suffix(".json").write_text("{")
    else:
        flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        path.write_bytes({"flipped": flipped, "truncated": whole[:999], "empty": b""}[damage])
    capsys.readouterr()
    assert (pixels(root, PHOTO) == expected).all() and path.read_bytes() == whole
    assert capsys.readouterr().out.count(f"{path} is damaged") == 1


def test_a_store_that_is_truncated_while_in_use_is_an_error(made):
    root, *_ = made
    loaded = load(root, PHOTO)
    [path] = files(root)
    os.truncate(path, path.stat().st_size - 1)
    assert loaded.batch(torch.tensor([0, 3]), 0).shape == (2, 3, 32, 24)
    with pytest.raises(UserError, match=r"\.npy was truncated while it was in use; .*--resume"):
        loaded.batch(torch.tensor([0, 4]), 0)


def test_a_store_is_copied_whole_to_a_device(made):
    root, *_ = made
    rows = load(root, PHOTO).layers[0]["pixels"]
    assert rows.shape == (5, 3, 32, 24) and rows.nbytes == 5 * 3 * 32 * 24
    assert (rows.to("cpu").numpy() == pixels(root, PHOTO)).all()


def test_batches_are_sent_to_a_device_without_pinned_memory(made):
    """As an Apple GPU, for which the meta device, that holds no values, stands."""
    root, *_ = made
    sent = Pixels(load(root, PHOTO).layers * 2, {}, "meta").batch(torch.tensor([0, 3]), 1)
    assert (sent.device.type, sent.shape) == ("meta", (2, 3, 32, 24))


def test_a_pipe_in_place_of_a_photo_is_broken(made):
    root, *_ = made
    (root / NAMES[1]).unlink()
    os.mkfifo(root / NAMES[1])
    with pytest.raises(UserError, match=r"a/2\.png cannot be read: it is not a regular file"):
        load(root, PHOTO)
    assert list(load(root, PHOTO, on_error="skip").broken) == [1]


def in_process(work, *words):
    process = CONTEXT.Process(target=work, args=words)
    process.start()
    return process


def built_until_killed(root, when):
    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    done, decode = [], reading.read_photo

    def decode_three(*words):
        done.append(decode(*words))
        return die() if len(done) == 3 else done[-1]

    if when == "rendering":
        reading.read_photo = decode_three
    else:
        common_files.write_json = die
    load(root, PHOTO)


@pytest.mark.parametrize("when", ["rendering", "before the note"])
def test_a_kill_while_building_leaves_no_half_store(made, when):
    root, photos, _ = made
    process = in_process(built_until_killed, root, when)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(files(root)) == (when != "rendering")
    found = pixels(root, PHOTO)
    for photo, mine in zip(photos, found, strict=True):
        assert (mine == resized(photo, (32, 24))).all()


def build_with_others(root, start, name):
    decode = reading.read_photo

    def counted(path, *words):
        with (root.parent / "rendered").open("a") as log:
            log.write(f"{path}\n")
        time.sleep(0.02)
        return decode(path, *words)

    reading.read_photo = counted
    start.wait(60)
    built = load(root, PHOTO).batch(torch.arange(len(NAMES)), 0).numpy()
    digest = hashlib.sha256(built.tobytes()).hexdigest()
    (root.parent / name).write_text(digest)


def test_two_processes_build_one_store(made):
    root, *_ = made
    start = CONTEXT.Barrier(2)
    rivals = [in_process(build_with_others, root, start, name) for name in ("one", "two")]
    for process in rivals:
        process.join(60)
        assert process.exitcode == 0
    before = files(root)
    expected = hashlib.sha256(pixels(root, PHOTO).tobytes()).hexdigest()
    assert {(root.parent / name).read_text() for name in ("one", "two")} == {expected}
    assert len(before) == 1 and files(root) == before
    rendered = (root.parent / "rendered").read_text().splitlines()
    assert sorted(rendered) == [str(root / name) for name in NAMES]
