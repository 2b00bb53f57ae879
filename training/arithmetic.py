"""The arithmetic of a model in training where --amp or --compile is auto: the fastest, by trying.

The times of a few steps on random photos are kept in the cache folder; what was chosen stands in
the `tasks` of the run's config.json, from which every process and a resumed run take it.
"""

import hashlib
import math
import time
from pathlib import Path

import timm
import torch

import model as models
from common import devices
from common.files import cached
from common.processes import say, world_size
from experiment.predictions import precision, usual_amp
from training import optimization

NAMES = ("amp", "compile")
LEAST_STEPS = 500  # a shorter run takes the usual: trying would not repay
COMPILES = 600  # seconds of all steps from which torch.compile is tried, which takes minutes
GAIN = 1.1  # how many times as fast as the usual another must be: more than noise
TRIES, ENOUGH = 3, 5  # later steps, or as few as take so many seconds: bf16 may take 10 a step


def usual(of, device):
    """{name: value} of the options of a task, with what auto is where nothing is tried."""
    known = {"amp": usual_amp(device), "compile": False}
    return {name: known[name] if of[name] == "auto" else of[name] for name in NAMES}


def choose(tasks, device, cache_dir, data):
    """The tasks with the fastest in place of auto; says what was tried. data: {task: Data}."""
    chosen = {}
    for task, of in tasks.items():
        photos = len(data[task].train) * data[task].pixels.views
        steps = of["epochs"] * math.ceil(photos / of["batch_size"])
        chosen[task] = of | usual(of, device)
        if "auto" in (of["amp"], of["compile"]) and steps >= LEAST_STEPS:
            best, spent = _fastest(of, steps, device, cache_dir)
            told = ", ".join(f"{name} {seconds / steps:.3g}" for name, seconds in spent.items())
            say(f"{task} trains in {_name(best)}; seconds a step: {told}")
            chosen[task] |= best
    return chosen


def _fastest(of, steps, device, cache_dir):
    """(the way that takes the steps of a task in the least time, {name: seconds} of all tried)."""
    first, spent = usual(of, device), {}
    amps = {"cpu": ("off", "bf16"), "cuda": ("off", "bf16", "fp16")}.get(device.type, ())

    def cost(way):
        start, later = remembered_time(of | way, device, cache_dir)
        spent[_name(way)] = later * steps + (start if way["compile"] else 0)
        return spent[_name(way)] * (1 if way == first else GAIN)

    ways = [first | {"amp": amp} for amp in amps if of["amp"] == "auto"]
    best = min([first, *ways], key=cost)
    if of["compile"] == "auto" and cost(best) > COMPILES:
        graphs = device.type == "cuda" and of["accumulate"] == 1
        hows = (True, "graphs") if graphs else (True,)
        best = min([best, *(best | {"compile": how} for how in hows)], key=cost)
    return best, spent


def _name(way):
    compiled = {False: "", True: " compiled", "graphs": " compiled to CUDA graphs"}
    return way["amp"].replace("off", "fp32") + compiled[way["compile"]]


def compiled(network, how):
    """The network as --compile says. "graphs" replays the kernels of a step as one CUDA graph, for
    which the GPU need not wait for Python; without a GPU it is as True.
    """
    if not how:
        return network
    return torch.compile(network, mode="reduce-overhead" if how == "graphs" else None)


def remembered_time(of, device, cache_dir):
    """The time_steps() of a task's options, taken now or at an earlier time; 1e9 where they fail,
    as for lack of a compiler, or of memory now.
    """
    names = (*NAMES, "model", "resize", "batch_size", "channels_last", "optimizer")
    what = [*(of[name] for name in names), world_size(), devices.name_of(device)]
    key = repr([*what, torch.__version__, timm.__version__]).encode()

    def make(temporary):
        temporary.write_bytes(key)
        return {"seconds": time_steps(of, device)}

    path = Path(cache_dir, f"{hashlib.sha256(key).hexdigest()[:20]}.steps")
    try:
        return cached(path, make)["seconds"]
    except RuntimeError:
        return 1e9, 1e9
    finally:
        if of["compile"] == "graphs":
            torch._dynamo.reset()  # else the memory of its graphs would stay taken


def time_steps(of, device):
    """(seconds of the first step, of a later one) of training with the options of a task."""
    count, seconds = max(2, of["batch_size"] // world_size()), []
    model = models.create(of["model"], of["heads"], of["resize"], "none").to(device).train()
    last = of["channels_last"] and models.make_channels_last(model, device)
    layout = torch.channels_last if last else torch.contiguous_format
    optimizer = optimization.make_optimizer(model, of)
    network = compiled(model, of["compile"])
    autocast, scaler = precision(of["amp"], device)
    images = torch.randn(count, 3, *of["resize"], device=device).contiguous(memory_format=layout)
    for _ in range(1 + TRIES):
        start = time.perf_counter()
        with autocast:
            logits = network(images)
        loss = sum(value.float().square().mean() for value in logits.values())
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > ENOUGH and not of["compile"]:
            break
    return seconds[0], min(seconds[1:] or seconds)
