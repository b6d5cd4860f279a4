"""Recurrent layers with their state: all that they remember goes in and comes out."""

from typing import Any

import torch
from torch import Tensor, nn

from ..model.recurrent import OnnxOperator
from .states import ConvStates


class StreamingRecurrent(nn.Module):
    """A torch layer of any number of layers on [B, C, T], as the convolutions beside it have their data.

    Its states are [B, layers, hidden_size] each. Its output follows from them alone, so chunks of any length continue
    the stream. Raises ValueError for one that is bidirectional, or projects.
    """

    operator: str
    gates: tuple[int, ...]  # ONNX's order of torch's gates
    kinds: tuple[str, ...]  # of the states
    attributes: dict[str, int]

    def __init__(self, layer: nn.LSTM | nn.GRU):
        super().__init__()
        if layer.bidirectional or layer.proj_size:
            raise ValueError(f"a recurrent layer that is bidirectional, or projects: {layer}")
        self.layer = layer
        self.state_shapes = dict.fromkeys(self.kinds, (layer.num_layers, layer.hidden_size))
        self.operators = nn.ModuleList(
            OnnxOperator(self.operator, weights, self.gates, self.attributes) for weights in layer.all_weights
        )

    def forward(self, x: Tensor, states: ConvStates) -> Tensor:
        before = [states.take().transpose(0, 1) for _ in self.kinds]
        x = x.permute(2, 0, 1)
        if torch.onnx.is_in_onnx_export():
            after = []
            for index, operator in enumerate(self.operators):
                x, *ends = operator(x, *(state[index : index + 1] for state in before))
                after.append(ends)
            ends = [torch.cat(layers) for layers in zip(*after, strict=True)]
        else:
            x, *ends = self.run(x, *before)
        for state in ends:
            states.give(state.transpose(0, 1))
        return x.permute(1, 2, 0)

    def run(self, x: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        """[T, B, C] and the states -> [T, B, hidden_size] and the next states, by torch."""
        raise NotImplementedError

    def _arguments(self) -> tuple[Any, ...]:
        """Weights, bias, layers, dropout, training, bidirectional, batch first: as torch's functions take them."""
        weights = [weight for each in self.layer.all_weights for weight in each]
        return weights, self.layer.bias, self.layer.num_layers, 0.0, False, False, False


class StreamingLSTM(StreamingRecurrent):
    """`nn.LSTM`: hidden and cell state."""

    operator, gates, kinds, attributes = "LSTM", (0, 3, 1, 2), ("lstm_hidden", "lstm_cell"), {}

    def run(self, x: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        return torch.lstm(x, before, *self._arguments())


class StreamingGRU(StreamingRecurrent):
    """`nn.GRU`: one state. torch resets what the hidden state gives, ONNX by default the hidden state itself."""

    operator, gates, kinds, attributes = "GRU", (1, 0, 2), ("gru_hidden",), {"linear_before_reset": 1}

    def run(self, x: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        return torch.gru(x, before[0], *self._arguments())
