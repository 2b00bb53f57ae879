"""Gradients and statistics of two processes against torch's own layers in one."""

import os
import subprocess
import sys

import pytest
import torch
from launch import warm
from timm.layers import BatchNormAct2d
from torch import nn

from common import devices
from common.errors import UserError
from common.files import HOME
from training import distributed


def build():
    """A model whose normalisations act on whole batches, in float64: rounding hides nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False),
        BatchNormAct2d(8, act_layer=nn.SiLU), nn.Flatten(), nn.LazyLinear(4),
        nn.BatchNorm1d(4, affine=False),
    ).double()  # fmt: skip
    images = torch.randn(7, 3, 9, 8, dtype=torch.float64)
    model.eval()(images)  # gives the lazy layer its size
    return model.train(), images, torch.randint(4, (7,))


def gradients(model, images, targets, total, scale=1):
    loss = nn.functional.cross_entropy(model(images), targets, reduction="sum") / total * scale
    loss.backward()


def work(number, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=number, world_size=2)
    model, images, targets = build()
    mine = slice(0, 3) if number == 0 else slice(3, 7)
    wrapped = distributed.wrap(model, torch.device("cpu"))
    gradients(wrapped, images[mine], targets[mine], 7, scale=2)
    found = {name: value.grad for name, value in model.named_parameters()}
    torch.save(found | dict(model.named_buffers()), f"{folder}/{number}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_and_statistics_of_one(tmp_path):
    model, images, targets = build()
    gradients(model, images, targets, 7)
    both = [warm().Process(target=work, args=(number, str(tmp_path))) for number in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    expected = {name: value.grad for name, value in model.named_parameters()}
    expected |= dict(model.named_buffers())
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, msg=lambda text, n=name: f"{n}: {text}")


def test_devices_that_are_not_there_are_named():
    for name in ("abacus", "meta", "xla", "cuda:x", "cpu:", "vulkan:0"):
        with pytest.raises(UserError, match=f"--device {name}: torch .* give auto, cpu"):
            devices.pick_device(name)
    if not torch.backends.mps.is_available():
        with pytest.raises(UserError, match="--device mps: torch sees no such device"):
            devices.pick_device("mps")
    if not torch.cuda.is_available():
        assert devices.pick_device("auto") == torch.device("cpu")
        with pytest.raises(UserError, match=r"--device cuda: torch sees no .* \(0 GPUs\)"):
            devices.pick_device("cuda")


STEP = """
import ctypes, sys
from common import devices
class Info(ctypes.Structure):  # struct mallinfo2 of <malloc.h>
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.mallinfo2.restype = [ctypes.c_void_p], Info
def sizes():
    before = libc.mallinfo2()
    block = libc.malloc(2**26)
    during = libc.mallinfo2()
    libc.free(block)
    return during.hblkhd - before.hblkhd, libc.mallinfo2().arena - before.arena
print(*sizes())
devices.pick_device("cpu")
print(*sizes())
"""


@pytest.mark.skipif(not os.confstr("CS_GNU_LIBC_VERSION"), reason="mallopt is of glibc")
def test_on_a_cpu_the_memory_of_a_step_is_kept_for_the_next():
    """Bytes that are mapped apart for a block of 64 MB, and of the heap that are kept after it."""
    done = subprocess.run([sys.executable, "-c", STEP], cwd=HOME, capture_output=True, check=True)
    left, kept = ([int(word) for word in line.split()] for line in done.stdout.splitlines())
    assert left[0] >= 2**26 and left[1] < 2**20
    assert kept[0] == 0 and kept[1] > 2**25


def test_which_models_use_the_statistics_of_a_batch():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.LayerNorm(4))
    assert distributed.normalizes_batches(model)
    assert not distributed.normalizes_batches(model[1])
