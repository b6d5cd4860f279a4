# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 · Verify the wrapper in PyTorch, before any export
#
# A [streaming step](guide/glossary.md#streaming-step) takes one chunk of codes and the state of the stream; it gives audio and the next state. A wrong state is
# hard to find inside an ONNX file. So we read both of this project's steps line by line, and check them in PyTorch, before anything is exported. The module that holds such a step, with the decoder inside, is called the *wrapper*.
#
# After this page you can
#
# 1. read the step of the *windowed* design (21 inputs and 23 outputs at 8 layers) and that of the *exact* design,
# 2. say which state each kind of layer needs, and why a KV cache keeps its keys pre-RoPE,
# 3. compare a step with the full-sequence decoder: over chunk schedules, past the attention window, with batch rows at different offsets,
# 4. derive the limits of such a comparison from the rounding that you measure and the smallest mistake that you know,
# 5. tell an approximation from a mistake.
#
# *Needs:* [1 · Streaming by hand](01_streaming_by_hand.ipynb) for the layers one by one, [2 · Read a codec](02_inspect_dims.ipynb) for the receptive field.
# *Time:* 50 minutes, and an hour and a half for the six exercises.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
AUDIO = os.environ.get("QWEN3_CODEC_AUDIO", "")  # a recording of yours, to take the codes from
FRAMES = int(os.environ.get("QWEN3_CODEC_FRAMES", "0"))  # 0: past the attention window

# %%
from dataclasses import replace

import numpy as np
import torch
from IPython.display import display

from qwen3_codec import ExactStreamingWrapper, StatefulCodecONNXWrapper, TorchSession, find_states, one_shot, verify
from qwen3_codec.course import check, code, excerpt, fails_with, interface, plots, ruler, schematics, solution
from qwen3_codec.course.exercises.attention import rotate, window_attention
from qwen3_codec.course.pitfalls.state import SaturatingPositions
from qwen3_codec.model import checkpoint, conv_memory, conv_receptive_field
from qwen3_codec.runtime import chunks, max_error, mse, per_chunk, snr_db
from qwen3_codec.streaming import ConvStates, TraceableKVStack, layers, sliding_window_mask, stream_layers
from qwen3_codec.verification import MAX_ERROR, MAX_MSE, ONE_SHOT

# %%
loaded = checkpoint.load(CHECKPOINT, audio=AUDIO)
decoder = loaded.decoder
window, reach = decoder.config.sliding_window, conv_receptive_field(decoder)
codes = checkpoint.example_codes(loaded, FRAMES or max(60, window + 18))
print(f"weights: {loaded.weights}; codes {codes.shape} = [batch, frames, codebooks]")
print(f"attention window: {window} frames; receptive field of the convolutional decoder: {reach} frames")

# %% [markdown]
# ## 1. Two designs of one streaming step
#
# The decoder is a transformer with a convolutional decoder after it. Both designs keep the transformer's keys and values. They differ in what they keep for the convolutions:
#
# - The **windowed** design keeps the last few *latents*, which are the input of the convolutional decoder. Each call decodes them again
#   (they are [recomputed](guide/glossary.md#recomputed)) so that the convolutions have a [left context](guide/glossary.md#left-context), and drops the samples that this gives.
# - The **exact** design keeps, for each convolution, the last time steps of *its own* input. Nothing is recomputed.
#
# (*Windowed* is about this piece of latents and has nothing to do with the attention window, which both designs have. And a *step* alone is the streaming step; a layer's *time steps* are the places on its time axis.)
#
# > **Why.** Exports of the windowed design are in use, with 21 inputs and 23 outputs. Somebody who
# > is given such a file has to be able to check it. So we reproduce it, measure what it costs, and do better.
#
# `steps` holds one of each, and all that follows treats them in the same way. The windowed one has the settings that such files have: 4 frames of left context
# (`conv_history_frames` in the interface) and 4 frames of [look-ahead](guide/glossary.md#look-ahead). Why they have a look-ahead we do not know: the decoder is causal, and section 9 shows that it gains nothing.

# %%
few = min(4, reach - 1)
steps = {
    "exact": ExactStreamingWrapper(decoder),
    "windowed": StatefulCodecONNXWrapper(decoder, conv_history_frames=few, lookahead_frames=4),
}
for name, step in steps.items():
    print(f"{name}: {len(step.spec.all_inputs)} inputs, {len(step.spec.all_outputs)} outputs")

# %% [markdown]
# Each step declares its interface in `spec`: the windowed one first, then the exact one. Tensors that differ in their number alone share a row. A range such as 0–72 is an axis that grows with the
# stream up to a limit; the exact design has no such axis.

# %%
for step in (steps["windowed"], steps["exact"]):
    display(plots.table(["how many", "input", "shape", "comes out as"], interface(step.spec)))

# %% [markdown]
# ## 2. The windowed step, line by line
#
# **What goes in**, in the order of the first table: the codes, the flag of the last call, and the state.

# %%
step_class = StatefulCodecONNXWrapper
excerpt(step_class.forward, "def forward", '"""')

# %% [markdown]
# **From codes to latents.** `pre_conv` is a causal convolution that pads its start with zeros. That is right for the start of a stream alone. For a later chunk, the last
# frames of the previous call must stand there: the first line puts `pre_conv_h` in front, and the second drops what was computed at their places. The third is the transformer with its
# KV cache; section 4 reads it.

# %%
excerpt(step_class.forward, "quantized =", "pending =")

# %% [markdown]
# **From latents to audio.** `latent_buf` holds the latents that were [buffered](guide/glossary.md#buffered-emitted) because of the look-ahead, and `conv_h` the left context. Both go in front of the new ones, the whole runs through the
# convolutional decoder, and the samples of the left context are dropped: an earlier call has emitted them. Note `conv_h.size(2)`, a size that is used as it is. At the start of a stream it is 0,
# and joining and cutting work for a length of 0 too. So the line needs no `if`, of which a trace would keep one branch ([4 · Export](04_export_onnx.ipynb) shows how).

# %%
excerpt(step_class.forward, "pending =", "zero =")

# %% [markdown]
# **How much of it may be played.** With a look-ahead of 4, the newest four frames stay buffered until later frames arrive. `final_wav` contains every pending frame, so that its length depends on input *shapes* alone;
# `valid_samples` tells the client how many of them are final. `is_last` above 0.5 flushes the buffer. It is a `torch.where` on tensors because a Python `if` would be decided while tracing.
# (`start_samples` counts the samples of the left context, which the graph has dropped already. A client has nothing to do with it.)

# %%
excerpt(step_class.forward, "zero =", "return (")

# %% [markdown]
# **What the next call gets.** The last frames of each tensor that was joined above. `keep_last` is a slice with a negative constant, `x[..., -count:]`: it is right for a chunk that is shorter than
# the left context too, since it cuts from the joined tensor and not from the new frames. (A count of 0 is a case of its own there, because `-0:` would keep everything.) The left context ends where the buffer begins, so `drop_last` removes the buffered frames first.

# %%
excerpt(step_class.forward, "return (")

# %% [markdown]
# ### Exercise: valid samples ●●○ · 15 min
#
# A design with look-ahead buffers the last `lookahead` frames of `pending` [1, T], but not in the last call, when `is_last` is above 0.5. Give what a client
# can play, and how much of it is valid, as an int64 tensor [1]. What you give may be longer than what is valid. It must work as
# a graph from both exporters, so no length may depend on what a tensor *holds*.
#
# *Needs:* the third piece of code above.


# %% tags=["exercise"]
def deliver(pending, is_last, lookahead):
    held = 0 if is_last.item() > 0.5 else lookahead
    ready = pending[:, : pending.size(1) - held]
    return ready, torch.tensor([ready.size(1)])


check("valid samples", deliver)

# %%
solution("valid samples")

# %% [markdown]
# ## 3. The exact step, line by line
#
# **The whole step** is shorter, because nothing is buffered and nothing dropped. `convs` hands each convolution its own state; `transform` is the transformer with its KV cache; `past_frames` counts, for each batch row,
# how many cache slots are filled. The count stops at `sliding_window − 1`, so no number in the graph grows with the stream.

# %%
excerpt(ExactStreamingWrapper.forward, "past_convs,")

# %% [markdown]
# `decode_latents` is the convolutional decoder: its stages one after the other, as `decoder` has them, each in its streaming counterpart, which takes the states as a second argument.

# %%
code(ExactStreamingWrapper.decode_latents)

# %% [markdown]
# **The state of the convolutions** is a list of tensors, handed out in the order in which data reaches the layers. `extend` puts the state in front of the new samples and cuts the next state from the end of
# what is joined. A causal convolution of kernel k and dilation d has a left context of d·(k − 1) time steps of its own input: that is its whole state, and its [streaming counterpart](guide/glossary.md#streaming-counterpart) is `extend` and
# the convolution itself, written in two dimensions, of which one is 1. (The second line of `forward` is for strided convolutions, of which the decoder has none: the encoder's last chunk may fill a step only in part.)

# %%
code(ConvStates.extend, layers.StreamingConv1d.forward)

# %% [markdown]
# ### Exercise: left context ●○○ · 10 min
#
# A causal convolution in a stream: `past` [B, C, left context] holds the samples before `x` [B, C, N]; give the output, and the past for the next call. The code
# below is right for long chunks. `check` also tries chunks of 1, and a kernel that needs no left context at all.
#
# *Needs:* the code above.


# %% tags=["exercise"]
def causal_step(conv, x, past):
    y = conv(torch.cat([past, x], dim=2))
    return y, x[:, :, -past.size(2) :]


check("left context", causal_step)

# %%
solution("left context")

# %% [markdown]
# ### A transposed convolution keeps its last input
#
# A transposed convolution lays each input down over `kernel` output samples, `stride` apart, so the outputs of neighbouring inputs overlap. With kernel 2s and stride s, each input is spread over
# two output blocks, and the state is the last *input*. If kernel = stride, nothing overlaps and there is no state. `find_states` runs the decoder and lists what each layer has to remember. (A left context of 18 at a kernel of 7 is a dilation of 3: 3·(7 − 1). Attention has none here, because its state is the KV cache.)

# %%
found = find_states(decoder, torch.from_numpy(codes[:1, :40]), 40)
first = next(state for state in found if state.kind == "ConvTranspose1d" and state.left_context)
title = f"{first.name}: kernel {first.kernel}, stride {first.stride}"
kinds = {}
for state in (state for state in found if state.left_context != 0):
    kinds.setdefault((state.kind, state.kernel, state.stride, state.left_context), []).append(state.name)
rows = [
    (*("" if value is None else value for value in kind), len(names), f"`{names[0]}`") for kind, names in kinds.items()
]
plots.table(["layer", "kernel", "stride", "left context", "how many", "one of them"], rows[:14])

# %%
figure = schematics.overlap(first.kernel, first.stride, inputs=5, border=3, title=title)

# %% [markdown]
# **Figure.** Each bar is what one input adds to the output, drawn with kernel and stride of a layer of this decoder. The hatched part is what the first samples of a chunk still need from the input before it:
# without the state, it is missing at every chunk border. What is kept is the input that it comes from.
#
# The streaming counterpart computes the same sums as an ordinary convolution: output sample t·s + j takes the taps j, j + s, … of the inputs t, t − 1, …. So the weights are sorted anew, once, by `taps`
# inputs and `stride` positions of the output. With page 1's kernel (1 2 2 1) and s = 2 that makes two ordinary kernels, the oldest input first: (2 1) for even outputs, (1 2) for odd ones.

# %%
excerpt(layers.StreamingConvTranspose1d.__init__, "taps =", "self.register_buffer")

# %% [markdown]
# Then the state is handled by the same `extend` as before. The s results of a step come out as s neighbouring channels and are laid out in time:

# %%
code(layers.StreamingConvTranspose1d.forward)

# %% [markdown]
# > **Trap.** One may carry the overlapping *output* over to the next call instead, and add it there: page 1's tail, which is as exact. It must be carried without its bias; with it, the bias is in both parts, and is counted twice.
#
# ### Exercise: transposed ●●● · 25 min
#
# Write it with a state: `start(batch)` gives the state of a stream that has seen nothing; a call takes an input [B, C, N] and the state, and gives N · stride samples and the next state. Any kernel, any stride. The one-shot
# layer gives `stride` samples for each input and drops what is left over at the end.
#
# The code below falls into the trap. Mend it, or keep inputs in place of outputs. *Needs:* the figure.


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
# ## 4. A KV cache of pre-RoPE keys
#
# Both designs share the transformer's part. The layers are called one by one, because the library's own `forward` would ask the cache for its length and build the mask from Python numbers. Here positions and mask
# come from tensors. `positions` begins at 0 with the *oldest cached key*, in every call. (`mask` and `stack_type` are parameters, so that one can put in others: section 8 puts in a broken cache.)

# %%
excerpt(stream_layers, "past, window =")

# %% [markdown]
# `stack` stands in for transformers' cache. transformers applies RoPE *before* it calls `cache.update`. A post-RoPE cache would tie each key to an absolute position that must grow for ever. `update` therefore
# rotates the new key by the negative angle and caches it [pre-RoPE](guide/glossary.md#pre-rope-and-post-rope-cache); each call applies RoPE anew to the cached keys, at positions counted from the start of the window. Attention depends on the distance of two
# positions alone, so this equals absolute positions.
#
# What is *returned* is not trimmed, only what is *stored*: the first query of a chunk still needs the oldest key, although the last one does not. (How many that is, `keep`, is the design's: the windowed one stores `sliding_window` keys. One fewer
# is enough, because a frame looks at itself and at `sliding_window − 1` earlier ones; the exact design stores those.)

# %%
excerpt(TraceableKVStack.update, "past_key, past_value")

# %% [markdown]
# > **Predict.** A cache keeps 6 keys as they were rotated, and takes the positions of new ones from its own length. The first call brings 6 frames, each later one 2. Which is the first call with a wrong distance?
#
# <details><summary>Answer</summary>The third. The first fills the cache with positions 0 to 5, the second adds 6 and 7, which is right. Then the cache is trimmed to 6 keys, its length no longer grows, and the third call
# rotates its keys at 6 and 7 once more.</details>

# %%
figure = ruler.sliding(
    window=6, chunk=2, count=3, title="A KV cache of 6 keys as a ruler: a call of 6 frames, then of 2"
)

# %% [markdown]
# **Figure.** Each box is a key, at its frame of the stream; the number in it is the position at which RoPE rotates it in that call. Above, the ruler slides along with the window: no number exceeds 7, and all distances are right. In
# the middle the distances are right too, but the numbers grow for as long as the stream goes on, and float32 angles lose digits. Below, the ruler is broken: the same positions are given out again and again. Keys are marked if the newest query sees them at a wrong distance; the two oldest of calls 3 and 4 lie outside its window of 6.
#
# The same at this decoder's window, some calls after it is full:

# %%
series = {"pre-RoPE": ruler.calls(ruler.PRE_ROPE, window, 3, 20)[-1]}
for later in (5, 20):
    series[f"post-RoPE, {later} calls later"] = ruler.calls(ruler.FROM_LENGTH, window, 3, later)[-1]
figure = ruler.positions(series, window, f"Window of {window} full, chunks of 3, positions from the cache's length")

# %% [markdown]
# **Figure.** Left: the position at which each cached key was rotated. Right: the distance from the newest query that RoPE then sees. The dotted line is flat and has teeth because every call rotates its three keys at the
# same three positions: on the demo, all keys of the last 60 frames look as if they were at most two frames away.

# %% tags=["check"]
true, seen = series["pre-RoPE"].distances(window)
assert true == seen and max(series["pre-RoPE"].positions) == window + 2
wrong_true, wrong_seen = series["post-RoPE, 20 calls later"].distances(window)
assert wrong_true == true and wrong_seen != true

# %% [markdown]
# ### Exercise: keys and positions ●●● · 25 min
#
# One head of attention in a stream: queries, keys and values `q`, `k`, `v` [B, N, D] of this call, `past_k` and `past_v` of the calls before. A query looks at itself
# and at the `window` − 1 steps before it. You have `rotate(x, positions)` (RoPE) and `window_attention(q, k, v, window)`, which takes the queries
# to stand at the end of the keys. Give the result, and the keys and values to keep: never more than a window of them.
#
# *Needs:* the figures above.


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
# ### Empty is not zero
#
# The exact design's caches have their full size from the start, filled with zeros. A zero key is not "no key": its score is 0, and softmax gives that a weight like any other number. `past_frames`
# says how many [cache slots are valid](guide/glossary.md#valid-cache-slots), and the mask hides the rest. It is counted in *frames*, while the mask wants *time steps* of the transformer. Here a frame is one step; a codec that upsamples before its attention has
# several, and then the mask gets frames × time steps, clamped at `sliding_window − 1`.

# %%
excerpt(sliding_window_mask, "distance =")

# %% [markdown]
# ### Exercise: empty is not zero ●●○ · 10 min
#
# One query [B, 1, D] attends to W cached keys and values [B, W, D]; the last `valid` [B, 1] of them are valid, the others are slots that nothing has filled yet.
# The code below takes those for keys. *Needs:* the mask above.


# %% tags=["exercise"]
def attend_to_the_valid(query, keys, values, valid):
    scores = query @ keys.transpose(1, 2) / query.size(-1) ** 0.5
    return scores.softmax(dim=-1) @ values


check("empty is not zero", attend_to_the_valid)

# %%
solution("empty is not zero")

# %% [markdown]
# ## 5. Batch rows at different offsets
#
# A server has many streams, each at another offset. With the exact design they share a call: the rows are concatenated, and `past_frames` tells for each row how many of its cache slots are valid. This is the mask
# of a call of 12 frames for three rows:

# %%
offsets = [0, window // 3, window - 1]
mask = sliding_window_mask(
    torch.arange(window - 1 + 12), window - 1, window, torch.float32, torch.tensor(offsets)[:, None]
)
panels = {f"a row at frame {offset}": 2 * (row[0] == 0).numpy() for offset, row in zip(offsets, mask)}
figure = schematics.masks(panels, window - 1, "Batch rows at three offsets under one mask")

# %% [markdown]
# **Figure.** Each line from top to bottom is a query of this call, each place from left to right a key. On the right, all three rows hide the future in the same way; on the left is the window edge. They differ in how far they see into the
# KV cache: as far as its slots are valid.
#
# Each row must give what it gives alone. The first row below is past the window, the second is at its beginning.


# %%
old, young = TorchSession(steps["exact"]).stream(), TorchSession(steps["exact"]).stream()
offset = codes.shape[1] - 5
old.push(codes[:, :offset])
both = old.join(young)
print("frames seen, row by row:", both.frames)
together = both.push(np.concatenate([codes[:, offset:], codes[:, :5]]))
alone = np.concatenate([old.push(codes[:, offset:]), young.push(codes[:, :5])])
print(f"together and alone differ by {max_error(together, alone):.1e}")

# %% tags=["check"]
assert offset > window and max_error(together, alone) < MAX_ERROR
assert both.fork([1]).frames.tolist() == [5], "a row can leave between any two calls"

# %% [markdown]
# The windowed design cannot do that while its states grow: until the window is full, rows at different offsets have states of different lengths. Streams that are both past the window do share a call.

# %%
old, young, new = (TorchSession(steps["windowed"]).stream() for _ in range(3))
old.push(codes[:, :offset])
young.push(codes[:, : offset - 7])
with fails_with(ValueError, "join when their states are equally long"):
    old.join(new)
together = old.join(young).push(np.concatenate([codes[:, offset:], codes[:, :5]]))
alone = np.concatenate([old.push(codes[:, offset:]), young.push(codes[:, :5])])
print(f"both past the window: together and alone differ by {max_error(together, alone):.1e}")
assert max_error(together, alone) < MAX_ERROR

# %% [markdown]
# ### Exercise: rows at different offsets ●●○ · 15 min
#
# Several streams share a call. Each row has `past` cached keys, of which the last `valid[row]` are valid, then `new` ones. Give the mask
# [B, new, past + new] of booleans: may this query look at this key? *Needs:* the figure.


# %% tags=["exercise"]
def visible(past, new, window, valid):
    places = torch.arange(past + new)
    distance = places[past:, None] - places
    inside = (distance >= 0) & (distance < window)
    return inside.expand(len(valid), new, past + new)


check("rows at different offsets", visible)

# %%
solution("rows at different offsets")

# %% [markdown]
# ## 6. Call by call
#
# Now both steps run. A stream is a loop around a step: what comes out as a next state goes in at the next call. `spec.states` says which output belongs to which input, and `TorchSession` runs a wrapper with arrays by name, as
# ONNX Runtime will run the graph.


# %%
def calls(step, parts):
    """The outputs of `step`, by name, for each chunk of codes in turn."""
    session, state = TorchSession(step), step.spec.zero_state()
    for index, part in enumerate(parts):
        is_last = np.array([index == len(parts) - 1], np.float32)
        outputs = session.run({"audio_codes": part, "is_last": is_last, **state})
        state = {before.name: outputs[after.name] for before, after in step.spec.states}
        yield outputs


# %% [markdown]
# > **Predict.** Ten frames go in, in chunks of 3. How many frames come out of each design's first call?
#
# <details><summary>Answer</summary>Three of the exact design, none of the windowed one: three frames are fewer than its look-ahead of 4. Its `final_wav` has three frames' samples all the same, and `valid_samples`
# is 0. The last call, of a single frame, emits all that was buffered.</details>

# %%
parts, per_frame = [*chunks(codes[:, :10], [3])], decoder.samples_per_frame
exact, windowed = ([*calls(step, parts)] for step in steps.values())
rows = []
for part, plain, out in zip(parts, exact, windowed):
    counts = [int(out[name][0]) for name in ("num_finalize", "valid_samples", "start_samples")]
    kept = [out[name].shape[2] for name in ("next_conv_h", "next_latent_buf")]
    rows.append((part.shape[1], plain["waveform"].shape[1], out["final_wav"].shape[1], *counts, *kept))
columns = ["new frames", "exact: samples", "windowed: final_wav", "num_finalize", "valid_samples", "start_samples"]
plots.table([*columns, "next_conv_h", "next_latent_buf"], rows)

# %% tags=["check"]
assert sum(row[3] for row in rows) == 10, "every frame is emitted once"
assert rows[0][3] == 0 and rows[0][1] == 3 * per_frame, "three frames are fewer than the look-ahead"

# %%
before = [(0, 0), *((row[6], row[7]) for row in rows)]
seen = [(row[0], row[3], *kept) for row, kept in zip(rows, before)]
panels = {
    "exact": schematics.exact_calls([row[0] for row in rows]),
    f"windowed: left context {few}, look-ahead 4": schematics.windowed_calls(seen),
}
figure = schematics.calls_see(panels, "What the convolutional decoder works on in each call, chunks of 3")

# %% [markdown]
# **Figure.** All bars run through the convolutional decoder; only dotted and plain ones are new to a listener. The exact design works on each frame once and emits it at once. The windowed one recomputes the slanted part in each call that has one; the
# crossed part is run now, without its samples being emitted, and again when it is emitted (dotted). (Keys and values are not drawn. Both designs keep them, and neither recomputes any.)
#
# ## 7. The comparison by hand
#
# The reference is the [one-shot](guide/glossary.md#full-sequence-decode-one-shot) waveform: the full sequence decoded by the decoder itself, with no state and no wrapper. A step is right if its stream equals that for every [chunk schedule](guide/glossary.md#chunk-chunk-schedule). The schedules here have single frames, chunks that
# are shorter than the left contexts, chunks of changing length, a last chunk that is shorter than the others, and one call for all.

# %%
reference = one_shot(decoder, codes)
length = codes.shape[1]
schedules = {"1": [1], "3": [3], "7+1+2": [7, 1, 2], f"11, last {length % 11 or 11}": [11], "all at once": [length]}
measured = {}
for name, step in steps.items():
    audio = step.spec.outputs[0].name  # `waveform` of the exact design, `final_wav` of the windowed one
    for label, schedule in schedules.items():
        outputs = calls(step, [*chunks(codes, schedule)])
        pieces = [out[audio][:, : out.get("valid_samples", [None])[0]] for out in outputs]
        found = np.concatenate(pieces, axis=1)
        worst = max(per_chunk(mse, reference, found, [piece.shape[1] for piece in pieces]))
        measured[name, label] = max_error(reference, found), worst, snr_db(reference, found)

# %%
rows = [(*key, f"{error:.1e}", f"{worst:.1e}", f"{snr:.0f}") for key, (error, worst, snr) in measured.items()]
plots.table(["design", "chunks", "largest error", "largest MSE of a chunk", "SNR (dB)"], rows)

# %% [markdown]
# The exact design agrees to rounding, over every schedule. The windowed one, with four frames of left context, does not: its error depends on the chunk borders, and is zero only if there is none.
#
# `verify` is that loop, with more to say. It fails if the largest absolute error exceeds 5e-5, or the mean squared error (MSE) of a chunk 1e-9. The tolerance assumes audio in [−1, 1]: rounding error scales with amplitude, so a louder
# reference is held to a tighter *relative* tolerance. The report therefore prints the reference's peak.

# %%
reports = {name: verify(loaded, step, codes, [[3]]) for name, step in steps.items()}
print(reports["exact"])
for name, report in reports.items():
    by_hand, theirs = measured[name, "3"][0], report.results[0].max_error
    print(f"{name}, chunks of 3: {by_hand:.3e} by hand, {theirs:.3e} from verify")
    assert by_hand == theirs

# %% tags=["check"]
assert reports["exact"].judged and reports["exact"].passed and reports["exact"].past_window
assert all(
    error < MAX_ERROR and worst < MAX_MSE for (name, _), (error, worst, _) in measured.items() if name == "exact"
)

# %%
named = [replace(report.results[0], path=name) for name, report in reports.items()]
figure = plots.per_chunk_error(named, f"Error of each chunk against one-shot ({loaded.weights})", MAX_MSE)

# %% [markdown]
# **Figure.** MSE of each chunk against the one-shot waveform, on a log scale, for chunks of 3 frames. The exact design lies far below the limit, at the level of float32 rounding; the windowed one far above, from the chunk on
# whose left context does not reach back to the start. (Its line begins at frame 3, because its call at frame 0 emits nothing; the next two emit frames that have no older ones to miss.)
#
# ## 8. Where the limits come from
#
# A limit has to lie between two numbers that can be measured: the rounding of a wrapper that is right, and the quietest real mistake
# that we know, in a wrapper that says it is exact. The candidates are a left context that is one or two frames too short or missing altogether, and positions that stop growing when the attention window is full (the broken ruler of section 4).


# %%
def distance(wrapper):
    """(largest error of a sample, largest MSE of a chunk, SNR) against the one-shot decoder, in chunks of 3."""
    pieces = [*TorchSession(wrapper).stream().pushes(codes, [3])]
    found = np.concatenate(pieces, axis=1)
    squares = per_chunk(mse, reference, found, [piece.shape[1] for piece in pieces])
    return max_error(reference, found), max(squares), snr_db(reference, found)


cases = {"right: rounding alone": StatefulCodecONNXWrapper(decoder, reach, 0)}
for context in (reach - 1, reach - 2, 0):
    if context >= 0:
        cases[f"left context {context} in place of {reach}"] = StatefulCodecONNXWrapper(decoder, context, 0)
cases["positions that saturate"] = SaturatingPositions(decoder, reach, 0)
distances = {name: distance(each) for name, each in cases.items()}
rows = [(name, f"{error:.1e}", f"{square:.1e}", f"{snr:.0f}") for name, (error, square, snr) in distances.items()]
plots.table(["wrapper", "largest error", "largest MSE of a chunk", "SNR (dB)"], rows)

# %%
rounding = distances["right: rounding alone"]
oldest = f"left context {reach - 1} in place of {reach}"  # the exception, see below
missed = [name for name, (error, *_) in distances.items() if error <= MAX_ERROR][1:]
quietest = min(error for name, (error, *_) in [*distances.items()][1:] if name != oldest)
print(f"{MAX_ERROR:.0e} is {MAX_ERROR / rounding[0]:.0f} times the rounding of {rounding[0]:.1e}")
print(f"and the quietest mistake, but for the loss of the oldest frame, is {quietest:.1e}")
words = [f"{name} ({distances[name][0]:.1e})" for name in missed]
print("below the limit, so not seen:", ", ".join(words) or "none of these")

# %% tags=["check"]
assert rounding[0] < MAX_ERROR and rounding[1] < MAX_MSE
assert loaded.source != "demo" or (quietest > MAX_ERROR and missed == [oldest])
loud = [distances[name][2] for name in (f"left context 0 in place of {reach}", "positions that saturate")]
assert loaded.source != "demo" or max(loud) < 30 < min(snr for *_, snr in distances.values() if snr not in loud)

# %% [markdown]
# So the limit of 5e-5 is derived: it lies almost two orders of magnitude above the largest rounding in this page's tables (6e-7 on the demo), and below the quietest real mistake that we know (3e-4: two frames of left context too
# few), with one exception. The oldest frame alone weighs so little (2e-6) that its loss stays below the limit. Nobody hears it: it is less than a tenth of what
# 16-bit audio can tell apart. The second limit is a coarser look at the same thing: an MSE of 1e-9 is a root mean square of 3e-5 over a chunk. An error that is as large everywhere fails it, a short one passes: two frames of left context too few
# come to 7e-10. It is kept because a figure of MSE per chunk needs a line, and a step has to keep both.
#
# A graph in int8 cannot meet either limit: its rounding is larger than that. It is held to an SNR of at least 30 dB, which lies between what it has (35 dB on the demo, [8 · Quantization](08_fewer_bits.ipynb)) and the
# mistakes that one hears (the last two rows, on the demo; a stream that goes only a few frames past the window has a higher SNR with the same saturating positions, because most of it is right). It lets the quieter ones through, so the float32 graph of the same code has to be checked as well.
#
# ### What a short test does not show
#
# > **Trap.** Positions that saturate are right until the window is full. So a test of 40 frames passes a wrapper that is wrong from the sixth second on (on the demo). `verify` says in its last line
# > how far the test went.
#
# > **Predict.** The stream below fills the window in one call and goes on frame by frame. Which frame after that is the first wrong one?
#
# <details><summary>Answer</summary>The second one. The first call after the window is full still gets the right positions, because the cache, of W slots in this design, is trimmed only after it. (The cache of page 1 has W − 1
# slots, so there it was the first.)</details>

# %%
saturating = SaturatingPositions(decoder, reach, 0)
enough = checkpoint.example_codes(loaded, window + 18)
for frames in (40, window + 1, window + 8):
    report = verify(loaded, saturating, enough[:, :frames], [[window, *[1] * 8]])
    print(f"{frames} frames: {str(report).splitlines()[-1]}")
    assert not (report.passed and report.past_window)

# %% tags=["check"]
assert loaded.source != "demo" or not report.passed

# %% [markdown]
# ## 9. A short left context is an approximation, not a mistake
#
# The interface that we reproduce keeps 4 frames of left context, fewer than the receptive field. At the start of each chunk the convolutions see zero padding in place of the older
# frames, so its samples are wrong, most at the beginning. The look-ahead does not help, because the decoder is causal: no sample depends on later frames.
#
# **How many frames are enough?** The left contexts of all convolutions along the way, added up in time, because each of them starts as far back as the one after it needs:

# %%
frame_rate = loaded.sample_rate / decoder.samples_per_frame
convolutions = conv_memory(steps["exact"])  # (name, left context, rate of the input) of each
added = frame_rate * sum(context / rate for name, context, rate in convolutions if not name.startswith("pre_"))
print(f"{added:.2f} frames, so {int(np.ceil(added))}; the receptive field that page 2 measures: {reach}")

assert int(np.ceil(added)) == reach

# %% [markdown]
# (On the demo page 2 measures 10.4 frames: it counts the frame itself too, and 9.4 earlier ones are 10 whole ones to keep.) The exact design keeps just these left contexts, each at its own layer, in place of the frames from which they could be computed again. That is the whole difference in cost.
#
# > **Predict.** Which lowers the error more: two frames more of left context, or four frames more of look-ahead?
#
# <details><summary>Answer</summary>The left context, by a factor of ten and more. The look-ahead moves the places at which calls begin and does no more, since the decoder never looks ahead.</details>


# %%
def error_at(context, lookahead, chunk=3):
    """MSE of the first 30 frames of a stream against the one-shot decoder."""
    stream = TorchSession(StatefulCodecONNXWrapper(decoder, context, lookahead)).stream()
    waveform = stream.run(codes[:, :30], [chunk])[0]
    return mse(reference[0, : waveform.size], waveform)


contexts = sorted({context for context in (0, 2, few, 6, 8) if context < reach} | {reach})
without, ahead = ({context: error_at(context, frames) for context in contexts} for frames in (0, 4))
series = {"look-ahead 0": [*without.items()], "look-ahead 4": [*ahead.items()]}
figure = plots.error_against_history(series, reach, f"Chunks of 3 frames ({loaded.weights})")

# %% [markdown]
# **Figure.** MSE over the left context in frames, on a log scale. It falls from mark to mark, and is down to rounding at the receptive field (dotted line). The two lines lie close together (on the demo within a factor of 2, where two frames
# of left context are worth a factor of ten and more): look-ahead does no more than move the places at which calls begin.

# %%
assert without[reach] < MAX_MSE and ahead[reach] < MAX_MSE
assert without[0] > without[few] > without[reach]
assert 0.5 < without[few] / ahead[few] < 2, "look-ahead makes no real difference"
for context, lookahead in [(few, 4), (reach, 0), (reach, 4)]:
    work = ", ".join(f"{(n + context + lookahead) / n:.1f} × in chunks of {n}" for n in (1, 3, 12))
    print(f"left context {context}, look-ahead {lookahead}: the convolutional decoder works {work}")

# %% [markdown]
# With enough left context the windowed design is exact too, but each call decodes its left context and its buffered frames once more. So a windowed graph
# recomputes in any case, and with too few frames its samples are wrong as well; the exact design does neither.
#
# ### What an approximation must give
#
# Approximate does not mean that anything goes. What this design *must* give can be computed without any state: each call's frames, decoded from
# the one-shot latents with the left context that the call has and nothing before it. `verify` judges the wrapper by that (the column *error*), under the same
# limits; the other columns say how far that is from the one-shot decoder, which is what the design costs.

# %%
print(reports["windowed"])

# %% tags=["check"]
assert reports["windowed"].judged and reports["windowed"].passed
assert reports["windowed"].results[0].oracle_error < MAX_ERROR
assert reach <= 4 or measured["windowed", "3"][1] > 100 * MAX_MSE

# %% [markdown]
# A wrapper of this design that is wrong fails, however approximate the design is. This one inverts the waveform and makes it louder:


# %%
class Louder(StatefulCodecONNXWrapper):
    def forward(self, *inputs):
        waveform, *rest = super().forward(*inputs)
        return -7 * waveform, *rest


wrong = verify(loaded, Louder(decoder, few, 4), codes[:, :24], [[3]])
print("\n".join(wrong.failures))
assert not wrong.passed and wrong.results[0].first_wrong_frame is not None

# %% [markdown]
# ### See and hear it

# %%
short = reports["windowed"].waveforms["PyTorch wrapper", (3,)][0]
whole = reports["windowed"].waveforms[ONE_SHOT, ()][0]
view = slice(30 * per_frame, 42 * per_frame)
starts = np.cumsum([chunk.samples for chunk in reports["windowed"].results[0].chunks])
borders = [start - view.start for start in starts if view.start <= start < view.stop]
title = f"12 frames in chunks of 3, left context {few} ({loaded.weights})"
figure = plots.waveforms(whole[view], short[view], loaded.sample_rate, title, borders)

# %% [markdown]
# **Figure.** The one-shot waveform, the streamed one, and their difference on a scale ten times as fine. By eye, the two waveforms are the same. The difference follows the loudness of the speech, but rises at a dotted line, where the samples of a call begin, and
# dies out within the chunk: there the convolutions saw zeros in place of older frames.
#
# Listen to both, for a roughness in the second one, four times in a second, where chunks begin. (With random weights both are noise.)

# %%
for label, wave in {"one-shot": whole, f"left context {few}: {snr_db(whole, short):.1f} dB SNR": short}.items():
    print(label)
    display(plots.player(wave, loaded.sample_rate))

# %% [markdown]
# > **Try it.** The lab at the end of [page 0](00_hear_it.ipynb#7.-Try-it-in-the-lab) has left context, look-ahead and chunk as sliders, with the error beside them.
#
# ## What you can do now
#
# - Read a streaming step, of either design, and say for each line what would be wrong without it.
# - Check a step in PyTorch over chunk schedules, past the window and with rows at different offsets, under limits that you can defend.
# - Tell the error of a design from a mistake in it.
# - Change a step and have it judged: [6 · The workbench](06_workbench.ipynb) has it in one cell.
# - Take the parts to another model. `find_states` lists what a model has to remember; `StreamingConv1d`, `StreamingConvTranspose1d` and `stream_layers` take the layers of any:
#   [11 · Another codec](11_another_codec.ipynb) does it.
#
# > **Try it.** A longer stream: `QWEN3_CODEC_FRAMES=400` goes far past the demo's attention window of 72 frames.
#
# **Next:** [4 · Export to ONNX](04_export_onnx.ipynb), because a step that is right in PyTorch can still become a graph that is right at one length alone.
