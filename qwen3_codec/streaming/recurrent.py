"""Recurrent layers with their state: all that they remember goes in and comes out."""

import torch
from torch import Tensor, nn

from ..model.recurrent import LayerOperator
from .states import ConvStates


class StreamingRecurrent(nn.Module):
    """A torch layer of any number of layers on [B, C, T], as the convolutions beside it have their data.

    Its states are [B, layers, hidden_size] each. Its output follows from them alone, so chunks of any length continue
    the stream. Raises ValueError for one that is bidirectional, or projects.
    """

    kinds: tuple[str, ...]  # of the states

    def __init__(self, layer: nn.LSTM | nn.GRU):
        super().__init__()
        if layer.bidirectional or layer.proj_size:
            raise ValueError(f"a recurrent layer that is bidirectional, or projects: {layer}")
        self.state_shapes = dict.fromkeys(self.kinds, (layer.num_layers, layer.hidden_size))
        self.layers = nn.ModuleList(LayerOperator(layer.mode, weights) for weights in layer.all_weights)

    def forward(self, x: Tensor, states: ConvStates) -> Tensor:
        before = [states.take().transpose(0, 1) for _ in self.kinds]
        x, after = x.permute(2, 0, 1), []
        for index, layer in enumerate(self.layers):
            x, *ends = layer(x, *(state[index : index + 1] for state in before))
            after.append(ends)
        for layers in zip(*after, strict=True):
            states.give(torch.cat(layers).transpose(0, 1))
        return x.permute(1, 2, 0)


class StreamingLSTM(StreamingRecurrent):
    """`nn.LSTM`: a hidden and a cell state."""

    kinds = ("lstm_hidden", "lstm_cell")


class StreamingGRU(StreamingRecurrent):
    """`nn.GRU`: a hidden state."""

    kinds = ("gru_hidden",)
