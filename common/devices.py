"""The device of a process, and what the processes of torchrun do together."""

import contextlib
import ctypes
import os
import platform
import re
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist

from common.errors import UserError
from common.processes import counted, world_size


def pick_device(name, deterministic=False):
    """torch.device of --device, made ready: auto takes this process's GPU if there is one;
    UserError if torch sees none of this name.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by the first product
        torch.use_deterministic_algorithms(True, warn_only=True)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    local = int(os.environ.get("LOCAL_RANK", 0))
    if name == "auto":
        name = f"cuda:{local % gpus}" if gpus else "cpu"
    asked = re.fullmatch(r"(cpu|cuda|mps)(?::(\d{1,3}))?", name)
    kind, index = (asked[1], int(asked[2] or local)) if asked else ("none", 0)
    there = {"cpu": True, "cuda": index < gpus, "mps": torch.backends.mps.is_available()}
    if not there.get(kind):
        why = f"torch sees no such device here ({counted(gpus, 'GPU')})"
        raise UserError(f"--device {name}: {why}; give auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        torch.cuda.set_device(index)
        return torch.device(kind, index)
    if kind == "cpu":  # cpu:1 is the same
        keep_memory()
    return torch.device(kind)


def name_of(device):
    """What a device is, in words: the GPU, or the processor and how many threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    name = model[1] if model else platform.machine()
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{name} ({kind}), {counted(torch.get_num_threads(), 'thread')}"


def send(tensor, device):
    """A tensor of the CPU on a device. Only a GPU of CUDA is not waited for: elsewhere a copy that
    is still on its way may read what has been freed (pytorch/pytorch issue 189690, of MPS).
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def keep_memory():
    """Keeps what a step frees for the next one, from now on in this process (mallopt of glibc).

    Else large blocks go back to the kernel, and each step asks for them again, page by page.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has its own ways
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD of <malloc.h>
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


@contextlib.contextmanager
def process_group(device):
    """Joins the processes of torchrun for the time of the block; nothing with one process."""
    if world_size() > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=2))  # the first one may compile
    try:
        yield
    finally:
        if world_size() > 1:
            dist.destroy_process_group()


def barrier():
    if world_size() > 1:
        dist.barrier()


def sum_over_ranks(tensor):
    """The tensor summed over the processes, in place; itself with one process."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor
