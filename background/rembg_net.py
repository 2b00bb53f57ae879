"""rembg's matting networks, run by onnxruntime: found, opened, and their output as mattes.

The U-2-Net family runs here with rembg's own arithmetic, in threads and batches; every other
model goes through rembg's session classes, since each normalises photos in its own way.
"""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.errors import UserError
from common.files import WEIGHTS

U2NET = ("u2netp", "u2net", "u2net_human_seg", "silueta")
UNFIT = ("sam", "u2net_cloth_seg")  # one needs clicks, the other answers with kinds of clothes
MEAN = np.float32((0.485, 0.456, 0.406)).reshape(3, 1, 1)
STD = np.float32((0.229, 0.224, 0.225)).reshape(3, 1, 1)


@dataclass
class Model:
    """A model that was found: its name, its file, the SHA-256 of that file."""

    name: str
    path: Path
    sha256: str

    @property
    def is_u2net(self):
        """True for the family, and for a file that rembg has no class for."""
        return self.name in U2NET or self.name == "custom"


@dataclass
class Net:
    """An opened model. session: onnxruntime's, or rembg's for models beyond the U-2-Nets."""

    model: Model
    session: Any
    batches: bool  # whether it takes several photos a call

    def prepare(self, photo):
        """What forward() takes of a photo, uint8 (H, W, 3) RGB."""
        if not self.model.is_u2net:
            return Image.fromarray(photo)
        side = self.session.get_inputs()[0].shape[-1]
        image = np.asarray(Image.fromarray(photo).resize((side, side), Image.Resampling.LANCZOS))
        image = image.transpose(2, 0, 1).astype(np.float32)
        return (image / max(image.max(), 1e-6) - MEAN) / STD

    def forward(self, prepared):
        """What finish() takes, one a photo, of a list of what prepare() gave."""
        if not self.model.is_u2net:
            return [self.session.predict(image)[0] for image in prepared]
        first, out = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name
        size = len(prepared) if self.batches else 1
        groups = (prepared[i : i + size] for i in range(0, len(prepared), size))
        maps = [self.session.run([out], {first: np.stack(group)})[0][:, 0] for group in groups]
        return list(np.concatenate(maps))

    def finish(self, raw, shape):
        """(matte, sure) of one photo: uint8 (H, W), and the network's highest probability.

        The matte is stretched to the full range, as rembg does; `sure` tells whether there was
        anything to stretch. It is 1 for the models that do not tell.
        """
        height, width = shape
        if not self.model.is_u2net:
            matte = np.asarray(raw.convert("L"))
            if matte.shape != shape:
                raise UserError(f"--rembg_model {self.model.name}: does not give one matte a photo")
            return matte, 1.0
        low, high = float(raw.min()), float(raw.max())
        if not high > low:  # constant or NaN
            return np.zeros(shape, np.uint8), 0.0
        stretched = (raw - raw.min()) / (raw.max() - raw.min())
        small = Image.fromarray((stretched.clip(0, 1) * 255).astype(np.uint8))
        return np.asarray(small.resize((width, height), Image.Resampling.LANCZOS)), high


def find_model(name):
    """The Model of --rembg_model: an .onnx file, or the name of one of rembg's models.

    A name is looked up in weights/, then in rembg's own cache, then downloaded by rembg.
    UserError for a missing file, an unknown name, or a download that fails.
    """
    if name in UNFIT:
        raise UserError(f"--rembg_model {name}: is no model that finds people; try u2netp")
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


def _classes():
    """rembg's session classes by name. Imported late: rembg's first import takes half a minute."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    from rembg.sessions import sessions_class

    if torch:  # pymatting, which rembg imports, sets OpenMP to all cores, torch's threads too
        torch.set_num_threads(threads)
    return {item.name(): item for item in sessions_class}


def _from_rembg(name):
    """The file in rembg's cache, downloaded if it is not there."""
    classes = _classes()
    if name not in classes or not classes[name].is_local():
        known = " ".join(sorted(key for key in classes if key not in UNFIT))
        raise UserError(f"--rembg_model {name}: rembg has no such model; it has {known}")
    import pooch  # rembg's downloader

    pooch.get_logger().setLevel("ERROR")
    try:
        return Path(classes[name].download_models())
    except Exception as error:  # whatever rembg, pooch and requests raise without a network
        reason = type(error).__name__
        raise UserError(
            f"--rembg_model {name}: {name}.onnx is not here and its download failed ({reason}); "
            f"put the file into {WEIGHTS} (bash scripts/setup.sh fetches u2netp.onnx)"
        ) from None


def open_net(model, device, threads):
    """An opened Net. device: cpu or cuda (cuda:N); threads: of onnxruntime, on the CPU.

    UserError if the GPU was asked for and onnxruntime cannot use it, or the file is no network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # a freed batch dimension is warned about at every call
    providers = _providers(device, onnxruntime.get_available_providers())
    on_gpu = device != "cpu"
    try:
        if not model.is_u2net:
            session, inner = _rembg_session(model, options, providers)
        else:
            data = model.path.read_bytes()
            opened = onnxruntime.InferenceSession(data, options, providers=providers)
            if on_gpu and opened.get_inputs()[0].shape[0] == 1:
                freed = free_batch(data, opened)
                opened = onnxruntime.InferenceSession(freed, options, providers=providers)
            session = inner = opened
    except UserError:
        raise
    except Exception as error:  # onnxruntime has an exception type for each kind of broken file
        text = str(error).splitlines()[0]
        raise UserError(f"{model.path}: onnxruntime cannot open it ({text})") from None
    if on_gpu and "CUDAExecutionProvider" not in inner.get_providers():
        raise UserError(f"--device {device}: onnxruntime failed to load CUDA; use --device cpu")
    batches = model.is_u2net and inner.get_inputs()[0].shape[0] != 1
    return Net(model, session, batches)


def runtime_version():
    import onnxruntime

    return onnxruntime.__version__


def has_cuda():
    """True if this onnxruntime was built for CUDA."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _providers(device, available):
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in available:
        raise UserError(
            f"--device {device}: this onnxruntime has no CUDA; replace the package onnxruntime by "
            "onnxruntime-gpu, or use --device cpu"
        )
    index = int(device.partition(":")[2] or os.environ.get("LOCAL_RANK", 0))
    return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]


def _rembg_session(model, options, providers):
    """(rembg's session, onnxruntime's inside it) for the file that was found."""
    cls = _classes()[model.name]
    # The class looks for its file by itself: this one shows it the file that was found.
    found = type(cls.__name__, (cls,), {"download_models": lambda *_, **__: str(model.path)})
    session = found(model.name, options, providers=providers)
    return session, session.inner_session


def free_batch(data, session):
    """The bytes of an ONNX model whose batch dimension of 1 is free, so that it takes batches.

    In the protocol buffer a dimension of 1 is the four bytes 0a 02 08 01 (dim_value 1); 0a 02 12
    00 (an empty dim_param) is as long and means any size, so no length around it changes.
    """
    for port in (*session.get_inputs(), *session.get_outputs()):
        if all(isinstance(size, int) for size in port.shape):
            fixed = b"".join(_dimension(size) for size in port.shape)
            data = data.replace(fixed, b"\x0a\x02\x12\x00" + fixed[4:])
    return data


def _dimension(size):
    """The protocol buffer of one fixed dimension."""
    digits = []
    while size > 127:
        digits.append(size & 127 | 128)
        size >>= 7
    number = bytes([8, *digits, size])
    return bytes([10, len(number)]) + number
