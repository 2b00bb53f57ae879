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
NUMBERS = ("epoch", "updates", "partial", "history")  # of a Task, saved as they are


def _parts(task):
    """{key: module, optimizer or scaler} of a Task, whose state_dict is saved."""
    parts = {"model": task.model, "optimizer": task.optimizer, "scaler": task.scaler}
    return parts | ({"ema": task.ema.module} if task.ema else {})


def save_state(task):
    """Writes last.pt, all that resuming needs, then log.csv, which derives from it."""
    state = {key: part.state_dict() for key, part in _parts(task).items()}
    state |= {key: getattr(task, key) for key in NUMBERS}
    state["of"] = list(task.key)
    state["best"] = task.best and task.best | {"probs": _tensors(task.best["probs"])}
    state["predictions"] = [_tensors(codes) for codes in task.predictions]
    buffer = io.BytesIO()  # torch.save to a file hides that a disk is full
    torch.save(state, buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
    with atomic(task.folder / "last.pt") as temporary:
        temporary.write_bytes(buffer.getbuffer())
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
        for key, part in _parts(task).items():
            part.load_state_dict(state[key])
        for key in NUMBERS:
            setattr(task, key, state[key])
        task.predictions = [_arrays(codes) for codes in state["predictions"]]
        task.best = state["best"] and state["best"] | {"probs": _arrays(state["best"]["probs"])}
    if task.partial and rank():  # sums over the processes, which rank 0 goes on with
        task.partial |= {key: torch.zeros_like(task.partial[key]) for key in ("losses", "hits")}


def forget_states(place):
    """Removes the states of a finished fold, which are large and of no use any more."""
    for path in place.glob("*/last.pt"):
        path.unlink()


def keep_epoch(task, model):
    """Keeps the weights of this epoch while it is among the best --average epochs."""
    if rank():
        return
    best = [_epoch_file(task, number) for number in best_epochs(task)]
    if _epoch_file(task, task.epoch) in best:
        with atomic(_epoch_file(task, task.epoch)) as temporary:
            state = {k: v.contiguous().cpu() for k, v in model.state_dict().items()}
            temporary.write_bytes(save(state))
    forget_epochs(task, best)


def forget_epochs(task, kept=()):
    for path in task.folder.glob("epoch*.safetensors"):
        if path not in kept:
            path.unlink()


def _epoch_file(task, number):
    return task.folder / f"epoch{number}.safetensors"


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
    for path in [_epoch_file(task, number) for number in best_epochs(task)]:
        with _reading(path):
            states.append(load_file(path))
    return {
        key: torch.stack([state[key].double() for state in states]).mean(0).to(value.dtype)
        for key, value in states[0].items()
    }


def _tensors(arrays):
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def _arrays(tensors):
    return {key: value.cpu().numpy() for key, value in tensors.items()}
