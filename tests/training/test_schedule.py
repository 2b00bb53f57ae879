"""The stateless learning rate against the schedulers of torch, epoch by epoch."""

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from training.optimization import learning_rate, plateaus

OPTIONS = {
    "lr": 0.3,
    "epochs": 20,
    "warmup_epochs": 0.0,
    "scheduler": "none",
    "lr_decay_step": 6,
    "lr_patience": 3,
    "lr_decay": 0.5,
}


def options(**changed):
    return OPTIONS | changed


def torch_rates(make, epochs, scores=None):
    """The learning rate of each epoch by a scheduler of torch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=OPTIONS["lr"])
    scheduler, rates = make(optimizer), []
    for epoch in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*([] if scores is None else [scores[epoch]]))
    return rates


def ours(chosen, start=0):
    return [learning_rate(chosen, epoch, []) for epoch in range(start, chosen["epochs"])]


@pytest.mark.parametrize("warm", [0, 4])
def test_cosine_after_the_warm_up_is_that_of_torch(warm):
    chosen = options(scheduler="cosine", warmup_epochs=float(warm))
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 20 - warm), 20 - warm)
    np.testing.assert_allclose(ours(chosen, warm), expected, rtol=1e-6)
    assert learning_rate(chosen, 20, []) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("step", "decay"), [(6, 0.5), (1, 0.9), (30, 0.1)])
def test_step_is_that_of_torch(step, decay):
    chosen = options(scheduler="step", lr_decay_step=step, lr_decay=decay)
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, step, decay), 20)
    np.testing.assert_allclose(ours(chosen), expected)
    middle = [learning_rate(chosen, epoch + 0.99, []) for epoch in range(20)]
    np.testing.assert_allclose(middle, expected)


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_plateau_is_that_of_torch_which_waits_one_epoch_more(patience, seed):
    scores = np.round(np.random.default_rng(seed).random(40).cumsum() % 1.5, 1).tolist()
    chosen = options(scheduler="plateau", lr_patience=patience, epochs=40)
    found = [learning_rate(chosen, epoch, scores[:epoch]) for epoch in range(40)]
    expected = torch_rates(
        lambda o: lr_scheduler.ReduceLROnPlateau(
            o, "max", factor=0.5, patience=patience - 1, threshold=0, eps=0
        ),
        40,
        scores,
    )
    np.testing.assert_allclose(found, expected)
    assert found[-1] < 0.3


def test_plateaus_are_counted():
    assert [plateaus([0.5, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6], p) for p in (1, 2, 3, 4)] == [5, 2, 1, 0]
    assert plateaus([], 1) == 0


@pytest.mark.parametrize("scheduler", ["cosine", "step", "plateau", "none"])
def test_warm_up_is_a_line_to_the_highest_rate(scheduler):
    chosen = options(scheduler=scheduler, warmup_epochs=2.5)
    for position in np.linspace(0, 2.49, 11):
        assert learning_rate(chosen, position, []) == pytest.approx(0.3 * position / 2.5)
    assert learning_rate(chosen, 2.5, []) == pytest.approx(0.3)


def test_warm_up_takes_no_more_than_half_of_a_short_run():
    chosen = options(scheduler="cosine", warmup_epochs=50.0, epochs=2)
    rates = [learning_rate(chosen, position, []) for position in (0.5, 1.0, 1.5)]
    np.testing.assert_allclose(rates, [0.15, 0.3, 0.15])


def test_none_stays():
    assert set(ours(options())) == {0.3}


def test_every_step_learns_and_a_decay_acts_at_the_first_step_of_its_epoch():
    """The rates of each step as the loop asks for them, against torch's schedulers by step."""
    steps, epochs = 5, 4
    places = [epoch + (step + 0.5) / steps for epoch in range(epochs) for step in range(steps)]
    cosine = OPTIONS | {"scheduler": "cosine", "epochs": epochs, "warmup_epochs": 1}
    rates = [learning_rate(cosine, place, []) for place in places]
    assert min(rates) > 0 and max(rates) <= OPTIONS["lr"]
    assert np.all(np.diff(rates[:steps]) > 0) and np.all(np.diff(rates[steps:]) < 0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=OPTIONS["lr"])
    halves = lr_scheduler.CosineAnnealingLR(optimizer, 2 * steps * (epochs - 1))  # of a step
    for rate in rates[steps:]:  # at its middle
        optimizer.step()
        halves.step()
        assert rate == pytest.approx(halves.get_last_lr()[0])
        halves.step()
    step = OPTIONS | {"scheduler": "step", "epochs": epochs, "lr_decay_step": 2}
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=OPTIONS["lr"])
    scheduler = lr_scheduler.StepLR(optimizer, 2 * steps, OPTIONS["lr_decay"])
    for place in places:
        assert learning_rate(step, place, []) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
