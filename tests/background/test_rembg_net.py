"""rembg's networks: found, opened on the device that was asked for, and their output."""

import socket
import threading
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from background import matte, rembg_net
from common.errors import UserError
from dataset import find_images

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def with_cuda(monkeypatch):
    """An onnxruntime that claims CUDA and computes on the CPU.

    Returns opened: the providers of each session; loads: whether CUDA loads; calls: the number of
    calls on the GPU, of which no two may run at the same time.
    """
    seen = SimpleNamespace(opened=[], loads=True, calls=0)
    busy, real = threading.Lock(), onnxruntime.InferenceSession

    class Session(real):
        def __init__(self, path, options, providers):
            seen.opened.append(providers)
            self.on_gpu = len(providers) > 1
            super().__init__(path, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return [CUDA, *super().get_providers()] if seen.loads else super().get_providers()

        def run(self, *args):
            if not self.on_gpu:
                return super().run(*args)
            assert busy.acquire(blocking=False), "two calls at the same time"
            seen.calls += 1
            try:
                return super().run(*args)
            finally:
                busy.release()

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    available = [CUDA, "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    return seen


@pytest.mark.parametrize(
    "device, local_rank, index",
    [("cuda:1", "0", 1), ("cuda", "0", 0), ("cuda", "2", 2), ("auto:3", "0", 3), ("auto", "1", 1)],
)
def test_the_gpu_that_was_asked_for(device, local_rank, index, with_cuda, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    rembg_net.open_net(rembg_net.find_model("u2netp"), device)
    assert with_cuda.opened == [[(CUDA, {"device_id": index}), "CPUExecutionProvider"]]


def test_mattes_are_made_on_the_gpu_by_one_net_in_turns(folder, with_cuda):
    """Two workers; one photo is broken."""
    (folder / "p1/broken.jpg").write_bytes(b"no photo")
    root, names = find_images(folder)
    made = []
    for device in ("cpu", "cuda:1"):
        out = folder.parent / device
        matting = matte.Matting(out, device=device, on_error="skip", workers=2)
        matte.ensure(root, names, "rembg_grabcut", matting)
        made.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")})
    first = [providers[0] for providers in with_cuda.opened]
    assert first == ["CPUExecutionProvider", (CUDA, {"device_id": 1})]
    assert with_cuda.calls == len(made[0]) == 4 and made[0] == made[1]


def test_without_a_usable_gpu_auto_takes_the_cpu(with_cuda, monkeypatch, capsys):
    model = rembg_net.find_model("u2netp")
    with_cuda.loads = False
    with pytest.raises(UserError, match="cuda:1: onnxruntime failed to load CUDA"):
        rembg_net.open_net(model, "cuda:1")
    net = rembg_net.open_net(model, "auto:1")
    assert CUDA not in net.session.get_providers()
    assert "runs on the CPU" in capsys.readouterr().out
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for device in ("auto", "auto:1", "cpu"):
        rembg_net.open_net(model, device)
        assert with_cuda.opened[-1] == ["CPUExecutionProvider"]
    with pytest.raises(UserError, match=r"cuda:1: .*onnxruntime-gpu"):
        rembg_net.open_net(model, "cuda:1")


def test_models_beyond_the_u2nets_go_through_the_session_of_rembg():
    def session_of(shape):
        picture = Image.fromarray(np.full(shape, 200, np.uint8))
        return SimpleNamespace(predict=lambda photo: [picture.convert("RGB")])

    photo = np.zeros((30, 20, 3), np.uint8)
    model = rembg_net.Model("isnet-general-use", "isnet.onnx", "")
    made, sure = rembg_net.Net(model, session_of((30, 20)), threading.Lock()).matte(photo)
    assert sure == 1 and made.dtype == np.uint8 and np.array_equal(made, np.full((30, 20), 200))
    with pytest.raises(UserError, match=r"isnet\.onnx: gives no matte of a photo"):
        rembg_net.Net(model, session_of((90, 20)), threading.Lock()).matte(photo)


@pytest.mark.parametrize("name", ["mine", "../mine"])
def test_a_file_of_weights_needs_no_name_of_rembg(name, tmp_path, monkeypatch):
    path = tmp_path / f"weights/{name}.onnx"
    (tmp_path / "weights").mkdir()
    path.write_bytes((rembg_net.WEIGHTS / "u2netp.onnx").read_bytes())
    monkeypatch.setattr(rembg_net, "WEIGHTS", tmp_path / "weights")
    model = rembg_net.find_model(name)
    assert model.name == "custom"
    rembg_net.open_net(model, "cpu").matte(np.zeros((30, 20, 3), np.uint8))


def identity_network(*shape):
    """A network in the format of ONNX that gives what it takes: floats of a shape, whose sides
    are numbers, or names where any will do.
    """

    def field(number, value):
        if isinstance(value, int):
            return bytes([number << 3, value])
        value = value.encode() if isinstance(value, str) else value
        return bytes([number << 3 | 2, len(value)]) + value

    sides = b"".join(field(1, field(2 - isinstance(side, int), side)) for side in shape)
    kind = field(2, field(1, field(1, 1) + field(2, sides)))  # floats
    node = field(1, "x") + field(2, "y") + field(4, "Identity")
    places = field(11, field(1, "x") + kind) + field(12, field(1, "y") + kind)
    graph = field(1, node) + field(2, "g") + places
    return field(1, 8) + field(8, field(2, 13)) + field(7, graph)


@pytest.mark.parametrize("shape", [(1, 10), (1, 3, "high", "wide")])
def test_a_network_of_another_kind_is_one_clear_line(shape, tmp_path):
    (tmp_path / "other.onnx").write_bytes(identity_network(*shape))
    model = rembg_net.find_model(str(tmp_path / "other.onnx"))
    with pytest.raises(UserError, match=r"other\.onnx: gives no matte of a photo") as error:
        rembg_net.open_net(model, "cpu").matte(np.zeros((30, 20, 3), np.uint8))
    assert "\n" not in str(error.value)


def test_logits_are_made_probabilities():
    """As of BiRefNet under the name of its own file: one low logit would lift all others."""
    logits = np.full((1, 1, 4, 4), -3, np.float32)
    logits[..., 2:, :], logits[..., 0, 0] = 9, -25

    def net(found):
        given = SimpleNamespace(name="x", shape=(1, 3, 4, 4))
        run = SimpleNamespace(
            get_inputs=lambda: [given], get_outputs=lambda: [given], run=lambda *_: [found]
        )
        model = rembg_net.Model("custom", "mine.onnx", "")
        return rembg_net.Net(model, run, threading.Lock()).matte(np.zeros((4, 4, 3), np.uint8))

    made, sure = net(logits)
    assert made[1].max() < 15 and made[3].min() > 250 and sure == pytest.approx(1, abs=1e-3)
    same, _ = net(1 / (1 + np.exp(-logits)))
    np.testing.assert_array_equal(made, same)


def test_a_file_by_the_name_of_a_class_that_asks_for_a_path(tmp_path):
    path = tmp_path / "u2net_custom.onnx"
    path.write_bytes((rembg_net.WEIGHTS / "u2netp.onnx").read_bytes())
    net = rembg_net.open_net(rembg_net.find_model(str(path)), "cpu")
    made, _ = net.matte(np.zeros((30, 20, 3), np.uint8))
    assert made.shape == (30, 20)


@pytest.mark.parametrize("value", [np.nan, 0.0, 0.7])
def test_a_constant_output_finds_nothing(value):
    made, sure = rembg_net.stretched(np.full((320, 320), value, np.float32), (30, 40))
    assert sure == 0 and made.shape == (40, 30) and not made.any()


def test_offline_without_weights(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(rembg_net, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"u2net\.onnx.*weights") as error:
        rembg_net.find_model("u2net")
    assert "\n" not in str(error.value)
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache/u2net.onnx").write_bytes(b"model")
    assert rembg_net.find_model("u2net").path == tmp_path / "cache/u2net.onnx"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/mine.onnx").write_bytes(b"model")  # of a run that was moved here
    assert rembg_net.find_model("/gone/mine.onnx").path == tmp_path / "weights/mine.onnx"
