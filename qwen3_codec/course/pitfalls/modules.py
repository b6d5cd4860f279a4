"""Traps seen in other people's exports, in the module: what a layer cuts, what it attends to, where its state lives."""

import tempfile
from collections.abc import Callable
from copy import deepcopy
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import MimiConfig
from transformers.models.mimi.modeling_mimi import MimiTransformerModel

from ...model.checkpoint import example_codes
from ...model.checkpoint.config import OFFICIAL_CONFIG
from ...model.one_shot import one_shot
from ...runtime.metrics import MAX_ERROR, max_error
from ...streaming.exact import ExactStreamingWrapper
from ...streaming.session import TorchSession
from .graphs import export_step, in_graph, raw_session, row
from .precision import demo, heard
from .trap import BOTH_EXPORTERS, Outcome, Trap, caught_by


class CutBothSides(nn.Module):
    """A transposed convolution of kernel 2s and stride s; what is over is cut on the left and on the right."""

    def forward(self, x, conv):
        over = conv.kernel_size[0] - conv.stride[0]
        y = conv(x)
        return y[..., over : y.size(2) - over]  # trap


class CutRight(nn.Module):
    """The same; what is over is cut on the right, where later samples would be added to it."""

    def forward(self, x, conv):
        over = conv.kernel_size[0] - conv.stride[0]
        y = conv(x)
        return y[..., : y.size(2) - over]


@caught_by("count the samples of each chunk")
@torch.no_grad()
def at_the_official_rates(cut: type[nn.Module], frames: int = 12, chunk: int = 3) -> Outcome:
    """Samples that four transposed convolutions give for `frames` latent frames, at once and in chunks."""
    dims = OFFICIAL_CONFIG["decoder_config"]
    rates, steps = dims["upsample_rates"], frames * prod(dims["upsampling_ratios"])
    convs = [nn.ConvTranspose1d(1, 1, 2 * rate, rate, device="meta") for rate in rates]  # lengths, and no numbers

    def length(x):
        for conv in convs:
            x = cut()(x, conv)
        return x.size(2)

    x = torch.zeros(1, 1, steps, device="meta")
    whole, pieces = length(x), sum(map(length, x.split(chunk * prod(dims["upsampling_ratios"]), dim=2)))
    wanted = steps * prod(rates)
    text = f"{frames} frames at once: {wanted - whole} of {wanted} samples are missing; in chunks of {chunk}: "
    right = whole == pieces == wanted
    return Outcome(0.0 if right else float("inf"), f"{text}{wanted - pieces}", "" if right else "the first chunk's end")


def attending_to_everything(decoder):
    """A decoder whose mask has no window."""
    changed = deepcopy(decoder)
    changed.config.sliding_window = changed.config.max_position_embeddings  # trap
    return changed


def attending_to_the_window(decoder):
    """The decoder as its config has it."""
    return decoder


@caught_by("parity with the full-sequence decode past the window")
def past_the_window(make: Callable) -> Outcome:
    """The demo's one-shot decoder against itself with `make`'s attention: within the window, and beyond."""
    decoder, window = demo().decoder, demo().decoder.config.sliding_window
    codes = example_codes(demo(), 2 * window)
    wanted, found = one_shot(decoder, codes), one_shot(make(decoder), codes)
    full = window * decoder.samples_per_frame
    inside = max_error(wanted[:, :full], found[:, :full])
    outcome = heard(wanted[:, full:], found[:, full:])
    text = f"the first {window} frames: largest error {inside:.1e}; the next {window}: {outcome.text}"
    first = int(outcome.first.split()[-1]) + window if outcome.first else 0
    return Outcome(max(inside, outcome.error), text, f"frame {first}" if first else "")


def mask_of_minus_inf(visible: torch.Tensor) -> torch.Tensor:
    return torch.zeros(visible.shape).masked_fill(~visible, float("-inf"))  # trap


def mask_of_the_lowest_number(visible: torch.Tensor) -> torch.Tensor:
    return torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)


@caught_by("a row that is all padding: is everything still a number?")
def a_row_that_sees_nothing(mask: Callable) -> Outcome:
    """Attention of two rows, of which the second is all padding: is the first one's sum with it still a number?"""
    visible = torch.tensor([[True, True, False], [False, False, False]])
    values = torch.ones(3, 1)
    attended = torch.softmax(torch.zeros(2, 3) + mask(visible), dim=1) @ values
    used, unused = attended.flatten().tolist()
    # The unused row's weight is 0, and 0 times NaN is NaN: it spreads through every sum that it is part of.
    total = used + 0.0 * unused
    finite = bool(np.isfinite(total))
    text = f"the row of padding gives {unused:g}, the sum {total:g}"
    return Outcome(abs(total - 1) if finite else float("inf"), text, "" if finite else "a row without a valid key")


class BufferState(nn.Module):
    """Each sample plus the one before it; the last one waits in a buffer for the next call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("past", torch.zeros(1))

    def forward(self, x):
        joined = torch.cat([self.past[None], x], dim=1)
        self.past = x[0, -1:]  # trap
        return joined[:, :-1] + x


class StateInAndOut(nn.Module):
    """Each sample plus the one before it; the last one goes out with the result, and comes in again."""

    def forward(self, x, past):
        joined = torch.cat([past[None], x], dim=1)
        return joined[:, :-1] + x, x[0, -1:]


@caught_by("two calls of the graph against its module at once")
def two_calls(step: type[nn.Module], exporter: str) -> Outcome:
    """A demonstration: export the step, call the graph with two chunks of 4, and compare with all 8 at once."""
    example = {"x": row(4), "past": torch.zeros(1)} if step is StateInAndOut else {"x": row(4)}
    with tempfile.TemporaryDirectory() as folder:
        export_step(step(), example, Path(folder) / "step.onnx", exporter)
        session = raw_session(Path(folder) / "step.onnx")
    whole, feeds, found = row(8, seed=1), {name: tensor.numpy() for name, tensor in example.items()}, []
    for chunk in whole.split(4, dim=1):
        samples, *states = session.run(None, feeds | {"x": chunk.numpy()})
        found.append(samples)
        feeds |= {"past": states[0]} if states else {}
    wanted = whole.numpy() + np.pad(whole.numpy(), ((0, 0), (1, 0)))[:, :-1]
    errors = np.abs(wanted - np.concatenate(found, axis=1))[0]
    wrong = np.flatnonzero(errors > 1e-6)
    text = f"of samples 0 to 7 in two calls, wrong: {', '.join(map(str, wrong)) or 'none'}; by up to {errors.max():.2g}"
    return Outcome(float(errors.max()), text, f"call {wrong[0] // 4 + 1}, sample {wrong[0] % 4}" if wrong.size else "")


class OnePositionForAll(ExactStreamingWrapper):
    """Every row gets the first row's `past_frames`."""

    def forward(self, audio_codes, past_frames, *states):
        return super().forward(audio_codes, past_frames[:1].expand(audio_codes.size(0), 1), *states)  # trap


@caught_by("batch rows at different offsets against each alone")
def rows_at_two_offsets(make: Callable) -> Outcome:
    """The demo: a stream of 5 frames joins one of 40, and both go on for 12 in one call; against each alone."""
    decoder, codes = demo().decoder, example_codes(demo(), 52)
    session = TorchSession(make(decoder))
    old, young = session.stream(), session.stream()
    old.push(codes[:, :40])
    young.push(codes[:, :5])
    together = old.join(young).push(np.concatenate([codes[:, 40:52], codes[:, 5:17]]))
    wanted, rate = one_shot(decoder, codes), decoder.samples_per_frame
    first, second = wanted[:, 40 * rate :], wanted[:, 5 * rate : 17 * rate]
    text = f"the row at frame 40: largest error {max_error(first, together[:1]):.1e}; the row at frame 5: "
    outcome = heard(second, together[1:])
    first_seen = outcome.first and f"a second row at another offset, its {outcome.first} of that call"
    return Outcome(max(outcome.error, max_error(first, together[:1])), text + outcome.text, first_seen)


def attends_to_everything(config: dict) -> MimiConfig:
    """What the numbers are where a version of the library leaves the window out."""
    return MimiConfig(**config | {"sliding_window": config["max_position_embeddings"]})  # trap


def attends_to_its_window(config: dict) -> MimiConfig:
    """What the config says."""
    return MimiConfig(**config)


@caught_by("reference data of the version that is meant, longer than the window")
@torch.no_grad()
def one_class_two_versions(make: Callable) -> Outcome:
    """transformers' own class with seeded weights, over three windows: against what it gives with its window."""
    config = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 64,
        "sliding_window": 8,
        "max_position_embeddings": 64,
        "layer_scale_initial_scale": 1.0,  # at the default 0.01 the scales hide the attention
        "attn_implementation": "eager",
    }
    x = torch.randn(1, 24, config["hidden_size"], generator=torch.Generator().manual_seed(0))
    results = []
    for each in (attends_to_its_window(config), make(config)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            results.append(MimiTransformerModel(each).eval()(x).last_hidden_state)
    errors = (results[0] - results[1]).abs().amax(dim=(0, 2))
    wrong = torch.nonzero(errors > 1e-5)
    first = f"position {wrong[0].item()}" if len(wrong) else ""
    where = f"from {first} on" if first else "nowhere"
    text = f"window of 8, 24 positions: they differ {where}, by up to {errors.max():.1e}"
    return Outcome(errors.max().item(), text, first)


class SizeAfterUnflatten(nn.Module):
    def forward(self, x):
        y = x.unflatten(1, (-1, 1)).transpose(1, 2).flatten(1)  # trap
        return 2 * y[:, : y.size(1)]


class SizeAfterReshape(nn.Module):
    def forward(self, x):
        y = x.reshape(x.size(0), -1, 1).transpose(1, 2).reshape(x.size(0), -1)
        return 2 * y[:, : y.size(1)]


TRAPS = (
    Trap(
        name="a transposed convolution trimmed on both sides",
        naive=CutBothSides,
        fix=CutRight,
        demonstrate=at_the_official_rates,
        symptoms=("borders", "length"),
        why="Each of the four loses a step of its own input, which the later ones make longer: 8·5·4·3 + 5·4·3 + 4·3 + "
        "3 = 555 samples, at each chunk border. (Upstream's decoder did so until February 2026, and the class of "
        "Qwen3-Omni in transformers does.) What is over on the left belongs to the audio; on the right, later samples "
        "are still to be added.",
        within=0.0,
        sources=("vllm-project/vllm-omni#1241", "QwenLM/Qwen3-TTS#223", "sgl-project/sglang-omni#1354"),
    ),
    Trap(
        name="attention without the model's window",
        naive=attending_to_everything,
        fix=attending_to_the_window,
        demonstrate=past_the_window,
        symptoms=("window",),
        why="A causal mask without the window is right until the window is full. Streams that keep all keys also grow "
        "for ever. The weights were trained within the window: what lies further back they never saw.",
        within=0.0,
        sources=("QwenLM/Qwen3-ASR#213", "huggingface/transformers#43971"),
    ),
    Trap(
        name="a mask of minus infinity",
        naive=mask_of_minus_inf,
        fix=mask_of_the_lowest_number,
        demonstrate=a_row_that_sees_nothing,
        symptoms=("nan",),
        why="A softmax over nothing but minus infinity is 0 / 0. If padding or an empty past can leave a query "
        "without a key, block with the lowest number of the type: the row then has some value, which nobody reads.",
        sources=("pytorch/pytorch#131060",),
    ),
    Trap(
        name="state in a buffer",
        naive=BufferState,
        fix=StateInAndOut,
        demonstrate=two_calls,
        exporters=BOTH_EXPORTERS,
        symptoms=("memory", "borders"),
        why="A graph has no memory between two calls. TorchScript's exporter writes down the buffer as the example "
        "left it, a number for all calls; dynamo writes down its first value. State goes in and comes out.",
        sources=("pytorch/pytorch#60828", "pytorch/pytorch#70280"),
    ),
    Trap(
        name="one position for all rows of a batch",
        naive=OnePositionForAll,
        fix=ExactStreamingWrapper,
        demonstrate=rows_at_two_offsets,
        symptoms=("neighbour",),
        why="A row that joins later has fewer valid cache slots. With another row's count it attends to zeros as if "
        "they were its past. The count is a state like the others: one for each row.",
        within=MAX_ERROR,
        code=(OnePositionForAll, ExactStreamingWrapper.forward),
        sources=("rasbt/reasoning-from-scratch#33",),
    ),
    Trap(
        name="a version of a library that changes the numbers",
        naive=attends_to_everything,
        fix=attends_to_its_window,
        demonstrate=one_class_two_versions,
        symptoms=("update", "window"),
        why="transformers 4.57 computes Mimi's attention over everything, in eager and in sdpa; 5.24 within the window "
        "of its config. (The first was measured where 4.57 was installed; here both are played by 5.24's class.) An "
        "update changes the numbers, and no test that compares the library with itself finds out. Keep reference data "
        "of the version that you mean, in the tests.",
        within=0.0,
        sources=("huggingface/transformers#43971",),
    ),
    Trap(
        name="a size after unflatten",
        naive=SizeAfterUnflatten,
        fix=SizeAfterReshape,
        demonstrate=in_graph({"x": row(4)}, [{"x": row(length)} for length in (4, 2, 7)]),
        exporters=BOTH_EXPORTERS,
        symptoms=("lengths",),
        why="A bare `size()` stays symbolic, but not here: after `unflatten` and `flatten`, TorchScript's trace takes "
        "lengths for constants. The exporter does not report it. ONNX Runtime logs a warning at the shorter length, "
        "where the result is right, and none at the longer one, where it is wrong. `reshape` has no such effect.",
        sources=("pytorch/pytorch#41893",),
    ),
)
