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

U2NET = ("u2netp", "u2net", "u2net_human_seg", "silueta")
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

    @property
    def is_u2net(self):
        """True for the family, and for a file that rembg has no class for."""
        return self.name in (*U2NET, "custom")


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
        try:
            matte, sure = self._u2net(photo) if self.model.is_u2net else self._other(photo)
        except Exception as error:  # each kind of network fails in its own way
            kind = type(error).__name__
            raise UserError(f"{self.model.path}: gives no matte of a photo ({kind})") from None
        if matte.shape != photo.shape[:2]:
            raise UserError(f"--rembg_model {self.model.name}: does not give one matte a photo")
        return matte, sure

    def _u2net(self, photo):
        taken, given = self.session.get_inputs()[0], self.session.get_outputs()[0]
        side = taken.shape[-1]
        image = np.asarray(Image.fromarray(photo).resize((side, side), Image.Resampling.LANCZOS))
        image = image.transpose(2, 0, 1).astype(np.float32)
        image = (image / max(image.max(), 1e-6) - MEAN) / STD
        with self.turn:
            found = self.session.run([given.name], {taken.name: image[None]})[0]
        return stretched(found[0, 0], photo.shape[:2])

    def _other(self, photo):
        with self.turn:
            found = self.session.predict(Image.fromarray(photo))[0]
        return np.asarray(found.convert("L")), 1.0


def stretched(found, shape):
    """(the network's output, float32 (h, w), as uint8 of `shape`, stretched to the full range as
    rembg does, its highest). Nothing is found in a constant or NaN.
    """
    low, high = found.min(), found.max()
    if not high > low:
        return np.zeros(shape, np.uint8), 0.0
    small = ((found - low) / (high - low)).clip(0, 1) * 255
    small = Image.fromarray(small.astype(np.uint8))
    return np.asarray(small.resize(shape[::-1], Image.Resampling.LANCZOS)), float(high)


def find_model(name):
    """The Model of --rembg_model: an .onnx file, or the name of one of rembg's models.

    A name is looked up in weights/, then in rembg's own cache, then downloaded by rembg.
    UserError for a missing file, an unknown name, or a download that fails.
    """
    if name in UNFIT:
        raise UserError(f"--rembg_model {name}: is not a model that finds people; try u2netp")
    path = Path(name)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise UserError(f"--rembg_model {name}: there is no such file")
        name = path.stem if path.stem in U2NET or path.stem in _classes() else "custom"
    elif (WEIGHTS / f"{name}.onnx").is_file():
        path = WEIGHTS / f"{name}.onnx"
    else:
        path = _from_rembg(name)
    with path.open("rb") as file:
        return Model(name, path, hashlib.file_digest(file, "sha256").hexdigest())


def _from_rembg(name):
    classes = _classes()
    if name not in classes or not classes[name].is_local():
        known = " ".join(sorted(key for key in classes if key not in UNFIT))
        raise UserError(f"--rembg_model {name}: rembg has no such model; it has {known}")
    import pooch  # rembg's downloader

    pooch.get_logger().setLevel("ERROR")
    try:
        return Path(classes[name].download_models())
    except Exception as error:  # whatever rembg, pooch and requests raise without a network
        raise UserError(
            f"--rembg_model {name}: {name}.onnx is not here and its download failed "
            f"({type(error).__name__}); put the file into {WEIGHTS} (bash scripts/setup.sh fetches "
            "u2netp.onnx)"
        ) from None


def _classes():
    """rembg's session classes by name. Imported late: rembg's first import takes half a minute."""
    threads = torch.get_num_threads()
    from rembg.sessions import sessions_class

    torch.set_num_threads(threads)  # pymatting, which rembg imports, sets it to all cores
    return {item.name(): item for item in sessions_class}


def open_net(model, device, threads=1):
    """An opened Net, which any number of workers may use at the same time; device: of Matting;
    threads: of one call, on the CPU. UserError if onnxruntime cannot use the GPU that was asked
    for, or the file is not a network.
    """
    import onnxruntime

    kind, _, index = device.partition(":")
    has_cuda = CUDA in onnxruntime.get_available_providers()
    if kind == "auto" and has_cuda:
        try:
            return open_net(model, device.replace("auto", "cuda"))
        except UserError as error:
            say(f"the network runs on the CPU, since {error}")
    if kind == "cuda" and not has_cuda:
        raise UserError(
            f"--device {device}: this onnxruntime has no CUDA; replace the package onnxruntime by "
            "onnxruntime-gpu, or use --device cpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors only
    providers, turn = ["CPUExecutionProvider"], nullcontext()
    if kind == "cuda":
        gpu = {"device_id": int(index or os.environ.get("LOCAL_RANK", 0))}
        providers, turn = [(CUDA, gpu), *providers], threading.Lock()
    try:
        if model.is_u2net:
            session = onnxruntime.InferenceSession(str(model.path), options, providers=providers)
        else:
            cls = _classes()[model.name]
            # The class looks for its file by itself: this one is shown the file that was found.
            found = {"download_models": lambda *_, **__: str(model.path)}
            session = type(cls.__name__, (cls,), found)(model.name, options, providers=providers)
    except Exception as error:  # onnxruntime has an exception type for each kind of broken file
        text = str(error).splitlines()[0]
        raise UserError(f"{model.path}: onnxruntime cannot open it ({text})") from None
    loaded = getattr(session, "inner_session", session).get_providers()
    if kind == "cuda" and CUDA not in loaded:
        raise UserError(f"--device {device}: onnxruntime failed to load CUDA; use --device cpu")
    return Net(model, session, turn)
