"""A task in training against a plain loop of torch, and what its options do."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.utils import ModelEmaV3
from torch.nn import functional as F

from options import parse_args
from training.run import make_tasks, open_run

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


@pytest.fixture
def opened(drawn, tmp_path):
    """A function: a fresh run of a tiny model with these flags."""

    def go(words):
        places = f"--data_dir {drawn / 'train'} --model_dir {tmp_path} --cache_dir {tmp_path / 'c'}"
        places += " --model test_efficientnet --weights none --resize 32 24 --optimizer sgd"
        return open_run(parse_args(f"{places} {words}".split()), torch.device("cpu"))

    return go


@pytest.fixture
def task(opened):
    return lambda words: make_tasks(opened(words), 0)[0]


def test_epochs_are_those_of_a_plain_loop(task):
    one = task(
        "--epochs 2 --batch_size 40 --lr 0.02 --scheduler none --warmup_epochs 0 --weight_decay 0 "
        "--augmentation none --label_smoothing 0.1 --class_weights 1 --age_mse 0.5"
    )
    data, model = one.data, deepcopy(one.model)
    counts = np.bincount(data.targets["label"][data.train], minlength=18)
    weights = torch.tensor([n and len(data.train) / n / (counts > 0).sum() for n in counts]).float()
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, nesterov=True)
    for number in range(2):
        rows, losses = one.draw_samples().photos, []
        assert rows.sort().values.tolist() == data.train.tolist()
        for part in np.array_split(rows.numpy(), -(-len(rows) // 40)):
            images = (data.pixels.batch(torch.from_numpy(part), 0) / 255 - MEAN) / STD
            logits, years = model.train()(images), torch.from_numpy(data.targets["years"][part])
            codes, how = torch.from_numpy(data.targets["label"][part]), {"label_smoothing": 0.1}
            loss = F.cross_entropy(logits["label"], codes, weights, reduction="sum", **how)
            loss = loss / len(part) + 0.5 * F.mse_loss(logits["years"], (years - 40) / 12)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(part) / len(rows))
        one.run_epoch()
        assert one.history[number]["train_loss"] == pytest.approx(sum(losses), rel=1e-3)
    for (name, ours), theirs in zip(one.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4, msg=name)


def test_each_step_has_the_rate_of_its_middle_and_a_clipped_gradient(task):
    one = task("--epochs 3 --batch_size 20 --clip_grad 0.01 --lr 0.3 --amp bf16")
    rates, norms, orders, kinds, step, loss = [], [], [], set(), one.optimizer.step, one.loss

    def noting(*words, **more):
        rates.append(one.optimizer.param_groups[0]["lr"])
        norms.append(torch.cat([p.grad.flatten() for p in one.model.parameters()]).norm().item())
        return step(*words, **more)

    one.optimizer.step = noting
    one.loss = lambda logits, *rest: kinds.add(logits["label"].dtype) or loss(logits, *rest)
    for _ in range(3):
        orders.append(one.draw_samples().photos.tolist())
        one.run_epoch()
    n = -(-len(one.data.train) // 20)
    places = (np.arange(3 * n) + 0.5) / n
    cosine = 0.15 * (1 + np.cos(np.pi * (places - 1) / 2))
    np.testing.assert_allclose(rates, np.where(places < 1, 0.3 * places, cosine))
    np.testing.assert_allclose(norms, 0.01, rtol=1e-3)
    assert kinds == {torch.bfloat16} and orders[0] != orders[1] != orders[2]


def test_averaged_weights_are_scored_and_kept(task):
    one = task("--ema 0.9 --lr 0.05 --epochs 1 --batch_size 20")
    theirs, update = ModelEmaV3(one.model, decay=0.9, use_warmup=True), one.update
    one.update = lambda: update() or theirs.update(one.model, step=one.updates)
    one.run_epoch()
    kept, model = load_file(one.folder / "best.safetensors"), theirs.module.eval()
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())
    assert not torch.equal(one.model.head.weight, kept["head.weight"])
    images = (one.data.pixels.batch(torch.from_numpy(one.data.valid), 0) / 255 - MEAN) / STD
    found = model(images)["label"].softmax(1).detach()
    torch.testing.assert_close(one.best["probs"]["label"], found, rtol=0, atol=1e-4)


def test_weights_of_a_file_and_rates_of_dropping_reach_the_model(task, tmp_path):
    state = timm.create_model("test_efficientnet").state_dict()
    save_file(state, tmp_path / "w.safetensors")
    made = task(f"--weights {tmp_path / 'w.safetensors'} --drop_rate 0.4 --drop_path 0.3").model
    found = made.backbone.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in found.items())
    rates = [getattr(module, "drop_prob", 0) for module in made.modules()]
    assert made.backbone.drop_rate == 0.4 and max(rates) > 0.2


def test_fixed_labels_train_and_those_given_validate(opened, drawn, tmp_path):
    people, lines = pd.read_csv(drawn / "train/train.csv"), ["id,field,from,to,confidence,note"]
    for row in people.itertuples():
        other = "male" if row.gender == "female" else "female"
        lines.append(f"{row.path},gender,{row.gender},{other},1,")
    (tmp_path / "f.csv").write_text("\n".join(lines))
    run = opened(f"--label_fixes {tmp_path / 'f.csv'}")
    data, given = run.data[0]["label"], run.table.frame
    assert (data.truth["label"] == given.label).all()
    assert (data.targets["gender"] == 1 - given.gender).all()
    assert (data.targets["label"] != given.label).all()


def test_the_criterion_is_the_one_asked_for(task):
    logits, codes = torch.randn(20, 18), torch.arange(20) % 18
    p = logits.softmax(1)[torch.arange(20), codes]
    found = task("--criterion focal").criteria["label"](logits, codes)
    torch.testing.assert_close(found, ((1 - p) ** 2 * -p.log()).mean())


def test_the_loss_of_accumulated_batches_is_that_of_one(task):
    words, losses = "--model test_vit --resize 32 32 --augmentation none --epochs 1", []
    for batches in ("--batch_size 35 --accumulate 2", "--batch_size 70"):
        one = task(f"{words} {batches}")
        one.run_epoch()
        losses.append(one.history[0]["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
