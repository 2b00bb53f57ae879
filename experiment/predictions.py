"""Predicts photos with one model: precision, views, test-time augmentation."""

from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

import augment
import options
from common import devices
from common.errors import UserError
from common.processes import counted, rank, world_size
from labels import HEADS
from model import load_model, probabilities

CPU_BATCH = 32  # photos; 256 at once took 1.5 GB more, and were not faster


class NotFinite(UserError):
    """A model answers some photo with no probability; who asked says which model."""


def load(path, heads, device="cpu"):
    """(model, ModelInfo) of a file of a run, which must have these heads, a view of ours (it names
    folders of mattes) and be of its place.
    """
    model, info = load_model(path, device)
    options.check_recorded({k: {"": getattr(info, k)} for k in ("bg", "bg_fill", "crop")}, path)
    if info.heads != tuple(heads):
        raise UserError(f"{path} predicts {', '.join(info.heads)}, not {', '.join(heads)}")
    if info.place != "/".join(path.parts[-3:-1]):
        raise UserError(f"{path} was saved as {info.place}, whose people it held out; restore it")
    return model, info


def usual_amp(device):
    """What --amp auto is on a device where nothing was tried."""
    if device.type != "cuda":
        return "off"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def precision(amp, device):
    """(autocast context, GradScaler) of --amp on a device."""
    amp = usual_amp(device) if amp == "auto" else amp
    scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
    if amp == "off":
        return nullcontext(), scaler
    dtype = torch.bfloat16 if amp == "bf16" else torch.float16
    return torch.autocast(device.type, dtype), scaler


def folded(model, size):
    """A copy of a Classifier in eval mode that predicts the same, up to rounding, in less time: a
    batch normalization right behind a convolution is put into the weights of that. The model itself
    without such, or where the copy would predict otherwise, as where a convolution is used twice.

    size: (H, W) of the images.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return model
    copy, made, pairs = deepcopy(model), {}, []

    def note(module, given, found):
        if isinstance(module, nn.Conv2d):
            made[found] = module
        elif isinstance(module, nn.BatchNorm2d) and given[0] in made:
            pairs.append((made[given[0]], module))

    hooks = [module.register_forward_hook(note) for module in copy.modules()]
    probe = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    probe = probe.to(model.head.weight.device)
    before = torch.cat([*map(torch.Tensor.flatten, copy(probe).values())])
    for hook in hooks:
        hook.remove()
    for conv, norm in pairs:
        if norm.running_mean is not None:
            of = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *of)
            rest = [getattr(norm, name, nn.Identity()) for name in ("drop", "act")]  # of timm's
            norm.forward = nn.Sequential(*rest).forward
    after = torch.cat([*map(torch.Tensor.flatten, copy(probe).values())])
    same = (after - before).abs().max() < 0.01 * before.abs().max()
    return copy if same else model


@torch.inference_mode()
def predict(model, pixels, photos, info, batch_size=256, tta=augment.TTA["none"]):
    """{head: (n, classes) float32 probabilities} of photos, averaged over views and TTA.

    photos: int64 (n,) indices into pixels; info: the model's ModelInfo; tta: a value of
    augment.TTA. Under torchrun each process predicts its share, and all get the whole.
    """
    autocast, _ = precision(info.amp, pixels.device)
    model = folded(model, info.size)
    mean, std = (torch.tensor(value, device=pixels.device) for value in (info.mean, info.std))
    photos = torch.as_tensor(photos)
    sums = {h: torch.zeros(len(photos), HEADS[h], device=pixels.device) for h in info.heads}
    if pixels.device.type == "cpu":
        batch_size = min(batch_size, CPU_BATCH)
    mine = torch.arange(len(photos))[rank() :: world_size()]
    for rows in mine.split(batch_size) if len(mine) else ():
        for view in range(pixels.views):
            images = pixels.batch(photos[rows], view)
            for flip, scale in tta:
                batch = augment.variant(images, mean, std, flip, scale)
                if info.channels_last:
                    batch = batch.contiguous(memory_format=torch.channels_last)
                with autocast:
                    logits = model(batch)
                for head, probs in probabilities(logits).items():
                    sums[head][rows.to(pixels.device)] += probs
    count = pixels.views * len(tta)
    result = {h: devices.sum_over_ranks(s / count).cpu().numpy() for h, s in sums.items()}
    fine = [np.isfinite(p).all(1) for p in result.values()]
    bad = len(photos) - np.all(fine, axis=0).sum()
    if bad:
        raise NotFinite(f"the probabilities of {counted(bad, 'photo')} are not finite")
    return result
