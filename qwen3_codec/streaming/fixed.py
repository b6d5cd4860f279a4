"""One number of frames and of rows in a call, for compilers and NPUs that want every shape fixed."""

from typing import Any

import torch
from torch import nn

from ..spec import with_fixed_axes
from .session import StreamingModule


class FixedAxes(nn.Module):
    """Any design's `wrapper` with numbers on the axes of frames and of rows (None leaves one dynamic).

    `spec` has the numbers: the export declares no such axis as dynamic, and the client cuts and fills its chunks to
    `frames`. In a windowed graph the states still grow.
    """

    def __init__(self, wrapper: StreamingModule, frames: int | None = None, batch: int | None = None):
        super().__init__()
        for name, length in (("frames", frames), ("batch", batch)):
            if length is not None and length < 1:
                raise ValueError(f"{name} is {length}, must be at least 1")
        self.wrapper, self.spec = wrapper, with_fixed_axes(wrapper.spec, frames, batch)

    def __getattr__(self, name: str) -> Any:
        """What else a wrapper brings is the one's within."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("wrapper"), name)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the wrapper does; shapes, names and order of everything: `spec`."""
        return self.wrapper(*inputs)
