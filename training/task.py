"""One model in training: its parts, its loss, the evaluation of an epoch, the epoch to keep.

Everything random derives from (seed, fold, task, epoch), so that a resumed run ends the same.
"""

import contextlib
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
from common.processes import counted, rank, world_size
from dataset import Epoch
from experiment import reader
from experiment.predictions import NotFinite, load, precision, predict, usual_amp
from labels import HEADS, combine
from metrics import macro_f1
from training import arithmetic, checkpoint, distributed, optimization
from training.loop import Diverged, steps_of, train_epoch


def seed_of(*parts):
    """A seed of 63 bits from (seed, fold, task, epoch, ...)."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def build(chosen, start=None):
    """The Classifier of a task's options, of options.tasks_of(), in training mode, with the weights
    of the file `start`, one of --init_from; UserError if it cannot be made so.
    """
    how = {name: chosen[name] for name in ("heads", "drop_rate", "drop_path", "years")}
    how |= {"size": chosen["resize"], "weights": "none" if start else chosen["weights"]}
    model = models.create(chosen["model"], **how)
    if start:
        state, info = load(start, chosen["heads"])
        try:
            model.load_state_dict(state.state_dict())
        except RuntimeError:
            raise UserError(
                f"--init_from: {start} ({info.model}, {' x '.join(map(str, info.size))}) does not "
                "fit: give its --model, --age_mse, perhaps its --resize"
            ) from None
    return model


class Task:
    """One model in training.

    run: a training.run.Run; fold: its number; name: a key of run.tasks. It starts where the state
    in its folder left it. `history` has one row an epoch, `best` the epoch to keep with
    its probabilities, and `predictions` the {head: (photos,) codes} of every epoch, as tensors.
    """

    def __init__(self, run, fold, name):
        self.run, self.name, self.device = run, name, run.device
        self.options, self.data = run.tasks[name], run.data[fold][name]
        chosen, self.ema = self.options, None
        self.heads = chosen["heads"]
        self.truth = {head: self.data.truth[head][self.data.valid] for head in self.heads}
        self.folder = reader.fold_folder(run.folder, fold) / name
        self.key = (run.options.seed, fold, name)
        torch.manual_seed(seed_of(*self.key))
        self._build_model()
        self.optimizer = optimization.make_optimizer(self.model, chosen)
        if chosen["ema"]:
            self.ema = ModelEmaV3(self.model, decay=chosen["ema"], use_warmup=True)
        network = distributed.wrap(self.model, self.device)
        self.network = arithmetic.compiled(network, chosen["compile"])
        self.autocast, self.scaler = precision(chosen["amp"], self.device)
        self.criteria = {head: self._criterion(head) for head in self.heads}
        self.epoch, self.updates, self.best = 0, 0, None
        self.history, self.predictions = [], []
        checkpoint.load_state(self)

    def _build_model(self):
        chosen, run = self.options, self.run
        source = None if (self.folder / "last.pt").exists() else run.options.init_from
        place = self.folder.relative_to(run.folder)
        start = source and Path(source, place, "best.safetensors")
        self.model = build(chosen, start).to(self.device)
        if chosen["channels_last"] and not models.make_channels_last(self.model, self.device):
            chosen = self.options = chosen | {"channels_last": False}
        mean, std = models.normalization(self.model)
        self.mean, self.std = (torch.tensor(value, device=self.device) for value in (mean, std))
        # Left to auto, a model predicts on any device in the arithmetic that is usual there.
        asked = options.tasks_of(run.options)[self.name]["amp"]
        amp = asked if chosen["amp"] == usual_amp(self.device) else chosen["amp"]
        same = ("model", "heads", "years", "bg", "bg_fill", "crop", "channels_last")
        said = {"amp": amp, "rembg_model": run.options.rembg_model, "mattes": run.mattes}
        said |= {"size": tuple(chosen["resize"]), "mean": tuple(mean), "std": tuple(std)}
        said |= {"place": place.as_posix()}
        self.info = models.ModelInfo(**{name: chosen[name] for name in same}, **said)

    def _criterion(self, head):
        of = {name: self.options[name][head] for name in options.PER_HEAD}
        classes = self.data.targets[head][self.data.train]
        counts = np.bincount(classes, minlength=HEADS[head])
        weights = None
        if of["class_weights"]:
            weights = loss.class_weights(counts, of["class_weights"]).to(self.device)
        return loss.criterion(of["criterion"], HEADS[head], of["label_smoothing"], weights)

    def describe(self):
        """Model, precision, input and steps, in words."""
        chosen, photos = self.options, len(self.data.train) * self.data.pixels.views
        millions = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        number = str(getattr(self.autocast, "fast_dtype", torch.float32)).removeprefix("torch.")
        size = " x ".join(map(str, chosen["resize"]))
        size += f" ({chosen['crop']} crop)" if chosen["crop"] != "none" else ""
        steps = len(steps_of(photos, chosen["batch_size"]))
        return (
            f"{chosen['model']} ({millions:.1f} million parameters, {number}), view {chosen['bg']} "
            f"at {size}, {counted(chosen['epochs'], 'epoch')} of {counted(steps, 'step')}"
        )

    # ---- what train_epoch() needs

    def title(self):
        return f"fold {self.key[1]} {self.name} epoch {self.epoch + 1}/{self.options['epochs']}"

    def draw_samples(self):
        """The samples of the next epoch, all that is random about them drawn."""
        seed, normalization = seed_of(*self.key, self.epoch), (self.mean, self.std)
        return Epoch(self.data, self.options, seed, normalization)

    def start_step(self, step):
        """Seeds dropout and sets the learning rate."""
        torch.manual_seed(seed_of(*self.key, self.epoch, step.number, rank()))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step.middle)

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
        if self.options["years"]:
            error = loss.years_error(logits["years"], targets["years"], total)
            value = value + self.options["age_mse"] * error
        return value

    def update(self):
        """Steps the optimizer with the gradients that have been added up."""
        if self.options["clip_grad"]:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options["clip_grad"])
        if world_size() > 1:  # an optimizer that draws, as kron does, draws alike in each process
            torch.manual_seed(seed_of(*self.key, self.epoch, self.updates))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.updates += 1
        if self.ema:
            self.ema.update(self.model, step=self.updates)

    # ---- an epoch from its start to the saved state

    def run_epoch(self):
        """Trains the next epoch, evaluates it, and saves the state."""
        start = time.perf_counter()
        row = {"epoch": self.epoch + 1} | train_epoch(self) | self._evaluate()
        row["seconds"] = time.perf_counter() - start
        self.history.append(row)
        self.epoch += 1
        if rank() == 0:
            if self.best["epoch"] == self.epoch:
                info = replace(self.info, epoch=self.epoch, score=self.best["score"])
                models.save_model(self.kept, self.folder / "best.safetensors", info)
            checkpoint.save_state(self)
        self.run.pace.time(self, row["seconds"])

    @property
    def kept(self):
        """The model that is evaluated and kept."""
        return self.ema.module if self.ema else self.model

    @property
    def finished(self):
        best, patience = self.best["epoch"] if self.best else self.epoch, self.options["early_stop"]
        return self.epoch >= self.options["epochs"] or 0 < patience <= self.epoch - best

    def _evaluate(self):
        """Scores the validation photos, notes the epoch to keep; its part of the log's row."""
        if not len(self.data.valid):
            if not all(value.isfinite().all() for value in self.kept.state_dict().values()):
                raise Diverged(self.title(), "a weight is not finite")
            self.best = {"epoch": self.epoch + 1, "score": 0.0, "probs": {}}
            return {}
        probs, score = self._predict()
        self.predictions.append({head: p.argmax(-1).to(torch.uint8) for head, p in probs.items()})
        last = self.options["keep"] == "last"
        if last or self.best is None or score > self.best["score"]:
            self.best = {"epoch": self.epoch + 1, "score": score, "probs": probs}
        rows, truth = np.arange(len(self.data.valid)), self.truth
        right = np.all([p.argmax(1).numpy() == truth[h] for h, p in probs.items()], axis=0)
        logs = [np.log(np.maximum(p.numpy()[rows, truth[h]], 1e-12)) for h, p in probs.items()]
        return {
            "val_loss": float(-np.sum(logs) / len(rows)),
            "val_accuracy": float(right.mean()),
            "macro_f1": score,
        }

    def _predict(self):
        """(probabilities as tensors, macro F1), of several heads that of the 18 classes."""
        data, size = self.data, self.run.options.valid_batch_size
        try:
            probs = predict(self.kept.eval(), data.pixels, data.valid, self.info, size)
        except NotFinite as error:
            raise Diverged(self.title(), f"in validation {error}") from None
        codes = {head: p.argmax(1) for head, p in probs.items()}
        probs = {head: torch.from_numpy(p) for head, p in probs.items()}
        if len(self.heads) == 1:
            head = self.heads[0]
            return probs, macro_f1(self.truth[head], codes[head], HEADS[head])
        return probs, macro_f1(combine(self.truth), combine(codes))
