"""Weight norm, taken out of a convolution for good: left in, it is computed anew in every call, in a graph too."""

from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm

Conv = TypeVar("Conv", nn.Conv1d, nn.ConvTranspose1d)


def folded(conv: Conv) -> Conv:
    """`conv` itself, or a plain one with the weights that its weight norm (of either kind) gives.

    The original stays as it is. (To remove the norm from a deepcopy would break it: the two share a class that is made
    for the parametrization.)
    """
    if not (weight := _normalized_weight(conv)).numel():
        return conv
    kind = nn.ConvTranspose1d if isinstance(conv, nn.ConvTranspose1d) else nn.Conv1d
    sizes = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
    plain = kind(*sizes, dilation=conv.dilation, groups=conv.groups, bias=False, device="meta")
    plain.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    plain.bias = conv.bias
    if isinstance(plain, nn.ConvTranspose1d):
        plain.output_padding = conv.output_padding
    return plain.train(conv.training)


def _normalized_weight(conv: nn.Module) -> torch.Tensor:
    """The weight as it is computed; empty where it is a parameter."""
    if parametrize.is_parametrized(conv, "weight"):
        return conv.weight
    for hook in conv._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == "weight":
            return hook.compute_weight(conv)
    return torch.empty(0)
