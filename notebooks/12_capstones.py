# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 12 · Capstones: an unknown block, and a parity test of your own
#
# Two larger exercises put the others together. As on the other pages the code below runs and is wrong; you change it, and `check` tries it on lengths, [chunk schedules](guide/glossary.md#chunk-chunk-schedule) and rows that you would try too. It
# says in which case it fails, by how much, which mistake it looks like, and gives a hint; a second try gets a second hint. As shipped, neither is solved.
#
# After this page you can
#
# 1. write the [streaming counterpart](guide/glossary.md#streaming-counterpart) of a block that nobody described,
# 2. write a [parity test](guide/glossary.md#parity) that accepts right graphs and refuses wrong ones,
# 3. see which of the other exercises are left.
#
# *Prerequisites:* [1 · Streaming by hand](01_streaming_by_hand.ipynb) to [5 · Verify in ONNX Runtime](05_verify_onnxruntime.ipynb). About 45 minutes.

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
from qwen3_codec.course.exercises.parity_test import CLOSE, schedules

if BUILD:
    os.environ["QWEN3_CODEC_BUILD"] = BUILD

# %% [markdown]
# ## 1. The streaming counterpart of an unknown block
#
# ### Exercise: streaming counterpart ●●● · 25 min
#
# *Needs:* left context and transposed convolutions, from [1 · Streaming by hand](01_streaming_by_hand.ipynb). You get a block, and its code:
#
#     def forward(self, x):
#         (kernel,), (dilation,), (stride,) = self.conv.kernel_size, self.conv.dilation, self.up.stride
#         y = F.gelu(self.conv(F.pad(x, (dilation * (kernel - 1), 0))))
#         return self.up(y)[:, :, : stride * x.size(2)] + x.repeat_interleave(stride, dim=2)
#
# `up` is a transposed convolution with a kernel of 2 · stride. Write the block's streaming counterpart: `start(batch)` gives a tuple of states; a call takes x and the states, and gives y and the next
# states. The check also ablates each of your states in turn. The loss must show, because a state that does nothing does not belong there.


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


check("streaming counterpart", StreamingBlock)

# %%
solution("streaming counterpart")

# %% [markdown]
# ## 2. A parity test that accepts two graphs and refuses eight
#
# ### Exercise: parity test ●●● · 20 min
#
# *Needs:* negative controls and state ablation, from [5 · Verify in ONNX Runtime](05_verify_onnxruntime.ipynb). Here are ten graphs of one small codec. Eight are wrong: an extra clamp, a state off by one, a batch size baked in, positions that saturate,
# and so on. Write the test that tells them apart.
#
# It gets `run(x, states)`, which gives the output [B, 2N] and the next states, or raises if the graph refuses its input; `zeros(batch)`, the states at the start; `x` [2, 24] and the right result for it, `wanted` [2, 48]. For
# a right graph it returns `None`, for a wrong one the shortest chunk schedule that shows the fault: `[2, 1]` says that after a call with 2 frames and one with 1 more, something is off. (The graphs are causal, so the
# beginning of `wanted` is what the beginning of `x` must give.)
#
# `schedules()` lists every way to cut up to eight frames into chunks, the shortest first; `schedules(3)` does so up to three. Do not require bit-exact equality: a right graph may add in another order.

# %%
print([*schedules(3)])


# %% tags=["exercise"]
def refused_by(run, zeros, x, wanted):
    y, _ = run(x[:1], zeros(1))
    return None if np.abs(y - wanted[:1]).max() < CLOSE else [x.shape[1]]


check("parity test", refused_by)

# %%
solution("parity test")

# %% [markdown]
# ## 3. Your progress
#
# All exercises of the course, with the page that teaches each, its difficulty, and what is kept of your tries. To begin anew, delete `exercises.json` in the build folder.

# %%
progress()

# %% tags=["check"]
assert sum(exercise.notebook == "12_capstones" for exercise in EXERCISES.values()) == 2
assert [exercise.notebook for exercise in EXERCISES.values()] == sorted(e.notebook for e in EXERCISES.values())

# %% [markdown]
# ## What you can do now
#
# - Write every part of a streaming export, and tell a right one from a wrong one.
# - Do it to a model of your own: the end of [11 · Another codec](11_another_codec.ipynb) has a template for it.
#
# **Next:** your own model, because that is where it counts; [0 · Hear it](00_hear_it.ipynb) and the [catalogue of traps](07_trap_catalogue.ipynb) are there to come back to.
