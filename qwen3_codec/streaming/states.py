"""What layers carry from call to call: handed out and collected in the order of the data."""

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .kv_stack import keep_last


class ConvStates:
    """Hands out the layers' states in the order of the data and collects what they become.

    A convolution asks by `extend`. Any other layer with a state asks by `take` and answers by `give`, once for each of
    its `state_shapes`, {kind: shape without the rows}.
    """

    def __init__(self, before: Iterable[torch.Tensor]):
        self._before, self._after = deque(before), list[torch.Tensor]()

    @property
    def after(self) -> list[torch.Tensor]:
        """The next states; raises ValueError where a state was not asked for, so that its `next_` one is missing."""
        if self._before:
            total = len(self._before) + len(self._after)
            raise ValueError(f"{len(self._before)} of {total} states were not used: no layer asked for them")
        return self._after

    def take(self) -> torch.Tensor:
        """The next state, [B, ...]; ValueError where there is none left."""
        if not self._before:
            raise ValueError(f"there are {len(self._after)} states, and one more layer asks for its own")
        return self._before.popleft()

    def give(self, state: torch.Tensor) -> None:
        """What a state that was taken has become."""
        self._after.append(state)

    def extend(self, x: torch.Tensor, left_context: int, channels_last: bool = False) -> torch.Tensor:
        """`x` [B, C, T] with its past in front, [B, C, left_context + T]; its last `left_context` samples are next.

        With `channels_last` x is [B, T, C] and so is the result. The state is [B, C, left_context] all the same.
        """
        if not left_context:
            return x
        before, time = self.take(), 1 if channels_last else 2
        # Cut from what is joined: a chunk may be shorter than the left context.
        joined = torch.cat([before.transpose(1, 2) if channels_last else before, x], dim=time)
        after = keep_last(joined, left_context, dim=time)
        self.give(after.transpose(1, 2) if channels_last else after)
        return joined


def layers_with_state(module: nn.Module) -> list[Any]:
    """The layers in `module` that carry a state, in the order in which they stand there, which must be the data's."""
    return [layer for layer in module.modules() if getattr(layer, "state_shapes", None)]


def states_of(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """(kind, shape without the rows) of each state of the layers in `module`, as `exact_spec` takes them."""
    return [state for layer in layers_with_state(module) for state in layer.state_shapes.items()]
