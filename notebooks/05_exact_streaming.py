# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5 · Exact streaming: every layer keeps its own state
#
# The windowed graph of notebooks 2 to 4 remembers the *input* of the conv stack and decodes some of it again with each
# chunk. Here each layer remembers its *own* input instead. Nothing is decoded twice, nothing waits, and the stream
# equals the one-shot decoder to rounding, for chunks of any length.
#
# At the end of this notebook you know
#
# 1. why the windowed graph has to approximate, or pay,
# 2. what each layer must remember, and how much that is,
# 3. that the result is exact, in PyTorch and in ONNX Runtime, also after a long time,
# 4. how streams of different ages share one call,
# 5. what it costs beside the other designs,
# 6. which of the states is heard when it is lost.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
AUDIO = os.environ.get("QWEN3_CODEC_AUDIO", "")  # a recording of yours, to take the codes from
BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/
FRAMES = int(os.environ.get("QWEN3_CODEC_FRAMES", "0"))  # 0: past the attention window
# Set to 1 to compare with random weights at the official dimensions (one more minute) and not at small ones.
OFFICIAL = os.environ.get("QWEN3_CODEC_OFFICIAL", "0") == "1"
LONG = int(os.environ.get("QWEN3_CODEC_LONG_FRAMES", "1000"))

# %%
from dataclasses import replace

import numpy as np
import torch

from qwen3_codec import (
    CodecSession,
    ExactStreamingWrapper,
    StatefulCodecONNXWrapper,
    StreamingConv1d,
    StreamingConvTranspose1d,
    find_states,
    one_shot,
    verify,
)
from qwen3_codec.course import build_folder, check, code, plots, schematics, short_histories, solution, wrong_states
from qwen3_codec.exporting import exported
from qwen3_codec.measure import benchmark
from qwen3_codec.model import checkpoint, conv_memory, memory_stages, receptive_field, state_table
from qwen3_codec.runtime import max_error, snr_db
from qwen3_codec.streaming import TraceableKVStack, sliding_window_mask, stream_layers
from qwen3_codec.verification import MAX_ERROR, MAX_MSE, ONE_SHOT, ONNX, random_codes

# %%
build = build_folder(BUILD)
graphs = build / "bench"
loaded = checkpoint.load(CHECKPOINT, audio=AUDIO)
decoder, window = loaded.decoder, loaded.decoder.config.sliding_window
codes = checkpoint.example_codes(loaded, FRAMES or max(48, window + 48))
print(f"weights: {loaded.weights}; codes {codes.shape}")

# %% [markdown]
# ## 1. A window of history is not enough
#
# One latent frame reaches this many frames further in the conv stack (measured in notebook 1). A window of history has to
# hold them all and decode them all again, with every chunk; with fewer, the samples are not right.

# %%
field = receptive_field.receptive_field(decoder)
frame_ms = 1000 * decoder.samples_per_frame / loaded.sample_rate
print(
    f"{field.conv_frames} frames of history: {field.conv_frames * frame_ms:.0f} ms of audio decoded again for each chunk"
)
for chunk in (1, 3, 12):
    print(f"chunks of {chunk}: {(chunk + field.conv_frames) / chunk:.1f} times the work of the conv stack")

# %% [markdown]
# Here are three calls of the design of this notebook, past the window. Nothing is decoded again and nothing is held back. Keys and values reach
# back a window, but nobody computes them again. (The picture for the windowed design is in [notebook 2](03_verify_wrapper.ipynb).)

# %%
figure = schematics.calls_see(
    schematics.exact_calls([3, 3, 3], window, start=window + 8), "The exact design, chunks of 3"
)

# %% [markdown]
# ## 2. Each layer remembers its own input
#
# A causal convolution of kernel k and dilation d looks back d·(k − 1) samples of its own input. A transposed convolution
# of kernel 2s and stride s needs one sample of its own input. Attention needs the keys and values of `sliding_window − 1` frames. That is
# all, and its size never changes. (Notebook 2's windowed graph stores a whole window of keys; a frame looks at itself and at
# `sliding_window − 1` earlier ones, so one fewer is enough.)

# %%
exact = ExactStreamingWrapper(decoder)
spec = exact.spec
figure = schematics.memory_line(
    memory_stages(exact), f"Where the states sit, and how far they reach ({loaded.weights})"
)

# %%
names = ["past_frames", *(name for name, _ in exact.conv_layers)]
rows = state_table(spec)
plots.table(["state", "of layer", "shape", "bytes"], [(n, layer, s, b) for (n, s, b), layer in zip(rows, names)])

# %%
seconds = [history / rate for _, history, rate in conv_memory(exact)]
sizes = [size for name, _, size in rows if name.startswith("conv_")]
labels = [f"{name} ({layer})" for (name, _, _), layer in zip(rows[1:], names[1:])]
attention = sum(size for name, _, size in rows if name.startswith(("key", "value")))
labels.insert(1, "keys and values, all layers")
seconds.insert(1, (decoder.config.sliding_window - 1) * frame_ms / 1000)
sizes.insert(1, attention)
figure = plots.states_along(labels, seconds, sizes, f"{spec.bytes_per_stream():,} bytes a stream ({loaded.weights})")

# %%
assert sum(sizes) + 8 == spec.bytes_per_stream()
assert not any(array.any() for array in spec.zero_state().values()), "a stream starts with zeros"

# %% [markdown]
# Why one input, for a transposed convolution? Each input is laid down over `kernel` output samples, a stride apart. The hatched part is what the first
# samples of a chunk take from the input before it.

# %%
found = find_states(decoder, torch.from_numpy(codes[:1, :40]), 40)
first = next(state for state in found if state.kind == "ConvTranspose1d" and state.left_context)
title = f"{first.name}: kernel {first.kernel}, stride {first.stride}"
figure = schematics.overlap(first.kernel, first.stride, inputs=5, border=3, title=title)

# %% [markdown]
# ### This is the whole wrapper
#
# Three parts do it: a convolution that finds its past in the state, a transposed convolution written as an ordinary one, and
# the step that hands states out in the order of the data and collects them again.

# %%
code(
    StreamingConv1d.forward,
    StreamingConvTranspose1d.__init__,
    StreamingConvTranspose1d.forward,
    ExactStreamingWrapper.forward,
)

# %% [markdown]
# Keys and values are handed on in the same way. The layers of the transformer are called one by one, under a mask and positions that come from tensors. The library's
# attention rotates a key before it hands it over; `update` turns it back (RoPE can be undone: the same angle, the other way) and stores it unrotated.

# %%
code(stream_layers, TraceableKVStack.update)

# %% [markdown]
# Why a counter, `past_frames`, where the keys begin as zeros? A zero key is not "no key": softmax gives it weight, like any
# other. The count makes the mask that leaves out what is not there yet. It is carried in *frames*. The mask wants *steps* of the transformer. Here a frame is
# one step; a codec that upsamples before its attention has several, and then the mask gets frames × steps, clamped at `sliding_window − 1`, while
# the count may stop at ⌈(`sliding_window − 1`) / steps⌉.
#
# These parts are not tied to this decoder. For another model, `find_states` lists what it has to remember; `StreamingConv1d` and `StreamingConvTranspose1d` take torch's own
# convolutions; `stream_layers` takes any transformer with `layers`, `rotary_emb` and `config.sliding_window`; `exact_spec` declares the states; and `export` and
# `verify` take an `OtherModel` (of `qwen3_codec.model.checkpoint.loading`) where they take a checkpoint here. [Notebook 12](11_another_codec.ipynb) does all of it.

# %% [markdown]
# ## 3. The stream equals one shot
#
# First in PyTorch, then the exported graph, against the one-shot decoder and against each other, states included.

# %%
path = exported(loaded, exact, graphs / "exact.onnx", progress=plots.progress)
session = CodecSession(path)
report = verify(loaded, exact, codes, [[1], [3], [7, 1, 2], [codes.shape[1]]], session, progress=plots.progress)
print(report)
assert report.judged and report.passed

# %%
figure = plots.per_chunk_error(report.results[:4], f"Exact design ({loaded.weights})", MAX_MSE)

# %% [markdown]
# Beside it, the windowed design of notebook 3, with 4 frames of history and 4 of look-ahead:

# %%
windowed = StatefulCodecONNXWrapper(decoder, 4, 4)
usual = CodecSession(exported(loaded, windowed, graphs / "windowed.onnx"))
usual_report = verify(loaded, windowed, codes, [[3]], usual)
both = {"windowed, 4 frames of history": usual_report.results[1], "exact": report.results[3]}
named = [replace(result, path=f"{name}: {result.path}") for name, result in both.items()]
figure = plots.per_chunk_error(named, f"Error of each chunk against the one-shot decoder ({loaded.weights})", MAX_MSE)
figure.savefig(build / "per_chunk_error.png", dpi=110)
assert both["exact"].mse < MAX_MSE
assert field.conv_frames <= 4 or both["windowed, 4 frames of history"].mse > MAX_MSE

# %% [markdown]
# It sounds at once: one frame in, one frame out.

# %%
stream = session.stream()
first = stream.push(codes[:, :1])
print(f"1 frame in, {first.shape[1]} samples out; finish gives {stream.finish().shape[1]} more")
assert first.shape[1] == decoder.samples_per_frame

# %% [markdown]
# ## 4. A long stream stays exact
#
# Keys are stored unrotated and rotated at positions relative to the window, so no number grows with the stream. The error
# at the end is what it was at the start. The picture shows what would happen otherwise: keys that are stored rotated, at positions taken from
# the length of a store that no longer grows.

# %%
stored = {f"{calls} calls later, stored rotated": schematics.saturated(window, 3, calls) for calls in (5, 20)}
right = {"positions relative to the window": (range(window), range(window))}
figure = schematics.distances(right | stored, f"Window of {window} full, chunks of 3")

# %% [markdown]
# Each stretch is compared with a one-shot decode that begins long before it. Not with one from the very start: that one's own float32
# angles grow with the position and lose digits (on the demo it is off by 1.4e-6 after 1,500 frames, by 3.2e-6 after 3,000), while the stream's stay small.

# %%
long_codes = random_codes(decoder.config, LONG, seed=1)
waveform = session.decode(long_codes, [12], progress=plots.progress)
rate, before, stretch = decoder.samples_per_frame, field.attention_frames + field.conv_frames + 1, 50


def error_at(frame):
    """Largest error of `stretch` frames from `frame` on."""
    start = max(0, frame - before)
    reference = one_shot(decoder, long_codes[:, start : frame + stretch])[:, (frame - start) * rate :]
    return max_error(reference, waveform[:, frame * rate : (frame + stretch) * rate])


places = np.linspace(0, LONG - stretch, 4).astype(int)
errors = [error_at(frame) for frame in plots.progress(places)]
plots.table(["from frame", "largest error"], [(frame, f"{error:.1e}") for frame, error in zip(places, errors)])

# %%
assert max(errors) < MAX_ERROR

# %% [markdown]
# ## 5. Streams of different ages share a call
#
# A server has many streams, each at another place. They share one call: the rows are joined, and `past_frames` tells for
# each row how much of its keys and values is real. A row can leave, or be doubled, between any two calls. This is the mask of
# a call of 12 frames for three rows:

# %%
ages = [0, window // 3, window - 1]
mask = sliding_window_mask(
    torch.arange(window - 1 + 12), window - 1, window, torch.float32, torch.tensor(ages)[:, None]
)
panels = {f"a row that has seen {age} frames": 2 * (row[0] == 0).numpy() for age, row in zip(ages, mask)}
figure = schematics.masks(panels, window - 1, "Rows of different ages under one mask")

# %%
old, young = session.stream(), session.stream()
age = min(window + 18, codes.shape[1] - 5)
old.push(codes[:, :age])
both = old.join(young)
print("frames seen, row by row:", both.frames)
next_codes = np.concatenate([codes[:, age : age + 5], codes[:, :5]])
together = both.push(next_codes)

# %%
alone = np.concatenate([old.push(codes[:, age : age + 5]), young.push(codes[:, :5])])
print(f"together and alone differ by {max_error(together, alone):.1e}")
assert max_error(together, alone) < MAX_ERROR
survivor = both.fork([1])
assert survivor.frames.tolist() == [5]

# %% [markdown]
# ## 6. What it costs is measured
#
# All designs on the same codes, each loaded and called alone, in rounds. `25 frames again` is a stateless graph that decodes 25 frames of context
# with each chunk, as upstream's own chunking does. (In chunks of 12 it is exact here: of 36 frames
# at most 24 lie before a chunk. On a longer stream it is not.) Times are of this machine, in this run, on this model; read ratios.
# `notebooks/guide/costs.md` has the table for the official dimensions. `float16` and `int8` are the subject of notebook 8.

# %%
designs = ("one_shot", "windowed", "full_history", "exact")
result = benchmark(loaded, graphs, 36, chunks=(1, 3, 12), threads=1, rounds=1, designs=designs, progress=plots.progress)
print(result)

# %%
streaming = [row for row in result.rows if "one-shot" not in row.design and row.streams == 1]
series = {row.design: row.call_ms for row in streaming if row.chunk == 3}
figure = plots.call_times(series, 3, 3 * result.frame_ms, f"Time per chunk of 3 frames ({result.weights})")

# %%
figure = plots.latency(streaming, f"How long until the first sound ({result.weights})")

# %%
figure = plots.error_against_cost(streaming, f"Error against cost ({result.weights})")

# %%
cost = {(row.design, row.chunk): row for row in result.rows}
assert cost["exact", 1].max_error < MAX_ERROR
assert field.conv_frames <= 4 or cost["windowed 4+4", 1].max_error > MAX_ERROR
assert cost["exact", 1].first_audio_ms < cost["windowed 4+4", 1].first_audio_ms

# %% [markdown]
# ## 7. Each state is lost in turn
#
# What if a state is set back to zeros after every call of 3 frames? Measured on these weights and on random ones (at the official
# dimensions where `QWEN3_CODEC_OFFICIAL` is 1, else at small ones), past the attention window, where positions that
# stop growing begin to be wrong. Lower is louder damage.


# %%
def worth(weights):
    """SNR in dB of streams that lose a state: a window's frames in one call, then 24 frames in calls of 3."""
    window = weights.decoder.config.sliding_window
    example = checkpoint.example_codes(weights, window + 24)
    reference = one_shot(weights.decoder, example)[:, window * weights.decoder.samples_per_frame :]
    waves = wrong_states(weights.decoder, example, warm=window)
    return {name: snr_db(reference, wave) for name, wave in waves.items()}


random = checkpoint.load("random" if OFFICIAL else "random-small")
series = {weights.weights: worth(weights) for weights in (loaded, random)}
figure = plots.state_worth(series, "A state lost after every call of 3 frames")

# %%
for snr in series.values():
    assert snr["nothing dropped"] > 80
    assert snr["all state dropped"] < 12 and snr["conv state dropped"] < 12

# %% [markdown]
# The windowed design loses a part of what its convolutions need when its history is short. How much each frame is worth:

# %%
few = codes[:, :30]
histories = [*(history for history in (0, 1, 2, 4, 8) if history < field.conv_frames), field.conv_frames]
short = short_histories(decoder, few, histories)
rows = [(h, f"{snr_db(report.waveforms[ONE_SHOT, ()][:, : wave.shape[1]], wave):.1f}") for h, wave in short.items()]
plots.table(["frames of history", f"SNR in dB ({loaded.weights})"], rows)

# %%
assert [float(snr) for _, snr in rows] == sorted(float(snr) for _, snr in rows)

# %% [markdown]
# Losing the convolutions' state is loud on any weights. Losing the keys and values is a good deal quieter, and positions
# that stop at the window are the quietest: on the demo nothing is wrong for six seconds, and from then on it is a haze rather than a
# click. How loud each is depends on the weights, as the two colours show, so an ear on one model says little about
# another. **A trap that one does not hear, only a measurement finds.**
#
# Turn it round: a test that passes proves nothing about a state whose loss it would not have shown. On random weights that is the usual case for keys, since
# attention then looks everywhere alike. `parity` (of `qwen3_codec.verification.parity`) loses each state of a graph in turn and names those; notebook 12 shows it.
#
# ## 8. Listen
#
# One-shot; streamed one frame at a time; with the convolutions' state lost; with the keys and values lost.

# %%
sound = wrong_states(decoder, codes[:, :48])
print("one-shot")
plots.player(report.waveforms[ONE_SHOT, ()], loaded.sample_rate)

# %%
print(f"streamed frame by frame, {snr_db(report.waveforms[ONE_SHOT, ()], report.waveforms[ONNX, (1,)]):.0f} dB")
plots.player(report.waveforms[ONNX, (1,)], loaded.sample_rate)

# %%
print("conv state lost between the calls")
plots.player(sound["conv state dropped"], loaded.sample_rate)

# %%
print("keys and values lost between the calls")
plots.player(sound["keys and values dropped"], loaded.sample_rate)

# %% [markdown]
# ## Your turn: empty is not zero
#
# One query [B, 1, D] attends to W stored keys and values [B, W, D]; the last `real` [B, 1] of them are real, the others are places that nothing has filled yet.
# The code below takes those for keys.


# %% tags=["exercise"]
def attend_to_the_real(query, keys, values, real):
    scores = query @ keys.transpose(1, 2) / query.size(-1) ** 0.5
    return scores.softmax(dim=-1) @ values


check("empty is not zero", attend_to_the_real)

# %%
solution("empty is not zero")

# %% [markdown]
# ## What you can do now
#
# Say what each kind of layer has to remember, and write a stream that is exact for any cut. The exercise above is its mask; in
# [11 · Your turn](12_capstones.ipynb) are keys and positions, rows of different ages, and a whole block. [12 · Another
# codec](11_another_codec.ipynb) does it all on a model that this project did not write.
#
# To try next:
#
# - `python -m qwen3_codec export --checkpoint ... --output exact.onnx`
# - `python -m qwen3_codec bench --checkpoint random` for the official dimensions (some minutes, 2 GB of disk).
# - `QWEN3_CODEC_LONG_FRAMES=20000` for a stream of 27 minutes.
