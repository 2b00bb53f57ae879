"""Mattes as files: made, checked, kept, shared by processes; the network against rembg itself."""

import errno
import hashlib
import json
import os

import cv2
import numpy as np
import pandas as pd
import pytest
import rembg
import torch
from PIL import Image, ImageOps

from background import matte
from common import files
from common.errors import UserError
from dataset import find_images
from photos.reading import default_matte_dir, matte_path


def save(path, photo):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(path)


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def make(images, method, **options):
    root, names = find_images(images)
    made_with = matte.ensure(root, names, method, matte.Matting(**options))
    return made_with, default_matte_dir(root) / method


def empty_room():
    """A wall with a shaded lamp's glow and a floor, without anybody."""
    y, x = np.mgrid[0:256, 0:192].astype(np.float32)
    wall = 150 + 50 * np.exp(-((x - 40) ** 2 + (y - 60) ** 2) / 4000) - 60 * (y > 200)
    grain = np.random.default_rng(0).normal(0, 4, (256, 192, 1))
    return np.clip(wall[..., None] * (1, 0.95, 0.8) + grain, 0, 255).astype(np.uint8)


def test_mattes_do_not_lie_among_the_photos(folder):
    with pytest.raises(UserError, match="mattes lies among the photos"):
        make(folder, "grabcut", matte_dir=folder / "mattes")
    assert not (folder / "mattes").exists()


def test_mattes_are_those_of_rembg(folder, portraits, monkeypatch):
    """Through files, so that RGB and BGR are told apart too."""
    monkeypatch.setenv("U2NET_HOME", str(files.WEIGHTS))
    wide = np.hstack([portraits[6][0], portraits[7][0]])
    save(folder / "wide.png", wide)
    _, made = make(folder, "rembg", workers=2)
    assert torch.get_num_threads() == 1  # opening the network left torch its threads
    session = rembg.new_session("u2netp", providers=["CPUExecutionProvider"])
    for name in ("p0/0.png", "p1/3.png", "wide.png"):
        theirs = rembg.remove(Image.open(folder / name), session=session, only_mask=True)
        ours = read(made / name)
        assert ours.shape == theirs.size[::-1]
        assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= 1
    swapped = Image.fromarray(portraits[0][0][..., ::-1].copy())
    theirs = rembg.remove(swapped, session=session, only_mask=True)
    assert np.abs(read(made / "p0/0.png").astype(int) - np.asarray(theirs)).max() > 10


def test_both_are_the_same_with_and_without_kept_mattes_of_rembg(folder):
    save(folder / "room.png", empty_room())
    _, alone = make(folder, "rembg_grabcut")
    other = folder.parent / "other"
    make(folder, "rembg", matte_dir=other)
    make(folder, "rembg_grabcut", matte_dir=other)
    files = [path.relative_to(alone) for path in alone.rglob("*") if path.is_file()]
    assert len(files) == 5 + 4  # mattes, meta.json, rejected.csv, photos.json and its lock
    for name in files:
        assert (alone / name).read_bytes() == (other / "rembg_grabcut" / name).read_bytes()


def test_alpha_and_orientation(tmp_path, portraits):
    photo = portraits[0][0]
    noise = np.random.default_rng(0).integers(0, 256, photo.shape[:2], dtype=np.uint8)
    save(tmp_path / "images/plain.png", photo)
    save(tmp_path / "images/alpha.png", np.dstack([photo, noise]))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    lying = Image.fromarray(np.rot90(photo).copy())
    lying.save(tmp_path / "images/lying.jpg", exif=exif, quality=98)
    with Image.open(tmp_path / "images/lying.jpg") as image:
        upright = ImageOps.exif_transpose(image)
        assert upright.size == photo.shape[1::-1]
    _, made = make(tmp_path / "images", "grabcut")
    assert np.array_equal(read(made / "alpha.png"), read(made / "plain.png"))
    assert read(made / "lying.png").shape == photo.shape[:2]
    same = (read(made / "lying.png") >= 128) == (read(made / "plain.png") >= 128)
    assert same.mean() > 0.97  # but for the losses of JPEG


def test_guard_on_photos_without_a_person(tmp_path, portraits):
    save(tmp_path / "images/room.png", empty_room())
    save(tmp_path / "images/sub/black.png", np.zeros((64, 48, 3), np.uint8))
    save(tmp_path / "images/someone.png", portraits[0][0])
    for method, expected in (
        ("grabcut", {"sub/black.png": "blank"}),  # without a network a room is not told
        ("rembg", {"sub/black.png": "blank", "room.png": "found nothing"}),
        ("rembg_grabcut", {"sub/black.png": "blank", "room.png": "found nothing"}),
    ):
        _, made = make(tmp_path / "images", method)
        rejected = pd.read_csv(made / "rejected.csv")
        assert set(rejected.image) == set(expected)
        for row in rejected.itertuples():
            assert expected[row.image] in row.reason
            assert (read(made / row.image) == 255).all()
        assert 0.2 < (read(made / "someone.png") >= 128).mean() < 0.9


def test_what_is_there_is_kept_and_overwritten_on_request(folder, capsys):
    made_with, made = make(folder, "grabcut")
    meta = json.loads((made / "meta.json").read_text())
    assert meta["method"] == "grabcut" and meta["options"] == made_with
    good = (made / "p0/0.png").read_bytes()
    mine = {path: path.stat().st_mtime_ns for path in made.rglob("*.png")}
    (made / "p1/2.png").unlink()
    stale = made / f"p1/.2.png.99999999-{files.HOST}.tmp"
    stale.write_bytes(b"half")
    make(folder, "grabcut")
    again = {path: path.stat().st_mtime_ns for path in made.rglob("*.png")}
    assert again.keys() == mine.keys()
    assert [path.name for path in mine if again[path] != mine[path]] == ["2.png"]
    assert not stale.exists()
    assert "1 matte made, 3 kept" in capsys.readouterr().out
    (made / "p0/0.png").write_bytes(b"no longer good")
    make(folder, "grabcut", overwrite=True)
    assert (made / "p0/0.png").read_bytes() == good


DAMAGE = {
    "another photo": lambda photo, other, _: photo.write_bytes(other.read_bytes()),
    "no tie": lambda photo, _, path: save(path, np.full((256, 192), 255, np.uint8)),
    "truncated": lambda photo, _, path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda photo, _, path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_matte_that_is_not_of_its_photo_is_made_again(folder, damage, capsys):
    photo, other = folder / "p0/0.png", folder / "p0/1.png"
    _, made = make(folder, "grabcut")
    before, times = photo.stat(), other.stat()
    DAMAGE[damage](photo, other, made / "p0/0.png")
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))  # as cp -p would
    make(folder, "grabcut")
    out = capsys.readouterr().out
    assert "to make again: 1 matte in" in out and "1 matte made, 3 kept" in out
    _, fresh = make(folder, "grabcut", matte_dir=folder.parent / "fresh"), made.parents[1] / "fresh"
    for path in fresh.rglob("*.png"):
        assert path.read_bytes() == (made / path.relative_to(fresh / "grabcut")).read_bytes()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))  # the same photo, touched
    capsys.readouterr()
    make(folder, "grabcut")
    assert not capsys.readouterr().out


def test_a_kept_matte_of_rembg_is_not_used_for_another_photo(folder):
    for method in ("rembg", "rembg_grabcut"):
        _, made = make(folder, method)
    (folder / "p0/0.png").write_bytes((folder / "p1/3.png").read_bytes())
    make(folder, "rembg_grabcut")
    assert (made / "p0/0.png").read_bytes() == (made / "p1/3.png").read_bytes()


def test_photos_are_read_again_only_where_what_is_known_of_them_is_lost(folder, monkeypatch):
    _, made = make(folder, "grabcut")
    known, read, seen = made / "photos.json", matte.Job.read, []
    monkeypatch.setattr(matte.Job, "read", lambda *args: seen.append(args) or read(*args))
    before = known.read_text()
    wrong = json.dumps(dict.fromkeys(json.loads(before), 7))
    for content, count in ((before, 0), ("", 4), ("[]", 4), ('{"a": 1', 4), (wrong, 4)):
        known.write_text(content)
        seen.clear()
        make(folder, "grabcut")
        assert len(seen) == count and known.read_text() == before


def test_two_data_sets_in_one_folder_of_mattes_are_not_mixed(folder, capsys):
    other, shared = folder.parent / "other/images", folder.parent / "shared"
    for name in find_images(folder)[1]:
        save(other / name, read(folder / name)[:, ::-1])
    for images in (folder, other, folder):
        make(images, "grabcut", matte_dir=shared)
        found = {path.name: path.read_bytes() for path in (shared / "grabcut").rglob("*.png")}
        make(images, "grabcut", matte_dir=images.parent / "own")
        own = {path.name: path.read_bytes() for path in (images.parent / "own").rglob("*.png")}
        assert found == own
    assert capsys.readouterr().out.count("to make again: 4 mattes") == 2


def test_two_photos_do_not_share_a_matte(folder):
    names = ["p0/0.png", "p0/1.png", "p0/0.png"]  # one of them listed twice
    matte.ensure(folder, names, "grabcut", matte.Matting())
    save(folder / "p0/0.jpg", read(folder / "p0/1.png"))
    with pytest.raises(UserError, match=r"p0/0\.png and p0/0\.jpg differ in their suffix only"):
        matte.ensure(folder, [*names, "p0/0.jpg"], "grabcut", matte.Matting())


def test_the_digest_of_the_photo_is_text_that_others_read(folder):
    sha256 = hashlib.sha256((folder / "p1/3.png").read_bytes()).hexdigest()
    with Image.open(make(folder, "grabcut")[1] / "p1/3.png") as image:
        image.load()
        assert image.text == {"photo sha256": sha256}


def test_a_rejected_matte_stays_listed_if_what_is_known_of_it_is_lost(folder, capsys):
    """As after a kill: the mattes are there, photos.json is not."""
    save(folder / "black.png", np.zeros((64, 48, 3), np.uint8))
    _, made = make(folder, "grabcut")
    listed, before = (made / "rejected.csv").read_text(), read(made / "black.png")
    assert "black.png,the photo is blank" in listed
    for name in ("photos.json", "rejected.csv"):
        (made / name).unlink()
    capsys.readouterr()
    make(folder, "grabcut")
    assert "1 matte made, 4 kept, 1 rejected" in capsys.readouterr().out
    assert (made / "rejected.csv").read_text() == listed
    assert np.array_equal(read(made / "black.png"), before)
    (folder / "black.png").touch()
    make(folder, "grabcut")
    assert (made / "rejected.csv").read_text() == listed


def test_names_of_255_bytes(folder):
    for letter, pixels in (("a", read(folder / "p0/0.png")), ("b", np.zeros((64, 48), np.uint8))):
        save(folder / f"{letter * 251}.png", pixels)
    _, made = make(folder, "grabcut")
    assert list(pd.read_csv(made / "rejected.csv").image) == [f"{'b' * 251}.png"]
    names = [*find_images(folder)[1], f"{'c' * 300}.jpg"]
    with pytest.raises(UserError, match="File name too long"):
        matte.ensure(folder, names, "grabcut", matte.Matting())
    matte.ensure(folder, names, "grabcut", matte.Matting(on_error="skip"))


def test_mattes_that_are_all_there_may_be_read_only(folder, capsys, monkeypatch):
    make(folder, "grabcut")
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    capsys.readouterr()
    make(folder, "grabcut")
    assert {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")} == before
    assert not capsys.readouterr().out

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files, "locked", read_only)
    (folder / "p0/0.png").write_bytes(b"no photo")
    make(folder, "grabcut", on_error="skip")
    assert "0 mattes made, 3 kept, 0 rejected; 1 broken, skipped" in capsys.readouterr().out


def test_mattes_of_other_options_are_not_mixed(folder, tmp_path):
    other = tmp_path / "mine.onnx"
    other.write_bytes((files.WEIGHTS / "u2netp.onnx").read_bytes())
    root, names = find_images(folder)

    def one(**options):
        return matte.ensure(root, names[:1], "rembg", matte.Matting(**options))

    options = one()
    made = default_matte_dir(root) / "rembg"
    assert options["rembg_model"] == "u2netp" and len(options["sha256"]) == 64
    with pytest.raises(UserError, match=r"another rembg_model; .*--overwrite"):
        one(rembg_model=str(other))
    save(leftover := made / "gone/old.png", np.zeros((4, 4, 3), np.uint8))
    assert one(rembg_model=str(other), overwrite=True)["rembg_model"] == "custom"
    assert not leftover.exists() and make(folder, "rembg", rembg_model=str(other))
    with pytest.raises(UserError, match=r"would remove mattes of \d+ photos more"):
        one(overwrite=True)
    (made / "meta.json").unlink()
    with pytest.raises(UserError, match=r"meta\.json of its mattes is missing"):
        one()


def test_overwrite_keeps_the_mattes_where_the_network_fails(folder, tmp_path):
    """The folder may be a link to another disk."""
    _, made = make(folder, "rembg")
    made.rename(tmp_path / "disk")
    made.symlink_to(tmp_path / "disk")
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    other = tmp_path / "other.onnx"
    other.write_bytes(b"no network")
    with pytest.raises(UserError, match="cannot open"):
        make(folder, "rembg", rembg_model=str(other), overwrite=True)
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    other.write_bytes((files.WEIGHTS / "u2netp.onnx").read_bytes())
    make(folder, "rembg", rembg_model=str(other), overwrite=True)
    assert "custom" in (made / "meta.json").read_text() and made.is_symlink()


def test_ranks_share_the_work_and_one_list(folder, monkeypatch):
    save(folder / "p0/black.png", np.zeros((64, 48, 3), np.uint8))
    save(folder / "p0/grey.png", np.full((64, 48, 3), 99, np.uint8))
    monkeypatch.setenv("WORLD_SIZE", "2")
    counts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        _, made = make(folder, "grabcut")
        counts.append(len(list(made.rglob("*.png"))))
    assert counts == [3, 6]
    assert sorted(pd.read_csv(made / "rejected.csv").image) == ["p0/black.png", "p0/grey.png"]


def test_broken_photo(folder, capsys):
    (folder / "p1/broken.jpg").write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"broken\.jpg.*--on_error skip"):
        make(folder, "grabcut")
    _, made = make(folder, "grabcut", on_error="skip")
    assert "1 broken, skipped" in capsys.readouterr().out
    assert len(list(made.rglob("*.png"))) == 4
    assert not matte_path(made.parent, "grabcut", "p1/broken.jpg").exists()
    (folder / "p0/0.png").write_bytes(b"broken after its matte was made")
    make(folder, "grabcut", on_error="skip")
    assert not (made / "p0/0.png").exists()


def test_a_broken_photo_is_no_longer_listed_as_rejected(folder):
    save(folder / "black.png", np.zeros((64, 48, 3), np.uint8))
    _, made = make(folder, "grabcut")
    assert list(pd.read_csv(made / "rejected.csv").image) == ["black.png"]
    (folder / "black.png").write_bytes(b"no photo")
    make(folder, "grabcut", on_error="skip")
    assert not len(pd.read_csv(made / "rejected.csv"))


def test_wrong_input_is_one_clear_line(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    for options, words in (
        ({"method": "grabcut", "matte_dir": tmp_path / "file"}, "--matte_dir"),
        ({"method": "rembg", "rembg_model": "none.onnx"}, "no such file"),
        ({"method": "rembg", "rembg_model": "u2netq"}, "find people: .*u2netp"),
        ({"method": "rembg", "rembg_model": "sam"}, "find people: .*u2netp"),
        ({"method": "rembg", "rembg_model": str(tmp_path / "bad.onnx")}, "cannot open"),
        ({"method": "rembg", "device": "cuda"}, "onnxruntime-gpu"),
    ):
        with pytest.raises(UserError, match=words) as error:
            make(folder, **options)
        assert "\n" not in str(error.value)
