"""Mattes and photos as files: how they are read, and what is said where they cannot be."""

import os
import resource

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from photos.reading import default_matte_dir, matte_path, read_matte, read_photo


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P"])
def test_a_matte_is_read_as_grey_whatever_its_file_holds(tmp_path, mode):
    mask = (np.indices((20, 30)).sum(0) % 7 > 3).astype(np.uint8) * 255
    Image.fromarray(mask).convert(mode).save(tmp_path / "m.png")
    for shape in (None, (20, 30)):
        matte = read_matte(tmp_path / "m.png", shape)
        assert matte.dtype == np.uint8 and np.array_equal(matte, mask)


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    for read in (read_photo, read_matte):
        with pytest.raises(UserError, match=r"gone\.png does not exist"):
            read(tmp_path / "gone.png")
        for name in ("empty.png", "text.png"):
            with pytest.raises(UserError, match=f"{name}: is not a readable image"):
                read(tmp_path / name)
        os.mkfifo(tmp_path / f"{read.__name__}.png")  # nobody writes into it
        with pytest.raises(UserError, match="not a regular file"):
            read(tmp_path / f"{read.__name__}.png")
    Image.new("L", (30, 20)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"m\.png: is \(20, 30\), its photo \(30, 20\)"):
        read_matte(tmp_path / "m.png", (30, 20))


def test_a_damaged_header_takes_no_memory(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "m.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "p.jpg")
    png, jpg = (bytearray((tmp_path / name).read_bytes()) for name in ("m.png", "p.jpg"))
    png[33:37] = b"\xff\xff\xff\x00"  # the size of its second chunk
    size = jpg.index(b"\xff\xc0") + 5
    jpg[size : size + 4] = (30000).to_bytes(2, "big") * 2
    for data in (png, jpg):
        (tmp_path / "damaged").write_bytes(data)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for least in (None, (32, 24)):
            with pytest.raises(UserError, match="damaged: is not a readable image"):
                read_photo(tmp_path / "damaged", least=least)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def saved(path, photo, **how):
    """Writes a photo, (H, W, 3), as a JPEG of high quality."""
    Image.fromarray(photo).save(path, quality=95, **how)
    return path


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + b"x" * 3000}])
def test_a_large_jpeg_is_decoded_smaller_where_that_will_do(tmp_path, how):
    rng = np.random.default_rng(0)
    photo = np.asarray(
        Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).resize((333, 500))
    )
    path = saved(tmp_path / "p.jpg", photo, **how)
    for least, times in (
        ((500, 333), 1),
        ((251, 10), 1),
        ((250, 166), 2),
        ((100, 80), 4),
        ((9, 9), 8),
    ):
        found = read_photo(path, least=least)
        assert found.shape[:2] == (-(-500 // times), -(-333 // times))
        other = Image.open(path)  # the same library's own way, and a plain mean
        other.draft("RGB", (333 // times, 500 // times))
        assert np.abs(found - np.asarray(other).astype(int)).max() <= 1
        mean = np.asarray(Image.open(path).reduce(times)).astype(int)
        assert np.abs(found - mean).mean() < 1
    Image.fromarray(photo).save(tmp_path / "p.png")
    assert np.array_equal(read_photo(tmp_path / "p.png", least=(9, 9)), photo)  # for JPEG alone


def test_a_photo_on_its_side_is_not_decoded_too_small(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (40, 120, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # upright it is 120 x 40
    path = saved(tmp_path / "p.jpg", photo, exif=exif)
    assert read_photo(path, least=(20, 20)).shape == (60, 20, 3)
    assert read_photo(path, least=(20, 40)).shape == (120, 40, 3)


def test_where_mattes_lie(tmp_path):
    assert default_matte_dir(tmp_path / "train/images") == tmp_path / "train/mattes"
    assert default_matte_dir(tmp_path / "holiday") == tmp_path / "holiday_mattes"
    path = matte_path(tmp_path, "rembg", "person.1/normal.JPG")
    assert path == tmp_path / "rembg/person.1/normal.png"
