import json
import socket
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.metrics import jaccard_score

import demo
from background import grabcut, matte, rembg_net
from common import files
from common.errors import UserError
from dataset import find_images
from photos.reading import matte_path, read_photo


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """One photo of each person of a drawn competition: [(photo, true matte)]."""
    out = tmp_path_factory.mktemp("drawn") / "demo"
    demo.main(["--out", str(out), "--people", "24", "--eval_people", "3", "--size", "256", "192"])
    root, names = find_images(out / "train")
    picked = [name for i, name in enumerate(names) if i % 7 == i // 7 % 7]
    truths = [(out / "mattes_true/train" / name).with_suffix(".png") for name in picked]
    pairs = [(read_photo(root / name), truth) for name, truth in zip(picked, truths, strict=True)]
    return [(photo, cv2.imread(str(truth), cv2.IMREAD_GRAYSCALE)) for photo, truth in pairs]


@pytest.fixture(scope="module")
def net():
    return rembg_net.open_net(rembg_net.find_model("u2netp"), "cpu", 2)


@pytest.fixture
def folder(tmp_path, drawn):
    """A plain folder of four people, two photos a folder; returns its `images`."""
    for i, (photo, _) in enumerate(drawn[:4]):
        save(tmp_path / f"images/p{i // 2}/{i}.png", photo)
    return tmp_path / "images"


def save(path, photo):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(path)


def through_net(net, photo):
    return net.finish(net.forward([net.prepare(photo)])[0], photo.shape[:2])


def overlap(made, truth):
    return jaccard_score(truth.ravel() >= 128, made.ravel() >= 128)


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def make(images, method, **options):
    root, names = find_images(images)
    meta = matte.ensure(root, names, method, **options)
    return meta, matte.default_matte_dir(root) / method


def empty_room():
    """A wall with a shaded lamp's glow and a floor, without anybody."""
    y, x = np.mgrid[0:256, 0:192].astype(np.float32)
    wall = 150 + 50 * np.exp(-((x - 40) ** 2 + (y - 60) ** 2) / 4000) - 60 * (y > 200)
    grain = np.random.default_rng(0).normal(0, 4, (256, 192, 1))
    return np.clip(wall[..., None] * (1, 0.95, 0.8) + grain, 0, 255).astype(np.uint8)


def rectangle_cut(photo):
    """GrabCut as its tutorial has it: a rectangle, full resolution, five iterations."""
    height, width = photo.shape[:2]
    labels = np.zeros((height, width), np.uint8)
    box = (width // 20, height // 20, width * 9 // 10, height * 9 // 10)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(photo, labels, box, *models, 5, cv2.GC_INIT_WITH_RECT)
    return (labels % 2 * 255).astype(np.uint8)


def test_grabcut_finds_the_people_and_beats_a_rectangle(drawn):
    ours = [overlap(grabcut.grabcut(photo), truth) for photo, truth in drawn]
    rectangle = [overlap(rectangle_cut(photo), truth) for photo, truth in drawn[:6]]
    assert np.mean(ours) > 0.85
    assert np.mean(ours[:6]) > np.mean(rectangle) + 0.05


def test_grabcut_wins_back_what_the_network_missed(drawn, net):
    alone, both = [], []
    for photo, truth in drawn[:5]:
        seed, sure = through_net(net, photo)
        assert sure > 0.9
        alone.append(overlap(seed, truth))
        both.append(overlap(grabcut.grabcut(photo, seed), truth))
    assert np.mean(alone) > 0.75
    assert np.mean(both) > max(0.92, np.mean(alone))


def test_grabcut_keeps_what_the_network_found(drawn):
    photo, truth = drawn[0]
    seed = truth.copy()
    seed[len(seed) // 2 :] = 0  # a network that saw the head only
    made = grabcut.grabcut(photo, seed)
    assert (made >= seed).all()
    assert overlap(made, truth) > overlap(seed, truth) + 0.2


def test_grabcut_is_the_same_in_any_thread_and_at_any_time(drawn):
    photos = [photo for photo, _ in drawn[:4]]
    first = [grabcut.grabcut(photo) for photo in photos]
    cv2.setRNGSeed(77)
    with ThreadPoolExecutor(3) as pool:
        again = list(pool.map(grabcut.grabcut, photos[::-1]))[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("shape", [(90, 300), (40, 40), (7, 5), (600, 20)])
def test_grabcut_takes_any_shape(shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    made = grabcut.grabcut(photo)
    assert made.shape == shape and made.dtype == np.uint8


def test_mattes_are_those_of_rembg(folder, drawn, monkeypatch):
    """Through files, so that RGB and BGR are told apart too."""
    monkeypatch.setenv("U2NET_HOME", str(files.WEIGHTS))
    rembg_net._classes()  # imports rembg, and leaves torch its threads
    assert torch.get_num_threads() == 1
    rembg = pytest.importorskip("rembg")
    wide = np.hstack([drawn[6][0], drawn[7][0]])
    save(folder / "wide.png", wide)
    _, made = make(folder, "rembg", workers=2)
    session = rembg.new_session("u2netp", providers=["CPUExecutionProvider"])
    for name in ("p0/0.png", "p1/3.png", "wide.png"):
        theirs = rembg.remove(Image.open(folder / name), session=session, only_mask=True)
        ours = read(made / name)
        assert ours.shape == theirs.size[::-1]
        assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= 1
    swapped = Image.fromarray(drawn[0][0][..., ::-1].copy())
    theirs = rembg.remove(swapped, session=session, only_mask=True)
    assert np.abs(read(made / "p0/0.png").astype(int) - np.asarray(theirs)).max() > 10


def test_freed_batches_give_what_single_photos_give(drawn, net):
    import onnxruntime

    freed = rembg_net.free_batch(net.model.path.read_bytes(), net.session)
    session = onnxruntime.InferenceSession(freed, providers=["CPUExecutionProvider"])
    assert not isinstance(session.get_inputs()[0].shape[0], int)
    batched = rembg_net.Net(net.model, session, batches=True)
    inputs = [net.prepare(photo) for photo, _ in drawn[:2]]
    together, apart = batched.forward(inputs), net.forward(inputs)
    assert len(together) == 2
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_batches_write_the_same_files_as_workers(folder, net, monkeypatch):
    """The way of the GPU, run on the CPU; one photo is broken."""
    (folder / "p1/broken.jpg").write_bytes(b"no photo")
    _, apart = make(folder, "rembg_grabcut", on_error="skip", workers=2)
    monkeypatch.setattr(matte, "_open_on_gpu", lambda job: net)
    monkeypatch.setattr(matte, "BATCH", 2)
    other = folder.parent / "other"
    make(folder, "rembg_grabcut", on_error="skip", device="cuda", matte_dir=other)
    names = sorted(path.relative_to(apart) for path in apart.rglob("*.png"))
    assert len(names) == 4
    for name in names:
        assert read(apart / name).tobytes() == read(other / "rembg_grabcut" / name).tobytes()


def test_both_are_the_same_with_and_without_kept_mattes_of_rembg(folder):
    save(folder / "room.png", empty_room())
    _, alone = make(folder, "rembg_grabcut")
    other = folder.parent / "other"
    make(folder, "rembg", matte_dir=other)
    make(folder, "rembg_grabcut", matte_dir=other)
    files = [path.relative_to(alone) for path in alone.rglob("*") if path.is_file()]
    assert len(files) == 5 + 3  # mattes, meta.json, rejected.csv and the note of the room
    for name in files:
        assert (alone / name).read_bytes() == (other / "rembg_grabcut" / name).read_bytes()


def test_alpha_and_orientation(tmp_path, drawn):
    photo = drawn[0][0]
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
    assert overlap(read(made / "lying.png"), read(made / "plain.png")) > 0.95


def test_guard_on_photos_without_a_person(tmp_path, drawn):
    save(tmp_path / "images/room.png", empty_room())
    save(tmp_path / "images/sub/black.png", np.zeros((64, 48, 3), np.uint8))
    save(tmp_path / "images/someone.png", drawn[0][0])
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


def test_guard_takes_a_poster_of_faces_for_people(tmp_path, drawn, net):
    """Faces on a poster are faces to the network: such a photo is not rejected."""
    faces = [cv2.resize(photo, (48, 64), interpolation=cv2.INTER_AREA) for photo, _ in drawn[:16]]
    poster = np.vstack([np.hstack(faces[i : i + 4]) for i in range(0, 16, 4)])
    seed, sure = through_net(net, poster)
    assert sure > matte.LEAST_SURE and matte.fault(seed) is None


@pytest.mark.parametrize(
    "box, words",
    [
        ((0, 0, 0, 0), "less than 3%"),
        ((90, 40, 100, 60), "less than 3%"),
        ((0, 0, 100, 100), "more than 98%"),
        ((0, 0, 100, 30), "of the centre"),
        ((0, 0, 24, 100), "of the centre"),
        ((20, 30, 100, 80), None),
    ],
)
def test_faults(box, words):
    made = np.zeros((100, 100), np.uint8)
    made[box[0] : box[2], box[1] : box[3]] = 255
    found = matte.fault(made)
    assert found is None if words is None else words in found


@pytest.mark.parametrize("value", [np.nan, 0.0, 0.7])
def test_a_constant_output_finds_nothing(net, value):
    made, sure = net.finish(np.full((320, 320), value, np.float32), (40, 30))
    assert sure == 0 and made.shape == (40, 30) and not made.any()


def test_what_is_there_is_kept_and_overwritten_on_request(folder, capsys):
    meta, made = make(folder, "grabcut")
    assert meta == json.loads((made / "meta.json").read_text()) and meta["method"] == "grabcut"
    good = (made / "p0/0.png").read_bytes()
    (made / "p0/0.png").write_bytes(b"mine")
    (made / "p1/2.png").unlink()
    stale = made / "p1/.2.png.123.tmp"
    stale.write_bytes(b"half")
    make(folder, "grabcut")
    assert (made / "p0/0.png").read_bytes() == b"mine" and (made / "p1/2.png").exists()
    assert not stale.exists()
    assert "1 mattes made, 3 kept" in capsys.readouterr().out
    make(folder, "grabcut", overwrite=True)
    assert (made / "p0/0.png").read_bytes() == good


def test_mattes_of_other_options_are_not_mixed(folder, tmp_path):
    other = tmp_path / "mine.onnx"
    other.write_bytes((files.WEIGHTS / "u2netp.onnx").read_bytes())
    root, names = find_images(folder)

    def one(**options):
        return matte.ensure(root, names[:1], "rembg", **options)["options"]

    options = one()
    made = matte.default_matte_dir(root) / "rembg"
    assert options["rembg_model"] == "u2netp" and len(options["sha256"]) == 64
    with pytest.raises(UserError, match="--overwrite"):
        one(rembg_model=str(other))
    leftover = made / "gone/old.png"
    save(leftover, np.zeros((4, 4, 3), np.uint8))
    assert one(rembg_model=str(other), overwrite=True)["rembg_model"] == "custom"
    assert not leftover.exists()
    (made / "meta.json").unlink()
    with pytest.raises(UserError, match=r"no meta\.json"):
        one()


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


def test_wrong_input_is_one_clear_line(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    for options, words in (
        ({"method": "grabcat"}, "none of grabcut rembg rembg_grabcut"),
        ({"method": "grabcut", "matte_dir": tmp_path / "file"}, "--matte_dir"),
        ({"method": "rembg", "rembg_model": "none.onnx"}, "no such file"),
        ({"method": "rembg", "rembg_model": "u2netq"}, "rembg has no such model"),
        ({"method": "rembg", "rembg_model": "sam"}, "try u2netp"),
        ({"method": "rembg", "rembg_model": str(tmp_path / "bad.onnx")}, "cannot open"),
        ({"method": "rembg", "device": "cuda"}, "onnxruntime-gpu"),
    ):
        with pytest.raises(UserError, match=words) as error:
            make(folder, **options)
        assert "\n" not in str(error.value)


def test_offline_without_weights(folder, tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(rembg_net, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"u2net\.onnx.*weights") as error:
        make(folder, "rembg", rembg_model="u2net")
    assert "\n" not in str(error.value)
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache/u2net.onnx").write_bytes(b"model")
    assert rembg_net.find_model("u2net").path == tmp_path / "cache/u2net.onnx"
