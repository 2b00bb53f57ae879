"""The state of a task in training: saved after every epoch, taken up again to the byte; and the
weights of its best epochs, to average them."""

import contextlib
import hashlib
import io
import pickle

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from common import devices
from common.errors import UserError
from common.files import atomic, read_bytes, write_csv
from common.processes import rank

# What torch and we raise at a file that is none of ours; their texts would lead astray.
DAMAGE = (RuntimeError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError)


def save_state(task):
    """Writes last.pt, all that resuming needs, then log.csv, which derives from it."""
    best = task.best and task.best | {"probs": _tensors(task.best["probs"])}
    state = {
        "of": list(task.key),
        "model": task.model.state_dict(),
        "optimizer": task.optimizer.state_dict(),
        "ema": task.ema.module.state_dict() if task.ema else None,
        "scaler": task.scaler.state_dict() if task.scaler else None,
        "epoch": task.epoch,
        "updates": task.updates,
        "partial": task.partial,
        "history": task.history,
        "best": best,
        "predictions": [_tensors(codes) for codes in task.predictions],
    }
    buffer = io.BytesIO()  # torch.save to a file hides that a disk is full
    torch.save(state, buffer)
    data = buffer.getvalue()
    with atomic(task.folder / "last.pt") as temporary:
        temporary.write_bytes(data + hashlib.sha256(data).digest())
    if task.history:
        write_csv(task.folder / "log.csv", pd.DataFrame(task.history))


@contextlib.contextmanager
def _reading(path):
    """UserError that names the file if it is damaged, or is not one of this model."""
    try:
        yield
    except torch.OutOfMemoryError:  # is a RuntimeError, but no fault of the file
        raise
    except (*DAMAGE, UserError, SafetensorError, OSError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} is damaged or of another model ({type(error).__name__}): remove the folder "
            f"{path.parent} to train it again"
        ) from None


def load_state(task):
    """Takes up the state in the task's folder, if there is one."""
    path = task.folder / "last.pt"
    if not path.exists():
        return
    with _reading(path):
        data = read_bytes(path)
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise ValueError(path)
        state = torch.load(io.BytesIO(data[:-32]), map_location=task.device, weights_only=True)
        if state["of"] != list(task.key):
            raise ValueError(path)
        _take_up(task, state)


def _take_up(task, state):
    task.model.load_state_dict(state["model"])
    task.optimizer.load_state_dict(state["optimizer"])
    if task.ema:
        task.ema.module.load_state_dict(state["ema"])
    if task.scaler:
        task.scaler.load_state_dict(state["scaler"])
    for key in ("epoch", "updates", "partial", "history"):
        setattr(task, key, state[key])
    if task.partial and rank():  # sums over the processes, which rank 0 goes on with
        task.partial |= {key: torch.zeros_like(task.partial[key]) for key in ("losses", "hits")}
    task.predictions = [_arrays(codes) for codes in state["predictions"]]
    task.best = state["best"] and state["best"] | {"probs": _arrays(state["best"]["probs"])}


def keep_epoch(task, model):
    """Keeps the weights of this epoch while it is among the best --average epochs."""
    folder, best = task.folder, best_epochs(task)
    if task.epoch in best:
        with atomic(folder / f"epoch{task.epoch}.safetensors") as temporary:
            state = {k: v.contiguous().cpu() for k, v in model.state_dict().items()}
            temporary.write_bytes(save(state))
    for path in folder.glob("epoch*.safetensors"):
        if path.stem not in {f"epoch{number}" for number in best}:
            path.unlink()


def best_epochs(task):
    """Numbers of the best --average epochs so far; of equal ones the earlier."""
    ranked = sorted(task.history, key=lambda row: (-row["macro_f1"], row["epoch"]))
    return sorted(row["epoch"] for row in ranked[: task.options["average"]])


def average(task):
    """A state_dict on the CPU: the mean of the kept epochs (Izmailov et al. 2018,
    arXiv:1803.05407; of the best epochs, without new batch statistics, which are averaged too).
    """
    devices.barrier()  # rank 0 writes them
    states = []
    for path in [task.folder / f"epoch{number}.safetensors" for number in best_epochs(task)]:
        with _reading(path):
            states.append(load_file(path))
    return {
        key: torch.stack([state[key].double() for state in states]).mean(0).to(value.dtype)
        for key, value in states[0].items()
    }


def forget_epochs(task):
    for path in task.folder.glob("epoch*.safetensors"):
        path.unlink()


def _tensors(arrays):
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def _arrays(tensors):
    return {key: value.cpu().numpy() for key, value in tensors.items()}
