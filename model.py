"""A timm backbone with one or more heads, its way to 18 probabilities, and its file."""

import difflib
import hashlib
import json
import logging
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from timm.layers import DropPath, to_2tuple
from torch import nn

from common.errors import UserError
from common.files import WEIGHTS, atomic, write_json
from common.schema import SHARE, Number, check
from labels import HEADS

AMPS = {"auto", "off", "bf16", "fp16"}


class Classifier(nn.Module):
    """A backbone and one linear layer whose outputs are divided among the heads.

    Of images, float (n, 3, H, W), normalised, it gives {head: (n, classes of the head) logits} and
    with `years` the age, standardised, as "years": (n,).
    """

    def __init__(self, backbone, heads, features, years=False):
        super().__init__()
        self.backbone, self.heads, self.years = backbone, tuple(heads), years
        self.sizes = [HEADS[head] for head in heads]
        self.head = nn.Linear(features, sum(self.sizes) + years)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def no_weight_decay(self):
        """Names of parameters that timm's optimizers do not decay, as embeddings of positions."""
        names = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in names}

    def forward(self, images):
        logits = self.head(self.backbone(images))
        classes = logits[:, :-1] if self.years else logits
        result = dict(zip(self.heads, classes.split(self.sizes, dim=1), strict=True))
        if self.years:
            result["years"] = logits[:, -1]
        return result


def check_name(name):
    """The name if timm has such a model, else a UserError with the nearest ones."""
    if timm.is_model(name):
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:  # of a tag, what follows the point of resnet18.a1_in1k
            raise UserError(f"--model {name}: {_first_line(error)}") from None
        return name
    near = difflib.get_close_matches(name, timm.list_models(), 3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise UserError(f"--model {name}: timm has no such model{hint}")


def create(name, heads, size, weights="none", *, drop_rate=0.0, drop_path=0.0, years=False):
    """A Classifier.

    name: any of timm's; heads: keys of labels.HEADS; size: (H, W) of the input; years: of it;
    weights: "none" (random), "auto" (weights/<name>.safetensors if it is there, else timm's own
    download) or the path of a file with the backbone's weights.
    UserError if the name, the weights or the combination with `size` do not work.
    """
    config = timm.get_pretrained_cfg(check_name(name))
    fixed = getattr(config, "fixed_input_size", False)
    options = {"num_classes": 0, "drop_rate": drop_rate, "pretrained": weights != "none"}
    # timm leaves out what is None, which some models do not take.
    options |= {"drop_path_rate": drop_path or None, "img_size": tuple(size) if fixed else None}
    source = WEIGHTS / f"{name}.safetensors" if weights == "auto" else Path(weights)
    if weights not in ("auto", "none") or (weights == "auto" and source.is_file()):
        options["pretrained_cfg_overlay"] = {"file": str(source)}
    elif weights == "auto":
        _check_hub()
    backbone = _build(name, size, source, options)
    for module in backbone.modules():  # some models of timm have a rate of their own
        if isinstance(module, DropPath) and not drop_path:
            module.drop_prob = 0.0
    try:  # timm's attributes do not tell the width of the output for every model
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, 3, *size)).shape[1]
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = _first_line(error)
        own = " ".join(map(str, config.input_size[1:]))
        raise UserError(
            f"--model {name} cannot take photos of {size}: {reason}; try its own --resize {own}"
        ) from None
    return Classifier(backbone.train(), heads, features, years)


def check_patches(model, name, size):
    """UserError if the Classifier would leave a part of its input out, as patches of 14 pixels do
    of 128 x 96. (A run that was trained so predicts as it was.)
    """
    fixed = getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    patch = getattr(getattr(model.backbone, "patch_embed", None), "patch_size", None)
    if fixed and patch and any(np.remainder(size, patch)):
        patch = " x ".join(map(str, to_2tuple(patch)))
        raise UserError(
            f"--model {name} cuts photos into patches of {patch}, and would not see the rest of "
            f"{' x '.join(map(str, size))}: give a --resize in multiples of that"
        )


def _build(name, size, source, options):
    """timm's model with these options, weights of the file `source`; else UserError says why."""
    whole = _complete(name, source) if "pretrained_cfg_overlay" in options else nullcontext()
    try:
        with warnings.catch_warnings(action="ignore"), whole:  # those of torch
            return timm.create_model(name, **options)
    except UserError:
        raise
    except Exception as error:  # a hub, a file or a model may fail in any way of its own
        kind, reason = type(error).__name__, _first_line(error)
    if not options["pretrained"]:
        raise UserError(f"--model {name} cannot be built for {size}: {reason}")
    _build(name, size, source, options | {"pretrained": False})  # or is it not the weights?
    if "pretrained_cfg_overlay" in options:
        raise UserError(
            f"{source} does not hold weights of {name} for {size} ({kind}); give a .safetensors "
            "file, a .pth file of its tensors alone, or another --resize"
        )
    raise UserError(
        f"the weights of {name} could not be downloaded ({reason}); go online, put them at "
        f"weights/{name}.safetensors, or use --model tf_efficientnet_lite0 or --weights none"
    )


@contextmanager
def _complete(name, source):
    """UserError if timm, meanwhile, finds no weights for a part of a model in the file `source`. It
    only says so in its log, and leaves them random.
    """
    told, logger = [], logging.getLogger("timm.models._builder")
    handler, level = logging.Handler(), logger.level
    handler.emit = lambda record: told.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    if missing := [text for text in told if text.startswith("Missing keys")]:
        keys = missing[0].partition(")")[0].partition("(")[2].split(", ")
        raise UserError(f"{source} does not hold weights of {name}: it has no {keys[0]}")


def make_channels_last(model, device):
    """Puts the channels of the convolutions' weights last, in place. False, with nothing done, on a
    CPU if oneDNN would write past the end of a gradient: that of a 1x1 convolution of few channels
    that skips pixels (oneDNN issue 6035).
    """
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    unsafe = [c for c in convs if max(c.kernel_size) == 1 < max(c.stride) and c.in_channels < 8]
    if unsafe and device.type == "cpu":
        return False
    for conv in convs:
        conv.to(memory_format=torch.channels_last)
    return True


def _check_hub():
    """Without a connection, the hub's client is told so: it would retry for a minute."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        if not constants.HF_HUB_OFFLINE:
            get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # of the network; what is in its cache is still found
        constants.HF_HUB_OFFLINE = True


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def normalization(model):
    """(mean, std) that the backbone was trained with: two lists of 3 floats in 0..1."""
    config = timm.data.resolve_model_data_config(model.backbone)
    return list(config["mean"]), list(config["std"])


def probabilities(logits):
    """{head: (n, classes) float32 that sum to 1} of a Classifier's output."""
    return {head: value.float().softmax(-1) for head, value in logits.items() if head in HEADS}


@dataclass(frozen=True)
class ModelInfo:
    """What a saved model says of itself: all that predicting with it needs besides the weights.

    The annotations are what a file must hold (see common/schema.py); its lists are tuples here.
    """

    model: str  # its name in timm
    heads: [set(HEADS)]
    size: [Number(int, 8, 4096), 2]  # (height, width) of its input
    mean: [Number(), 3]
    std: [Number(float, 1e-6), 3]
    bg: str  # with bg_fill and crop its views, see photos/views.py
    bg_fill: str
    crop: str
    rembg_model: str  # with mattes what their mattes were made with, {method: {...}}
    mattes: {str: dict}
    amp: AMPS
    channels_last: bool
    years: bool = False  # of Classifier
    epoch: (Number(int, 1), None) = None  # the one that was kept
    score: SHARE = 0.0  # its macro F1 on the validation photos
    place: str = ""  # where in the run, as fold0/label
    sha256: str = field(default="", compare=False)  # of all that and the weights

    @property
    def view(self):
        """The arguments of photos.views.build_views()."""
        return self.bg, self.bg_fill, self.crop, self.size

    @classmethod
    def read(cls, path):
        """That of a model file, from its header: no weights are read, no code runs."""
        if not Path(path).is_file():
            raise UserError(f"{path} does not exist: the run has no model there")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is damaged or not a model of this project ({error})") from None
        try:
            values = check(json.loads(metadata["info"]), cls.__annotations__, path)
            values |= {k: tuple(values[k]) for k in ("heads", "size", "mean", "std")}
            return cls(**values)
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path} does not describe a model of this project ({error})") from None


def save_model(model, path, info):
    """Writes a Classifier and its ModelInfo: `path` (safetensors, the info in its header) and,
    beside it, the info as readable JSON, which nothing reads back.
    """
    how = {"memory_format": torch.contiguous_format}  # copies: parts of a model may be shared
    state = {key: value.cpu().clone(**how) for key, value in model.state_dict().items()}
    info = replace(info, sha256=_digest(state, info))
    text = json.dumps(asdict(info), sort_keys=True)
    with atomic(path) as temporary:
        temporary.write_bytes(save(state, metadata={"info": text}))
    write_json(Path(path).with_suffix(".json"), asdict(info))


def _digest(state, info):
    """SHA-256 (hex) of a model's weights and of what its ModelInfo says."""
    said = json.dumps(asdict(replace(info, sha256="")), sort_keys=True)
    found = hashlib.sha256(said.encode())
    for key, value in sorted(state.items()):
        found.update(f"{key} {value.dtype} {list(value.shape)}".encode())
        found.update(value.flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def load_model(path, device="cpu"):
    """(Classifier in eval mode, ModelInfo) of a file that save_model wrote. Runs no code of it."""
    info, state = ModelInfo.read(path), load_file(path)
    if info.sha256 != _digest(state, info):
        raise UserError(f"{path} is damaged: it is not what was saved; restore it")
    try:
        model = create(info.model, info.heads, info.size, years=info.years)
        model.load_state_dict(state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {info.model}: {_first_line(error)}") from None
    return model.to(device).eval(), info
