"""Trains and evaluates one task: the epoch loop, precision, checkpoints, exact resume.

Everything random derives from (seed, fold, task, epoch), so a run that is killed and resumed
ends with the same bytes as one that was not.
"""

import io
import math
import pickle
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3

import augment
import distributed
import loss
import model as models
from batches import Epoch, seed_of
from common import UserError, atomic, progress, rank, world_size, write_csv
from labels import HEADS, combine
from metrics import macro_f1
from schedule import learning_rate

FUSED = ("adam", "adamw", "sgd", "nadam")  # whose torch implementation has a fused step


class Stopped(Exception):
    """A signal asked to stop; the state is saved."""


def precision(amp, device):
    """(autocast context, GradScaler or None) of --amp on a device."""
    if amp == "auto":
        amp = "off"
        if device.type == "cuda":
            amp = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if amp == "off":
        return nullcontext(), None
    dtype = torch.bfloat16 if amp == "bf16" else torch.float16
    scaler = torch.amp.GradScaler(device.type) if amp == "fp16" else None
    return torch.autocast(device.type, dtype), scaler


@torch.inference_mode()
def predict(model, pixels, photos, info, batch_size=256, tta=augment.TTA["none"]):
    """{head: (n, classes) float32 probabilities} of photos, averaged over views and TTA.

    photos: int64 (n,) indices into pixels; info: that of save_model; tta: a value of augment.TTA.
    Under torchrun each process predicts its share, and all get the whole.
    """
    autocast, _ = precision(info["amp"], pixels.device)
    mean, std = (torch.tensor(info[key], device=pixels.device) for key in ("mean", "std"))
    photos = torch.as_tensor(photos)
    sums = {h: torch.zeros(len(photos), HEADS[h], device=pixels.device) for h in info["heads"]}
    for rows in torch.arange(rank(), len(photos), world_size()).split(batch_size):
        for view in range(pixels.views):
            images = pixels.batch(photos[rows], view)
            for flip, scale in tta:
                batch = augment.variant(images, mean, std, flip, scale)
                if info["channels_last"]:
                    batch = batch.contiguous(memory_format=torch.channels_last)
                with autocast:
                    logits = model(batch)
                for head, probs in models.probabilities(logits).items():
                    sums[head][rows.to(pixels.device)] += probs
    count = pixels.views * len(tta)
    return {h: distributed.sum_over_ranks(s / count).cpu().numpy() for h, s in sums.items()}


class Task:
    """One model in training.

    name: its key in model.LAYOUTS; heads; options: options.for_task(); data: Data; info: what
    save_model keeps besides; folder: fold<k>/<name>; key: (seed, fold).
    Afterwards `history` has one row an epoch, `best` the best epoch with its probabilities, and
    `predictions` the {head: (photos,) codes} of every epoch.
    """

    def __init__(self, name, heads, options, data, info, folder, key, device, run):
        self.log_interval, self.valid_batch_size = run.log_interval, run.valid_batch_size
        self.name, self.heads, self.options, self.data = name, heads, options, data
        self.folder, self.key, self.device = Path(folder), (*key, name), device
        torch.manual_seed(seed_of(*self.key))
        self.model = models.create(
            options["model"],
            heads,
            options["resize"],
            options["weights"],
            options["drop_rate"],
            options["drop_path"],
        ).to(device)
        if options["channels_last"]:
            self.model.to(memory_format=torch.channels_last)
        mean, std = models.normalization(self.model)
        self.info = info | {
            "model": options["model"],
            "heads": list(heads),
            "mean": mean,
            "std": std,
            "size": options["resize"],
            "channels_last": options["channels_last"],
            "amp": options["amp"],
        }
        self.mean, self.std = (torch.tensor(v, device=device) for v in (mean, std))
        fused = {"fused": True} if options["optimizer"] in FUSED else {}
        self.optimizer = create_optimizer_v2(
            self.model,
            options["optimizer"],
            lr=options["lr"],
            weight_decay=options["weight_decay"],
            **fused,
        )
        self.ema = None
        if options["ema"]:
            self.ema = ModelEmaV3(self.model, decay=options["ema"], use_warmup=True)
        self.wrapped = distributed.wrap(self.model, device)
        if options["compile"]:
            self.wrapped = torch.compile(self.wrapped)
        self.autocast, self.scaler = precision(options["amp"], device)
        self.criteria = {head: self._criterion(head) for head in heads}
        self.epoch, self.history, self.predictions, self.best = 0, [], [], None
        self.partial = {}  # of an epoch that was interrupted
        self.updates = 0

    def _criterion(self, head):
        weights, power = None, self.options["class_weights"][head]
        if power:
            classes = self.data.targets[head][self.data.train]
            weights = loss.class_weights(np.bincount(classes, minlength=HEADS[head]), power)
        name, smoothing = self.options["criterion"][head], self.options["label_smoothing"][head]
        return loss.criterion(name, HEADS[head], smoothing, weights)

    # ---- one epoch

    def run_epoch(self, stopping):
        """Trains the next epoch, evaluates it, and saves the state.

        stopping: a function without arguments; where it is true between two steps, the state is
        saved there and Stopped is raised.
        """
        start = time.perf_counter()
        row = {"epoch": self.epoch + 1} | self.train_epoch(stopping)
        if len(self.data.valid):
            row |= self._evaluate()
        else:
            self.best = {"epoch": self.epoch + 1, "score": 0.0, "probs": {}}
        row["seconds"] = time.perf_counter() - start + self.partial.get("seconds", 0.0)
        self.history.append(row)
        self.epoch, self.partial = self.epoch + 1, {}
        if rank() == 0:
            if self.best["epoch"] == self.epoch:
                kept = self.ema.module if self.ema else self.model
                info = self.info | {"epoch": self.epoch, "score": self.best["score"]}
                models.save_model(kept, self.folder / "best.safetensors", info)
            self._save()
        return row

    def train_epoch(self, stopping):
        """One epoch of steps, or the rest of one; the device is waited for at its end only."""
        options, every = self.options, self.options["accumulate"]
        seed = seed_of(*self.key, self.epoch)
        samples = Epoch(self.data, self.heads, options, seed, (self.mean, self.std))
        count = samples.size
        steps = math.ceil(count / options["batch_size"])
        edges = [count * step // steps for step in range(steps + 1)]  # equal batches, none left out
        losses = self.partial.get("losses", torch.zeros(steps, device=self.device))
        hits = self.partial.get("hits", torch.zeros((), device=self.device))
        first = self.partial.get("step", 0)
        scores = [row["macro_f1"] for row in self.history if "macro_f1" in row]
        self.wrapped.train()
        start = time.perf_counter()
        bar = progress(range(first, steps), initial=first, total=steps, desc=self._title())
        for step in bar:
            # Dropout: the same whether the epoch was interrupted or not.
            torch.manual_seed(seed_of(*self.key, self.epoch, step, rank()))
            lr = learning_rate(options, self.epoch + (step + 1) / steps, scores)
            for group in self.optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            low, high = edges[step], edges[step + 1]
            share = [low + (high - low) * r // world_size() for r in (rank(), rank() + 1)]
            images, own, targets = samples.batch(slice(*share))
            if options["channels_last"]:
                images = images.contiguous(memory_format=torch.channels_last)
            group_end = min((step // every + 1) * every, steps)
            total = edges[group_end] - edges[step // every * every]
            with self.autocast:
                logits = self.wrapped(images)
            value = sum(self.criteria[h](logits[h], targets[h], total) for h in self.heads)
            last = step + 1 == group_end
            self._backward(value * world_size(), last)
            losses[step] = value.detach() * (total / (high - low))
            right = torch.stack([logits[h].argmax(1) == own[h] for h in self.heads])
            hits += right.all(0).sum()
            looks = (step + 1) % self.log_interval == 0 or step + 1 == steps
            if looks:
                self._look(losses[: step + 1], samples.photos, edges, bar)
            # Several processes must agree on where to stop, which costs a message.
            if last and (looks or world_size() == 1) and step + 1 < steps and stopping():
                self._stop(step + 1, losses, hits, time.perf_counter() - start)
        seconds = time.perf_counter() - start
        done = count - edges[first]
        losses, hits = distributed.sum_over_ranks(losses), distributed.sum_over_ranks(hits)
        sizes = torch.tensor(np.diff(edges), device=self.device)
        return {
            "lr": lr,
            "train_loss": float((losses * sizes).sum() / count),
            "train_accuracy": float(hits / count),
            "images_per_s": done / seconds,
            "wait_share": samples.waited / seconds,
        }

    def _backward(self, value, last):
        """Adds the gradient of one batch; after the last of a group, steps the optimizer."""
        if self.scaler:
            value = self.scaler.scale(value)
        value.backward()
        if not last:
            return
        if self.options["clip_grad"]:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options["clip_grad"])
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        if self.ema:
            self.ema.update(self.model, step=self.updates)

    def _look(self, losses, photos, edges, bar):
        """Waits for the device: shows the loss, and guards that it is finite."""
        losses = losses.cpu()
        bad = torch.nonzero(~torch.isfinite(losses)).flatten()
        if len(bad):
            step = int(bad[0])
            names = [self.data.names[i] for i in photos[edges[step] : edges[step + 1]][:3]]
            raise UserError(
                f"{self._title()}: the loss is {float(losses[step])} in batch {step + 1} "
                f"({', '.join(names)}, ...); lower --lr, set --clip_grad 1 or --amp off"
            )
        bar.set_postfix(loss=f"{float(losses[-self.log_interval :].mean()):.3f}", refresh=False)

    def _title(self):
        return f"fold {self.key[1]} {self.name} epoch {self.epoch + 1}/{self.options['epochs']}"

    def _evaluate(self):
        """Scores the validation photos; notes whether this epoch is the best so far."""
        model = (self.ema.module if self.ema else self.model).eval()
        data = self.data
        probs = predict(model, data.pixels, data.valid, self.info, self.valid_batch_size)
        truth = {head: data.truth[head][data.valid] for head in self.heads}
        codes = {head: value.argmax(1).astype(np.uint8) for head, value in probs.items()}
        self.predictions.append(codes)
        right = np.all([codes[head] == truth[head] for head in self.heads], axis=0)
        rows = np.arange(len(right))
        score = self._score(codes, truth)
        if self.best is None or score > self.best["score"]:
            self.best = {"epoch": self.epoch + 1, "score": score, "probs": probs}
        logs = [np.log(np.maximum(p[rows, truth[head]], 1e-12)) for head, p in probs.items()]
        return {
            "val_loss": float(-np.sum(logs) / len(rows)),
            "val_accuracy": float(right.mean()),
            "macro_f1": score,
        }

    def _score(self, codes, truth):
        """Macro F1 of the task: of its one head, or of the 18 classes of several."""
        if len(self.heads) == 1:
            head = self.heads[0]
            return macro_f1(truth[head], codes[head], HEADS[head])
        return macro_f1(combine(truth), combine(codes))

    @property
    def finished(self):
        patience = self.options["early_stop"]
        waited = self.epoch - self.best["epoch"] if self.best else 0
        return self.epoch >= self.options["epochs"] or bool(patience and waited >= patience)

    # ---- the state

    def _stop(self, step, losses, hits, seconds):
        self.partial = {
            "step": step,
            "losses": losses,
            "hits": hits,
            "seconds": seconds + self.partial.get("seconds", 0.0),
        }
        losses, hits = losses.clone(), hits.clone()
        self.partial |= {"losses": distributed.sum_over_ranks(losses)}
        self.partial |= {"hits": distributed.sum_over_ranks(hits)}
        if rank() == 0:
            self._save()
        raise Stopped

    def _save(self):
        """Writes last.pt, all that resuming needs, then log.csv, which derives from it."""
        best = self.best and self.best | {"probs": _tensors(self.best["probs"])}
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else None,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "epoch": self.epoch,
            "updates": self.updates,
            "partial": self.partial,
            "history": self.history,
            "best": best,
            "predictions": [_tensors(codes) for codes in self.predictions],
        }
        buffer = io.BytesIO()  # torch.save to a file hides that a disk is full
        torch.save(state, buffer)
        with atomic(self.folder / "last.pt") as temporary:
            temporary.write_bytes(buffer.getbuffer())
        self.write_log()

    def write_log(self):
        if self.history:
            write_csv(self.folder / "log.csv", pd.DataFrame(self.history))

    def resume(self):
        """Takes up the state in the task's folder, if there is one."""
        path = self.folder / "last.pt"
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{path} is damaged ({str(error).splitlines()[0]}): remove the folder "
                f"{path.parent} to train it anew"
            ) from None
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.updates, self.partial, self.history = (
            state[key] for key in ("epoch", "updates", "partial", "history")
        )
        if self.partial and rank():  # sums over the processes, which rank 0 goes on with
            self.partial |= {key: torch.zeros_like(self.partial[key]) for key in ("losses", "hits")}
        self.predictions = [_arrays(codes) for codes in state["predictions"]]
        self.best = state["best"] and state["best"] | {"probs": _arrays(state["best"]["probs"])}


def _tensors(arrays):
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def _arrays(tensors):
    return {key: value.cpu().numpy() for key, value in tensors.items()}
