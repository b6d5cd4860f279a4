"""A recurrent layer as ONNX's own operator, for both exporters: its length is dynamic, its states go in and come out.

torch's own layers export otherwise: `torch.export` takes them apart into one step for each input of the example.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class OnnxOperator(nn.Module):
    """One layer for an export: ONNX's operator, with torch's weights in its order of gates."""

    weight: Tensor
    recurrence: Tensor
    bias: Tensor

    def __init__(self, name: str, weights: Sequence[Tensor], gates: tuple[int, ...], attributes: dict[str, int]):
        super().__init__()
        self.name = name
        biases = [*weights[2:]] or 2 * [torch.zeros(len(weights[0]))]
        ordered = [
            torch.cat([weight.detach().chunk(len(gates))[gate] for gate in gates])[None]
            for weight in (*weights[:2], *biases)
        ]
        self.attributes: dict[str, Any] = {"hidden_size": ordered[1].size(2)} | attributes
        self.register_buffer("weight", ordered[0], persistent=False)
        self.register_buffer("recurrence", ordered[1], persistent=False)
        self.register_buffer("bias", torch.cat(ordered[2:], dim=1), persistent=False)

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        """[T, B, C] and states [1, B, hidden_size] -> [T, B, hidden_size] and the next states."""
        inputs = x, self.weight, self.recurrence, self.bias, None, *before  # None: every row has all T steps
        if torch.compiler.is_exporting():
            y, *after = torch.onnx.ops.symbolic_multi_out(
                f"::{self.name}",
                inputs,
                self.attributes,
                dtypes=[x.dtype] * (1 + len(before)),
                shapes=[(x.size(0), 1, *before[0].shape[1:]), *(state.shape for state in before)],
                version=18,
            )
        else:
            y, *after = Traced.apply(self.name, self.attributes, *inputs)
        return y[:, 0], *after


class Traced(torch.autograd.Function):
    """The same for TorchScript's exporter, which writes what `symbolic` says; the values do not count."""

    @staticmethod
    def forward(ctx: Any, name: str, attributes: dict[str, int], x: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        before = inputs[4:]
        return (0 * x[..., :1] + before[0])[:, None], *map(torch.clone, before)

    @staticmethod
    def symbolic(g: Any, name: str, attributes: dict[str, int], x: Any, *inputs: Any) -> Any:
        weight, recurrence, bias, _, *before = inputs
        lengths = g.op("prim::Constant")
        lengths.setType(torch._C.OptionalType.ofTensor())
        named = {f"{key}_i": value for key, value in attributes.items()}
        return g.op(name, x, weight, recurrence, bias, lengths, *before, **named, outputs=1 + len(before))
