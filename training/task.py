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
from common.errors import UserError
from common.processes import rank, world_size
from dataset import Epoch
from experiment import reader
from experiment.predictions import NotFinite, load, precision, predict, usual_amp
from labels import HEADS, combine
from metrics import macro_f1
from photos import features
from training import checkpoint, distributed, optimization
from training.loop import Diverged, train_epoch


def seed_of(*parts):
    """A seed of 63 bits from (seed, fold, task, epoch, ...)."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def start_of(args, fold, task):
    """The file of the weights from which --init_from starts a task of a fold; None without."""
    place = args.init_from and reader.fold_folder(args.init_from, fold)
    return place and place / task / "best.safetensors"


def build(chosen, start=None):
    """(Classifier, its modules that do not learn) of a task's options, of options.tasks_of().

    start: of start_of(). UserError if the model cannot be made so.
    """
    drops = {name: chosen[name] for name in ("drop_rate", "drop_path", "extra")}
    places = chosen["model"], chosen["heads"], chosen["resize"]
    model = models.create(*places, "none" if start else chosen["weights"], **drops)
    if start:
        state, info = load(start, chosen["heads"])
        try:
            model.load_state_dict(state.state_dict())
        except RuntimeError:
            raise UserError(
                f"--init_from: {start} ({info.model}, {' x '.join(map(str, info.size))}) does not "
                "fit: give its --model, --age_head, --age_mse, --age_given, perhaps its --resize"
            ) from None
    return model, optimization.freeze(model.backbone, chosen["freeze"])


class Task:
    """One model in training.

    run: a training.run.Run; fold: its number; name: a key of run.tasks. It starts where the state
    in its folder left it. `history` has one row an epoch, `best` the epoch to keep (several, if
    averaged) with its probabilities, and `predictions` the {head: (photos,) codes} of every epoch.
    """

    def __init__(self, run, fold, name):
        self.name, self.options, self.data = name, run.tasks[name], run.data[fold][name]
        self.heads, self.extra = self.options["heads"], self.options["extra"]
        self.truth = {head: self.data.truth[head][self.data.valid] for head in self.heads}
        self.device, self.log_interval = run.device, run.options.log_interval
        self.valid_batch_size = run.options.valid_batch_size
        self.folder = reader.fold_folder(run.folder, fold) / name
        self.key = (run.options.seed, fold, name)
        torch.manual_seed(seed_of(*self.key))
        self._build_model(run)
        self._build_optimizer()
        self.criteria = {head: self._criterion(head) for head in self.heads}
        self.epoch, self.history, self.predictions, self.best = 0, [], [], None
        self.partial, self.updates = {}, 0  # the first is of an epoch that was interrupted
        checkpoint.load_state(self)
        self.pace = run.pace
        self._count_epochs()

    def _count_epochs(self):
        left = 0 if self.finished else self.options["epochs"] - self.epoch
        self.pace.epochs[self.key[1:]] = left

    def _build_model(self, run):
        chosen = self.options
        new = not (self.folder / "last.pt").exists()
        start = start_of(run.options, *self.key[1:]) if new else None
        self.model, self.frozen = build(chosen, start)
        self.model.to(self.device)
        if chosen["channels_last"]:
            self.model.to(memory_format=torch.channels_last)
        mean, std = models.normalization(self.model)
        self.mean, self.std = (torch.tensor(value, device=self.device) for value in (mean, std))
        # Left to auto, a model predicts on any device in the arithmetic that is usual there.
        asked = options.tasks_of(run.options)[self.name]["amp"]
        amp = asked if chosen["amp"] == usual_amp(self.device) else chosen["amp"]
        same = ("model", "heads", "extra", "bg", "bg_fill", "crop", "channels_last")
        self.info = models.ModelInfo(
            **{name: chosen[name] for name in same} | {"amp": amp},
            **{"size": tuple(chosen["resize"]), "mean": tuple(mean), "std": tuple(std)},
            **{"rembg_model": run.options.rembg_model, "mattes": run.mattes},
            place="/".join(self.folder.parts[-2:]),
        )
        if chosen["freeze"] == "all":
            frozen, cache = self.model.backbone.eval(), Path(run.options.cache_dir)
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

    def _criterion(self, head):
        weights, power = None, self.options["class_weights"][head]
        adjustment, tau = None, self.options["logit_adjustment"][head]
        classes = self.data.targets[head][self.data.train]
        counts = np.bincount(classes, minlength=HEADS[head])
        if power:
            weights = loss.class_weights(counts, power)
        if tau:
            adjustment = loss.adjustment(counts, tau)
        name, smoothing = self.options["criterion"][head], self.options["label_smoothing"][head]
        return loss.criterion(name, HEADS[head], smoothing, weights, adjustment)

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
        if kind := self.model.bins:
            value = value + loss.bins_error(logits["bins"], targets["years"], total, kind)
        return value

    def update(self):
        """Steps the optimizer with the gradients that have been added up."""
        if self.options["clip_grad"]:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options["clip_grad"])
        self.scaler.step(self.optimizer)
        self.scaler.update()
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
        row = {"epoch": self.epoch + 1} | train_epoch(self, stopping) | self._evaluate()
        row["seconds"] = time.perf_counter() - start + self.partial.get("seconds", 0.0)
        self.history.append(row)
        self.epoch, self.partial = self.epoch + 1, {}
        averages = self.options["average"] and len(self.data.valid)
        if self.best["epoch"] == self.epoch:
            self._keep(self.kept)
        if averages:
            checkpoint.keep_epoch(self, self.kept)
            if self.finished:
                self._average()
        if rank() == 0:
            checkpoint.save_state(self)
            if self.finished:
                checkpoint.forget_epochs(self)
        self.pace.time(self.name, row["seconds"])
        self._count_epochs()
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
        return self.epoch >= self.options["epochs"] or 0 < patience <= self.epoch - best

    def _keep(self, model):
        info = replace(self.info, epoch=self.best["epoch"], score=self.best["score"])
        if rank() == 0:
            models.save_model(model, self.folder / "best.safetensors", info)

    def _average(self):
        """Keeps the mean of the best epochs' weights if it scores above the best of them."""
        model = copy.deepcopy(self.kept)
        model.load_state_dict(checkpoint.average(self))
        probs, _, score = self._predict(model)
        if score > self.best["score"]:
            self.best = {"epoch": checkpoint.best_epochs(self), "score": score, "probs": probs}
            self._keep(model)

    def _evaluate(self):
        """Scores the validation photos, if there are any; notes whether this epoch is the one to
        keep so far. Returns its part of the log's row.
        """
        if not len(self.data.valid):
            if not all(value.isfinite().all() for value in self.kept.state_dict().values()):
                raise Diverged(self.title(), "a weight is not finite")
            self.best = {"epoch": self.epoch + 1, "score": 0.0, "probs": {}}
            return {}
        probs, seen, score = self._predict(self.kept)
        self.predictions.append({head: p.argmax(-1).astype(np.uint8) for head, p in probs.items()})
        last = self.options["keep"] == "last"
        if last or self.best is None or score > self.best["score"]:
            self.best = {"epoch": self.epoch + 1, "score": score, "probs": probs}
        rows, truth = np.arange(len(self.data.valid)), self.truth
        right = np.all([p.argmax(1) == truth[head] for head, p in seen.items()], axis=0)
        logs = [np.log(np.maximum(p[rows, truth[head]], 1e-12)) for head, p in seen.items()]
        return {
            "val_loss": float(-np.sum(logs) / len(rows)),
            "val_accuracy": float(right.mean()),
            "macro_f1": score,
        }

    def _predict(self, model):
        """(probabilities, the same with the age at the true mask state, macro F1 of the task) of
        the validation photos; of several heads the score is that of the 18 classes.
        """
        data = self.data
        try:
            probs = predict(model.eval(), data.pixels, data.valid, self.info, self.valid_batch_size)
        except NotFinite as error:
            raise Diverged(self.title(), f"in validation {error}") from None
        mask, rows = data.truth["mask"][data.valid], np.arange(len(data.valid))
        seen = {head: p if p.ndim == 2 else p[rows, mask] for head, p in probs.items()}
        codes = {head: p.argmax(1) for head, p in seen.items()}
        if len(self.heads) == 1:
            head = self.heads[0]
            return probs, seen, macro_f1(self.truth[head], codes[head], HEADS[head])
        return probs, seen, macro_f1(combine(self.truth), combine(codes))
