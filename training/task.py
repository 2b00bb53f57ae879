"""One model in training: its parts, its loss, the evaluation of an epoch, the epoch to keep.

Everything random derives from (seed, fold, task, epoch), so a run that is killed and resumed
ends with the same bytes as one that was not.
"""

import contextlib
import copy
import hashlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEmaV3

import loss
import model as models
import options
from common.processes import rank, world_size
from dataset import Epoch
from experiment import reader
from experiment.predictions import NotFinite, precision, predict, usual_amp
from labels import HEADS, combine
from metrics import macro_f1
from photos import features
from training import checkpoint, distributed, optimization
from training.loop import Diverged, train_epoch


def seed_of(*parts):
    """A seed of 63 bits from (seed, fold, task, epoch, ...)."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Task:
    """One model in training.

    run: a training.run.Run; fold: its number; name: a key of run.tasks; data: dataset.Data.
    It starts where the state in its folder left it. `history` has one row an epoch, `best` the
    epoch to keep (several, if averaged) with its probabilities, and `predictions` the {head:
    (photos,) codes} of every epoch.
    """

    def __init__(self, run, fold, name, data):
        self.name, self.heads, self.data = name, run.heads_of(name), data
        self.options, self.device = run.tasks[name], run.device
        self.log_interval = run.options.log_interval
        self.valid_batch_size = run.options.valid_batch_size
        self.folder = reader.fold_folder(run.folder, fold) / name
        self.key = (run.options.seed, fold, name)
        self.extra = self._extra_outputs()
        torch.manual_seed(seed_of(*self.key))
        self._build_model(run)
        self._build_optimizer()
        self.criteria = {head: self._criterion(head) for head in self.heads}
        self.epoch, self.history, self.predictions, self.best = 0, [], [], None
        self.partial = {}  # of an epoch that was interrupted
        self.updates = 0
        checkpoint.load_state(self)

    def _build_model(self, run):
        chosen = self.options
        places = chosen["model"], self.heads, chosen["resize"], chosen["weights"]
        drops = {name: chosen[name] for name in ("drop_rate", "drop_path")}
        model = models.create(*places, **drops, extra=self.extra)
        self.model = model.to(self.device)
        self.frozen = optimization.freeze(self.model.backbone, chosen["freeze"])
        if chosen["channels_last"]:
            self.model.to(memory_format=torch.channels_last)
        mean, std = models.normalization(self.model)
        self.mean, self.std = (torch.tensor(value, device=self.device) for value in (mean, std))
        # Left to auto, a model predicts on any device in the arithmetic that is usual there.
        asked = options.for_task(run.options, self.name)["amp"]
        amp = asked if chosen["amp"] == usual_amp(self.device) else chosen["amp"]
        self.info = models.ModelInfo(
            **{name: chosen[name] for name in ("model", "bg", "bg_fill", "crop")},
            **{"amp": amp, "channels_last": chosen["channels_last"]},
            **{"heads": self.heads, "size": tuple(chosen["resize"]), "extra": self.extra},
            **{"mean": tuple(mean), "std": tuple(std)},
            **{"rembg_model": run.options.rembg_model, "mattes": run.mattes},
            place="/".join(self.folder.parts[-2:]),
        )
        if chosen["freeze"] == "all":
            frozen = self.model.backbone.eval()
            cache = Path(run.options.cache_dir)
            seen = features.load(self.data.pixels, frozen, self.info, cache)
            self.data = replace(self.data, pixels=seen)

    def _build_optimizer(self):
        chosen = self.options
        self.optimizer = optimization.make_optimizer(self.model, chosen)
        self.ema = None
        if chosen["ema"]:
            self.ema = ModelEmaV3(self.model, decay=chosen["ema"], use_warmup=True)
        self.network = distributed.wrap(self.model, self.device)
        if chosen["compile"]:
            self.network = torch.compile(self.network)
        self.autocast, self.scaler = precision(chosen["amp"], self.device)

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

    # ---- what train_epoch() needs

    def title(self):
        return f"fold {self.key[1]} {self.name} epoch {self.epoch + 1}/{self.options['epochs']}"

    def draw_samples(self):
        """The samples of the next epoch, all that is random about them drawn."""
        seed, size = seed_of(*self.key, self.epoch), optimization.size(self.options, self.epoch)
        normalization = (self.mean, self.std)
        return Epoch(
            self.data, self.heads, self.options, seed, normalization, size=size, extra=self.extra
        )

    def train_mode(self):
        self.network.train()
        for module in self.frozen:
            module.eval()

    def start_step(self, step, position):
        """Seeds dropout, alike whether the epoch was interrupted or not; sets the learning rate.

        position: of the step in the epoch, 0..1.
        """
        torch.manual_seed(seed_of(*self.key, self.epoch, step, rank()))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(position) * group.get("lr_scale", 1.0)

    def rate(self, position):
        """The learning rate at a position 0..1 of this epoch."""
        scores = [row["macro_f1"] for row in self.history if "macro_f1" in row]
        return optimization.learning_rate(self.options, self.epoch + position, scores)

    def gradients_kept_local(self, kept):
        """Several processes add up their gradients only at the last batch before an update."""
        return self.network.no_sync() if kept and world_size() > 1 else contextlib.nullcontext()

    def loss(self, logits, targets, total):
        """The part of this batch in the loss of the `total` samples of an optimizer step."""
        value = sum(self.criteria[h](logits[h], targets[h], total) for h in self.heads)
        if "years" in self.extra:
            error = loss.years_error(logits["years"], targets["years"], total)
            value = value + self.options["age_mse"] * error
        return value

    def scale(self, value):
        """A loss as --amp fp16 wants it before backward()."""
        return self.scaler.scale(value) if self.scaler else value

    def update(self):
        """Steps the optimizer with the gradients that have been added up."""
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

    # ---- an epoch from its start to the saved state

    def run_epoch(self, stopping):
        """Trains the next epoch, evaluates it, and saves the state.

        stopping: a function without arguments; where it is true between two steps, the state is
        saved there and Stopped is raised.
        """
        start = time.perf_counter()
        row = {"epoch": self.epoch + 1} | train_epoch(self, stopping)
        if len(self.data.valid):
            row |= self._evaluate()
        elif all(value.isfinite().all() for value in self.kept.state_dict().values()):
            self.best = {"epoch": self.epoch + 1, "score": 0.0, "probs": {}}
        else:
            raise Diverged(self.title(), "a weight is not finite")
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

    @property
    def finished(self):
        best, patience = self.best["epoch"] if self.best else self.epoch, self.options["early_stop"]
        if isinstance(best, list):  # of an average, which comes last
            return True
        waited = self.epoch - best
        return self.epoch >= self.options["epochs"] or bool(patience and waited >= patience)

    def _keep(self, model):
        info = replace(self.info, epoch=self.best["epoch"], score=self.best["score"])
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
        try:
            probs = predict(model.eval(), data.pixels, data.valid, self.info, self.valid_batch_size)
        except NotFinite as error:
            raise Diverged(self.title(), f"in validation {error}") from None
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
