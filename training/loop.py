"""The training loop: one epoch of one model.

train_epoch() is the place to change what a step does (a second forward, an auxiliary loss, SAM);
the loss itself is Task.loss(), the update of the weights Task.update(). What makes a stopped
epoch end with the same bytes as one that was not stands in Steps and Meter.
"""

import math
import statistics
import time

import numpy as np
import torch

from common import devices
from common.errors import UserError
from common.processes import progress, rank, world_size
from training import checkpoint


class Stopped(Exception):
    """A signal asked to stop; the state is saved."""


class Diverged(UserError):
    """A loss, weight or probability is not finite: the fault of the options, not of the data."""

    exit_code = 3

    def __init__(self, where, reason):
        super().__init__(f"{where}: {reason}; lower --lr, set --clip_grad 1 or --amp off")


def train_epoch(task, stopping):
    """Trains the next epoch of a Task, or the rest of one; returns its part of the log's row.

    stopping: see Task.run_epoch(). The device is waited for every --log_interval steps only.
    """
    samples = task.draw_samples()
    steps = Steps(samples.count, task.options["batch_size"], task.options["accumulate"])
    meter = Meter(task, samples, steps)
    task.train_mode()
    for step in meter.steps_left():
        task.start_step(step, steps.middle(step))  # the seed of dropout, the learning rate
        images, own, targets = samples.batch(steps.share(step))
        with task.gradients_kept_local(not steps.updates(step)):
            with task.autocast:
                logits = task.network(images, targets.get("given"))
            loss = task.loss(logits, targets, steps.samples_an_update(step))
            task.scale(loss * world_size()).backward()
        if steps.updates(step):
            task.update()
        meter.add(step, loss, logits, own)
        if meter.may_stop(step) and stopping():
            meter.stop(step + 1)
    return meter.row()


class Steps:
    """The batches of an epoch, of equal size and none left out, and where the optimizer steps.

    No batch has a single sample, unless all have: batch normalisation cannot take it.
    """

    def __init__(self, count, batch_size, accumulate):
        steps = math.ceil(count / batch_size)
        if batch_size > 1:
            steps = max(1, min(steps, count // 2))
        self.edges = [count * step // steps for step in range(steps + 1)]
        self.accumulate = accumulate

    def __len__(self):
        return len(self.edges) - 1

    def size(self, step):
        """Samples of a batch, over all processes."""
        return self.edges[step + 1] - self.edges[step]

    def share(self, step):
        """The slice of samples that this process takes of a batch."""
        low, size = self.edges[step], self.size(step)
        return slice(*(low + size * r // world_size() for r in (rank(), rank() + 1)))

    def updates(self, step):
        """Whether the optimizer steps after this batch."""
        return (step + 1) % self.accumulate == 0 or step + 1 == len(self)

    def samples_an_update(self, step):
        """Samples of all batches that are accumulated with this one."""
        first, last = self._update(step)
        return self.edges[last] - self.edges[first]

    def middle(self, step):
        """The middle of the batches accumulated with this one, as a share 0..1 of the epoch."""
        return sum(self._update(step)) / 2 / len(self)

    def _update(self, step):
        first = step // self.accumulate * self.accumulate
        return first, min(first + self.accumulate, len(self))


class Meter:
    """The losses and hits of an epoch, kept on the device; goes on where a stopped epoch was."""

    def __init__(self, task, samples, steps):
        self.task, self.samples, self.steps = task, samples, steps
        device, partial = task.device, task.partial
        self.losses = partial.get("losses", torch.zeros(len(steps), device=device))
        self.hits = partial.get("hits", torch.zeros((), device=device))
        self.first = partial.get("step", 0)
        self.start = time.perf_counter()

    def steps_left(self):
        """The numbers of the steps still to do, with a progress bar."""
        todo, total = range(self.first, len(self.steps)), len(self.steps)
        self.bar = progress(todo, initial=self.first, total=total, desc=self.task.title())
        return self.bar

    def add(self, step, loss, logits, own):
        """Notes a batch. loss: its part of the update's loss; own: {head: labels} of its photos."""
        share = self.steps.samples_an_update(step) / self.steps.size(step)
        self.losses[step] = loss.detach() * share
        right = torch.stack([logits[head].argmax(1) == own[head] for head in self.task.heads])
        self.hits += right.all(0).sum()
        if self._checks(step):
            self._check(step)

    def may_stop(self, step):
        """Whether stopping() may be asked: several processes must agree, which costs a message."""
        asks = self._checks(step) or world_size() == 1
        return asks and self.steps.updates(step) and step + 1 < len(self.steps)

    def stop(self, step):
        """Saves the state in the middle of the epoch, before `step`, and raises Stopped."""
        seconds = time.perf_counter() - self.start + self.task.partial.get("seconds", 0.0)
        losses, hits = (devices.sum_over_ranks(t.clone()) for t in (self.losses, self.hits))
        self.task.partial = {"step": step, "losses": losses, "hits": hits, "seconds": seconds}
        if rank() == 0:
            checkpoint.save_state(self.task)
        raise Stopped

    def row(self):
        """What the log says of the epoch's training.

        lr: the mean of the learning rates of its updates; train_loss, train_accuracy: means over
        the samples, as they were trained; wait_share: of the seconds, those spent on pixels.
        """
        steps = self.steps
        rates = [self.task.rate(steps.middle(k)) for k in range(len(steps)) if steps.updates(k)]
        seconds = time.perf_counter() - self.start
        count, edges = self.samples.count, steps.edges
        losses, hits = devices.sum_over_ranks(self.losses), devices.sum_over_ranks(self.hits)
        sizes = torch.tensor(np.diff(edges), device=losses.device)
        return {
            "lr": statistics.mean(rates),
            "train_loss": float((losses * sizes).sum() / count),
            "train_accuracy": float(hits / count),
            "images_per_s": (count - edges[self.first]) / seconds,
            "wait_share": self.samples.waited / seconds,
        }

    def _checks(self, step):
        return (step + 1) % self.task.log_interval == 0 or step + 1 == len(self.steps)

    def _check(self, step):
        """Waits for the device: shows the loss; Diverged if it is not finite."""
        losses, edges = self.losses[: step + 1].cpu(), self.steps.edges
        bad = torch.nonzero(~torch.isfinite(losses)).flatten()
        if len(bad):
            bad = int(bad[0])
            photos = self.samples.photos[edges[bad] : edges[bad + 1]][:3]
            names = ", ".join(self.task.data.names[photo] for photo in photos)
            loss = float(losses[bad])
            raise Diverged(
                self.task.title(), f"the loss is {loss} in batch {bad + 1} ({names}, ...)"
            )
        mean = float(losses[-self.task.log_interval :].mean())
        self.bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
