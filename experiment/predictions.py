"""Predicts photos with one model: precision, views, test-time augmentation."""

from contextlib import nullcontext

import numpy as np
import torch

import augment
import options
from common import devices
from common.errors import UserError
from common.processes import counted, rank, world_size
from labels import HEADS
from model import load_model, probabilities


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
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def precision(amp, device):
    """(autocast context, GradScaler) of --amp on a device."""
    amp = usual_amp(device) if amp == "auto" else amp
    scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
    if amp == "off":
        return nullcontext(), scaler
    dtype = torch.bfloat16 if amp == "bf16" else torch.float16
    return torch.autocast(device.type, dtype), scaler


@torch.inference_mode()
def predict(model, pixels, photos, info, batch_size=256, tta=augment.TTA["none"]):
    """{head: (n, classes) float32 probabilities} of photos, averaged over views and TTA.

    photos: int64 (n,) indices into pixels; info: the model's ModelInfo; tta: a value of
    augment.TTA. Under torchrun each process predicts its share, and all get the whole.
    """
    autocast, _ = precision(info.amp, pixels.device)
    mean, std = (torch.tensor(value, device=pixels.device) for value in (info.mean, info.std))
    photos = torch.as_tensor(photos)
    sums = {h: torch.zeros(len(photos), HEADS[h], device=pixels.device) for h in info.heads}
    batch_size = devices.at_once(batch_size, pixels.device)
    for rows in torch.arange(rank(), len(photos), world_size()).split(batch_size):
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
