"""Traps of single layers: how they pad, and an LSTM under dynamo."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...exporting.diagnostics import captured
from ...runtime.metrics import max_error
from .graphs import export_step, in_graph, row
from .trap import BOTH_EXPORTERS, Outcome, Trap, caught_by

KERNEL = 5


def seeded(module: Callable[[], nn.Module]) -> nn.Module:
    """A module with the same weights at each call; torch's own generator stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module().eval()


# --- What a convolution pads


class PaddedOnBothSides(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, KERNEL, padding="same")  # trap

    def forward(self, x):
        return self.conv(x[:, None])[:, 0]


class PaddedOnTheLeft(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, KERNEL)

    def forward(self, x):
        return self.conv(F.pad(x[:, None], (KERNEL - 1, 0)))[:, 0]


@caught_by("change a later input: does an earlier output move?")
@torch.no_grad()
def a_later_input_changes(layer: type[nn.Module], length: int = 12) -> Outcome:
    """The last input is changed: the error is what moves in the outputs before it. Both layers keep the length."""
    module, x = seeded(layer), row(length)
    changed = x.clone()
    changed[:, -1] += 1
    before, after = module(x), module(changed)
    moved = np.flatnonzero((before - after).abs()[0, :-1].numpy())
    text = f"{length} inputs, {before.size(1)} outputs; earlier outputs that move with the last input: {len(moved)}"
    return Outcome(float(len(moved)), text, f"{length - 1 - moved[0]} outputs before the change" if moved.size else "")


class ZerosFirst:
    """A causal convolution whose padding mirrors the first samples (EnCodec's default), as a stream."""

    def __init__(self, conv: nn.Conv1d):
        self.conv, self.past = conv, torch.zeros(1, 1, KERNEL - 1)  # trap

    def step(self, x):
        joined = torch.cat([self.past, x], 2)
        self.past = joined[..., -(KERNEL - 1) :]
        return self.conv(joined)


class MirroredFirst:
    """A causal convolution whose padding mirrors the first samples (EnCodec's default), as a stream."""

    def __init__(self, conv: nn.Conv1d):
        self.conv, self.past = conv, None

    def step(self, x):
        if self.past is None:  # the first chunk must have KERNEL samples: a shorter one is to be buffered
            self.past = x[..., 1:KERNEL].flip(2)
        joined = torch.cat([self.past, x], 2)
        self.past = joined[..., -(KERNEL - 1) :]
        return self.conv(joined)


@caught_by("the layer in chunks against the layer at once, from the first sample on")
@torch.no_grad()
def mirrored_at_the_start(stream: Callable) -> Outcome:
    """Three chunks of 6 samples against `F.pad(x, (KERNEL - 1, 0), mode="reflect")` and the convolution."""
    conv, x = seeded(lambda: nn.Conv1d(1, 1, KERNEL)), row(18)[:, None]
    wanted = conv(F.pad(x, (KERNEL - 1, 0), mode="reflect"))[0]
    streaming = stream(conv)
    found = torch.cat([streaming.step(chunk) for chunk in x.split(6, dim=2)], 2)[0]
    wrong = np.flatnonzero((wanted - found).abs()[0].numpy() > 1e-6)
    error = max_error(wanted.numpy(), found.numpy())
    text = f"wrong samples: {', '.join(map(str, wrong)) or 'none'}; largest error {error:.1e}"
    return Outcome(error, text, f"sample {wrong[0]} of the stream" if wrong.size else "")


# --- An LSTM


class LSTMThenLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.linear = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        y, _ = self.lstm(x.unsqueeze(2))  # trap
        return self.linear(y).squeeze(2)


def _gates(weight: torch.Tensor) -> torch.Tensor:
    """PyTorch's order of gates (input, forget, cell, output) in ONNX's (input, output, forget, cell)."""
    i, f, c, o = weight.detach().chunk(4)
    return torch.cat([i, o, f, c])[None]


class LSTMAsOneOperator(LSTMThenLinear):
    def __init__(self):
        super().__init__()
        own = dict(self.lstm.named_parameters())
        self.register_buffer("w", _gates(own["weight_ih_l0"]))
        self.register_buffer("r", _gates(own["weight_hh_l0"]))
        self.register_buffer("b", torch.cat([_gates(own["bias_ih_l0"]), _gates(own["bias_hh_l0"])], 1))

    def forward(self, x):
        if torch.compiler.is_exporting():  # dynamo: the ONNX operator itself, whose length nobody specialises
            y = self.operator(x.unsqueeze(2).transpose(0, 1)).squeeze(1).transpose(0, 1)
        else:
            y, _ = self.lstm(x.unsqueeze(2))
        return self.linear(y).squeeze(2)

    def operator(self, x):
        """[length, batch, 1] to [length, 1, batch, 4]."""
        length, batch, hidden = x.size(0), x.size(1), self.lstm.hidden_size
        y, _, _ = torch.onnx.ops.symbolic_multi_out(
            "::LSTM",
            (x, self.w, self.r, self.b),
            attrs={"hidden_size": hidden},
            dtypes=[torch.float32] * 3,
            shapes=[(length, 1, batch, hidden), (1, batch, hidden), (1, batch, hidden)],
            version=18,
        )
        return y


def made(layer: type[nn.Module]) -> Callable[[], nn.Module]:
    return lambda: seeded(layer)


@cache
def an_lstm_was_exported() -> None:
    """By dynamo, in this process: of several exports the first differs, so that none here is the first."""
    with captured(), tempfile.TemporaryDirectory() as folder:
        export_step(seeded(LSTMThenLinear), {"x": row(5)}, Path(folder) / "step.onnx", "dynamo")


@caught_by("the graph against its module, at other lengths than the example's")
def lstm_in_graph(step: Callable[[], nn.Module], exporter: str) -> Outcome:
    an_lstm_was_exported()
    return in_graph({"x": row(5)}, [{"x": row(length)} for length in (1, 2, 5, 9)])(step, exporter)


TRAPS = (
    Trap(
        name="a convolution padded on both sides that looks causal",
        naive=PaddedOnBothSides,
        fix=PaddedOnTheLeft,
        demonstrate=a_later_input_changes,
        symptoms=("chunking", "borders"),
        why="The output is as long as the input either way, so no shape tells: `padding='same'` (or `kernel // 2`) "
        "puts half of the window into the future. In chunks the future is zeros, and each border is wrong. A causal "
        "convolution pads `dilation * (kernel - 1)` on the left and nothing on the right.",
        within=0.0,
        sources=("r9y9/wavenet_vocoder#131",),
    ),
    Trap(
        name="padding that mirrors the start",
        naive=ZerosFirst,
        fix=MirroredFirst,
        demonstrate=mirrored_at_the_start,
        symptoms=("start",),
        why="`F.pad(..., mode='reflect')` makes the left context from the *first samples themselves*, mirrored. A "
        "stream whose state begins with zeros is wrong for its first `kernel - 1` outputs, layer after layer. Fill "
        "the state from the first chunk (and buffer until it is long enough), or train with zeros.",
        sources=("lucidrains/audiolm-pytorch#166",),
    ),
    Trap(
        name="an LSTM's length",
        naive=made(LSTMThenLinear),
        fix=made(LSTMAsOneOperator),
        demonstrate=lstm_in_graph,
        exporters=BOTH_EXPORTERS,
        symptoms=("lengths",),
        why="`torch.export` takes an LSTM apart into one step for each input of the example, so under dynamo the axis "
        "becomes static; what it warns of is something else. (In a fresh process the first export keeps a loop, and "
        "its graph stops in the reshape before the linear layer; each later export in that process does what is shown "
        "here.) `torch.onnx.ops.symbolic_multi_out` writes ONNX's own operator, whose gates stand in the order input, "
        "output, forget, cell. TorchScript's exporter needs none of it: its warnings are of lines in torch that do no "
        "harm.",
        code=(LSTMThenLinear, LSTMAsOneOperator),
        sources=("pytorch/pytorch#191855", "pytorch/executorch#5176"),
    ),
)
