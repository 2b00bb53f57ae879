"""The training loop: one epoch of one model.

train_epoch() is the place to change what a step does (a second forward, an auxiliary loss, SAM);
the loss itself is Task.loss(), the update of the weights Task.update().
"""

import math
import statistics
import time
from typing import NamedTuple

import torch

from common import devices
from common.errors import UserError
from common.processes import duration, progress, rank, say, world_size

ADVICE = "lower --lr, set --clip_grad 1 or --amp off"
EXPLODES = 10  # times the loss of the first batch, as the mean of the first epoch


class Diverged(UserError):
    """A loss, weight or probability is not finite: the fault of the options, not of the data."""

    exit_code = 3

    def __str__(self):
        where, reason = self.args
        return f"{where}: {reason}; {ADVICE}"


class Pace:
    """The time that a run still takes, by what its epochs took so far.

    tasks: the Tasks in training; later: [(task, epochs)] to train after them. A task that was not
    timed yet is taken for the mean. told: whether the first estimate is known to the user.
    """

    def __init__(self):
        self.tasks, self.later, self.seconds, self.told = (), [], {}, False

    def time(self, task, seconds):
        """Notes what an epoch of a Task takes; says the first estimate of the run."""
        self.seconds[task.name] = seconds
        if not self.told:
            self.told = True
            say(f"an epoch of {task.name} takes about {duration(seconds)}, the run {self.left()}")

    def left(self, since=0.0):
        """The time left in words, once `since` seconds of an epoch are over; "" if unknown."""
        if not self.seconds:
            return ""
        usual = statistics.mean(self.seconds.values())
        going = [task for task in self.tasks if not task.finished]
        left = [(task.name, task.options["epochs"] - task.epoch) for task in going] + self.later
        total = sum(epochs * self.seconds.get(name, usual) for name, epochs in left)
        return duration(max(total - since, 0))


def train_epoch(task):
    """Trains the next epoch of a Task; returns its part of the log's row.

    The device is waited for every --log_interval steps only.
    """
    samples = task.draw_samples()
    steps = steps_of(samples.count, task.options["batch_size"], task.options["accumulate"])
    meter = Meter(task, samples, steps)
    task.network.train()
    for step in meter.bar:
        task.start_step(step)  # the seed of dropout, the learning rate
        images, own, targets = samples.batch(step.share())
        with task.gradients_kept_local(not step.updates):
            with task.autocast:
                logits = task.network(images)
            loss = task.loss(logits, targets, step.samples)
            task.scaler.scale(loss * world_size()).backward()
        if step.updates:
            task.update()
        meter.add(step, loss, logits, own)
    return meter.row()


class Step(NamedTuple):
    """A batch of an epoch, and what it has in common with those that it is accumulated with."""

    number: int
    low: int  # its samples are low .. high - 1
    high: int
    updates: bool  # whether the optimizer steps after it
    samples: int  # of all batches of the optimizer's step
    middle: float  # of these batches, as a share 0..1 of the epoch

    def share(self):
        """The slice of samples that this process takes."""
        count, ranks = self.high - self.low, (rank(), rank() + 1)
        return slice(*(self.low + count * r // world_size() for r in ranks))


def steps_of(count, batch_size, accumulate=1):
    """[Step] of an epoch of `count` samples, of equal size and no sample left out.

    No batch has a single sample, unless all have: batch normalisation cannot take it.
    """
    steps = math.ceil(count / batch_size)
    if batch_size > 1:
        steps = max(1, min(steps, count // 2))
    edges, result = [count * step // steps for step in range(steps + 1)], []
    for k in range(steps):
        first = k // accumulate * accumulate
        last = min(first + accumulate, steps)
        samples, middle = edges[last] - edges[first], (first + last) / 2 / steps
        result.append(Step(k, edges[k], edges[k + 1], k + 1 == last, samples, middle))
    return result


class Meter:
    """The losses and hits of an epoch, kept on the device, and its progress bar."""

    def __init__(self, task, samples, steps):
        self.task, self.samples, self.steps, self.pace = task, samples, steps, task.run.pace
        self.losses = torch.zeros(len(steps), device=task.device)
        self.hits = torch.zeros((), device=task.device)
        left = self.pace.left()
        told = {"run": f"{left} left"} if left else {}
        self.bar = progress(steps, desc=task.title(), postfix=told)
        self.start = time.perf_counter()

    def add(self, step, loss, logits, own):
        """Notes a batch. loss: its part of the update's loss; own: {head: labels} of its photos."""
        self.losses[step.number] = loss.detach() * (step.samples / (step.high - step.low))
        right = torch.stack([logits[head].argmax(1) == own[head] for head in self.task.heads])
        self.hits += right.all(0).sum()
        done, interval = step.number + 1, self.task.run.options.log_interval
        if done % interval == 0 or done == len(self.steps):
            self._check(self.losses[:done].cpu(), interval)

    def _check(self, losses, interval):
        """Shows the loss; Diverged if one is not finite."""
        for bad in torch.nonzero(~losses.isfinite()).flatten().tolist():
            photos = self.samples.photos[self.steps[bad].low : self.steps[bad].high][:3]
            names = ", ".join(self.task.data.names[photo] for photo in photos)
            reason = f"the loss is {float(losses[bad])} in batch {bad + 1} ({names}, ...)"
            raise Diverged(self.task.title(), reason)
        passed, mean = time.perf_counter() - self.start, float(losses[-interval:].mean())
        if self.task.name not in self.pace.seconds:
            self.pace.time(self.task, passed / len(losses) * len(self.steps))
        left = f"{self.pace.left(passed)} left"
        self.bar.set_postfix(loss=f"{mean:.3f}", run=left, refresh=False)

    def row(self):
        """What the log says of the epoch's training.

        lr: the mean of the learning rates of its updates; train_loss, train_accuracy: means over
        the samples, as they were trained; wait_share: of the seconds, those spent on pixels.
        """
        steps, count, task = self.steps, self.samples.count, self.task
        rates = [task.rate(step.middle) for step in steps if step.updates]
        seconds = time.perf_counter() - self.start
        losses, hits = devices.sum_over_ranks(self.losses), devices.sum_over_ranks(self.hits)
        sizes = torch.tensor([step.high - step.low for step in steps], device=losses.device)
        loss, first = float((losses * sizes).sum() / count), float(losses[0])
        if task.epoch == 0 and loss > EXPLODES * max(first, 1):
            rose = f"the loss rose from {first:,.2f} to {loss:,.0f}"
            say(f"warning: {task.title()}: {rose}; {ADVICE}")
        return {
            "lr": statistics.mean(rates),
            "train_loss": loss,
            "train_accuracy": float(hits / count),
            "images_per_s": count / seconds,
            "wait_share": self.samples.waited / seconds,
        }
