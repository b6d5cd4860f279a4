# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5 · Verify in ONNX Runtime, chunk by chunk
#
# The graph of notebook 3 now runs without PyTorch, and is compared with it: the audio, and every state after every call.
# A small error in a state need not show at once, and it can grow with every call: section 3 makes one, and measures it.
#
# At the end of this notebook you know
#
# 1. how a client runs a stream: `push`, `finish`, `fork`, `reset`,
# 2. that graph, wrapper and one-shot decoder agree, chunk by chunk and state by state,
# 3. that the check fails when something is wrong,
# 4. what wrong codes do (one clear error, no change),
# 5. what a call costs.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
AUDIO = os.environ.get("QWEN3_CODEC_AUDIO", "")  # a recording of yours, to take the codes from
BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/
FRAMES = int(os.environ.get("QWEN3_CODEC_FRAMES", "0"))  # 0: past the attention window

# %%
from dataclasses import replace

import numpy as np

from qwen3_codec import CodecSession, StatefulCodecONNXWrapper, verify
from qwen3_codec.course import build_folder, check, fails_with, plots, solution
from qwen3_codec.exporting import exported
from qwen3_codec.model import checkpoint, conv_receptive_field
from qwen3_codec.runtime import CodesError, chunks, max_error, scaled_error, snr_db, stream_of
from qwen3_codec.verification import MAX_MSE, ONE_SHOT, ONNX, wrapper_like

build = build_folder(BUILD)
loaded = checkpoint.load(CHECKPOINT, audio=AUDIO)
window, reach = loaded.decoder.config.sliding_window, conv_receptive_field(loaded.decoder)
codes = checkpoint.example_codes(loaded, FRAMES or max(48, window + 38))
print(f"weights: {loaded.weights}; codes {codes.shape}")

# %% [markdown]
# Two graphs: the one of notebook 3 (4 frames of history, 4 of look-ahead), made again where it is missing or does
# something else than the wrapper, and one whose history reaches the receptive field.

# %%
usual = build / "onnx_export" / "qwen3_tts_decoder_stateful.onnx"
exported(loaded, StatefulCodecONNXWrapper(loaded.decoder), usual)
full = exported(
    loaded, StatefulCodecONNXWrapper(loaded.decoder, reach, 4), build / "full_history.onnx", progress=plots.progress
)
session = CodecSession(full)
print(session.spec.design, session.metadata["exporter"], session.metadata["versions"])

# %% [markdown]
# ## 1. A client needs the file alone
#
# `CodecSession` is the loaded file, `CodecStream` one stream's state. A stream takes chunks of any length.

# %%
stream = session.stream()
for part in chunks(codes[:, :12], [3, 1, 7]):
    samples = stream.push(part)
    print(f"{part.shape[1]} frames in, {samples.shape[1]} samples out, {stream.frames[0]} frames so far")
tail = stream.finish()
print(f"finish: {tail.shape[1]} samples that were held back")
assert tail.shape[1] == session.spec.lookahead_frames * session.spec.samples_per_frame

# %% [markdown]
# A `fork` is an independent copy: try two continuations from one past.

# %%
stream.reset()
stream.push(codes[:, :20])
fork = stream.fork()
same, other = stream.push(codes[:, 20:28]), fork.push(codes[:, 40:48])
print(f"the two continuations differ by {max_error(same, other):.2f}")
assert stream.fork().push(codes[:, :1]).shape == (1, session.spec.samples_per_frame)

# %% [markdown]
# ## 2. Three paths are laid side by side

# %%
wrapper = wrapper_like(loaded, session)
report = verify(loaded, wrapper, codes, [[3], [1], [7, 1, 2]], session, progress=plots.progress)
print(report)
assert report.judged and report.passed

# %%
figure = plots.per_chunk_error(report.results[:2], f"History of {reach} frames ({loaded.weights})", MAX_MSE)

# %%
reference, streamed = report.waveforms[ONE_SHOT, ()][0], report.waveforms[ONNX, (3,)][0]
step, late = loaded.decoder.samples_per_frame, min(window + 8, codes.shape[1] - 12)
view = slice(late * step, (late + 12) * step)
title = f"12 frames from frame {late} on; the attention window has {window} ({loaded.weights})"
figure = plots.waveforms(reference[view], streamed[view], loaded.sample_rate, title)

# %% [markdown]
# The states too: `states within` in the report is the largest difference of any state after any call, relative to that
# state's size. Look-ahead and history of 4 frames, the usual graph, agree with *their* wrapper just as well, and both with what their design
# must give (the column *error*); it is the design that differs from the one-shot decoder, not the export.

# %%
usual_session = CodecSession(usual)
usual_report = verify(loaded, wrapper_like(loaded, usual_session), codes, [[3]], usual_session)
print(usual_report)
assert usual_report.passed and usual_report.judged

# %%
pairs = ((report, reach), (usual_report, 4))
both = [replace(made.results[1], path=f"history of {frames} frames") for made, frames in pairs]
title = f"ONNX Runtime, two lengths of history, chunks of 3 ({loaded.weights})"
figure = plots.per_chunk_error(both, title, MAX_MSE)

# %% [markdown]
# ## 3. The check can fail
#
# A check that never fails proves nothing. Here one of the states, the first layer's values, is made 1 % too large after every call.


# %%
class Meddled:
    """The session, with one state a little wrong."""

    spec = session.spec

    def run(self, feeds):
        outputs = session.run(feeds)
        return outputs | {"next_value_0": outputs["next_value_0"] * 1.01}


failed = verify(loaded, wrapper, codes[:, :40], [[3]], Meddled())
print("\n".join(failed.failures))
assert not failed.passed

# %% [markdown]
# 1 % is what *one* call adds. A value stays in the cache until the window has passed over it, and each call makes it 1 % larger again:
# after `n` calls the oldest one is 1.01^n of what it should be. So the error of the state (below: over its largest value) grows until the
# window is full, and the waveform follows it. Frame by frame, on the same codes:

# %%
right, wrong = session.stream(), stream_of(Meddled())
errors = {"the state, largest value": [], "the waveform": []}
for frame in plots.progress([*chunks(codes, [1])]):
    pair = right.push(frame), wrong.push(frame)
    states = right.state["past_value_0"], wrong.state["past_value_0"]
    errors["the state, largest value"].append(scaled_error(*states))
    errors["the waveform"].append(max_error(*pair) if pair[0].size else np.nan)  # held back
figure = plots.frame_errors(errors, f"One state 1 % larger after each call ({loaded.weights})", "largest error")

# %%
after = {n: errors["the state, largest value"][n - 1] for n in (1, window // 2, window)}
print(
    ", ".join(f"{100 * error:.1f} % after {n} calls (1.01^n: {100 * (1.01**n - 1):.1f})" for n, error in after.items())
)
audio = np.array(errors["the waveform"])
early, late = np.nanmax(audio[:12]), np.nanmax(audio[window:])
print(f"waveform: {early:.1e} in the first 12 frames, {late:.1e} once the window is full")
assert after[1] < after[window // 2] < after[window] and early < late

# %% [markdown]
# ## 4. Wrong codes are refused
#
# One error, with the value and its place; the stream goes on as if nothing had been pushed.

# %%
wrong = codes[:, :3].copy()
book = session.spec.num_quantizers - 1
wrong[0, 1, book] = session.spec.codebook_size
stream = session.stream()
with fails_with(CodesError, f"row 0, frame 1, codebook {book}"):
    stream.push(wrong)
with fails_with(CodesError, "must be integers"):
    stream.push(codes[:, :3] * 1.0)
assert stream.frames == 0

# %% [markdown]
# ## 5. What a call costs is measured
#
# Times are of this machine, in this run; they grow with the size of the model. The *real-time factor* is compute time
# over audio time: below 1 the stream keeps up.

# %%
spec = session.spec
timed = report.results[:2]
series = {
    f"{r.path} ({r.realtime_factor:.2f} × real time)": [1000 * chunk.seconds for chunk in r.chunks] for r in timed
}
chunk = timed[0].schedule[0]
chunk_ms = 1000 * chunk * spec.samples_per_frame / spec.sample_rate
figure = plots.call_times(series, chunk, chunk_ms, f"One call, {chunk} frames ({loaded.weights})")

# %% [markdown]
# ## 6. Listen

# %%
print("one-shot, PyTorch")
plots.player(reference, loaded.sample_rate)

# %%
print(f"streamed, ONNX Runtime, history {reach}: {snr_db(reference, streamed):.0f} dB SNR")
plots.player(streamed, loaded.sample_rate)

# %%
short = usual_report.waveforms[ONNX, (3,)][0]
print(f"streamed, ONNX Runtime, history 4: {snr_db(reference, short):.0f} dB SNR")
plots.player(short, loaded.sample_rate)

# %% [markdown]
# ## Your turn: find the frozen axis
#
# Somebody gives you a graph and the module it was made from. Both are functions of {name: array} here and give a list of arrays; `example` holds inputs of the lengths
# that the graph was made with. Return the set of (name, axis) whose length the graph does not follow. The code below waits for an
# error. `check` has four graphs; one of them is right.


# %% tags=["exercise"]
def frozen_axes(graph, module, example):
    found = set()
    for name, array in example.items():
        for axis in range(array.ndim):
            longer = np.concatenate([array, array], axis)
            try:
                graph(dict(example) | {name: longer})
            except Exception:
                found.add((name, axis))
    return found


check("the frozen axis", frozen_axes)

# %%
solution("the frozen axis")

# %% [markdown]
# ## What you can do now
#
# Hold a graph against the module that it was made from, and find the axis that does not follow. The exercise above is that
# tool; *Write the proof* in [11 · Your turn](12_capstones.ipynb) is the larger one.
#
# To try next:
#
# - The same from the command line: `python -m qwen3_codec verify build/full_history.onnx --checkpoint ... --chunks 3,1,7`
# - Decode without PyTorch: `python -m qwen3_codec decode build/full_history.onnx --codes codes.npy --output speech.wav`
# - Exact with no look-ahead, and nothing decoded twice: [5 · Exact streaming](05_exact_streaming.ipynb).
# - Batches: `session.stream(batch=2)` and codes of shape [2, N, codebooks].
