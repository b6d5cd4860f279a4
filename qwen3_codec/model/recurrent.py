"""One layer of a recurrent network, which becomes ONNX's own operator: its length is dynamic in both exporters.

torch's layers export otherwise: `torch.export` takes them apart into one step for each input of the example.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# torch's gates in ONNX's order: of an LSTM input, output, forget, cell (torch: input, forget, cell, output); of a GRU
# update, reset, new (torch: reset, update, new).
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
# torch's GRU resets what the hidden state gives; ONNX's, unless told so, the hidden state itself.
ATTRIBUTES = {"LSTM": {}, "GRU": {"linear_before_reset": 1}}


class LayerOperator(nn.Module):
    """`weights` are a layer's as `all_weights` has them, `mode` says of what: LSTM or GRU."""

    weight: Tensor
    recurrence: Tensor
    bias: Tensor

    def __init__(self, mode: str, weights: Sequence[nn.Parameter]):
        super().__init__()
        self.mode, self.weights = mode, nn.ParameterList(weights)
        biases = [*weights[2:]] or 2 * [torch.zeros(len(weights[0]))]
        ordered = []
        for weight in (*weights[:2], *biases):
            gates = weight.detach().chunk(len(GATES[mode]))
            ordered.append(torch.cat([gates[gate] for gate in GATES[mode]])[None])
        self.attributes: dict[str, Any] = {"hidden_size": ordered[1].size(2)} | ATTRIBUTES[mode]
        self.register_buffer("weight", ordered[0], persistent=False)
        self.register_buffer("recurrence", ordered[1], persistent=False)
        self.register_buffer("bias", torch.cat(ordered[2:], dim=1), persistent=False)

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        """[T, B, C] and states [1, B, hidden_size] -> [T, B, hidden_size] and the next states."""
        inputs = x, self.weight, self.recurrence, self.bias, None, *before  # None: every row has all T steps
        if not torch.onnx.is_in_onnx_export():
            weights = [*self.weights]
            rest = weights, len(weights) > 2, 1, 0.0, False, False, False
            return torch.lstm(x, before, *rest) if self.mode == "LSTM" else torch.gru(x, before[0], *rest)
        if torch.compiler.is_exporting():
            y, *after = torch.onnx.ops.symbolic_multi_out(
                f"::{self.mode}",
                inputs,
                self.attributes,
                dtypes=[x.dtype] * (1 + len(before)),
                shapes=[(x.size(0), 1, *before[0].shape[1:]), *(state.shape for state in before)],
                version=18,
            )
        else:
            y, *after = Traced.apply(self.mode, self.attributes, *inputs)
        return y[:, 0], *after


class Traced(torch.autograd.Function):
    """For TorchScript's exporter, which writes what `symbolic` says; the values do not count."""

    @staticmethod
    def forward(ctx: Any, mode: str, attributes: dict[str, int], x: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
        before = inputs[4:]
        return (0 * x[..., :1] + before[0])[:, None], *map(torch.clone, before)

    @staticmethod
    def symbolic(g: Any, mode: str, attributes: dict[str, int], x: Any, *inputs: Any) -> Any:
        weight, recurrence, bias, _, *before = inputs
        lengths = g.op("prim::Constant")
        lengths.setType(torch._C.OptionalType.ofTensor())
        named = {f"{key}_i": value for key, value in attributes.items()}
        return g.op(mode, x, weight, recurrence, bias, lengths, *before, **named, outputs=1 + len(before))
