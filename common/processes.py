"""The processes of a run and what they print: ranks, cores, progress bars, plurals."""

import contextlib
import gc
import os
import sys

from tqdm import tqdm


def progress(iterable=None, **options):
    """A tqdm bar on rank 0 and on a terminal; silent in log files."""
    disable = True if rank() else None
    return tqdm(iterable, disable=disable, dynamic_ncols=True, leave=False, **options)


def say(*words):
    """Prints on rank 0, above any progress bar."""
    if rank() == 0:
        tqdm.write(" ".join(str(word) for word in words), file=sys.stdout)
        sys.stdout.flush()


@contextlib.contextmanager
def quick_imports():
    """To import torch and timm in: looking for garbage takes a quarter of the time meanwhile."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def counted(number, one, many=None):
    """ "1 photo" or "2 photos"; `many` where the plural is not `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def duration(seconds):
    """ "40 s", "12 min" or "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def cores():
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def rank():
    """This process's rank under torchrun, else 0."""
    return int(os.environ.get("RANK", 0))


def world_size():
    """The number of processes under torchrun, else 1."""
    return int(os.environ.get("WORLD_SIZE", 1))
