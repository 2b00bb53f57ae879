"""The state of a task in training: saved after every epoch, taken up again to the byte."""

import hashlib
import io

import pandas as pd
import torch

from common.errors import UserError
from common.files import atomic, read_bytes, write_csv

SAVED = ("epoch", "updates", "history", "predictions", "best")  # of a Task, as they are


def _parts(task):
    """{key: module, optimizer or scaler} of a Task, whose state_dict is saved."""
    parts = {"model": task.model, "optimizer": task.optimizer, "scaler": task.scaler}
    return parts | ({"ema": task.ema.module} if task.ema else {})


def _of(task):
    """What a state belongs to: seed, fold, task, and the photos that train and validate, which are
    others once an unreadable one has been mended.
    """
    photos = task.data.train.tobytes() + task.data.valid.tobytes()
    return [*task.key, hashlib.sha256(photos).hexdigest()]


def save_state(task):
    """Writes log.csv, then last.pt; a process killed in between trains the epoch again."""
    if task.history:
        write_csv(task.folder / "log.csv", pd.DataFrame(task.history))
    state = {key: part.state_dict() for key, part in _parts(task).items()}
    state |= {key: getattr(task, key) for key in SAVED} | {"of": _of(task)}
    buffer = io.BytesIO()  # torch.save to a file hides that a disk is full
    torch.save(state, buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
    with atomic(task.folder / "last.pt") as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(task):
    """Takes up the state in the task's folder, if there is one; UserError if it is damaged."""
    path = task.folder / "last.pt"
    if not path.exists():
        return
    try:
        data = read_bytes(path)
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise ValueError
        state = torch.load(io.BytesIO(data[:-32]), map_location="cpu", weights_only=True)
        if state["of"] != _of(task):
            raise ValueError
        for key, part in _parts(task).items():
            part.load_state_dict(state[key])
        for key in SAVED:
            setattr(task, key, state[key])
    except (MemoryError, torch.OutOfMemoryError):  # no fault of the file
        raise
    except Exception as error:  # what torch says of a file that is none of ours leads astray
        raise UserError(
            f"{path} is damaged or of another model, other photos or an older version "
            f"({type(error).__name__}): remove the folder {path.parent} to train it again"
        ) from None


def forget_states(place):
    """Removes the states of a finished fold, which are large and of no use any more."""
    for path in place.glob("*/last.pt"):
        path.unlink()
