"""One run in several processes (torchrun), with the results of one process.

The batch is cut among the processes, gradients are averaged by DistributedDataParallel, and the
batch statistics of normalisation layers are those of the whole batch.
"""

import contextlib
import ctypes
import os
import signal
import types

import torch
from torch import distributed as dist
from torch import nn

from common import UserError, say, world_size

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def pick_device(name):
    """torch.device of --device, made ready: auto takes this process's GPU if there is one."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    if name == "auto":
        name = f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: give auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: torch sees no GPU; use --device cpu")
        device = torch.device("cuda", device.index if device.index is not None else local)
        if device.index >= torch.cuda.device_count():
            raise UserError(f"--device {name}: there are {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(device)
    if device.type == "cpu":
        keep_memory()
    return device


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


def wrap(model, device):
    """The model for training: with several processes, DDP with whole-batch normalisation."""
    if world_size() == 1:
        return model
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.forward = types.MethodType(_synchronised_forward, module)
    devices = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices)


class _WholeBatchNorm(torch.autograd.Function):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) over all processes.

    The gradient is the paper's closed form: left to autograd, that of a bias in front of another
    normalisation, which is 0, drowns in rounding.
    """

    @staticmethod
    def forward(context, x, weight, bias, eps):
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [1, x.shape[1]] + [1] * (x.dim() - 2)
        count = x.new_full((1,), x.numel() / x.shape[1])
        sums = sum_over_ranks(torch.cat([x.sum(axes), count]))
        total, mean = sums[-1], sums[:-1] / sums[-1]
        centred = x - mean.view(shape)
        # A second message, since E[x^2] - E[x]^2 cancels digits away.
        variance = sum_over_ranks(centred.square().sum(axes)) / total
        scale = torch.rsqrt(variance + eps)
        normal = centred.mul_(scale.view(shape))
        context.save_for_backward(normal, weight, scale, total)
        context.mark_non_differentiable(mean, variance, total)
        return normal * weight.view(shape) + bias.view(shape), mean, variance, total

    @staticmethod
    def backward(context, gradient, *_):
        normal, weight, scale, total = context.saved_tensors
        axes = [axis for axis in range(normal.dim()) if axis != 1]
        shape = [1, -1] + [1] * (normal.dim() - 2)
        bias_gradient = gradient.sum(axes)
        weight_gradient = (gradient * normal).sum(axes)
        sums = sum_over_ranks(torch.stack([bias_gradient, weight_gradient])) / total
        centred = gradient - sums[0].view(shape) - normal * sums[1].view(shape)
        return centred * (weight * scale).view(shape), weight_gradient, bias_gradient, None


def _synchronised_forward(norm, x):
    """The forward of a normalisation layer with the statistics of all processes.

    torch's SyncBatchNorm has no CPU form and drops the activation inside timm's BatchNormAct2d.
    """
    if not norm.training:
        return type(norm).forward(norm, x)
    wide = x if x.dtype == torch.float64 else x.float()
    weight = norm.weight if norm.affine else wide.new_ones(x.shape[1])
    bias = norm.bias if norm.affine else wide.new_zeros(x.shape[1])
    y, mean, variance, total = _WholeBatchNorm.apply(wide, weight, bias, norm.eps)
    if norm.track_running_stats:
        norm.num_batches_tracked += 1
        momentum = norm.momentum
        if momentum is None:
            momentum = 1 / norm.num_batches_tracked
        with torch.no_grad():
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
            unbiased = variance * total / (total - 1)
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)
    y = y.to(x.dtype)
    for name in ("drop", "act"):  # of timm's BatchNormAct2d
        layer = getattr(norm, name, None)
        y = layer(y) if layer is not None else y
    return y


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
