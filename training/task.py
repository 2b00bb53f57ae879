"""Trains and evaluates one task: the epoch loop, the loss, the best epoch.

Everything random derives from (seed, fold, task, epoch), so a run that is killed and resumed
ends with the same bytes as one that was not.
"""

import copy
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEmaV3

import loss
import model as models
from common import devices
from common.errors import UserError
from common.processes import progress, rank, world_size
from dataset import Epoch, seed_of
from experiment.predictions import precision, predict
from labels import HEADS, combine
from metrics import macro_f1
from training import checkpoint, distributed, features, finetune, schedule


class Stopped(Exception):
    """A signal asked to stop; the state is saved."""


class Diverged(UserError):
    """The loss is no longer finite: the fault of the options, not of the data."""


class Task:
    """One model in training.

    name: its key in model.LAYOUTS; heads; options: options.for_task(); data: Data; info: what
    save_model keeps besides; folder: fold<k>/<name>; key: (seed, fold).
    It starts where the state in its folder left it. `history` has one row an epoch, `best` the
    epoch to keep (several, if averaged) with its probabilities, and `predictions` the {head:
    (photos,) codes} of every epoch.
    """

    def __init__(self, name, heads, options, data, info, folder, key, device, run):
        self.log_interval, self.valid_batch_size = run.log_interval, run.valid_batch_size
        self.name, self.heads, self.options, self.data = name, heads, options, data
        self.folder, self.key, self.device = Path(folder), (*key, name), device
        self.extra = self._extra_outputs()
        torch.manual_seed(seed_of(*self.key))
        choices = (options[key] for key in ("resize", "weights", "drop_rate", "drop_path"))
        self.model = models.create(options["model"], heads, *choices, self.extra).to(device)
        self.frozen = finetune.freeze(self.model.backbone, options["freeze"])
        if options["channels_last"]:
            self.model.to(memory_format=torch.channels_last)
        mean, std = models.normalization(self.model)
        same = {key: options[key] for key in ("model", "channels_last", "amp")}
        own = {"heads": list(heads), "extra": list(self.extra), "size": options["resize"]}
        self.info = info | same | own | {"mean": mean, "std": std}
        if options["freeze"] == "all":
            frozen = self.model.backbone.eval()
            seen = features.load(data.pixels, frozen, self.info, Path(run.cache_dir))
            self.data = replace(data, pixels=seen)
        self.mean, self.std = (torch.tensor(v, device=device) for v in (mean, std))
        self.optimizer = finetune.optimizer(self.model, options)
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
        checkpoint.load_state(self)

    def _extra_outputs(self):
        """What the model has besides its heads: see model.Classifier."""
        years = self.options["age_mse"] and {"age", "label"} & set(self.heads)
        given = self.options["age_given"] == "mask" and self.heads == ("age",)
        return ("years",) * bool(years) + ("given_mask",) * given

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
                self._keep(self.kept)
            if self.options["average"] and self.data.valid.size:
                checkpoint.keep_epoch(self, self.kept)
        if self.finished and self.options["average"] and self.data.valid.size:
            self._average()
        if rank() == 0:
            checkpoint.save_state(self)
            if self.finished:
                checkpoint.forget_epochs(self)
        return row

    @property
    def kept(self):
        """The model that is evaluated and kept."""
        return self.ema.module if self.ema else self.model

    def _keep(self, model):
        info = self.info | {"epoch": self.best["epoch"], "score": self.best["score"]}
        models.save_model(model, self.folder / "best.safetensors", info)

    def _average(self):
        """Keeps the mean of the best epochs' weights if it scores above the best of them."""
        model = copy.deepcopy(self.kept)
        model.load_state_dict(checkpoint.average(self))
        probs, codes, truth = self._predict(model)
        score = self._score(codes, truth)
        if score > self.best["score"]:
            self.best = {"epoch": checkpoint.best_epochs(self), "score": score, "probs": probs}
            if rank() == 0:
                self._keep(model)

    def train_epoch(self, stopping):
        """One epoch of steps, or the rest of one; the device is waited for at its end only."""
        options, every = self.options, self.options["accumulate"]
        seed = seed_of(*self.key, self.epoch)
        size = schedule.size(options, self.epoch)
        normalization = (self.mean, self.std)
        samples = Epoch(self.data, self.heads, options, seed, normalization, size, self.extra)
        count = samples.count
        steps = math.ceil(count / options["batch_size"])
        edges = [count * step // steps for step in range(steps + 1)]  # equal batches, none left out
        losses = self.partial.get("losses", torch.zeros(steps, device=self.device))
        hits = self.partial.get("hits", torch.zeros((), device=self.device))
        first = self.partial.get("step", 0)
        scores = [row["macro_f1"] for row in self.history if "macro_f1" in row]
        self.wrapped.train()
        for module in self.frozen:
            module.eval()
        start = time.perf_counter()
        bar = progress(range(first, steps), initial=first, total=steps, desc=self._title())
        for step in bar:
            # Dropout: the same whether the epoch was interrupted or not.
            torch.manual_seed(seed_of(*self.key, self.epoch, step, rank()))
            lr = schedule.learning_rate(options, self.epoch + (step + 1) / steps, scores)
            for group in self.optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            low, high = edges[step], edges[step + 1]
            share = [low + (high - low) * r // world_size() for r in (rank(), rank() + 1)]
            images, own, targets = samples.batch(slice(*share))
            if options["channels_last"] and images.dim() == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            group_end = min((step // every + 1) * every, steps)
            total = edges[group_end] - edges[step // every * every]
            with self.autocast:
                logits = self.wrapped(images, targets.get("given"))
            value = self.loss(logits, targets, total)
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
        losses, hits = devices.sum_over_ranks(losses), devices.sum_over_ranks(hits)
        sizes = torch.tensor(np.diff(edges), device=self.device)
        return {
            "lr": lr,
            "train_loss": float((losses * sizes).sum() / count),
            "train_accuracy": float(hits / count),
            "images_per_s": done / seconds,
            "wait_share": samples.waited / seconds,
        }

    def loss(self, logits, targets, total):
        """The part of this batch in the loss of the `total` samples of an optimizer step."""
        value = sum(self.criteria[h](logits[h], targets[h], total) for h in self.heads)
        if "years" in self.extra:
            error = loss.years_error(logits["years"], targets["years"], total)
            value = value + self.options["age_mse"] * error
        return value

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
            raise Diverged(
                f"{self._title()}: the loss is {float(losses[step])} in batch {step + 1} "
                f"({', '.join(names)}, ...); lower --lr, set --clip_grad 1 or --amp off"
            )
        bar.set_postfix(loss=f"{float(losses[-self.log_interval :].mean()):.3f}", refresh=False)

    def _title(self):
        return f"fold {self.key[1]} {self.name} epoch {self.epoch + 1}/{self.options['epochs']}"

    def _evaluate(self):
        """Scores the validation photos; notes whether this epoch is the one to keep so far."""
        probs, codes, truth = self._predict(self.kept)
        self.predictions.append({head: p.argmax(-1).astype(np.uint8) for head, p in probs.items()})
        right = np.all([codes[head] == truth[head] for head in self.heads], axis=0)
        rows = np.arange(len(right))
        score = self._score(codes, truth)
        last = self.options["keep"] == "last"
        if last or self.best is None or score > self.best["score"]:
            self.best = {"epoch": self.epoch + 1, "score": score, "probs": probs}
        seen = self._given_truth(probs)
        logs = [np.log(np.maximum(p[rows, truth[head]], 1e-12)) for head, p in seen.items()]
        return {
            "val_loss": float(-np.sum(logs) / len(rows)),
            "val_accuracy": float(right.mean()),
            "macro_f1": score,
        }

    def _predict(self, model):
        """(probabilities, codes, true codes) of the validation photos, {head: array} each.

        Where the age depends on the mask state, its codes are those at the true state.
        """
        data = self.data
        probs = predict(model.eval(), data.pixels, data.valid, self.info, self.valid_batch_size)
        codes = {head: p.argmax(1) for head, p in self._given_truth(probs).items()}
        return probs, codes, {head: data.truth[head][data.valid] for head in self.heads}

    def _given_truth(self, probs):
        mask = self.data.truth["mask"][self.data.valid]
        return {h: p if p.ndim == 2 else p[np.arange(len(p)), mask] for h, p in probs.items()}

    def _score(self, codes, truth):
        """Macro F1 of the task: of its one head, or of the 18 classes of several."""
        if len(self.heads) == 1:
            head = self.heads[0]
            return macro_f1(truth[head], codes[head], HEADS[head])
        return macro_f1(combine(truth), combine(codes))

    @property
    def finished(self):
        best, patience = self.best["epoch"] if self.best else self.epoch, self.options["early_stop"]
        if isinstance(best, list):  # of an average, which comes last
            return True
        waited = self.epoch - best
        return self.epoch >= self.options["epochs"] or bool(patience and waited >= patience)

    def _stop(self, step, losses, hits, seconds):
        self.partial = {
            "step": step,
            "losses": devices.sum_over_ranks(losses.clone()),
            "hits": devices.sum_over_ranks(hits.clone()),
            "seconds": seconds + self.partial.get("seconds", 0.0),
        }
        if rank() == 0:
            checkpoint.save_state(self)
        raise Stopped
