"""What a model would have to remember: its convolutions in the order of the data, read off one run with hooks."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
from torch import nn


@dataclass(frozen=True)
class FoundState:
    """One convolution and what it needs of its own input's past: `history` steps, of which a frame has so many.

    `kind` is the class's name. The history is that of a causal layer, padded on the left or trimmed on the right.
    """

    name: str
    kind: str
    channels: int
    kernel: int
    stride: int
    dilation: int
    groups: int
    bias: bool
    history: int
    steps_per_frame: int


def find_states(
    module: nn.Module, example: torch.Tensor, frames: int | None = None, run: Callable | None = None
) -> list[FoundState]:
    """Every 1-d convolution that `run(example)` calls (default: `module` itself), in the order of the data.

    Not in the order in which `module` registers them: the two differ more often than one thinks. `frames` is how many
    frames `example` holds (default: as many as its last axis is long), more than any history (what a model pads counts
    among a layer's steps). A layer that is called twice appears twice: it needs a state for each.
    """
    found, hooks, frames = [], [], frames or example.shape[-1]

    def note(name, conv):
        def hook(_, inputs):
            found.append(_describe(name, conv, inputs[0].shape[-1] // frames))

        return hook

    for name, part in module.named_modules():
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
            hooks.append(part.register_forward_pre_hook(note(name, part)))
    try:
        with torch.no_grad():
            (run or module)(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _describe(name: str, conv: nn.Conv1d | nn.ConvTranspose1d, steps: int) -> FoundState:
    (kernel,), (stride,), (dilation,) = conv.kernel_size, conv.stride, conv.dilation
    if isinstance(conv, nn.ConvTranspose1d):
        history = ceil(kernel / stride) - 1
    else:
        history = dilation * (kernel - 1) + 1 - stride
    return FoundState(
        name=name,
        kind=type(conv).__name__,
        channels=conv.in_channels,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        groups=conv.groups,
        bias=conv.bias is not None,
        history=history,
        steps_per_frame=steps,
    )
