"""rembg's matting networks, run by onnxruntime: the U-2-Nets with rembg's own arithmetic, in
threads; every other through rembg's session classes, since each normalises photos in its own way.
"""

import hashlib
import os
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common.errors import UserError
from common.files import WEIGHTS
from common.processes import say

# Those of rembg, and a file that rembg has no class for.
U2NETS = ("u2netp", "u2net", "u2net_human_seg", "silueta", "custom")
UNFIT = ("sam", "u2net_cloth_seg")  # one needs clicks, the other answers with kinds of clothes
MEAN = np.float32((0.485, 0.456, 0.406)).reshape(3, 1, 1)
STD = np.float32((0.229, 0.224, 0.225)).reshape(3, 1, 1)
CUDA = "CUDAExecutionProvider"


@dataclass
class Model:
    """A model that was found: its name, its file, the SHA-256 of that file."""

    name: str
    path: Path
    sha256: str


@dataclass
class Net:
    """An opened model, which takes one photo a call: the files of the U-2-Nets take no more."""

    model: Model
    session: Any  # onnxruntime's, or rembg's for models beyond the U-2-Nets
    turn: Any  # held during a call: a lock on a GPU, whose memory the workers would share

    def matte(self, photo):
        """(matte, uint8 (H, W), highest probability, 1 for models that give none) of a photo, uint8
        (H, W, 3) RGB. UserError for a network of another kind.
        """
        run = self._u2net if self.model.name in U2NETS else self._other
        try:
            matte, sure = run(Image.fromarray(photo))
            if matte.shape != photo.shape[:2]:
                raise ValueError
        except Exception as error:  # each kind of network fails in its own way
            kind = type(error).__name__
            raise UserError(f"{self.model.path}: gives no matte of a photo ({kind})") from None
        return matte, sure

    def _u2net(self, photo):
        taken, given = self.session.get_inputs()[0], self.session.get_outputs()[0]
        side = taken.shape[-1]
        image = np.asarray(photo.resize((side, side), Image.Resampling.LANCZOS))
        image = image.transpose(2, 0, 1).astype(np.float32)
        image = (image / max(image.max(), 1e-6) - MEAN) / STD
        with self.turn:
            found = self.session.run([given.name], {taken.name: image[None]})[0]
        if found.min() < 0 or found.max() > 1:  # logits, as of BiRefNet, no probabilities
            found = 1 / (1 + np.exp(-found))
        return stretched(found[0, 0], photo.size)

    def _other(self, photo):
        with self.turn:
            return np.asarray(self.session.predict(photo)[0].convert("L")), 1.0


def stretched(found, size):
    """(the network's output, float32 (h, w), as uint8 of `size`, (W, H), stretched to the full
    range as rembg does, its highest). Nothing is found in a constant or NaN.
    """
    low, high = found.min(), found.max()
    if not high > low:
        return np.zeros(size[::-1], np.uint8), 0.0
    small = ((found - low) / (high - low)).clip(0, 1) * 255
    small = Image.fromarray(small.astype(np.uint8))
    return np.asarray(small.resize(size, Image.Resampling.LANCZOS)), float(high)


def find_model(name):
    """The Model of --rembg_model: an .onnx file, or the name of one of rembg's models.

    A name is looked up in weights/, then in rembg's own cache, then downloaded by rembg.
    UserError for a missing file, an unknown name, or a download that fails.
    """
    path = Path(name)
    if path.suffix == ".onnx":
        if not path.is_file():
            path = WEIGHTS / path.name
            if not path.is_file():
                raise UserError(f"--rembg_model {name}: there is no such file, nor {path}")
            say(f"--rembg_model {name} does not exist: {path} is used")
        name = path.stem
    else:
        path = WEIGHTS / f"{name}.onnx"
        path = path if path.is_file() else _from_rembg(name)
    if name not in U2NETS and name not in _classes():
        name = "custom"
    with path.open("rb") as file:
        return Model(name, path, hashlib.file_digest(file, "sha256").hexdigest())


def _from_rembg(name):
    classes = _classes()
    if name not in classes:
        known = " ".join(sorted(classes))
        raise UserError(f"--rembg_model {name}: is none of rembg's that find people: {known}")
    import pooch  # rembg's downloader

    pooch.get_logger().setLevel("ERROR")
    try:
        return Path(classes[name].download_models())
    except Exception as error:  # whatever rembg, pooch and requests raise without a network
        raise UserError(
            f"--rembg_model {name}: its download failed ({type(error).__name__}); put {name}.onnx "
            f"into {WEIGHTS} (bash scripts/setup.sh fetches u2netp.onnx)"
        ) from None


def _classes():
    """rembg's sessions that find people, by name. Imported late: that may take half a minute."""
    threads = torch.get_num_threads()
    from rembg.sessions import sessions

    torch.set_num_threads(threads)  # pymatting, which rembg imports, sets it to all cores
    return {name: cls for name, cls in sessions.items() if cls.is_local() and name not in UNFIT}


def open_net(model, device, threads=1):
    """An opened Net, which any number of workers may use at the same time; device: of Matting;
    threads: of one call, on the CPU. UserError if onnxruntime cannot use the GPU that was asked
    for, or the file is not a network.
    """
    import onnxruntime

    kind, _, index = device.partition(":")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors only
    providers = ["CPUExecutionProvider"]
    if kind != "cpu" and CUDA in onnxruntime.get_available_providers():
        gpu = {"device_id": int(index or os.environ.get("LOCAL_RANK", 0))}
        providers = [(CUDA, gpu), *providers]
    try:
        if model.name in U2NETS:
            session = onnxruntime.InferenceSession(str(model.path), options, providers=providers)
        else:
            cls = _classes()[model.name]
            # The class looks for its file by itself: this one is shown the file that was found.
            found = {"download_models": lambda *_, **__: str(model.path)}
            session = type(cls.__name__, (cls,), found)(
                model.name, options, providers=providers, model_path=str(model.path)
            )
    except Exception as error:  # onnxruntime has an exception type for each kind of broken file
        text = str(error).splitlines()[0]
        raise UserError(f"{model.path}: onnxruntime cannot open it ({text})") from None
    on_gpu = CUDA in getattr(session, "inner_session", session).get_providers()
    if kind == "cuda" and not on_gpu:
        raise UserError(
            f"--device {device}: onnxruntime failed to load CUDA; replace the package onnxruntime "
            "by onnxruntime-gpu, or use --device cpu"
        )
    if len(providers) > 1 and not on_gpu:
        say("the network runs on the CPU, since onnxruntime failed to load CUDA")
    return Net(model, session, threading.Lock() if on_gpu else nullcontext())
