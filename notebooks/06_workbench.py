# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6 · The workbench: change the step, get the verdict
#
# Pages 3 to 5 checked a streaming step that was right. Here you change it, and one call says whether it still is: `judge` runs the chunk schedules, goes past
# the window, shares a call among rows at different offsets, exports, compares the graph, ablates each state, and names the likely cause of what is wrong.
# (On the command line it is `qwen3-codec check`. The `check` of the exercises on other pages is another: it judges an answer.)
#
# After this page you can
#
# 1. change the mask, the cache or any layer of the streaming step, and read within half a minute whether it still streams,
# 2. tell from the table where a fault lies: in the computation, in what is carried on, between rows, or in the graph,
# 3. do the same with a file of your own, from the command line.
#
# Prerequisites: [3 · Verify the wrapper](03_verify_wrapper.ipynb), which reads the step line by line. 5 minutes.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
AUDIO = os.environ.get("QWEN3_CODEC_AUDIO", "")  # a recording of yours, to take the codes from
EXPORTER = os.environ.get("QWEN3_CODEC_EXPORTER", "torchscript")  # or dynamo, which takes longer

# %%
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from IPython.display import display
from torch import Tensor, nn

from qwen3_codec import StatefulCodecONNXWrapper, judge
from qwen3_codec.course import plots
from qwen3_codec.course.lab import workbench
from qwen3_codec.model import checkpoint
from qwen3_codec.spec import StateSpec, exact_spec

loaded = checkpoint.load(CHECKPOINT, audio=AUDIO)
print(f"weights: {loaded.weights}; sliding window: {loaded.decoder.config.sliding_window} frames")

# %% [markdown]
# ## 1. The exact step, to change
#
# The next cell is the whole exact step, as the package has it: the attention mask, the KV cache's `update`, and the module. (Of each docstring the first line is
# left.) What it takes from the package are the parts that stream one layer each: [page 3](03_verify_wrapper.ipynb) shows those. Change what you like, then run this cell
# and the next one.

# %%
from qwen3_codec.streaming.exact import (
    CodecDecoder,
    ConvStates,
    Dequantizer,
    Streamed,
    StreamingConv,
    eval_own,
    layers_with_state,
    split_states,
    states_of,
    stream_transformer,
    to_streaming,
)
from qwen3_codec.streaming.kv_stack import TraceableKVStack, drop_last, keep_last, rotate_half


# %% tags=["workbench"]
def my_mask(
    positions: Tensor, past: int, window: int | None, dtype: torch.dtype, past_frames: Tensor | None = None
) -> Tensor:
    """Additive mask [1 or B, 1, N, past + N]: 0 where a query may look, the dtype's lowest number elsewhere."""
    distance = positions[past:, None] - positions[None, :]
    visible = ((distance >= 0) if window is None else (distance >= 0) & (distance < window))[None]
    if past_frames is not None:
        visible = visible & (positions >= past - past_frames)[:, None]
    blocked = torch.full((), torch.finfo(dtype).min, dtype=dtype)
    return torch.where(visible, torch.zeros((), dtype=dtype), blocked)[:, None]


class MyKVStack(TraceableKVStack):
    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take the new keys (rotated, as transformers' attention passes them) and values [B, heads, N, head_dim]."""
        past_key, past_value = self.keys[layer_idx], self.values[layer_idx]
        values = torch.cat([past_value, value_states], dim=2)
        cos, sin = self._new_rotation
        # transformers rotates before it calls `update`; the same angle the other way undoes it.
        unrotated = key_states * cos - rotate_half(key_states) * sin
        self.keys[layer_idx] = keep_last(torch.cat([past_key, unrotated], dim=2), self.keep, dim=2)
        self.values[layer_idx] = keep_last(values, self.keep, dim=2)
        cos, sin = self._past_rotation
        # Positions count from the oldest key kept, so a stored key has another one in each call.
        rotated = past_key * cos + rotate_half(past_key) * sin
        return torch.cat([rotated, key_states], dim=2), values


class MyStep(nn.Module):
    """One exact streaming step of `decoder`, with all state passed in and out. `spec` declares the tensors."""

    @torch.no_grad()
    def __init__(self, decoder: CodecDecoder):
        super().__init__()
        self.decoder = decoder
        self.quantizer = Dequantizer(decoder)
        self.pre_conv = to_streaming(decoder.pre_conv)
        self.stages = nn.ModuleList(to_streaming(stage) for _, stage in decoder.stages())
        eval_own(self, decoder)

    @property
    def conv_layers(self) -> list[tuple[str, StreamingConv]]:
        """(upstream's module name, streaming module) of every convolution with a state, in the order of the data."""
        names = [name for name, module in self.decoder.named_modules() if getattr(module, "left_context", 0)]
        return list(zip(names, layers_with_state(self), strict=True))

    @cached_property
    def spec(self) -> StateSpec:
        config, attention = self.decoder.config, self.decoder.attention_names
        spec = exact_spec(config, self.decoder.samples_per_frame, states_of(self), attention=config)
        return spec.with_modules(["pre_transformer", *(name for name, _ in self.conv_layers), *attention, *attention])

    def forward(self, audio_codes: Tensor, past_frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Decode N new frames to N * samples_per_frame samples. Shapes, names and order of everything: `spec`."""
        past_convs, keys, values = split_states(states, len(self.decoder.pre_transformer.layers))
        # Each convolution takes its own state out of `convs`, so states and layers have one order: that of the data.
        convs = ConvStates(past_convs)
        hidden = self.pre_conv(self.quantizer(audio_codes), convs).transpose(1, 2)
        latents, keys, values = self.transform(hidden, keys, values, past_frames)
        waveform = self.decode_latents(latents, convs)
        # The count stops where the cache is full: no number depends on how long the stream has been going.
        next_past_frames = (past_frames + audio_codes.size(1)).clamp(max=self.decoder.config.sliding_window - 1)
        return waveform, next_past_frames, *convs.after, *keys, *values

    def transform(
        self, hidden: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], past_frames: Tensor, **parts: Any
    ) -> Streamed:
        """The transformer, [B, N, latent_dim] -> the same, and the next keys and values."""
        keep = self.decoder.config.sliding_window - 1
        return stream_transformer(
            self.decoder.pre_transformer,
            hidden,
            keys,
            values,
            keep=keep,
            past_frames=past_frames,
            stack_type=MyKVStack,
            mask=my_mask,
        )

    def decode_latents(self, latents: Tensor, convs: ConvStates) -> Tensor:
        """The convolutions, [B, N, latent_dim] -> [B, N * samples_per_frame]; for a subclass that changes latents."""
        hidden = latents.transpose(1, 2)
        for stage in self.stages:
            hidden = stage(hidden, convs)
        return hidden.squeeze(1).clamp(-1, 1)


# %%
judged = judge(MyStep, loaded, exporter=EXPORTER, progress=plots.progress)
display(judged)

# %% tags=["check"]
assert judged.passed, "you changed the step: see what `judge` says"
assert judged.row("past the window").passed

# %% [markdown]
# How to read the table:
#
# - *one call* asks whether the step takes what its `spec` declares and gives that, with these names and shapes, twice the same, and leaves its inputs as they were.
#   If not, nothing else is run (a step that writes into its inputs is judged all the same).
# - *chunks of ...* and *all at once* are streams against the full-sequence decoder, up to the frame where every state is full (in the exact design frame W - 1 with a window
#   of W frames, because the cache keeps W - 1); *past the window* is what comes from there on, in all these streams. The limits are those of [page 3](03_verify_wrapper.ipynb).
# - *each call from the right state* takes the calls of a stream one by one, each with the state that the package's step had. An error that began earlier is not in it,
#   so the state or output that is wrong here was made wrong in this very call. These calls are of 1, 2, 2, 7 frames, again and again.
# - *calls from random states* finds what the codes do not reach, as a clamp that is too wide for them. It is left out if a single call is wrong already.
# - *two streams in turn* and *rows at different offsets* find what a module keeps for itself, and what one row does to another.
# - *export* is refused if the exporter warns that something was lost; *graph against step* compares the graph with the step in PyTorch, call by call.
#   (`parity`, on pages 5 and 11, is another comparison: a graph against the one-shot decoder.)
# - *state ablation* zeroes each state in turn. A state whose loss does not show on these codes is named, because nothing here tests it.
#
# *First wrong frame* counts from 0. For a stream it is a frame of its audio. For single calls, rows and the graph it is where a call begins that gives something wrong. That
# can be earlier, because a state that comes out wrong is heard in a later call, or later, because these calls begin at other frames. *Observed* says where to look, *likely* what it may be.
#
# The verdict's figure and its two players show the schedule that is farthest off. As long as the step is right, the difference is rounding.

# %%
figure = workbench.figure(judged)

# %% [markdown]
# **Figure.** One-shot and streamed waveform, their difference, the error of each call and the difference's spectrogram. If the step is right, the error of each call
# stays below the dashed limit; if it is wrong, look for the first call above it, and for steps at the dotted borders.

# %% [markdown]
# Listen for a click at each chunk border (a lost left context), or for a haze (lost keys and values).

# %%
workbench.players(judged)

# %% tags=["check"]
assert all(row.error < 1e-4 for row in judged.rows if row.error is not None and row.check != "state ablation"), judged

# %% [markdown]
# ## 2. The windowed step, to change
#
# The same for the windowed design, its `forward` alone. It is judged by what the design must give with its left context, which is not the full-sequence waveform
# if the context is short. To be quick it is judged on a small decoder here, with random weights and a window of eight frames.


# %% tags=["workbench"]
class MyWindowedStep(StatefulCodecONNXWrapper):
    def forward(
        self,
        audio_codes: Tensor,
        is_last: Tensor,
        pre_conv_h: Tensor,
        latent_buf: Tensor,
        conv_h: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        """Decode N new frames. Shapes, names and order of everything: `spec`."""
        # `pre_conv` pads its start with zeros; so the last frames of the call before go in again, and what is computed
        # at their places is dropped.
        quantized = torch.cat([pre_conv_h, self.decoder.quantizer.decode(audio_codes)], dim=2)
        pre_conv = self.decoder.pre_conv(quantized)[..., pre_conv_h.size(2) :]
        latent, keys, values = self._transform(pre_conv.transpose(1, 2), past)

        # Frames not yet emitted: the buffered ones come first. `conv_h` is the left context of the convolutions behind
        # them; its samples were emitted before, and are computed again to be cut off.
        pending = torch.cat([latent_buf, latent.transpose(1, 2)], dim=2)
        window = torch.cat([conv_h, pending], dim=2)
        start = conv_h.size(2) * self.decoder.samples_per_frame
        final_wav = self.decoder.decode_latent(window)[:, start:]

        # A zero tensor plus a size is a tensor in both exporters, and in PyTorch too.
        zero = torch.zeros(1, dtype=torch.int64)
        total = zero + pending.size(2)
        num_finalize = torch.where(is_last > 0.5, total, (total - self.lookahead_frames).clamp(min=0))

        return (
            final_wav,
            num_finalize * self.decoder.samples_per_frame,
            zero + start,
            num_finalize,
            keep_last(quantized, self.decoder.pre_conv.left_context),
            keep_last(pending, self.lookahead_frames),
            # Left context is what comes before the buffered frames.
            keep_last(drop_last(window, self.lookahead_frames), self.conv_history_frames),
            *keys,
            *values,
        )


# %%
windowed = judge(MyWindowedStep, workbench.small(), exporter=None, progress=plots.progress)
display(windowed)

# %% tags=["check"]
assert windowed.passed and windowed.design.startswith("windowed")

# %% [markdown]
# ## 3. Five edits to try
#
# Each is easily made. Make the edit above, or unfold it below.
#
# > **Predict.** Of these five, which are right in PyTorch, for one stream?
# >
# > 1. hand one state back as it came in
# > 2. let a query see one frame more than the window
# > 3. take the first row's count of past frames for all rows
# > 4. add the number of frames as a Python integer
# > 5. read a left context that is one entry too short
#
# <details><summary>Answer</summary>
#
# Two of them. The third is right as long as all rows of a call are at one offset, so no test with one row sees it. The fourth is right in Python; in the graph the
# integer is a constant, and the exporter warns. The first and the fifth are wrong once a state is carried from call to call, so all at once they are right. The second one is
# wrong past the window, in calls of two frames and more: in calls of one frame the cache holds no frame that must not be seen.
#
# </details>
#
# Below is what `judge` says of each, on the same small decoder, so that it takes a second or two each. (Exported is the fourth alone.) Its window of eight
# frames is full after seven, so a first call of 7 frames, or of all, fills every state: what an edit does to a state that is carried on shows there *past the window*, or nowhere.

# %%
shown, judgements = workbench.tried(progress=plots.progress)
display(shown)

# %%
rows = [
    (number, words, workbench.wrong_in(judged), workbench.audio_from(judged), judged.likely[0])
    for number, ((words, _), judged) in enumerate(zip(workbench.EDITS, judgements), 1)
]
plots.table(["edit", "what", "fails", "audio wrong from frame", "likely cause"], rows)

# %% tags=["check"]
right = [not any(row.check.startswith(workbench.STREAMS) for row in judged.failures) for judged in judgements]
assert right == [False, False, True, True, False], "edits 3 and 4 are right in PyTorch, for one stream"
assert not any(judged.passed for judged in judgements)
assert all(judgements[edit].row("all at once").passed for edit in (0, 4)), "1 and 5 need a state that is carried on"
assert "chunks of 1," not in judgements[1].row("past the window").found, "2 is right in calls of one frame"

# %% [markdown]
# A dash means that the audio of one stream is right.

# %%
for where, weights in (("this checkpoint", loaded), ("the small decoder", workbench.small())):
    print(f"known mistakes that a wrong step is compared with, on {where}: {workbench.known(weights)}")

# %% [markdown]
# > **Why.** A cause is named in one of three ways. By comparison: the known mistakes are made in the package's step (their number grows with its states and biases), and what they
# > give is compared with what yours gives, in calls that begin with the same state, or in shared calls (edits 2, 3 and 5). If two mistakes give the same, both are named. By its
# > look: a state comes out as it went in, as zeros, swapped, scaled (edit 1). By words: the exporter's warning, or an error (edit 4). What no rule fits is still located: the first
# > wrong state in the order of the data, and the first line of your code whose result the package's step does not have.
#
# > **Try it.** Judge the step with `exporter="dynamo"`, or give your own codes: `judge(MyStep, loaded, codes)`. Codes that end before the window is full leave
# > *past the window* unjudged, and the verdict says so.
#
# From the command line, with the class in a file of yours (exit code 1 if a check fails):
#
#     qwen3-codec check my_step.py:MyStep --checkpoint demo --exporter dynamo

# %% [markdown]
# ## What you can do now
#
# - Change a streaming step and read where it is wrong, and why.
# - Tell a fault of the computation from one of the state, of the batch, and of the graph.
#
# **Next:** [7 · The trap catalogue](07_trap_catalogue.ipynb), because it has the traps of a streaming export by symptom and by message, each with code that runs, before and after the fix.
