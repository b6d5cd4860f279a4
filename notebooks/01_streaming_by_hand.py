# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1 · Streaming by hand: one layer at a time, in plain PyTorch
#
# A codec's decoder is a row of layers, and streaming it comes down to one question for each of them: how does it get across the border between two chunks? This page
# answers that for five kinds of layer, with numbers so small that you can check every border by eye. Then it puts three of them together into a toy codec, exports the toy, and runs it in ONNX
# Runtime. It uses nothing of this project: all the code is on the page. The rest of the course is the same at full size.
#
# After this page you can
#
# 1. say of a convolution, a strided one, a transposed one, sliding-window attention and an LSTM what must be carried from one chunk to the next, how long it is, and what it is at the start,
# 2. write each of them as a streaming step in a few lines of PyTorch,
# 3. export a step to ONNX, read the exporter's warnings, and say what it costs not to,
# 4. test the graph against the full sequence, and show that the test could have failed.
#
# You need to read PyTorch, and to know what a convolution and attention compute. It takes 30 minutes, and 15 more for two exercises.
#
# Five words before we begin (the [glossary](guide/glossary.md) has them all). A **frame** is one place on the time axis of what a layer works on (from page 2 on it is the codes of 80 ms, and inside the model one frame can be many places). A **chunk** is the frames that arrive together, in one call. The **full sequence** is all frames in
# a single call, and what a layer makes of it is right by definition. A **state** is what a layer carries from one call to the next. A **streaming step** takes a chunk and the state, and gives the
# output for this chunk and the next state. A step is *exact* if its outputs, joined, equal the full sequence's, whatever the lengths of the chunks.

# %% tags=["parameters"]
SEED = 0  # of the toy codec's weights and codes; what this page says holds for any

# %%
import io
import logging
import sys
import warnings
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import torch
from torch.nn import functional as F

# %% [markdown]
# ## Helpers
#
# `stream` is all that a client does: it cuts the input, calls the step, hands the state on, and joins what comes out. The list of chunk lengths is the **chunk schedule**. Time is the last axis.


# %%
torch.set_grad_enabled(False)  # nothing is trained here


def stream(step, x, state, lengths):
    outputs = []
    for chunk in x.split(lengths, dim=-1):
        y, state = step(chunk, state)
        outputs.append(y)
    return torch.cat(outputs, dim=-1)


# %% [markdown]
# `compare` prints one row for the input and one for each way to run a layer: on the full sequence, *cut naively* (the layer is called on each chunk as if nothing had come before), and with any steps that we give it. **A bar is a chunk border, and a
# star follows each number that differs from the full sequence's.** It returns the names of the rows that are right, so that an `assert` can hold them. (How it prints does not matter for the rest.)


# %%
def print_row(label, y, right, lengths):
    borders = [int(end * right.size(-1) / sum(lengths)) for end in np.cumsum(lengths)[:-1]]
    y, right = F.pad(y, (0, right.size(-1) - y.size(-1)), value=np.nan).flatten(), right.flatten()  # nan: missing
    bars = ["|" if place in borders else " " for place in range(len(y))]
    stars = ~torch.isclose(y, right, atol=1e-3)
    text = "".join(f"{bar}{round(n, 1):3g}{' *'[star]}" for bar, n, star in zip(bars, y.tolist(), stars))
    print(f"{label:24}{text}")
    return "*" not in text


def compare(layer, x, lengths, *steps):
    full, naive = layer(x), torch.cat([layer(chunk) for chunk in x.split(lengths, dim=-1)], dim=-1)
    print()
    print_row("input", x, x, lengths)
    rows = {"full sequence": full, "cut naively": naive}
    rows |= {label: stream(step, x, state, lengths) for label, step, state in steps}
    return [label for label, y in rows.items() if print_row(label, y, full, lengths)][1:]


# %% [markdown]
# ## 1. Causal convolution: the state is the left context
#
# A convolution is **causal** if an output depends on inputs up to its own frame and on none after it. One gets that by padding the input on the left alone, with k − 1 zeros for a kernel of k numbers. Ours
# has three, and the oldest input counts double: `y[t] = 2·x[t−2] + x[t−1] + x[t]`. Here are eight frames, cut into chunks of 3, 1 and 4.
#
# > **Predict.** Each chunk is padded with zeros of its own. Which outputs are wrong?
#
# <details><summary>Answer</summary>The first two of each chunk after a border, because those two look past it and find zeros where frames have already arrived. A chunk of one frame has only one output, so it is
# wrong altogether.</details>

# %%
x = torch.tensor([[[2.0, 0, 1, 1, 0, 2, 1, 2]]])  # [batch, channels, time]
weight = torch.tensor([[[2.0, 1, 1]]])  # the oldest input's weight first


def causal(x, dilation=1):
    return F.conv1d(F.pad(x, (2 * dilation, 0)), weight, dilation=dilation)


assert not compare(causal, x, [3, 1, 4])

# %% [markdown]
# **What is missing** are the last k − 1 inputs before the border: the **left context**. So they are the state. A step puts them in front of the chunk, where the padding was, and keeps the last k − 1 of the two together
# for the next call. At the start of a stream the state is zeros, because the full sequence is padded with zeros.


# %%
def causal_step(x, state, weight, bias=None, **options):
    """x [B, C, T] and its left context [B, C, d·(k - 1)] -> y [B, C', T] and the next left context."""
    x = torch.cat([state, x], dim=2)
    return F.conv1d(x, weight, bias, **options), x[:, :, x.size(2) - state.size(2) :]


step, zeros = partial(causal_step, weight=weight), torch.zeros(1, 1, 2)
assert compare(causal, x, [3, 1, 4], ("with left context", step, zeros)) == ["with left context"]

# %% [markdown]
# The figure shows the first six frames as boxes, one call below the other.

# %%
STATE, CHUNK, OUTPUT = ({"facecolor": c, "linestyle": s} for c, s in [("#f5e6a8", "--"), ("#cfe3f5", "-"), ("w", "-")])


def boxes(axes, level, first, numbers, style):
    for place, number in enumerate(numbers.flatten().tolist(), first):
        axes.text(place, level, f"{number:g}", ha="center", bbox={"boxstyle": "square,pad=0.4", **style}, size=11)


figure, panels = plt.subplots(1, 2, figsize=(8.3, 5), layout="constrained")
for axes, length in zip(panels, [1, 3]):
    state = torch.zeros(1, 1, 2)
    for call, chunk in enumerate(x[:, :, :6].split(length, dim=2)):
        boxes(axes, -2.5 * call, length * call - 2, state, STATE)
        boxes(axes, -2.5 * call, length * call, chunk, CHUNK)
        y, state = causal_step(chunk, state, weight)
        boxes(axes, -2.5 * call - 1, length * call, y, OUTPUT)
    axes.set(xlim=(-2.6, 5.6), ylim=(-14.2, 0.8), xticks=range(6), yticks=[], title=f"frames, in chunks of {length}")

# %% [markdown]
# **Figure.** The convolution above, without trained weights. Each pair of lines is one call: above, the state (dashed) and the chunk (solid); below, the outputs. Read each output as 2, 1, 1 times the three boxes that end right above it. The
# dashed boxes are always the two inputs just before the chunk. With chunks of 1, a state is made from two chunks, because a chunk is shorter than the state.
#
# > **Trap.** `state = chunk[:, :, -2:]` looks right, and for chunks of two frames or more it is. A chunk of one frame leaves a state of one. Therefore take the next state from state and chunk *together*. And do not write
# > `x[:, :, -n:]` for an n that may be 0: with a kernel of 1 it keeps everything, because `-0` is `0`.
#
# With a **dilation** d, the kernel's numbers stand d frames apart. So the left context is d·(k − 1) frames long, here 4, and the step is the same one.

# %%
step = partial(causal_step, weight=weight, dilation=2)
right = compare(partial(causal, dilation=2), x, [3, 1, 4], ("with left context", step, torch.zeros(1, 1, 4)))
assert right == ["with left context"]

# %% [markdown]
# ### A checker for the exercises
#
# It streams your step by three schedules and says in which *case* it differs, what it *found*, and the *likely* cause.

# %%
LIKELY = {12: "the state at the start", 4: "not all is carried over a border", 1: "a chunk is shorter than its state"}


def check(name, layer, step, state, x):
    for length, likely in LIKELY.items():
        try:
            error = (stream(step, x, state, [length] * (12 // length)) - layer(x)).abs().amax(dim=(0, 1))
            found = f"frame {(error > 1e-4).nonzero()[0, 0]} is wrong" if error.max() > 1e-4 else ""
        except Exception as problem:  # whatever your step raises is told as a case
            found = f"{type(problem).__name__}: {problem}"
        if found:
            return print(f"✗ {name}: not yet. Case: chunks of {length}. Found: {found}. Likely: {likely}.")
    print(f"✓ {name}: right in all cases.")


# %% [markdown]
# ### Exercise: residual block ●○○ · 5 min
#
# `block` is the residual block of many codecs: two causal convolutions, each after an ELU, and the input added to their result. The step below runs and is wrong. Which states does it need? `EMPTY` is
# the state at the start of a stream. *Needs:* section 1.

# %% tags=["exercise"]
EMPTY = torch.zeros(1, 1, 2)


def block(x):
    return x + causal(F.elu(causal(F.elu(x))))


def block_step(x, state):
    y, state = causal_step(F.elu(x), state, weight)
    return x + causal(F.elu(y)), state


check("residual block", block, block_step, EMPTY, torch.arange(12.0).view(1, 1, 12).sin())

# %% [markdown]
# <details><summary>Solution</summary>
#
# Each convolution has a left context of its own input, which is what the ELU before it gives. The ELUs and the sum work frame by frame, so they have no state. ELU(0) is 0, therefore both contexts begin with zeros.
#
# ```python
# EMPTY = torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)
#
#
# def block_step(x, state):
#     y, first = causal_step(F.elu(x), state[0], weight)
#     y, second = causal_step(F.elu(y), state[1], weight)
#     return x + y, (first, second)
# ```
#
# </details>
#
# ## 2. Strided convolution: the state's length can change
#
# An encoder shortens its sequence with a **stride** s: here the kernel has 4 numbers and moves 2 frames at a time, so two inputs give one output. The full sequence is padded with k − s = 2 zeros on the left.
#
# > **Predict.** Suppose that the state is always the last k − s = 2 inputs. For which chunk lengths is that enough?
#
# <details><summary>Answer</summary>For multiples of the stride. After a chunk of 3, one input has arrived that still waits for its partner. If it is not kept as well, all later outputs are a frame out of step.</details>

# %%
weight4 = torch.tensor([[[1.0, 2, 1, 1]]])


def strided(x):
    return F.conv1d(F.pad(x, (2, 0)), weight4, stride=2)


step = partial(causal_step, weight=weight4, stride=2)
for lengths, right in [([2, 4, 2], ["the last 2 kept"]), ([3, 3, 2], [])]:
    assert compare(strided, x, lengths, ("the last 2 kept", step, zeros)) == right

# %% [markdown]
# **What is missing** in the second schedule is the input that waits; one output does not even come (`nan`). So the rule is: count the outputs that are ready, move on by as many strides, and keep *everything* from there. Then the state's
# length is k − s plus what waits, between k − s and k − 1.


# %%
def strided_step(x, state, weight, stride, bias=None, dilation=1):
    """x [B, C, T] and the inputs that are still needed -> the outputs that are ready, and what is needed next."""
    x, span = torch.cat([state, x], dim=2), dilation * (weight.size(2) - 1) + 1
    ready = (x.size(2) - span + stride) // stride
    y = F.conv1d(x, weight, bias, stride, 0, dilation) if ready else x.new_zeros(x.size(0), weight.size(0), 0)
    return y, x[:, :, ready * stride :]


step = partial(strided_step, weight=weight4, stride=2)
assert compare(strided, x, [3, 3, 2], ("with what waits", step, zeros)) == ["with what waits"]
assert torch.equal(stream(step, x, zeros, [1] * 8), strided(x))  # half of these chunks give no output at all

# %% [markdown]
# > **Why.** In a graph, a state whose length changes is one more dynamic axis, and the `if` above is lost (section 7). Codecs need neither, because they take whole frames of codes, and such a frame is a multiple of all strides. Then nothing ever waits, and the state of a strided convolution is a constant
# > k − s inputs, or d·(k − 1) + 1 − s with a dilation. So the step to *export* is `causal_step` with `stride=s`, which is exact if every chunk is a multiple of s; at another length its graph gives too few outputs, without an error. If your encoder must take any number of samples, let the client collect them until a frame is full.
#
# ## 3. Transposed convolution: overlap-add
#
# A decoder lengthens its sequence with **transposed convolutions**: each input, times the kernel, is laid down over k outputs, the next input s outputs further on, and what overlaps is added. Here k = 4 and s = 2. The causal layer gives s outputs for each input
# and drops the last k − s. Its bias, here 3, is added to every output.
#
# > **Predict.** Where are the wrong outputs this time, and what is missing in them?
#
# <details><summary>Answer</summary>The first k − s = 2 outputs after a border lack what the input before the border lays over them (unless that is 0). Zeros in front of the chunk would not bring it back: what was cut off is the *end* of an earlier input's share.</details>

# %%
notes = torch.tensor([[[2.0, 1, 0, 2]]])
kernel, bias = torch.tensor([[[1.0, 2, 2, 1]]]), torch.tensor([3.0])


def transposed(x):
    return F.conv_transpose1d(x, kernel, bias, stride=2)[:, :, : 2 * x.size(2)]


assert not compare(transposed, notes, [2, 1, 1])

# %% [markdown]
# **What is missing** is the **tail**: the last k − s numbers that a chunk lays down reach past its end, to where the next chunk adds its own. So the tail is the state, and it is zeros at the start. This is **overlap-add**. The bias belongs to an output and not to
# an input, therefore it is added once, when the output is complete, and the tail is kept without it.


# %%
def transposed_step(x, state, weight, bias, stride):
    """x [B, C, T] and the tail [B, C', k - s] -> y [B, C', T·s] and the next tail."""
    y = F.conv_transpose1d(x, weight, stride=stride)  # without the bias
    y, ready = y + F.pad(state, (0, y.size(2) - state.size(2))), x.size(2) * stride
    return y[:, :, :ready] + bias[:, None], y[:, :, ready:]


def bias_twice(x, state):
    y = F.conv_transpose1d(x, kernel, bias, stride=2)  # PyTorch adds the bias to the tail, too
    y = y + F.pad(state, (0, y.size(2) - 2))
    return y[:, :, : 2 * x.size(2)], y[:, :, 2 * x.size(2) :]


step = partial(transposed_step, weight=kernel, bias=bias, stride=2)
right = compare(transposed, notes, [2, 1, 1], ("bias twice", bias_twice, zeros), ("with the tail", step, zeros))
assert right == ["with the tail"]

# %% [markdown]
# In the row *bias twice*, whatever overlaps across a border is 3 too large.

# %%
figure, axes = plt.subplots(figsize=(8.3, 3.4), layout="constrained")
axes.set(xlim=(-0.6, 9.6), ylim=(-5, 0.8), xticks=range(10), yticks=[0.1, -0.9, -1.9, -2.9, -4.3])
axes.set(xlabel="output", yticklabels=[*(f"input {n:g} × (1 2 2 1)" for n in notes.flatten()), "sum + bias 3"])
axes.axvline(3.5, color="black")
for place, number in enumerate(notes.flatten()):
    boxes(axes, -place, 2 * place, number * kernel, CHUNK)
boxes(axes, -1, 4, notes[0, 0, 1] * kernel[:, :, 2:], STATE)
boxes(axes, -4.4, 0, transposed(notes), OUTPUT)

# %% [markdown]
# **Figure.** What each of four inputs lays down, and below it the sums with the bias; no trained weights. The border lies after the second input. The dashed boxes are laid down by the first chunk and needed after the border: they are the state, k − s = 2 numbers. The last two
# boxes of the fourth input lie beyond the end and would wait for a fifth.
#
# If the kernel is as long as the stride, an input lays nothing over its neighbour. Then the tail has k − s = 0 numbers, and the layer needs no state:

# %%
assert compare(lambda x: F.conv_transpose1d(x, kernel[:, :, :2], bias, stride=2), notes, [2, 1, 1]) == ["cut naively"]

# %% [markdown]
# > **Why.** Some code keeps the last ⌈k / s⌉ − 1 *inputs* and not the tail, lays them down again, and drops the outputs that were already given. That is as exact. The tail costs less work; the inputs are often fewer numbers, namely a single frame if k = 2s, where the tail has s.
#
# ## 4. Sliding-window attention: a pre-RoPE KV cache
#
# In **sliding-window attention** a frame looks at itself and at the W − 1 frames before it; here W = 4. **RoPE** (rotary position embedding) turns queries and keys by an angle that grows with their position, so that a score depends only on how far the two are
# *apart*.

# %%
WINDOW = 4


def rotate(x, position):
    """RoPE: pair i of x [B, T, D] is turned by position · 0.1 ** i radians."""
    (a, b), angle = x.chunk(2, dim=-1), position[:, None] * 0.1 ** torch.arange(x.size(-1) // 2)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


def masked(q, k, v, filled):
    """Queries [B, N, D] at the end of keys [B, S + N, D]; of the S before them the last `filled` are valid."""
    before, place = k.size(1) - q.size(1), torch.arange(k.size(1))
    distance = place[before:, None] - place
    seen = (distance >= 0) & (distance < WINDOW) & (place >= before - filled)
    return (q @ k.transpose(1, 2) / q.size(-1) ** 0.5).masked_fill(~seen, -1e9).softmax(dim=-1) @ v


def attend(q, k, v, filled=0):
    position = torch.arange(k.size(1))
    return masked(rotate(q, position[k.size(1) - q.size(1) :]), rotate(k, position), v, filled)


# %% [markdown]
# To have digits again, we build a head whose keys are all alike and whose query asks for what is 3 frames back. Its score is largest at distance 3, and then at 2, 1 and 0. The softmax is so sharp that it takes a single value, so the head *copies*: the value from three
# frames ago, or the oldest there is.
#
# > **Predict.** The values are the digits 1 to 9. What does each chunk copy if it cannot see the others?
#
# <details><summary>Answer</summary>Its own first value, until it is more than three frames into the chunk: it sees nothing older.</details>

# %%
digits = torch.arange(1.0, 10).view(1, 1, 9)
QUERY, KEY = 80 * torch.tensor([[[np.cos(3.0), -np.sin(3.0)]]]).float(), torch.tensor([[[1.0, 0]]])


def copy_head(x):
    return QUERY.expand(1, x.size(2), 2), KEY.expand(1, x.size(2), 2), x.transpose(1, 2)


def copied(x):
    return attend(*copy_head(x)).transpose(1, 2)


assert not compare(copied, digits, [1, 3, 5])

# %% [markdown]
# **What is missing** are the keys and values of the last W − 1 frames. They are the state, the **KV cache**. Two things make it exact.
#
# - **Keys are stored as they were before RoPE (pre-RoPE).** In each call all of them are rotated anew, at positions counted within this call: the oldest slot is at 0. Because only distances count, it does not matter that a frame's position is different in each call.
# - **The filled slots are counted.** The cache has W − 1 slots from the start, and one that is still empty holds zeros. A key of zeros is not "no key": it scores 0, and softmax gives 0 a weight like any other number. So the mask leaves out the slots that nothing has filled, and the count is part of the state.


# %%
def attention_step(q, k, v, keys, values, filled):
    """q, k, v [B, N, D], W - 1 cached keys and values, how many are valid [B, 1, 1] -> y and the next three."""
    new, k, v = q.size(1), torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)
    return attend(q, k, v, filled), k[:, new:], v[:, new:], (filled + new).clamp(max=WINDOW - 1)


def copy_step(x, state, attention=attention_step):
    y, *state = attention(*copy_head(x), *state)
    return y.transpose(1, 2), state


empty, pretended = ((torch.zeros(1, 3, 2), torch.zeros(1, 3, 1), torch.full((1, 1, 1), n)) for n in (0, WINDOW - 1))
steps = ("empty slots as keys", copy_step, pretended), ("with a KV cache", copy_step, empty)
assert compare(copied, digits, [1, 3, 5], *steps) == ["with a KV cache"]

# %% [markdown]
# The row *empty slots as keys* copies their zeros while the cache fills, and is right ever after. So a test in the middle of a stream does not find this mistake. The count has a number for each row of a batch, so that streams that are at different places can share a call.
#
# ### A post-RoPE cache ties each key to a position
#
# Many models store keys *after* RoPE (**post-RoPE**), because then each key is rotated only once. But a stored key keeps the angle of the position that it came with, so the next query must count on from there, and the
# count grows for as long as the stream lasts. If the count is read off the cache's length instead, it stops when the cache is full: positions **saturate**.


# %%
def post_rope(q, k, v, keys, values, count, saturating=False):
    new, filled = q.size(1), count.clamp(max=WINDOW - 1)
    position = (filled if saturating else count).flatten() + torch.arange(new)
    k, v = torch.cat([keys, rotate(k, position)], dim=1), torch.cat([values, v], dim=1)
    return masked(rotate(q, position), k, v, filled), k[:, new:], v[:, new:], count + new


# %% [markdown]
# With chunks of 1 and W = 4, these are the positions of the frames in sight of the newest one:
#
# | frames in sight | pre-RoPE | post-RoPE, growing | post-RoPE, saturating |
# |---|---|---|---|
# | 0 1 2 **3** | 0 1 2 **3** | 0 1 2 **3** | 0 1 2 **3** |
# | 1 2 3 **4** | 0 1 2 **3** | 1 2 3 **4** | 1 2 3 **3** |
# | 2 3 4 **5** | 0 1 2 **3** | 2 3 4 **5** | 2 3 3 **3** |
# | 3 4 5 **6** | 0 1 2 **3** | 3 4 5 **6** | 3 3 3 **3** |
#
# Read the table as a ruler: with a pre-RoPE cache the marks 0 1 2 3 are laid at the frames in sight anew in each call. With a post-RoPE one the mark is written onto the frame itself when it comes, and marks grow. If positions saturate, each new frame gets the mark 3, and distances shrink to 0.
#
# > **Predict.** From which frame on are the saturating *distances* wrong, and from which one does the head copy the wrong digit?
#
# <details><summary>Answer</summary>The distances are wrong from frame 4 on (counted from 0), the first one past the window. But the oldest frame in sight still is the one with the smallest mark, so the head takes the right one, until all four marks are 3: at frame 6. A test that ends at the window finds nothing, and one that ends
# soon after it may not either. So test well past the window. (With four equal marks all four scores are equal, and the head gives the mean of the values: 5.5 is that of 4, 5, 6 and 7.)</details>

# %%
growing, saturating = (partial(copy_step, attention=partial(post_rope, saturating=s)) for s in (False, True))
steps = [("post-RoPE, growing", growing, empty), ("post-RoPE, saturating", saturating, empty)]
right = compare(copied, digits, [1] * 9, ("pre-RoPE", copy_step, empty), *steps)
assert right == ["pre-RoPE", "post-RoPE, growing"] and torch.tensor(2.0**24) + 1 == 2.0**24

# %% [markdown]
# Both the pre-RoPE cache and the growing post-RoPE one are right here. However, a growing position loses digits: in float32, `2**24 + 1` equals `2**24` (the last assertion), so at the latest then two neighbouring frames stand at the same place. A pre-RoPE position is
# never larger than W − 2 plus the chunk's length, however long the stream lasts. It costs W − 1 rotations a call.
#
# ## 5. LSTM: the state is h and c
#
# An **LSTM** carries two vectors from frame to frame: its output h and its cell c. In ours the gates are held open, so c adds up the inputs, and h = tanh(c). We print the sum that h stands for: this LSTM counts ones.
#
# > **Predict.** What does it say if it starts anew in each chunk? When does the error end?
#
# <details><summary>Answer</summary>It counts from 0 again. The error does not end: a convolution is right again after k − 1 frames, but what an LSTM knows has no last frame, so everything after the first lost border is wrong.</details>

# %%
lstm = torch.nn.LSTM(1, 1, batch_first=True)
gates = [0, 0, np.arctanh(0.1), 0] + [0] * 4 + [30, 30, 0, 30] + [0] * 4  # for x, for h, and the biases: i, f, g, o
torch.nn.utils.vector_to_parameters(torch.tensor(gates).float(), lstm.parameters())


def count_step(x, state=None):
    y, state = lstm(x.transpose(1, 2), state)
    return 10 * torch.atanh(y.transpose(1, 2)), state


# %% [markdown]
# **What is missing** are h and c of the last frame, [layers, batch, width] each. PyTorch's LSTM takes them and gives them back, so it already is its own step. At the start both are zeros. Below, we also set each of the two back to zeros, in turn.

# %%
start = torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)
steps = [("with h and c", count_step, start), ("without c", lambda x, s: count_step(x, (s[0], 0 * s[1])), start)]
steps += [("without h", lambda x, s: count_step(x, (0 * s[0], s[1])), start)]
right = compare(lambda x: count_step(x)[0], torch.tensor([[[1.0, 0, 1, 1, 0, 1, 1, 1]]]), [3, 1, 4], *steps)
assert right == ["with h and c", "without h"]

# %% [markdown]
# The row *without h* is right, although half of the state was lost. These weights make nothing of the old h, so no test on them can tell whether it is carried. Keep that in mind for section 9: **a state whose loss does not show has not been tested.**
#
# ### Exercise: two LSTM layers and a skip ●●○ · 10 min
#
# `rnn` is what EnCodec has between its convolutions: two LSTM layers, and their input added to their output. The step below runs and is wrong. Mend it, and say what `BEGIN` must be. *Needs:* section 5, and the shapes of the states of `torch.nn.LSTM`.

# %% tags=["exercise"]
two_layers, BEGIN = torch.nn.LSTM(3, 3, num_layers=2, batch_first=True), torch.zeros(1, 1, 3)


def rnn(x):
    return x + two_layers(x.transpose(1, 2))[0].transpose(1, 2)


def rnn_step(x, state):
    y, (h, _) = two_layers(x.transpose(1, 2), (state.repeat(2, 1, 1), torch.zeros(2, 1, 3)))
    return x + y.transpose(1, 2), h[-1:]


check("two LSTM layers", rnn, rnn_step, BEGIN, 3 * torch.arange(36.0).view(1, 3, 12).sin())

# %% [markdown]
# <details><summary>Solution</summary>
#
# Each layer has an h and a c of its own, and all four go on. The skip works frame by frame, so it needs nothing.
#
# ```python
# BEGIN = torch.zeros(2, 1, 3), torch.zeros(2, 1, 3)
#
#
# def rnn_step(x, state):
#     y, state = two_layers(x.transpose(1, 2), state)
#     return x + y.transpose(1, 2), state
# ```
#
# </details>
#
# ## 6. A toy codec and its streaming step
#
# Here is a decoder of four layers. Codes (integers from 0 to 15, one a frame) become vectors by an **embedding**; then come a causal convolution, attention with a residual connection, and a transposed convolution that makes 4 samples of **waveform** from each frame. First the full sequence, as one would train it.


# %%
class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(16, 8)
        self.conv = torch.nn.Conv1d(8, 8, 3)
        self.qkv = torch.nn.Linear(8, 24)
        self.up = torch.nn.ConvTranspose1d(8, 1, 8, stride=4)

    def forward(self, codes):
        x = torch.tanh(self.conv(F.pad(self.embed(codes).transpose(1, 2), (2, 0))))
        q, k, v = self.qkv(x.transpose(1, 2)).chunk(3, dim=-1)
        x = x + attend(q, k, v).transpose(1, 2)
        return torch.tanh(self.up(x)[:, :, : 4 * codes.size(1)])


# %% [markdown]
# And this is the same decoder as a streaming step. It is the `forward` above, in which each layer that needs earlier frames has been replaced by its step from sections 1, 4 and 3. The embedding, the linear layer, the sum and `tanh` work frame by frame and stay as they are. A graph remembers nothing between two calls,
# so the states are **explicit**: five more inputs, and five more outputs in the same order.


# %%
class ToyStep(Toy):
    def forward(self, codes, conv, keys, values, filled, tail):
        x, conv = causal_step(self.embed(codes).transpose(1, 2), conv, self.conv.weight, self.conv.bias)
        x = torch.tanh(x)
        q, k, v = self.qkv(x.transpose(1, 2)).chunk(3, dim=-1)
        y, keys, values, filled = attention_step(q, k, v, keys, values, filled)
        y, tail = transposed_step(x + y.transpose(1, 2), tail, self.up.weight, self.up.bias, 4)
        return torch.tanh(y), conv, keys, values, filled, tail


STATES = {"conv": (8, 2), "keys": (WINDOW - 1, 8), "values": (WINDOW - 1, 8), "filled": (1, 1), "tail": (1, 4)}
START = [torch.zeros(1, *shape, dtype=torch.int64 if name == "filled" else None) for name, shape in STATES.items()]

# %% [markdown]
# We stream 24 frames, well past the window of 4, by four schedules, and print for each the largest difference from the full sequence. The outputs are no integers any more, so "equal" now means "equal up to float32 rounding": another chunk length adds up the same sums in another order.

# %%
torch.manual_seed(SEED)
toy, toy_step = Toy().eval(), ToyStep().eval()
toy_step.load_state_dict(toy.state_dict())
codes = torch.randint(0, 16, (1, 24))
full = toy(codes)
SCHEDULES = {"chunks of 1": [1] * 24, "chunks of 3": [3] * 8, "mixed": [7, 1, 2, 9, 5], "one call": [24]}


def run(chunk, state, model):
    y, *state = model(chunk, *state)
    return y, state


def errors(name, model):
    step = partial(run, model=model)
    found = {label: float((stream(step, codes, START, n) - full).abs().max()) for label, n in SCHEDULES.items()}
    print(f"{name:18}", *(f"{label} {error:.0e}" for label, error in found.items()), sep="   ")
    return [label for label, error in found.items() if error < 1e-5]


assert errors("ToyStep, PyTorch", toy_step) == [*SCHEDULES]

# %% [markdown]
# ## 7. Export, with its warnings
#
# `torch.onnx.export` runs the step on an example and writes down what happens as a graph. An axis whose length may differ later has to be named a **dynamic axis**: here the frames. (The batch is one in the same way; we leave it at 1.) The TorchScript exporter (`dynamo=False`) **traces**: it records tensor operations only. While it does, `codes.size(1)` is such an operation, so it stays
# one in the graph; but `int(codes.size(1))` is a Python number, which the graph can hold only as a constant. Our `export` collects the warnings, and prints them.


# %%
INPUTS, OUTPUTS = ["codes", *STATES], ["waveform", *(f"next_{name}" for name in STATES)]


def run_graph(*tensors, session):
    inputs = {name: tensor.numpy() for name, tensor in zip(INPUTS, tensors)}
    return map(torch.from_numpy, session.run(None, inputs))


def export(step, **options):
    """The graph of a step, from an example of 3 frames, ready to run in ONNX Runtime."""
    file = io.BytesIO()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.onnx.export(step, (codes[:, :3], *START), file, input_names=INPUTS, output_names=OUTPUTS, **options)
    for warning in said:
        print(f"{type(step).__name__} · {warning.category.__name__}: {str(warning.message)[:186]}")
    return partial(run_graph, session=onnxruntime.InferenceSession(file.getvalue()))


# %% [markdown]
# We export the step above, and beside it a `NaiveStep` that differs in one thing: it adds the number of new frames to `filled` as a Python integer. In PyTorch that is the same number.
#
# > **Predict.** Does the export of `NaiveStep` fail, warn, or do neither?
#
# <details><summary>Answer</summary>It warns, with one line among others, and writes the graph.</details>


# %%
class NaiveStep(ToyStep):
    def forward(self, codes, conv, keys, values, filled, tail):
        *others, _, tail = super().forward(codes, conv, keys, values, filled, tail)
        return *others, (filled + int(codes.size(1))).clamp(max=WINDOW - 1), tail


naive_step = NaiveStep().eval()
naive_step.load_state_dict(toy.state_dict())
axes = {"codes": {1: "frames"}, "waveform": {2: "samples"}}
graph, naive_graph = (export(step, dynamo=False, dynamic_axes=axes) for step in (toy_step, naive_step))

# %% [markdown]
# The two deprecation warnings are about the exporter itself and come with every TorchScript export. The `TracerWarning` is the one that counts: *this value will be treated as a constant*. In the graph, each call now adds 3, as in the example.
#
# ## 8. Parity in ONNX Runtime
#
# **Parity** means that the graph gives what the model gives. Because `stream` takes any step, the test is the same as before.
#
# > **Predict.** Which of the four schedules does the graph of `NaiveStep` get wrong?
#
# <details><summary>Answer</summary>Chunks of 1 alone. There, the count says 3 after the first frame, when two of the three slots are still empty. In the other schedules the first chunk has 3 frames or more, so it fills the cache anyway.</details>

# %%
assert errors("NaiveStep, PyTorch", naive_step) == [*SCHEDULES]
assert errors("ToyStep, graph", graph) == [*SCHEDULES]
assert errors("NaiveStep, graph", naive_graph) == ["chunks of 3", "mixed", "one call"]

# %% [markdown]
# In PyTorch both steps are exact. Only the graph is wrong, only in one schedule, and only while the cache fills. So read the warnings, and test the *graph*, with chunks of 1 and at other lengths than the example's.
#
# The newer exporter (`dynamo=True`) takes a size as a symbol, and here even its `int()` stays one. Its `dynamic_shapes` has an entry for each input. It also writes to a log, which the first line sends to this page.

# %%
logging.getLogger("torch.onnx").handlers = [logging.StreamHandler(sys.stdout)]
shapes = ({1: "frames"}, *[{}] * len(STATES))
assert errors("dynamo", export(naive_step, dynamo=True, verbose=False, dynamic_shapes=shapes)) == [*SCHEDULES]

# %% [markdown]
# ## 9. State ablation: could the test have failed?
#
# A test that passes speaks only for what it would have noticed. So we break the stream on purpose. In a **state ablation**, one state after the other is set back to zeros after every call, while all else stays as it is. Below is a mark for each frame: × if it has a wrong sample.
#
# > **Predict.** With chunks of 8: where are the first wrong frames, and which state's loss is the shortest? And what if all 24 frames come in one call?
#
# <details><summary>Answer</summary>They are at frame 8, the first after a border. The tail's loss is the shortest: one frame, because only k − s = 4 samples overlap. In one call no state is ever read, so nothing is found at all: a test without a border tests no streaming.</details>


# %%
def forgetful(chunk, state, lost):
    y, state = run(chunk, state, graph)
    return y, [tensor * (name != lost) for name, tensor in zip(STATES, state)]


for lost in STATES:
    for lengths in ([8] * 3, [24]):
        error = (stream(partial(forgetful, lost=lost), codes, START, lengths) - full).abs().view(24, 4).amax(dim=1)
        marks = "".join("·×"[int(number > 1e-4)] for number in error)
        print(f"{lost:8}{len(lengths)} call(s)   {marks}   {error.max():.0e}")
        assert ("×" in marks) == (len(lengths) > 1)

# %% [markdown]
# The pattern tells which layer lost its state. Without the tail, one frame is wrong. Without the keys, the values or their count, W − 1 = 3 frames are wrong, and the tail carries that into a fourth. Without the left context it is most, because two frames are wrong, then attention looks at those for three more, and the tail carries that into a sixth. In a large model one
# finds the guilty layer in the same way: **errors that begin at a border tell that a state is at fault, and the number of wrong frames tells which layer's**, if a chunk is longer than what the layers reach, as here, and no LSTM comes after the layer (behind one, everything is wrong). Keys, values and count have the same marks, because they belong to one layer: which of
# them it is, one sees only by comparing the states themselves.
#
# ## 10. The recipe
#
# | layer | state | length | at the start |
# |---|---|---|---|
# | embedding, linear, activation, sum, norm over channels, kernel of 1 | none | | |
# | causal convolution | the last inputs (left context) | d·(k − 1) | zeros, if the full sequence is padded with zeros |
# | strided convolution | the inputs that the next output needs | d·(k − 1) + 1 − s, if chunks are multiples of s | the same |
# | transposed convolution | the tail without its bias, or the last ⌈k / s⌉ − 1 inputs | k − s outputs | zeros |
# | sliding-window attention | keys before RoPE, values; number of filled slots | W − 1; one integer | zeros; 0 |
# | LSTM (GRU) | h and c (h) of each layer | 1 | zeros |
# | anything else | what its next output needs of the past | cut there and see what is missing | what the full sequence assumes before its first frame |
#
# And the order of work:
#
# 1. List the layers with their padding, and see that each is causal. One that is padded on both sides looks into the future, and streams only with a delay.
# 2. Replace each layer that needs earlier frames by its step. Compare each step alone with its full sequence, in chunks of 1 among others (with strided layers: of the product of the strides).
# 3. Put the steps together, and compare well past the longest window.
# 4. Export, read the warnings, and compare the graph by several schedules.
# 5. Ablate each state. If a loss does not show, change the test until it does.
#
# Three hints, if you now try a codec such as EnCodec; the [trap catalogue](07_trap_catalogue.ipynb) has more.
#
# - Its convolutions carry weight norm. Fold it into the weights first (`torch.nn.utils.parametrize.remove_parametrizations(conv, "weight")`), or every call of the graph computes the norm again.
# - Its config may pad by mirroring (`pad_mode="reflect"`). Then the start of the sequence depends on frames that come later, and no constant first state is exact; with `"constant"`, zeros are.
# - An LSTM with h and c as inputs goes through the TorchScript exporter with seven `TracerWarning`s and a `UserWarning` about the batch size, and the graph is right all the same: the lines that they name are checks of shapes in
#   PyTorch's own `rnn.py`. So look at the file and the line that a warning names, and run the graph at other lengths. The dynamo exporter can stop at `aten.lstm`, or bake in the length, and then ONNX Runtime stops at another length with an error about a `Reshape`
#   ([page 11](11_another_codec.ipynb) has a way that suits both). For a dynamic batch, mind that the batch of h and c is axis 1.
#
# ## What you can do now
#
# - Say for five kinds of layer what their state is, how long it is and how it begins.
# - Write the streaming step of a small codec, export it, and read what the exporter says.
# - Compare a graph with the full sequence by several chunk schedules, past the window, and show by state ablation that the comparison can fail.
#
# **Next:** [2 · Read a codec](02_inspect_dims.ipynb), because a real codec has the same layers, and one has to know its dimensions before one can write down its states.
