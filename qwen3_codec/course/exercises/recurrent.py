"""An exercise on an LSTM in a graph: torch and ONNX have its gates in another order."""

from collections.abc import Callable
from functools import cache

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import nn

from .convolutions import seeded
from .exercise import Case, Exercise
from .play import normal, pieces, result_of

INPUTS = ("X", "W", "R", "B", "h", "c")


def in_onnx_order(weight_ih, weight_hh, bias_ih, bias_hh):
    def ordered(weight):
        i, f, g, o = weight.chunk(4)
        return torch.cat([i, o, f, g])[None]

    return ordered(weight_ih), ordered(weight_hh), torch.cat([ordered(bias_ih), ordered(bias_hh)], dim=1)


def in_torch_order(weight_ih, weight_hh, bias_ih, bias_hh):
    """The gates are still in torch's order: input, forget, cell, output. ONNX reads them as input, output, forget,
    cell. All shapes fit, so nothing reports it.
    """
    return weight_ih[None], weight_hh[None], torch.cat([bias_ih, bias_hh])[None]


def last_two_exchanged(weight_ih, weight_hh, bias_ih, bias_hh):
    """The output gate has moved, but not to its place: in ONNX it stands second, before the forget gate."""

    def ordered(weight):
        i, f, g, o = weight.chunk(4)
        return torch.cat([i, f, o, g])[None]

    return ordered(weight_ih), ordered(weight_hh), torch.cat([ordered(bias_ih), ordered(bias_hh)], dim=1)


def biases_as_they_were(weight_ih, weight_hh, bias_ih, bias_hh):
    """The weights are in ONNX's order, the biases are not: they have a part for each gate too."""
    w, r, _ = in_onnx_order(weight_ih, weight_hh, bias_ih, bias_hh)
    return w, r, torch.cat([bias_ih, bias_hh])[None]


def second_bias_missing(weight_ih, weight_hh, bias_ih, bias_hh):
    """The second bias is missing: an LSTM adds both, one with the input and one with the hidden state."""
    w, r, b = in_onnx_order(weight_ih, weight_hh, bias_ih, bias_hh)
    return w, r, torch.cat([b[:, : len(bias_ih)], torch.zeros(1, len(bias_hh))], dim=1)


@cache
def operator(hidden_size: int) -> onnxruntime.InferenceSession:
    """A graph of ONNX's LSTM alone, whose weights are inputs."""
    node = helper.make_node("LSTM", ["X", "W", "R", "B", "", "h", "c"], ["Y", "Y_h", "Y_c"], hidden_size=hidden_size)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in INPUTS]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    graph = helper.make_graph([node], "lstm", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def by_operator(answer: Callable, lstm: nn.LSTM, x: torch.Tensor, state, schedule) -> list[np.ndarray]:
    """`x` [B, T, C] through the operator in chunks, with the weights of `answer`: the output, and both states."""
    w, r, b = (tensor.numpy() for tensor in result_of(answer(*lstm.parameters()), 3))
    (h, c), found = (tensor.numpy() for tensor in state), []
    for part in pieces(x.transpose(0, 1), schedule, 0):
        feeds = dict(zip(INPUTS, (part.numpy(), w, r, b, h, c), strict=True))
        y, h, c = operator(lstm.hidden_size).run(None, feeds)
        found.append(y[:, 0])
    return [np.concatenate(found), h, c]


def gate_cases() -> list[Case]:
    cases = []
    for width, hidden in ((3, 5), (4, 4), (6, 1)):
        lstm, x = seeded(nn.LSTM, width, hidden), normal(2, 9, width)
        for start, state in (
            ("from zeros", [torch.zeros(1, 2, hidden)] * 2),
            ("in the middle of a stream", [normal(1, 2, hidden, seed=1), normal(1, 2, hidden, seed=2)]),
        ):
            y, ends = lstm(x.transpose(0, 1), tuple(state))
            wanted = [tensor.numpy() for tensor in (y, *ends)]
            for schedule in ((9,), (1, 3)):
                cases.append(
                    Case(
                        f"{width} inputs, {hidden} hidden, {start}, chunks of {', '.join(map(str, schedule))}",
                        lambda answer, lstm=lstm, x=x, state=state, s=schedule: by_operator(answer, lstm, x, state, s),
                        wanted,
                    )
                )
    return cases


GATES = Exercise(
    name="gate order",
    notebook="11_another_codec",
    solution=in_onnx_order,
    cases=gate_cases,
    mistakes=(in_torch_order, last_two_exchanged, biases_as_they_were, second_bias_missing),
    hints=(
        "Each weight and each bias is four blocks, one for each gate. Which of them does ONNX read second?",
        "`i, f, g, o = weight.chunk(4)`, then `torch.cat([i, o, f, g])[None]`; both biases the same way, one "
        "behind the other.",
    ),
    difficulty=2,
    minutes=10,
)
