"""States that are wrong although every shape is right: what a stream does with them, beside the one-shot decoder."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.nn import functional as F

from ...model import checkpoint
from ...model.one_shot import one_shot
from ...model.receptive_field import conv_receptive_field
from ...runtime import CodecSession
from ...runtime.metrics import MAX_ERROR, chunks, max_error
from ...streaming.kv_stack import TraceableKVStack, sliding_window_mask
from ...streaming.layers import ConvStates, StreamingConvTranspose1d
from ...streaming.session import TorchSession
from ...streaming.windowed import StatefulCodecONNXWrapper
from .graphs import export_step, raw_session, row
from .precision import demo, demo_graph, heard
from .state import (
    HistoryFromNewFramesAlone,
    SaturatingPositions,
    SeesTheFuture,
    StoredRotatedStack,
    TrimmedBeforeAttention,
    TrimmedBeforeAttentionStack,
    mask_seeing_the_future,
    stream_with_changes,
)
from .trap import BOTH_EXPORTERS, Outcome, Trap, caught_by


@cache
def enough_left_context() -> int:
    """Frames of left context that make the demo's windowed graph exact."""
    return conv_receptive_field(demo().decoder)


def in_stream(chunk: int, frames: int) -> Callable[[Callable], Outcome]:
    """A demonstration: stream the demo's codes through the wrapper in chunks, and compare with one shot."""

    @caught_by(f"parity with the full-sequence decode: chunks of {chunk}, {frames} frames")
    def demonstrate(make: Callable) -> Outcome:
        decoder = demo().decoder
        wrapper = make(decoder, enough_left_context(), 0)
        codes = checkpoint.example_codes(demo(), frames)
        wanted, found = one_shot(decoder, codes), stream_with_changes(TorchSession(wrapper).stream(), codes, chunk)
        wrong = np.flatnonzero(~(np.abs(wanted - found)[0] <= MAX_ERROR))  # so written, NaN is wrong
        first = f"frame {wrong[0] // decoder.samples_per_frame}" if wrong.size else ""
        outcome = heard(wanted, found)
        words = f"wrong from {first} on" if first else "right to the end"
        return Outcome(outcome.error, f"chunks of {chunk}: {words}; {outcome.text}", first)

    return demonstrate


def too_little_left_context(decoder, left_context, lookahead):
    return StatefulCodecONNXWrapper(decoder, min(4, left_context), lookahead)  # trap


@caught_by("change a later frame: does an earlier sample move?")
def change_a_later_frame(make: Callable) -> Outcome:
    """The last frame of a chunk of 12 is changed: the error is what moves in the samples of the 11 before it."""
    decoder = demo().decoder
    codes = checkpoint.example_codes(demo(), 12)
    changed = codes.copy()
    changed[:, -1] = (changed[:, -1] + 1) % decoder.config.codebook_size
    wrapper = make(decoder, enough_left_context(), 0)
    waves = [stream_with_changes(TorchSession(wrapper).stream(), part, 12) for part in (codes, changed)]
    earlier = slice(None, 11 * decoder.samples_per_frame)
    error = max_error(waves[0][:, earlier], waves[1][:, earlier])
    text = f"a change in frame 11 moves the samples of frames 0 to 10 by up to {error:.1e}"
    return Outcome(error, text, "a chunk of 2 frames" if error else "")


class OverlapAdd(nn.Module):
    """The overlap with the next chunk is the state: `kernel - stride` samples of *output*."""

    def __init__(self, causal):
        super().__init__()
        self.conv = causal.conv

    def zero_state(self):
        return torch.zeros(1, self.conv.out_channels, self.conv.kernel_size[0] - self.conv.stride[0])

    def step(self, x, overlap):
        y = self.conv(x)  # trap
        y = y + F.pad(overlap, (0, y.size(2) - overlap.size(2)))
        return y[..., : x.size(2) * self.conv.stride[0]], y[..., x.size(2) * self.conv.stride[0] :]


class LastInput(nn.Module):
    """The last samples of *input* are the state: the project's `StreamingConvTranspose1d`."""

    def __init__(self, causal):
        super().__init__()
        self.layer = StreamingConvTranspose1d(causal.conv)

    def zero_state(self):
        return torch.zeros(1, self.layer.channels, self.layer.left_context)

    def step(self, x, last):
        states = ConvStates([last])
        return self.layer(x, states), states.after[0]


@caught_by("the layer in chunks against the layer at once")
@torch.no_grad()
def one_transposed_conv(make: Callable) -> Outcome:
    """The demo's first transposed convolution over 9 samples in chunks of 3, against all at once."""
    causal = demo().decoder.decoder[1].block[1]
    x = torch.randn(1, causal.conv.in_channels, 9, generator=torch.Generator().manual_seed(0))
    layer, pieces = make(causal), []
    state = layer.zero_state()
    for chunk in x.split(3, dim=2):
        piece, state = layer.step(chunk, state)
        pieces.append(piece)
    wanted, found = causal(x).numpy(), torch.cat(pieces, dim=2).numpy()
    error = max_error(wanted, found)
    bias = float(causal.conv.bias.abs().max())
    wrong = np.flatnonzero(np.abs(wanted - found).max(axis=(0, 1)) > 1e-5)
    first = f"chunk {wrong[0] // (3 * causal.conv.stride[0]) + 1}" if wrong.size else ""
    return Outcome(error, f"largest error {error:.1e}; the largest bias is {bias:.1e}", first)


class HighPass(nn.Module):
    """A running mean as the state; what comes out is the mean's own change. It reads `past` after `next_past`."""

    def forward(self, x, past):
        next_past = 0.9 * past + 0.1 * x
        return next_past - past, next_past


def one_buffer(state):
    """Where a call reads the state, and where it writes the next one."""
    return state, state  # trap


def two_buffers(state):
    """Where a call reads the state, and where it writes the next one."""
    return state, onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros_like(state.numpy()))


def run_bound(session, feeds: dict[str, np.ndarray], states: dict[str, tuple], outputs: dict[str, str]) -> np.ndarray:
    """One call with bound buffers, `states` {input: (read here, write here)}; returns the output that is no state."""
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for name, (before, after) in states.items():
        binding.bind_ortvalue_input(name, before)
        binding.bind_ortvalue_output(outputs[name], after)
    (free,) = {output.name for output in session.get_outputs()} - set(outputs.values())
    binding.bind_output(free)
    session.run_with_iobinding(binding)
    return binding.get_outputs()[-1].numpy()


@caught_by("the graph with bound buffers against its module")
def high_pass_bound(buffers: Callable, exporter: str) -> Outcome:
    """A demonstration: two calls of `HighPass` in ONNX Runtime; the buffers change places after each."""
    x, past, module = row(4), row(4, seed=1), HighPass()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        export_step(module, {"x": x, "past": past}, path, exporter)
        session = raw_session(path)
    outputs = {"past": session.get_outputs()[1].name}
    states, errors = {"past": buffers(_value(past.numpy()))}, []
    for _ in range(2):
        found = run_bound(session, {"x": x.numpy()}, states, outputs)
        wanted, past = module(x, past)
        errors.append(max_error(wanted.numpy(), found))
        states = {name: pair[::-1] for name, pair in states.items()}
    error = float(np.max(errors))
    first = next((f"call {call}" for call, each in enumerate(errors, 1) if each > 1e-5), "")
    return Outcome(error, f"largest error {error:.2g}; the right values go up to {wanted.abs().max():.2g}", first)


def exact_graph_bound(buffers: Callable, frames: int = 90) -> Outcome:
    """The demo's exact graph streamed in chunks of 3 with bound buffers, against one shot."""
    session, spec = raw_session(demo_graph()), CodecSession(demo_graph()).spec
    codes = checkpoint.example_codes(demo(), frames)
    outputs = {before.name: after.name for before, after in spec.states}
    states, pieces = {name: buffers(_value(array)) for name, array in spec.zero_state().items()}, []
    for part in chunks(codes, [3]):
        pieces.append(run_bound(session, {"audio_codes": np.ascontiguousarray(part)}, states, outputs))
        states = {name: pair[::-1] for name, pair in states.items()}
    return heard(one_shot(demo().decoder, codes), np.concatenate(pieces, axis=1))


def _value(array: np.ndarray) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array.copy())


TRAPS = (
    Trap(
        name="left context from the new frames alone",
        naive=HistoryFromNewFramesAlone,
        fix=StatefulCodecONNXWrapper,
        demonstrate=in_stream(chunk=1, frames=30),
        symptoms=("borders", "chunking"),
        why="`pre_conv` has a left context of two frames. A chunk of one frame has only one to give, and the other is "
        "lost. Join the old context and the new frames first, then keep the last ones. Chunks of 3 never show it.",
        within=MAX_ERROR,
        code=(HistoryFromNewFramesAlone, StatefulCodecONNXWrapper.forward),
    ),
    Trap(
        name="keys trimmed before attention",
        notes="2",
        naive=TrimmedBeforeAttention,
        fix=StatefulCodecONNXWrapper,
        demonstrate=in_stream(chunk=12, frames=110),
        symptoms=("window", "chunking"),
        why="The first frame of a chunk may still see the oldest key, the last one may not. Attend over past and new "
        "keys with a mask, and trim only what is stored. Chunks of one frame never show it.",
        within=MAX_ERROR,
        code=(TrimmedBeforeAttentionStack, TraceableKVStack.update),
        sources=("huggingface/transformers#37574",),
    ),
    Trap(
        name="positions that saturate",
        notes="2",
        naive=SaturatingPositions,
        fix=StatefulCodecONNXWrapper,
        demonstrate=in_stream(chunk=3, frames=110),
        symptoms=("window", "passes"),
        why="A post-RoPE cache needs positions that grow for ever; the length of a trimmed cache does not. "
        "Right until the window of 72 frames (5.8 s) is full. The first call that begins at a position already given "
        "is that of frame 75 here.",
        within=MAX_ERROR,
        code=(StoredRotatedStack, TraceableKVStack.update),
        sources=("rajveer43/VeloxQuant-MLX#389",),
    ),
    Trap(
        name="a mask one column off",
        notes="2",
        naive=SeesTheFuture,
        fix=StatefulCodecONNXWrapper,
        demonstrate=change_a_later_frame,
        symptoms=("chunking",),
        why="One column off, and each frame sees the next one of its own chunk, so the result depends on the chunk "
        "schedule. To find it: change a later frame and see whether an earlier sample moves.",
        within=0.0,
        code=(mask_seeing_the_future, sliding_window_mask),
    ),
    Trap(
        name="a transposed convolution that adds its bias twice",
        naive=OverlapAdd,
        fix=LastInput,
        demonstrate=one_transposed_conv,
        symptoms=("borders", "chunking"),
        why="Each call adds the bias to all of its output, also to the part that overlaps with the next call's. Keep "
        "the last *input* and compute the overlap anew, or take the bias out and add it once.",
    ),
    Trap(
        name="too little left context",
        naive=too_little_left_context,
        fix=StatefulCodecONNXWrapper,
        demonstrate=in_stream(chunk=3, frames=60),
        symptoms=("borders", "chunking"),
        why="The convolutional decoder has a left context of 10 frames at these rates, as "
        "`conv_receptive_field` measures. With that many the windowed design is exact; the "
        "exact design recomputes no frame at all.",
        within=MAX_ERROR,
        code=(too_little_left_context, conv_receptive_field),
        sources=("0xShug0/audio.cpp#429", "vllm-project/vllm-omni#2480"),
    ),
    Trap(
        name="one buffer bound as input and output",
        naive=one_buffer,
        fix=two_buffers,
        demonstrate=high_pass_bound,
        exporters=BOTH_EXPORTERS,
        symptoms=("order", "memory"),
        why="ONNX Runtime writes an output as soon as its node runs. A node that runs later and reads the old state "
        "then reads the new one. Whether there is such a node depends on the graph and its order, which no exporter "
        "guarantees: use two sets of buffers that change places.",
    ),
)
