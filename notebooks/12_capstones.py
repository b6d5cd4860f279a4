# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · Your turn: exercises that say what is wrong
#
# Each exercise has a task and code that runs and is wrong. Change the code and run the cell: `check` tries it on lengths, cuts into chunks
# and rows that you would try too, and says in which case it fails, how far off it is, which mistake it looks like, and a hint. A second
# try gets a second hint. Behind each exercise a solution lies folded.
#
# On this page, from small to a whole step:
#
# 1. how long a history is,
# 2. how much of an output is valid,
# 3. a transposed convolution,
# 4. keys and positions past the window,
# 5. rows of different ages under one mask,
# 6. steps and frames,
# 7. names that pair,
# 8. a twin for a block that nobody described,
# 9. the proof: ten graphs, eight of them wrong.
#
# Notebooks 1 to 5 have one more each, at their end. As shipped, nothing here is solved, so every check below says *not yet*.

# %% [markdown]
# There is nothing to set here but where your progress is kept: a file of a few lines, `exercises.json`. It stays on this machine.

# %% tags=["parameters"]
import os

BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # by default the project's build/

# %%
import numpy as np
import torch
from torch.nn import functional as F

from qwen3_codec.course import EXERCISES, check, progress, solution
from qwen3_codec.course.exercises.attention import rotate, window_attention
from qwen3_codec.course.exercises.parity_test import CLOSE, schedules

if BUILD:
    os.environ["QWEN3_CODEC_BUILD"] = BUILD
assert sum(exercise.notebook == "12_capstones" for exercise in EXERCISES.values()) == 9
progress()

# %% [markdown]
# ## 1. How long is the history?
#
# A causal convolution with a kernel of `kernel` taps, `dilation` apart, makes one step for every `stride` new samples. How many *earlier* samples
# does it need?


# %% tags=["exercise"]
def history_length(kernel, dilation, stride):
    return kernel - 1


check("history length", history_length)

# %%
solution("history length")

# %% [markdown]
# ## 2. How much of it is valid?
#
# A design with look-ahead holds the last `lookahead` frames of `pending` [1, T] back, but for the last call, where `is_last` is above 0.5. Give what a client
# can play, and how much of it is valid, as an int64 tensor [1]. What you give may be longer than what is valid. It must work as
# a graph from both exporters, so no length may depend on what a tensor *holds*.


# %% tags=["exercise"]
def deliver(pending, is_last, lookahead):
    held = 0 if is_last.item() > 0.5 else lookahead
    ready = pending[:, : pending.size(1) - held]
    return ready, torch.tensor([ready.size(1)])


check("valid samples", deliver)

# %%
solution("valid samples")

# %% [markdown]
# ## 3. Stream a transposed convolution
#
# The outputs of a transposed convolution overlap: a kernel of `kernel` samples is laid down every `stride`. The one-shot layer gives `stride` samples for each
# input and drops what is left over at the end. Write it for a stream: `start(batch)` gives the state of a stream that has seen
# nothing, a call takes an input [B, C, N] and the state, and gives N · stride samples and the next state. Any kernel, any stride.
#
# The code carries the overlapping *output* over. Where does the bias go?


# %% tags=["exercise"]
class TransposedStep:
    def __init__(self, conv):
        self.conv, self.rest = conv, conv.kernel_size[0] - conv.stride[0]

    def start(self, batch):
        return torch.zeros(batch, self.conv.out_channels, self.rest)

    def __call__(self, x, past):
        y = self.conv(x)
        y = torch.cat([y[:, :, : self.rest] + past, y[:, :, self.rest :]], dim=2)
        end = y.size(2) - self.rest
        return y[:, :, :end], y[:, :, end:]


check("transposed", TransposedStep)

# %%
solution("transposed")

# %% [markdown]
# ## 4. Keep keys and positions right past the window
#
# One head of attention in a stream: queries, keys and values `q`, `k`, `v` [B, N, D] of this call, `past_k` and `past_v` of the calls before. A query looks at itself
# and at the `window` − 1 steps before it. You have `rotate(x, positions)` (RoPE) and `window_attention(q, k, v, window)`, where the queries
# stand at the end of the keys. Give the result, and the keys and values to keep: never more than a window of them.


# %% tags=["exercise"]
def attention_step(q, k, v, past_k, past_v, window):
    positions = past_k.size(1) + torch.arange(q.size(1))
    k = torch.cat([past_k, rotate(k, positions)], dim=1)
    v = torch.cat([past_v, v], dim=1)
    y = window_attention(rotate(q, positions), k, v, window)
    return y, k[:, -(window - 1) :], v[:, -(window - 1) :]


check("keys and positions", attention_step)

# %%
solution("keys and positions")

# %% [markdown]
# ## 5. Put rows of different ages under one mask
#
# Several streams share a call. Each row has `past` stored keys, of which the last `real[row]` are real, then `new` ones. Give the mask
# [B, new, past + new] of booleans: may this query look at this key?


# %% tags=["exercise"]
def visible(past, new, window, real):
    places = torch.arange(past + new)
    distance = places[past:, None] - places
    inside = (distance >= 0) & (distance < window)
    return inside.expand(len(real), new, past + new)


check("rows of different ages", visible)

# %%
solution("rows of different ages")

# %% [markdown]
# ## 6. Count steps, not frames
#
# A codec upsamples before its attention, so that a frame makes `steps_per_frame` steps. The stream carries `past_frames` [B, 1]. Give the number of stored *steps* that are real,
# as the mask wants it (at most `window` − 1 are stored), and the count for the next call after `new_frames` more. The count must not grow for ever, and it may
# not stop before the window is full.


# %% tags=["exercise"]
def count_steps(past_frames, new_frames, steps_per_frame, window):
    return past_frames, (past_frames + new_frames).clamp(max=window - 1)


check("steps and frames", count_steps)

# %%
solution("steps and frames")

# %% [markdown]
# ## 7. Give names that pair
#
# Triton pairs states by sorted name, whatever its configuration says: it sorts the names of the inputs, sorts those of the outputs, and takes what comes out under the
# first name for what goes in under the first at the next call, and so on ([10 · States are paired by sorted name](10_many_streams.ipynb#3.-States-are-paired-by-sorted-name,-whatever-the-configuration-says)). Name the states of a codec with `convs` convolutions and `layers` layers of keys and of values, and a counter: a list of
# (name, name of what comes out), the counter first, then the convolutions, then the keys, then the values. Sorted, the convolutions must stay in the
# order of the data.


# %% tags=["exercise"]
def state_names(convs, layers):
    names = [("frames", "next_frames")]
    names += [(f"pre_conv_{i}", f"next_pre_conv_{i}") for i in range(convs)]
    names += [(f"past_{kind}_{i}", f"next_{kind}_{i}") for kind in ("key", "value") for i in range(layers)]
    return names


check("names that pair", state_names)

# %%
solution("names that pair")

# %% [markdown]
# ## 8. Write a twin for a block that nobody described
#
# You get a block, and its code:
#
#     def forward(self, x):
#         (kernel,), (dilation,), (stride,) = self.conv.kernel_size, self.conv.dilation, self.up.stride
#         y = F.gelu(self.conv(F.pad(x, (dilation * (kernel - 1), 0))))
#         return self.up(y)[:, :, : stride * x.size(2)] + x.repeat_interleave(stride, dim=2)
#
# (`up` is a transposed convolution with a kernel of 2 · stride.) Write its streaming twin: `start(batch)` gives a tuple of states, a call takes x and the states and gives y
# and the next states. The check also loses each of your states in turn. The loss must show: a state that does nothing does not belong there.


# %% tags=["exercise"]
class StreamingBlock:
    def __init__(self, block):
        self.block = block
        self.left_context = block.conv.dilation[0] * (block.conv.kernel_size[0] - 1)

    def start(self, batch):
        channels = self.block.conv.in_channels
        return torch.zeros(batch, channels, self.left_context), torch.zeros(batch, channels, 1)

    def __call__(self, x, past, before):
        stride = self.block.up.stride[0]
        joined = torch.cat([past, x], dim=2)
        y = F.gelu(self.block.conv(joined))
        made = self.block.up(y)[:, :, : stride * y.size(2)]
        return made + x.repeat_interleave(stride, dim=2), joined[:, :, x.size(2) :], before


check("twin", StreamingBlock)

# %%
solution("twin")

# %% [markdown]
# ## 9. Write the proof
#
# Ten graphs of one small codec; eight are wrong: a clamp too many, a state off by one, a frozen batch, positions that saturate, and so on. Write the check.
# It gets `run(x, states)`, which gives the output [B, 2N] and the next states, or raises where the graph refuses; `zeros(batch)`, the states at the start; `x` [2, 24]
# and the right result for it, `wanted` [2, 48]. For a graph that is right it returns `None`, for a wrong one the shortest cut into chunks
# that shows it: `[2, 1]` says that after a call with 2 frames and one with 1 more, something is off. (The graphs are causal, so the beginning of
# `wanted` is what the beginning of `x` must give.)
#
# `schedules()` lists every way to cut up to eight frames into chunks, the shortest first, `schedules(3)` up to three. Do not count on bits: a right graph
# may add in another order.

# %%
print([*schedules(3)])


# %% tags=["exercise"]
def judge(run, zeros, x, wanted):
    y, _ = run(x[:1], zeros(1))
    return None if np.abs(y - wanted[:1]).max() < CLOSE else [x.shape[1]]


check("the proof", judge)

# %%
solution("the proof")

# %% [markdown]
# ## How far you are

# %%
progress()

# %% [markdown]
# ## What you can do now
#
# - Whoever has solved these can write every part of a streaming export, and can tell a right one from a wrong one.
# - [12 · Another codec](11_another_codec.ipynb) puts the parts together on a model that this project did not write. Try it from its first section alone.
# - To begin anew, delete `exercises.json` in the build folder.
