"""One run in several processes (torchrun), with the results of one: the batch is cut among them,
gradients are averaged, and normalisation layers have the statistics of the whole batch.
"""

import types

import torch
from torch import nn

from common.devices import sum_over_ranks
from common.processes import world_size


def wrap(model, device):
    """The model for training: with several processes, DDP with whole-batch normalisation."""
    if world_size() == 1:
        return model
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.forward = types.MethodType(_synchronised_forward, module)
    devices = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices)


def normalizes_batches(model):
    """Whether a model in training uses the statistics of a batch."""
    norms = nn.modules.batchnorm._BatchNorm
    return any(isinstance(module, norms) for module in model.modules())


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
    """The forward of a normalisation layer with the statistics of all processes: SyncBatchNorm has
    no CPU form and drops the activation inside timm's BatchNormAct2d.
    """
    if not norm.training:
        return type(norm).forward(norm, x)
    wide = x if x.dtype == torch.float64 else x.float()
    weight = norm.weight if norm.affine else wide.new_ones(x.shape[1])
    bias = norm.bias if norm.affine else wide.new_zeros(x.shape[1])
    y, mean, variance, total = _WholeBatchNorm.apply(wide, weight, bias, norm.eps)
    if norm.track_running_stats:
        norm.num_batches_tracked += 1
        with torch.no_grad():
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
            unbiased = variance * total / (total - 1)
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
    y = y.to(x.dtype)
    for name in ("drop", "act"):  # of timm's BatchNormAct2d
        y = getattr(norm, name, nn.Identity())(y)
    return y
