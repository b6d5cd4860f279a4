# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 · Many streams: dynamic batching of streaming requests
#
# One listener needs one stream. A service has thousands, each at another place in its sentence, each asking when it likes. Every call of the graph has a cost of its own, because operations are
# started and weights are read. Requests that wait at the same time can share this cost in one call; how much that saves is measured below, and it is not always much. It takes a graph in
# which the rows of a batch may be at different [offsets](guide/glossary.md#batch-rows-at-different-offsets). The exact design is one: all of its [states](guide/glossary.md#state) have a fixed shape, and a counter says for each row how many cache slots are valid.
#
# The batching is done by a *server*. This project writes none: it writes a *model repository* (a folder) for NVIDIA's Triton Inference Server, which has what is needed: *sequences* (requests that
# belong together, with a start and an end), *[dynamic batching](guide/glossary.md#dynamic-batching)* of what waits, several copies of a model, and measurements.
#
# After this page you can
#
# 1. put streams at different offsets into one call, and take them out again,
# 2. say what a server must be told about a graph with state,
# 3. say how Triton pairs states, and why it would mix up 18 of the windowed graph's 19,
# 4. check any traffic against each stream's full-sequence decode,
# 5. measure what batching saves,
# 6. estimate what ten thousand streams need, by arithmetic.
#
# *Prerequisites:* [5 · Verify in ONNX Runtime](05_verify_onnxruntime.ipynb). About 10 minutes. All of it runs without a server, whose part is simulated from a configuration of its own kind. If the server is at hand
# (Linux on x86; `make serve` and `make test` fetch it), the same streams go through a real one too, with the other backend (section 5).

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/
STREAMS = int(os.environ.get("QWEN3_CODEC_STREAMS", "12"))
SEED = 3

# %%
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from qwen3_codec import CodecSession, ExactStreamingWrapper, StatefulCodecONNXWrapper, one_shot
from qwen3_codec.course import build_folder, check, plots, solution
from qwen3_codec.exporting import exported
from qwen3_codec.measure import cost_of, gflop_per_frame, load
from qwen3_codec.model import OFFICIAL_CONFIG, checkpoint
from qwen3_codec.runtime import GraphError, chunks, max_error
from qwen3_codec.serving import NoServer, Request, Server, SimulatedServer, client, find, repository
from qwen3_codec.verification import MAX_ERROR, random_codes

# %%
loaded = checkpoint.load(CHECKPOINT)
decoder = loaded.decoder
build = build_folder(BUILD)
wrapper = ExactStreamingWrapper(decoder)
graphs = build / "onnx_export"  # those of page 4
session = CodecSession(exported(loaded, wrapper, graphs / "qwen3_tts_decoder_exact.onnx"))
spec = session.spec
frame_ms = 1000 * spec.samples_per_frame / spec.sample_rate
print(f"{loaded.weights}; a frame is {frame_ms:.0f} ms; a stream's state has {spec.bytes_per_stream():,} bytes")

# %% [markdown]
# ## 1. Streams at different offsets in one call
#
# `join` puts the rows of several streams into one batch, `fork` takes some of them out again. Both are copies: what one does later, the other does not see. Here three
# streams after 30, 3 and 0 frames decode two frames each in one call.
#
# > **Predict.** The row after 0 frames has an empty KV cache, the row after 30 frames a well filled one, and both are in one tensor. What keeps the first row from attending to empty slots?
#
# <details><summary>Answer</summary>The mask. `past_frames` has one count for each row, and slots that are not valid for that row are hidden from it.</details>

# %%
codes = random_codes(spec, 40, batch=3, seed=SEED)
offsets, streams = (30, 3, 0), [session.stream() for _ in range(3)]
for row, (stream, offset) in enumerate(zip(streams, offsets, strict=True)):
    if offset:
        stream.push(codes[row : row + 1, :offset])
first, *others = streams
joined = first.join(*others)
print("frames seen, row by row:", joined.frames)
together = joined.push(np.stack([codes[row, offset : offset + 2] for row, offset in enumerate(offsets)]))

# %%
alone = np.concatenate(
    [s.push(codes[row : row + 1, offset : offset + 2]) for row, (s, offset) in enumerate(zip(streams, offsets))]
)
print(f"in one call and in three: {max_error(together, alone):.1e} apart")
assert max_error(together, alone) < MAX_ERROR
assert joined.fork([1]).frames.tolist() == [5]

# %% [markdown]
# ## 2. What a server must be told about a graph with state
#
# `python -m qwen3_codec triton GRAPH --output model_repository` writes a folder with the graph and its `config.pbtxt`, of one of two kinds.
#
# - `--backend onnxruntime`: no code of ours. The server itself keeps the state of each sequence (Triton calls it *implicit state*), and puts it in and takes it out in every call. For each state it
#   must be told both names, the type, the shape without the rows, and that it begins as zeros. Without the last, a new sequence begins with whatever lay in memory.
# - `--backend python`: a `model.py` of less than 150 lines, which keeps a stream for each sequence, joins those that wait with equally many frames, and takes them apart again. It runs on every
#   Triton that has this package.
#
# The spec in the graph has all of it, so the configuration is written from there:

# %%
config = repository.config(spec, "onnxruntime", max_batch=8)
text = str(config).splitlines()
second = [number for number, line in enumerate(text) if "state {" in line][1]
print("\n".join([*text[:12], "...", *text[second - 1 : second + 14], "..."]))
print(f"{len(config.sequence_batching.state)} states in all, {len(text)} lines")

# %% tags=["check"]
named = [(state.input_name, state.output_name) for state in config.sequence_batching.state]
assert named == [(before.name, after.name) for before, after in spec.states]
assert all(state.initial_state[0].zero_data and -1 not in state.dims for state in config.sequence_batching.state)

# %% [markdown]
# ## 3. Triton pairs states by sorted name
#
# The configuration names pairs of inputs and outputs. Triton does not use them to carry a state over: it keeps the names of the inputs and those of the outputs in two sorted lists, and takes the entry of the same
# rank (`SequenceStates::OutputState` in `src/sequence_state.cc` of its core). (Read in its source and not run here. A pair that shares one buffer, `use_same_buffer_for_input_output`, is not swapped, and so is not concerned.) Names that sort alike on both sides are safe. The windowed graph keeps the names that its users know, `past_key_0` and
# `next_key_0`, and they do not sort alike.
#
# > **Predict.** How many of the windowed graph's states get another state's value, and does anything report it?
#
# <details><summary>Answer</summary>18 of 19 at the official number of layers. Most of them are paired between tensors of one shape, so nothing reports it: the keys of one layer become those of another.</details>

# %%
windowed = StatefulCodecONNXWrapper(decoder, 4, 4)
wrong = repository.mispaired(windowed.spec)
print(f"windowed: {len(wrong)} of {len(windowed.spec.states)} states would get another's value")
print(f"exact: {len(repository.mispaired(spec))} of {len(spec.states)}")
plots.table(["goes into", "should come from", "would come from"], wrong[:4] + wrong[-2:])

# %% [markdown]
# Two more reasons speak against this graph on a server: `is_last` is one number for the whole call, and its first states are empty, which a configuration cannot say. The command refuses such a graph and names
# all of it:

# %%
try:
    graph = exported(loaded, windowed, graphs / "qwen3_tts_decoder_stateful.onnx")
    repository.check_servable(CodecSession(graph))
except GraphError as error:
    refusal = str(error).partition(": ")[2]
print(refusal)
assert "paired wrongly" in refusal and "is_last" in refusal and "empty" in refusal
assert not repository.mispaired(spec)

# %% [markdown]
# ### Exercise: names that pair ●○○ · 10 min
#
# *Needs:* this section. Name the states of a codec with `convs` convolutions and `layers` layers of keys and of values, and a counter. Return a list of (name, name of what comes out): the counter, then the convolutions, then the
# keys, then the values. Sorted by name, inputs and outputs must pair, and the convolutions must stay in the order of the data.


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
# ## 4. Any traffic, checked against each stream's own decode
#
# The simulated server does from `config.pbtxt` what the real one does with a graph whose states it keeps: requests that wait with equally many frames share a call of at most `max_batch_size` rows; states are stacked,
# and carried over by rank. The streams come and go at random, with chunks of random lengths.

# %%
rng = np.random.default_rng(SEED)
schedules = {name: rng.choice([1, 2, 4], rng.integers(3, 9)).tolist() for name in range(1, STREAMS + 1)}
begins = {name: int(rng.integers(0, 8)) for name in schedules}
rows = {name: random_codes(spec, sum(schedule), seed=name) for name, schedule in schedules.items()}
parts = {name: list(chunks(rows[name], schedule)) for name, schedule in schedules.items()}


def waiting(turn: int) -> list[Request]:
    """The requests of this turn."""
    asked = {name: turn - begins[name] for name in parts if 0 <= turn - begins[name] < len(parts[name])}
    return [Request(name, parts[name][at], at == 0, at == len(parts[name]) - 1) for name, at in asked.items()]


# %%
server = SimulatedServer(config, session.run)
heard, seen, picture = {name: [] for name in parts}, dict.fromkeys(parts, 0), []
for turn in range(max(begins[name] + len(parts[name]) for name in parts)):
    requests, before = waiting(turn), len(server.calls)
    for request, samples in zip(requests, server.execute(requests), strict=True):
        heard[request.sequence].append(samples)
    # The calls of this turn, one for each chunk length: which streams were in it, at which offsets.
    for length in sorted({r.codes.shape[1] for r in requests}):
        picture.append({r.sequence: seen[r.sequence] for r in requests if r.codes.shape[1] == length})
    seen |= {r.sequence: seen[r.sequence] + r.codes.shape[1] for r in requests}

# %%
errors = [max_error(one_shot(decoder, rows[name]), np.concatenate(heard[name], axis=1)) for name in rows]
print(f"{len(rows)} streams, {len(server.calls)} calls of {np.mean(server.calls):.2f} rows on average")
print(f"largest difference from each stream's one-shot decode: {max(errors):.1e}")
assert max(errors) < MAX_ERROR and not server.states and np.mean(server.calls) > 1
offsets = np.array([[call.get(name, np.nan) for call in picture] for name in rows])
figure = plots.offsets(offsets, f"Rows of each call, and their offsets ({loaded.weights})")


# %% [markdown]
# **Figure.** One column a call, one mark a stream in it; the number is how many frames that stream had decoded before. Streams of very different offsets share calls.

# %% [markdown]
# ## 5. The same traffic on the real server
#
# The same streams on Triton, with the Python model, which holds the states itself. So this tests the batching and the client, and not the pairing of section 3. Each is a client of its own that sends a chunk, waits for its samples, and sends the next. A request has `audio_codes`, a number for the sequence, and whether
# this is its start or its end.

# %%
try:
    find()
    here = ""
except NoServer as error:
    here = str(error)
print(here or "there is a server")


def speak(url: str, name: int) -> np.ndarray:
    """One client: its chunks one after the other, at moments of its own."""
    samples, rng = [], np.random.default_rng(name)
    with client.RemoteStream(url) as stream:
        for part in parts[name]:
            time.sleep(rng.uniform(0, 0.02))
            samples.append(stream.push(part, last=part is parts[name][-1]))
    return np.concatenate(samples, axis=1)


# %%
errors, models = [], build / "model_repository"
repository.write(session.path, models, threads=1)
if not here:
    with Server(models) as triton, ThreadPoolExecutor(len(parts)) as clients:
        waveforms = list(clients.map(lambda name: speak(triton.url, name), parts))
        requests, calls = triton.statistics()
        live = triton.live_streams()
    errors = [max_error(one_shot(decoder, rows[name]), w) for name, w in zip(rows, waveforms, strict=True)]
    print(
        f"{requests} requests in {calls} calls of the model; largest difference {max(errors):.1e}; {live} streams left"
    )
    assert live == 0 and calls <= requests
assert max(errors, default=0) < MAX_ERROR

# %% [markdown]
# A client that vanishes leaves a state behind. The server ends a sequence that asks nothing for `--idle` seconds, and the model then frees its state. A wrong chunk gets an error in the library's words, for its own stream only; others
# in the same call are not affected.
#
# ## 6. What batching saves, measured
#
# Time for one frame of one stream when 1 to 16 rows share a call, in this run on this machine's CPU. What a call costs once (starting operations, reading weights) is shared; the products are not. So batching saves most when
# a call has least to do: at one frame a call.
#
# > **Predict.** By how much do 16 rows shorten the time for a frame at N = 1, and at N = 12 frames a call?
#
# <details><summary>Answer</summary>On this small model to about a third of it at N = 1, and to about two thirds at N = 12, because those products keep the processor busy anyway. At the official dimensions it is still less: see
# the table in <a href="guide/costs.md">costs</a>. On a GPU it was not measured.</details>


# %%
def ms_per_frame(count: int, frames: int, repeats: int = 4) -> float:
    """The quickest of a few calls, for one frame of one row."""
    stream, seconds = session.stream(count), []
    for repeat in range(repeats):
        part = random_codes(spec, frames, count, seed=repeat)
        start = time.perf_counter()
        stream.push(part)
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds) / frames / count


series = {f"N = {frames}": [(b, ms_per_frame(b, frames)) for b in (1, 2, 4, 8, 16)] for frames in (1, 4, 12)}
figure = plots.throughput(series, f"One frame of one stream, by rows in a call ({loaded.weights})")

# %% [markdown]
# **Figure.** Time of one frame of one stream over the rows in a call; N is the number of frames in a call. A line that falls means that batching saves time.

# %%
plots.table(
    ["rows in a call", *(count for count, _ in series["N = 1"])],
    [[name, *(f"{ms:.2f} ms" for _, ms in points)] for name, points in series.items()],
)

# %% [markdown]
# `python -m qwen3_codec.measure.load GRAPH` measures the whole way: clients in real time, server, model, and back. [Serving](guide/serving.md) has what it said for this model and for the official dimensions.
#
# ## 7. Ten thousand streams, by arithmetic
#
# No GPU was at hand, so this is arithmetic alone: the operations that so many streams need in a second, over the float32 rates in NVIDIA's data sheets. No program reaches the whole rate; a third is written beside it, as a guess that you can
# replace with a measurement of yours. The dimensions are the official ones. No weights are needed for it, because shapes say how many operations there are.

# %%
work, official = cost_of(OFFICIAL_CONFIG)
official_ms = 1000 * official.samples_per_frame / official.sample_rate
whole, third = load.fleet(work, official_ms), load.fleet(work, official_ms, share=1 / 3)
print(
    f"{work:.3g} GFLOP a frame: {10_000 * work / official_ms:.3g} TFLOP/s for 10,000 streams at the official dimensions"
)
print(f"(this page's model, {loaded.weights}: {gflop_per_frame(wrapper):.3g} GFLOP a frame)")
plots.table(
    ["GPU", "TFLOP/s", "at the whole rate", "at a third"],
    [[name, rate, f"{whole[name]:.1f}", f"{third[name]:.1f}"] for name, rate in load.GPU_TFLOPS.items()],
)

# %% tags=["check"]
assert all(third[name] > whole[name] > 0 for name in whole)

# %% [markdown]
# The states are no small part of it: each stream has its own, and it is read and written in every call. Longer chunks move it less often, but a listener waits longer for them.

# %%
state = 10_000 * official.bytes_per_stream() / 1e9
print(f"{state:.0f} GB of state for 10,000 streams at the official dimensions")
for frames in (1, 4, 12):
    print(f"read and written for chunks of {frames:2}: {2 * state / (frames * official_ms / 1000):.0f} GB/s")

# %% [markdown]
# ## What you can do now
#
# - Batch streams at different offsets, and show that each gets what it would have alone.
# - Give a server all that it must know, and names that it cannot pair wrongly.
# - Start one: `make serve`, and talk to it with `python -m qwen3_codec.serving.client --help`.
# - Estimate a fleet from shapes, and say which of its numbers are guesses.
#
# **Next:** [11 · Another codec](11_another_codec.ipynb), because the same parts make other models stream.
