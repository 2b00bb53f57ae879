"""The device of a process, and what the processes of torchrun do together."""

import contextlib
import ctypes
import os
import platform
import re
import signal
from pathlib import Path

import torch
from torch import distributed as dist

from common.errors import UserError
from common.processes import counted, say, world_size

CPU_BATCH = 32  # photos; 256 at once took 1.5 GB more, and were not faster
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def pick_device(name):
    """torch.device of --device, made ready: auto takes this process's GPU if there is one.

    UserError if it is none on which models run, or if torch sees none of that kind.
    """
    local = int(os.environ.get("LOCAL_RANK", 0))
    if name == "auto":
        name = f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: give auto, cpu, cuda, cuda:N or mps")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: torch sees no GPU of Apple; use --device cpu")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: torch sees no GPU; use --device cpu")
        device = torch.device("cuda", device.index if device.index is not None else local)
        if device.index >= torch.cuda.device_count():
            raise UserError(f"--device {name}: there are {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(device)
    if device.type == "cpu":
        device = torch.device("cpu")  # cpu:1 is the same
        keep_memory()
    return device


def name_of(device):
    """What a device is, in words: the GPU, or the processor and how many threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    name = model[1] if model else platform.machine()
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{name} ({kind}), {counted(torch.get_num_threads(), 'thread')}"


def at_once(batch_size, device):
    """How many inputs a model that does not learn is shown at once."""
    return min(batch_size, CPU_BATCH) if device.type == "cpu" else batch_size


def keep_memory():
    """Keeps what a step frees for the next one, from now on in this process (mallopt of glibc).

    Else large blocks go back to the kernel, and each step asks for them again, page by page.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has its own ways
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def process_group(device):
    """Joins the processes of torchrun for the time of the block; nothing with one process."""
    if world_size() == 1:
        yield
        return
    threads = torch.get_num_threads()
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, threads // local))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def barrier():
    if world_size() > 1:
        dist.barrier()


def sum_over_ranks(tensor):
    """The tensor summed over the processes, in place; itself with one process."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


@contextlib.contextmanager
def stop_on_signals():
    """Yields stopping(): True once SIGINT or SIGTERM came to any process; a second one kills."""
    came = []

    def handler(number, frame):
        if came:
            raise KeyboardInterrupt
        came.append(number)
        say("stopping after this step (once more to stop at once) ...")

    def stopping():
        if world_size() == 1:
            return bool(came)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        flag = torch.tensor([float(bool(came))], device=device)
        dist.all_reduce(flag)
        return bool(flag.item())

    previous = {
        number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopping
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
