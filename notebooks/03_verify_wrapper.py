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
# A wrong streaming state is hard to find inside an ONNX file. So the step function is checked in PyTorch first: the
# stream must give what the *one-shot* decoder gives, which sees all codes at once.
#
# At the end of this notebook you know
#
# 1. what goes into one call of `StatefulCodecONNXWrapper` and what comes out,
# 2. how frames are held back and finished,
# 3. that the stream is exact when its history is long enough, for any cut into chunks,
# 4. how large the error is when it is not, what look-ahead adds (nothing), and how an approximate design is judged all the same,
# 5. where to put your own changes, and how to see at once whether they still agree.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
AUDIO = os.environ.get("QWEN3_CODEC_AUDIO", "")  # a recording of yours, to take the codes from
FRAMES = int(os.environ.get("QWEN3_CODEC_FRAMES", "0"))  # 0: past the attention window

# %%
import numpy as np
import torch
from ipywidgets import IntSlider, interact

from qwen3_codec import StatefulCodecONNXWrapper, TorchSession, verify
from qwen3_codec.course import check, plots, schematics, solution
from qwen3_codec.course.pitfalls.state import SaturatingPositions
from qwen3_codec.model import checkpoint, conv_reach
from qwen3_codec.runtime import chunks, max_error, mse, per_chunk, snr_db
from qwen3_codec.verification import MAX_ERROR, MAX_MSE, ONE_SHOT, WRAPPER

loaded = checkpoint.load(CHECKPOINT, audio=AUDIO)
decoder = loaded.decoder
window, reach = decoder.config.sliding_window, conv_reach(decoder)
codes = checkpoint.example_codes(loaded, FRAMES or max(60, window + 18))
print(f"weights: {loaded.weights}; codes {codes.shape} = [batch, frames, codebooks]")

# %% [markdown]
# ## 1. One call takes codes and state
#
# The wrapper is a function of codes and state. These are its inputs and outputs, in order.

# %%
few = min(4, reach - 1)  # of history; notebook 1 measured that the conv stack looks back `reach` frames
wrapper = StatefulCodecONNXWrapper(decoder, conv_history_frames=few, lookahead_frames=4)
spec = wrapper.spec
plots.table(
    ["#", "input", "shape", "dtype"], [(i, t.name, list(t.shape), t.dtype) for i, t in enumerate(spec.all_inputs)]
)

# %%
plots.table(
    ["#", "output", "shape", "dtype"], [(i, t.name, list(t.shape), t.dtype) for i, t in enumerate(spec.all_outputs)]
)

# %% [markdown]
# ## 2. Frames are held back, then finished
#
# With a look-ahead of 4, the last 4 frames of a call are held back. `final_wav` has all frames that are not yet
# finished, `valid_samples` says how many of its samples are finished now. So the length of the output depends on the
# inputs' shapes alone, and the client cuts. The last call finishes everything. (`start_samples` counts what the graph itself
# has cut off the front already: the history's samples, which an earlier call gave. A client has nothing to do with it.)

# %%
session, state, rows = TorchSession(wrapper), spec.zero_state(), []
parts = list(chunks(codes[:, :10], [3]))
for index, part in enumerate(parts):
    is_last = np.array([index == len(parts) - 1], np.float32)
    out = session.run({"audio_codes": part, "is_last": is_last, **state})
    state = {before.name: out[after.name] for before, after in spec.states}
    counts = [int(out[name][0]) for name in ("num_finalize", "valid_samples", "start_samples")]
    rows.append((part.shape[1], int(is_last[0]), *counts, out["final_wav"].shape[1], state["conv_h"].shape[2]))
plots.table(
    ["new frames", "is_last", "num_finalize", "valid_samples", "start_samples", "final_wav", "history after"], rows
)

# %%
assert sum(row[2] for row in rows) == 10, "every frame is finished once"
assert rows[0][2] == 0, "three frames are fewer than the look-ahead: nothing comes out yet"

# %% [markdown]
# The same as a picture: what each call works on. All of it goes through the conv stack; only the green and the blue parts are new to a listener.

# %%
per_frame = decoder.samples_per_frame
seen = [(new, done, start // per_frame, out // per_frame - new) for new, _, done, _, start, out, _ in rows]
title = f"Chunks of 3, {few} frames of history, 4 of look-ahead"
figure = schematics.calls_see(schematics.windowed_calls(seen), title)

# %% [markdown]
# ## 3. With enough history it is exact
#
# Notebook 1 measured how far back the conv stack looks. With that many frames of history, the stream must equal the
# one-shot decoder to rounding, for any cut into chunks. `verify` measures it, and fails if the largest error of any sample is above 5e-5 or
# the mean squared error (MSE) of any chunk above 1e-9. Both limits are for a waveform between −1 and 1: float32 rounding grows with what it
# rounds, so for a louder reference they are stricter. That is why the report says at what the reference peaks.

# %%
exact = StatefulCodecONNXWrapper(decoder, conv_history_frames=reach, lookahead_frames=4)
report = verify(loaded, exact, codes, [[1], [3], [12], [7, 1, 2]], progress=plots.progress)
print(report)
assert report.judged and report.passed

# %%
figure = plots.per_chunk_error(
    report.results, f"History of {reach} frames: every chunk is exact ({loaded.weights})", MAX_MSE
)

# %% [markdown]
# Why these limits? They lie between two numbers that can be measured: the rounding of a wrapper that is right, and the quietest real mistake
# that we know. The candidates are a history that is one or two frames too short, and positions that stop growing when the attention window is full.


# %%
def distance(wrapper):
    """(largest error of a sample, largest MSE of a chunk) against the one-shot decoder, in chunks of 3."""
    pieces = [*TorchSession(wrapper).stream().pushes(codes, [3])]
    pair = report.waveforms[ONE_SHOT, ()], np.concatenate(pieces, axis=1)
    return max_error(*pair), max(per_chunk(mse, *pair, [piece.shape[1] for piece in pieces]))


cases = {"right: rounding alone": StatefulCodecONNXWrapper(decoder, reach, 0)}
for history in (reach - 1, reach - 2):
    if history >= 0:
        cases[f"{history} of {reach} frames of history"] = StatefulCodecONNXWrapper(decoder, history, 0)
cases["positions that saturate"] = SaturatingPositions(decoder, reach, 0)
sizes = {name: distance(each) for name, each in cases.items()}
rows = [(name, f"{error:.1e}", f"{square:.1e}") for name, (error, square) in sizes.items()]
plots.table(["wrapper", "largest error", "largest MSE of a chunk"], rows)

# %%
rounding = sizes["right: rounding alone"]
missed = [name for name, (error, _) in sizes.items() if error <= MAX_ERROR][1:]
quietest = min((error for error, _ in sizes.values() if error > MAX_ERROR), default=float("inf"))
print(f"{MAX_ERROR:.0e} is {MAX_ERROR / rounding[0]:.0f} times the rounding of {rounding[0]:.1e}")
print(f"and the quietest mistake above it is {quietest:.1e}")
print(
    "below the limit, so not seen:", ", ".join(f"{name} ({sizes[name][0]:.1e})" for name in missed) or "none of these"
)
assert rounding[0] < MAX_ERROR < quietest and rounding[1] < MAX_MSE

# %% [markdown]
# So 5e-5 is 100 × the rounding that we measure (4e-7 on the demo), and below the quietest real mistake that we know (3e-4: two frames of history too
# few), except for one: the oldest frame alone weighs so little (2e-6) that its loss stays below the limit, because it is smaller than a tenth of a step of
# 16-bit audio. An MSE of 1e-9 is a root mean square of 3e-5. It is the stricter limit for an error that is about as large everywhere in a chunk, while
# the first one sees a single sample.

# %% [markdown]
# ## 4. A short history is an approximation
#
# Four frames are what the design that we follow uses. The conv stack then starts each chunk a little too late, and the
# first samples of every chunk are off. The look-ahead does not help: the decoder never looks ahead.
#
# Approximate does not mean that anything goes. What this design *must* give can be computed without any state: each call's frames, decoded from
# the one-shot latents with the history that the call has and nothing before it. `verify` judges the wrapper by that (the column *error*), under the same
# limits; the other columns say how far that is from the one-shot decoder, which is what the design costs.

# %%
report = verify(loaded, wrapper, codes, [[3]])
print(report)
short = report.waveforms[WRAPPER, (3,)][0]
reference = report.waveforms[ONE_SHOT, ()][0]
assert report.judged and report.passed and report.results[0].oracle_error < MAX_ERROR
assert mse(reference, short) > 100 * MAX_MSE


# %% [markdown]
# A wrapper of this design that is wrong fails, however approximate the design is. This one turns the waveform round and makes it louder:


# %%
class Louder(StatefulCodecONNXWrapper):
    def forward(self, *inputs):
        waveform, *rest = super().forward(*inputs)
        return -7 * waveform, *rest


wrong = verify(loaded, Louder(decoder, few, 4), codes, [[3]])
print("\n".join(wrong.failures))
assert not wrong.passed and wrong.results[0].first_wrong_frame is not None

# %%
# Twelve frames from frame 30 on, in samples.
view = slice(30 * decoder.samples_per_frame, 42 * decoder.samples_per_frame)
starts = np.cumsum([chunk.samples for chunk in report.results[0].chunks])
borders = [start - view.start for start in starts if view.start <= start < view.stop]
title = f"12 frames in chunks of 3, history {few} ({loaded.weights}); dotted: where a call's samples begin"
figure = plots.waveforms(reference[view], short[view], loaded.sample_rate, title, borders)

# %% [markdown]
# Listen to both. (With random weights both are noise.)

# %%
print("one-shot")
plots.player(reference, loaded.sample_rate)

# %%
print(f"streamed with a history of {few} frames")
plots.player(short, loaded.sample_rate)

# %% [markdown]
# How the error falls with the history, with and without look-ahead:


# %%
def error_at(history, lookahead, chunk=3):
    """MSE of the first 60 frames of a stream against the one-shot decoder."""
    stream = TorchSession(StatefulCodecONNXWrapper(decoder, history, lookahead)).stream()
    waveform = stream.run(codes[:, :60], [chunk])[0]
    return mse(reference[: waveform.size], waveform)


histories = [*(history for history in (0, 1, 2, 4, 6, 8) if history < reach), reach]
series = {
    f"look-ahead {ahead}": [(history, error_at(history, ahead)) for history in plots.progress(histories)]
    for ahead in (0, 4)
}
figure = plots.error_against_history(series, reach, f"Chunks of 3 frames ({loaded.weights})")

# %%
without, with_four = (dict(points) for points in series.values())
assert without[reach] < MAX_MSE and with_four[reach] < MAX_MSE
assert without[0] > without[few] > without[reach]
assert 0.5 < without[few] / with_four[few] < 2, "look-ahead makes no real difference"

# %% [markdown]
# ## 5. Turn the knobs
#
# The slider calls the plain function `show`, which is called once here too, so that this page reads without a kernel.


# %%
def show(history=4, lookahead=4, chunk=3):
    error = error_at(history, lookahead, chunk)
    print(f"history {history}, look-ahead {lookahead}, chunks of {chunk}: MSE {error:.1e}")
    return error


assert show(reach, 0, 1) < MAX_MSE
interact(
    show,
    history=IntSlider(4, 0, 12, description="history"),
    lookahead=IntSlider(4, 0, 8, description="look-ahead"),
    chunk=IntSlider(3, 1, 24, description="chunk"),
)  # fmt: skip

# %% [markdown]
# ## 6. Change the wrapper, and see whether it agrees
#
# Change the step here and run the cell: it agrees, or it says in which frame it is wrong for the first time. As it stands the class changes nothing.
# How far it looks matters: what goes wrong once the attention window is full shows in no shorter stream, so the cell goes past it.
# (One to try: outputs are numbered as in section 1's second table, so `outputs[4]` is `next_pre_conv_h`. Return
# `outputs[4][:, :, -1:]` in its place, and see which schedules notice.)


# %%
class MyWrapper(StatefulCodecONNXWrapper):
    def forward(self, audio_codes, is_last, pre_conv_h, latent_buf, conv_h, *past):
        outputs = super().forward(audio_codes, is_last, pre_conv_h, latent_buf, conv_h, *past)
        return outputs


enough = checkpoint.example_codes(loaded, window + 18)
mine = verify(loaded, MyWrapper(decoder, reach, 0), enough, [[1], [3], [7, 1, 2]])
print(mine)
print(f"{enough.shape[1]} frames, {enough.shape[1] - window} past the window of {window}")
assert mine.passed and mine.past_window

# %% [markdown]
# The mistake that 40 frames do not show: positions that saturate. Up to the frame after the window they are right, and `verify` says in its last line
# that it did not look further.

# %%
for frames in (40, window + 1, window + 8):
    report = verify(loaded, SaturatingPositions(decoder, reach, 0), enough[:, :frames], [[1]])
    print(f"{frames} frames: {str(report).splitlines()[-1]}")
    assert not (report.passed and report.past_window)
assert loaded.source != "demo" or not report.passed

# %% [markdown]
# ## Your turn: carry the history of a convolution
#
# A causal convolution in a stream: `past` [B, C, history] holds the samples before `x` [B, C, N]; give the output, and the past for the next call. The code
# below is right for long chunks. `check` also tries chunks of 1, and a kernel that needs no history at all.


# %% tags=["exercise"]
def causal_step(conv, x, past):
    y = conv(torch.cat([past, x], dim=2))
    return y, x[:, :, -past.size(2) :]


check("history", causal_step)

# %%
solution("history")

# %% [markdown]
# ## What you can do now
#
# Check a streaming step in PyTorch before any export, and tell an approximation from a mistake. The exercise above is the
# smallest such step; *Stream a transposed convolution* in [11 · Your turn](12_capstones.ipynb) is the next.
#
# To try next:
#
# - A longer stream: `QWEN3_CODEC_FRAMES=400` goes far past the demo's attention window of 72 frames.
# - `snr_db` in place of `mse` in `error_at`, if you think in decibels.
# - Go on to [3 · Export to ONNX](04_export_onnx.ipynb).

# %%
print(f"history {few}, chunks of 3: {snr_db(reference, short):.1f} dB SNR on {loaded.weights}")
