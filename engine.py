"""Trains and evaluates one task: the epoch loop, precision, checkpoints, exact resume.

Everything random derives from (seed, fold, task, epoch), so a run that is killed and resumed
ends with the same bytes as one that was not.
"""

import hashlib
import math
import pickle
import time
from contextlib import nullcontext
from dataclasses import dataclass
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
from common import UserError, atomic, progress, rank, world_size, write_csv
from dataset import sampling_weights
from labels import HEADS, combine
from metrics import macro_f1

FUSED = ("adam", "adamw", "sgd", "nadam")  # whose torch implementation has a fused step


class Stopped(Exception):
    """A signal asked to stop; the state is saved."""


@dataclass
class Data:
    """What one task trains on in one fold.

    pixels: a store.Pixels of N photos; names: their N names; train, valid: int64 arrays of
    photos; targets: {head: int64 (N,)}, of training; truth: the same, of validation.
    """

    pixels: object
    names: list
    train: np.ndarray
    valid: np.ndarray
    targets: dict
    truth: dict


def seed_of(*parts):
    """A seed of 63 bits from (seed, fold, task, epoch, ...)."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def learning_rate(options, position, scores):
    """The learning rate at `position`, in epochs since the start, as a float.

    Linear warm-up, then cosine to 0, or lr_decay every lr_decay_step epochs (step), or once per
    lr_patience epochs that did not improve on the best of `scores` (plateau).
    """
    lr, epochs = options["lr"], options["epochs"]
    warm = min(options["warmup_epochs"], epochs / 2)
    if position < warm:
        return lr * position / warm
    if options["scheduler"] == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * (position - warm) / (epochs - warm)))
    if options["scheduler"] == "step":
        return lr * options["lr_decay"] ** (position // options["lr_decay_step"])
    if options["scheduler"] == "plateau":
        return lr * options["lr_decay"] ** plateaus(scores, options["lr_patience"])
    return lr


def plateaus(scores, patience):
    """How often `patience` scores in a row did not exceed the best before them."""
    best, waited, count = -math.inf, 0, 0
    for score in scores:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == patience:
            waited, count = 0, count + 1
    return count


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
def predict(model, pixels, photos, info, batch_size=256, amp="auto", tta=(False,)):
    """{head: (n, classes) float32 probabilities} of photos, averaged over views and flips.

    photos: int64 (n,) indices into pixels; info: mean and std; tta: the horizontal flips to
    average over. Under torchrun each process predicts its share, and all get the whole.
    """
    autocast, _ = precision(amp, pixels.device)
    mean, std = (torch.tensor(info[key], device=pixels.device) for key in ("mean", "std"))
    photos = torch.as_tensor(photos)
    sums = {h: torch.zeros(len(photos), HEADS[h], device=pixels.device) for h in info["heads"]}
    for rows in torch.arange(rank(), len(photos), world_size()).split(batch_size):
        for view in range(pixels.views):
            batch = augment.normalize(pixels.batch(photos[rows], view), mean, std)
            if info.get("channels_last"):
                batch = batch.contiguous(memory_format=torch.channels_last)
            for flip in tta:
                with autocast:
                    logits = model(batch.flip(3) if flip else batch)
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
        self._set_targets()
        self.epoch, self.history, self.predictions, self.best = 0, [], [], None
        self.progress = {}  # of an epoch that was interrupted
        self.updates = 0

    def _set_targets(self):
        """Targets on the device, the criterion of each head, and the sampling weights."""
        options, data = self.options, self.data
        self.targets = {h: torch.from_numpy(data.targets[h]).to(self.device) for h in self.heads}
        self.criteria = {}
        for head in self.heads:
            weights = None
            if options["class_weights"][head]:
                counts = np.bincount(data.targets[head][data.train], minlength=HEADS[head])
                weights = loss.class_weights(counts, options["class_weights"][head])
            self.criteria[head] = loss.criterion(
                options["criterion"][head], HEADS[head], options["label_smoothing"][head], weights
            )
        self.sampling = None
        if options["weighted_sampler"]:
            # A model of several heads balances the 18 classes, as the joint model does.
            head = self.heads[0] if len(self.heads) == 1 else "label"
            weights = sampling_weights(
                data.targets[head][data.train], head, options["weighted_sampler"]
            )
            self.sampling = torch.from_numpy(weights)

    # ---- one epoch

    def run_epoch(self, stopping):
        """Trains the next epoch, evaluates it, and saves the state.

        stopping: a function without arguments; where it is true between two steps, the state is
        saved there and Stopped is raised.
        """
        start = time.perf_counter()
        row = {"epoch": self.epoch + 1} | self._train(stopping)
        if len(self.data.valid):
            row |= self._evaluate()
        else:
            self.best = {"epoch": self.epoch + 1, "score": 0.0, "probs": {}}
        row["seconds"] = time.perf_counter() - start + self.progress.get("seconds", 0.0)
        self.history.append(row)
        self.epoch, self.progress = self.epoch + 1, {}
        if rank() == 0:
            if self.best["epoch"] == self.epoch:
                kept = self.ema.module if self.ema else self.model
                info = self.info | {"epoch": self.epoch, "score": self.best["score"]}
                models.save_model(kept, self.folder / "best.safetensors", info)
            self._save()
        return row

    def _deal(self):
        """All that is random about an epoch, drawn at once for all of its samples."""
        options = self.options
        generator = torch.Generator().manual_seed(seed_of(*self.key, self.epoch))
        train, views = torch.from_numpy(self.data.train), self.data.pixels.views
        n = len(train) * views
        if self.sampling is None:
            pick = torch.randperm(n, generator=generator)
        else:
            pick = torch.multinomial(self.sampling.repeat(views), n, True, generator=generator)
        draws = augment.draw(n, options["augmentation"], generator)
        dealt = {
            "photo": train[pick % len(train)],
            "view": pick // len(train),
            "draws": draws.to(self.device),
            "background": train[torch.randint(len(train), (n,), generator=generator)],
        }
        self.mixing = next((kind for kind in augment.MIXES if options[kind]), None)
        if self.mixing:
            alpha, size = float(options[self.mixing]), options["resize"]
            dealt["partner"], mix = augment.draw_mix(n, self.mixing, alpha, size, generator)
            dealt["mix"] = mix.to(self.device)
        return dealt

    def _batch(self, dealt, rows):
        """(images, {head: own classes}, {head: targets}) of some rows of a dealt epoch."""
        images = self._images(dealt, rows)
        photos = dealt["photo"][rows].to(self.device, non_blocking=True)
        own = {head: self.targets[head][photos] for head in self.heads}
        targets = own
        if self.mixing:
            partners = dealt["partner"][rows]
            images, share = augment.mix(
                images, self._images(dealt, partners), dealt["mix"][rows], self.mixing
            )
            photos = dealt["photo"][partners].to(self.device, non_blocking=True)
            share = share[:, None]
            targets = {}
            for head, classes in own.items():
                one_hot = torch.eye(HEADS[head], device=self.device)
                other = one_hot[self.targets[head][photos]]
                targets[head] = one_hot[classes] * share + other * (1 - share)
        if self.options["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, own, targets

    def _images(self, dealt, rows):
        start = time.perf_counter()
        pixels = self.data.pixels.batch(
            dealt["photo"][rows], dealt["view"][rows], dealt["background"][rows]
        )
        self.waited += time.perf_counter() - start
        draws = dealt["draws"][rows]
        return augment.apply(pixels, draws, self.mean, self.std, self.options["augmentation"])

    def _train(self, stopping):
        """One epoch of steps, or the rest of one; the device is waited for at its end only."""
        options, every = self.options, self.options["accumulate"]
        dealt = self._deal()
        count = len(dealt["photo"])
        steps = math.ceil(count / options["batch_size"])
        edges = [count * step // steps for step in range(steps + 1)]  # equal batches, none left out
        losses = self.progress.get("losses", torch.zeros(steps, device=self.device))
        hits = self.progress.get("hits", torch.zeros((), device=self.device))
        first = self.progress.get("step", 0)
        scores = [row["macro_f1"] for row in self.history if "macro_f1" in row]
        self.wrapped.train()
        self.waited, start = 0.0, time.perf_counter()
        bar = progress(range(first, steps), initial=first, total=steps, desc=self._title())
        for step in bar:
            # Dropout: the same whether the epoch was interrupted or not.
            torch.manual_seed(seed_of(*self.key, self.epoch, step, rank()))
            lr = learning_rate(options, self.epoch + (step + 1) / steps, scores)
            for group in self.optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            low, high = edges[step], edges[step + 1]
            share = [low + (high - low) * r // world_size() for r in (rank(), rank() + 1)]
            images, own, targets = self._batch(dealt, slice(*share))
            group_end = min((step // every + 1) * every, steps)
            total = edges[group_end] - edges[step // every * every]
            with self.autocast:
                logits = self.wrapped(images)
            value = sum(self.criteria[h](logits[h], targets[h], total) for h in self.heads)
            self._backward(value * world_size(), last=step + 1 == group_end)
            losses[step] = value.detach() * (total / (high - low))
            right = torch.stack([logits[h].argmax(1) == own[h] for h in self.heads])
            hits += right.all(0).sum()
            looks = (step + 1) % self.log_interval == 0 or step + 1 == steps
            if looks:
                self._look(losses[: step + 1], dealt["photo"], edges, bar)
            # Several processes must agree on where to stop, which costs a message.
            if (looks or world_size() == 1) and step + 1 < steps and stopping():
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
            "wait_share": self.waited / seconds,
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
        probs = predict(
            model,
            self.data.pixels,
            self.data.valid,
            self.info,
            self.valid_batch_size,
            self.options["amp"],
        )
        truth = {head: self.data.truth[head][self.data.valid] for head in self.heads}
        codes = {head: value.argmax(1).astype(np.uint8) for head, value in probs.items()}
        self.predictions.append(codes)
        right = np.all([codes[head] == truth[head] for head in self.heads], axis=0)
        rows = np.arange(len(right))
        score = self._score(codes, truth)
        if self.best is None or score > self.best["score"]:
            self.best = {"epoch": self.epoch + 1, "score": score, "probs": probs}
        return {
            "val_loss": float(
                -sum(
                    np.log(np.maximum(probs[head][rows, truth[head]], 1e-12)).mean()
                    for head in self.heads
                )
            ),
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
        self.progress = {
            "step": step,
            "losses": losses,
            "hits": hits,
            "seconds": seconds + self.progress.get("seconds", 0.0),
        }
        losses, hits = losses.clone(), hits.clone()
        self.progress |= {"losses": distributed.sum_over_ranks(losses)}
        self.progress |= {"hits": distributed.sum_over_ranks(hits)}
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
            "progress": self.progress,
            "history": self.history,
            "best": best,
            "predictions": [_tensors(codes) for codes in self.predictions],
        }
        with atomic(self.folder / "last.pt") as temporary:
            torch.save(state, temporary)
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
        self.epoch, self.updates, self.progress, self.history = (
            state[key] for key in ("epoch", "updates", "progress", "history")
        )
        if self.progress and rank():  # sums over the processes, which rank 0 goes on with
            self.progress |= {
                key: torch.zeros_like(self.progress[key]) for key in ("losses", "hits")
            }
        self.predictions = [_arrays(codes) for codes in state["predictions"]]
        self.best = state["best"] and state["best"] | {"probs": _arrays(state["best"]["probs"])}


def _tensors(arrays):
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def _arrays(tensors):
    return {key: value.cpu().numpy() for key, value in tensors.items()}
