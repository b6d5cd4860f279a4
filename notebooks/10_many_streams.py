# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 · Many streams: one call for all who wait
#
# One listener needs one stream. A service has thousands, each at another place in its sentence, each asking when it likes.
# Each call of the graph has a cost of its own: operations are started, weights are read. Those who wait at the same time can
# share it, if they share a call; how much that saves is measured below, and it is not always much. It needs a graph in which
# every row may have its own age. The exact design is one: all states have one shape, and a counter says for each row how much of them is real.
#
# A *server* does the sharing. This project writes no server: it writes a *model repository* (a folder) for NVIDIA's Triton
# Inference Server, which has what is needed: *sequences* (requests that belong together, with a start and an end),
# *batching* (who waits is joined), several copies of a model, and measurements.
#
# At the end of this notebook you know
#
# 1. how rows of different ages share a call, and how a row comes and goes,
# 2. what a server must be told about a graph with state, and that the graph's own spec says all of it,
# 3. how Triton pairs states, and why 18 of the windowed graph's 19 would go wrong,
# 4. that any traffic gives each stream what it would have alone,
# 5. what joining gains on this machine and what it does not,
# 6. what ten thousand streams would need, by arithmetic.
#
# All of it runs without a server: its part is simulated from the same configuration. Where the server is at hand (Linux on
# x86; `make serve` and `make test` fetch it), the same streams go through the real one too.

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
from qwen3_codec.course import build_folder, plots
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
session = CodecSession(exported(loaded, wrapper, build / "exact.onnx"))
spec = session.spec
frame_ms = 1000 * spec.samples_per_frame / spec.sample_rate
print(f"{loaded.weights}; a frame is {frame_ms:.0f} ms; a stream's state has {spec.bytes_per_stream():,} bytes")

# %% [markdown]
# ## 1. Streams join and fork
#
# `join` puts the rows of several streams on top of each other, `fork` takes some of them out again. Both are copies: what
# one does later, the other does not see. Here three streams of 30, 3 and 0 frames decode two frames each in one call.

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
# ## 2. A server must be told this
#
# `python -m qwen3_codec triton GRAPH --output model_repository` writes a folder with the graph and `config.pbtxt`, in one
# of two kinds.
#
# - `--backend onnxruntime`: no code of ours. The server keeps each sequence's state itself (Triton calls it *implicit
#   state*) and puts it in and takes it out at each call. It must be told every state's two names, its type, its shape without
#   the rows, and that it begins as zeros: without the last, a new sequence begins with whatever lay in memory.
# - `--backend python`: a `model.py` of less than 150 lines, which keeps a stream for each sequence, joins those that wait
#   with equally many frames, and parts them again. It runs on every Triton that has this package.

# %%
config = repository.config(spec, "onnxruntime", max_batch=8)
text = str(config).splitlines()
first_states = [number for number, line in enumerate(text) if "state {" in line][:3]
print("\n".join(text[: first_states[-1]]), "\n    ...")
print(f"{len(config.sequence_batching.state)} states in all, {len(text)} lines")

# %%
named = [(state.input_name, state.output_name) for state in config.sequence_batching.state]
assert named == [(before.name, after.name) for before, after in spec.states]
assert all(state.initial_state[0].zero_data and -1 not in state.dims for state in config.sequence_batching.state)

# %% [markdown]
# ## 3. States are paired by sorted name, whatever the configuration says
#
# The configuration names pairs, but Triton does not use them to carry a state over: it keeps the names of the inputs and those
# of the outputs in two sorted lists and takes the entry of the same rank (`SequenceStates::OutputState` in
# `src/sequence_state.cc` of its core). Names that sort alike on both sides are safe. The windowed graph keeps the names
# that its users know, `past_key_0` and `next_key_0`, and they do not sort alike.

# %%
windowed = StatefulCodecONNXWrapper(decoder, 4, 4)
wrong = repository.mispaired(windowed.spec)
print(f"windowed: {len(wrong)} of {len(windowed.spec.states)} states would get another's value")
print(f"exact: {len(repository.mispaired(spec))} of {len(spec.states)}")
plots.table(["goes into", "should come from", "would come from"], wrong[:4] + wrong[-2:])

# %% [markdown]
# Most of them are the worst kind: the keys of one layer would become those of another, of the same shape, and nothing would
# complain. It is not the only reason: `is_last` is one number for the whole call, and the first states are empty, which a
# configuration cannot say. The command refuses such a graph and names all of it.

# %%
try:
    repository.check_servable(CodecSession(exported(loaded, windowed, build / "windowed.onnx")))
except GraphError as error:
    refusal = str(error).partition(": ")[2]
print(refusal)
assert "paired wrongly" in refusal and "is_last" in refusal and "empty" in refusal
assert not repository.mispaired(spec)

# %% [markdown]
# ## 4. Any traffic comes out right
#
# The simulated server does from `config.pbtxt` what the real one does with a graph whose states it keeps: who waits with
# equally many frames shares a call of at most `max_batch_size` rows, states are stacked, and carried over by rank. The streams
# come and go at random, with chunks of random lengths.

# %%
rng = np.random.default_rng(SEED)
schedules = {name: rng.choice([1, 2, 4], rng.integers(3, 9)).tolist() for name in range(1, STREAMS + 1)}
begins = {name: int(rng.integers(0, 8)) for name in schedules}
rows = {name: random_codes(spec, sum(schedule), seed=name) for name, schedule in schedules.items()}
parts = {name: list(chunks(rows[name], schedule)) for name, schedule in schedules.items()}


def waiting(turn: int) -> list[Request]:
    """Who asks in this turn."""
    asked = {name: turn - begins[name] for name in parts if 0 <= turn - begins[name] < len(parts[name])}
    return [Request(name, parts[name][at], at == 0, at == len(parts[name]) - 1) for name, at in asked.items()]


# %%
server = SimulatedServer(config, session.run)
heard, seen, picture = {name: [] for name in parts}, dict.fromkeys(parts, 0), []
for turn in range(max(begins[name] + len(parts[name]) for name in parts)):
    requests, before = waiting(turn), len(server.calls)
    for request, samples in zip(requests, server.execute(requests), strict=True):
        heard[request.sequence].append(samples)
    # The calls of this turn, one for each chunk length: who was in it, and how old.
    for length in sorted({r.codes.shape[1] for r in requests}):
        picture.append({r.sequence: seen[r.sequence] for r in requests if r.codes.shape[1] == length})
    seen |= {r.sequence: seen[r.sequence] + r.codes.shape[1] for r in requests}

# %%
errors = [max_error(one_shot(decoder, rows[name]), np.concatenate(heard[name], axis=1)) for name in rows]
print(f"{len(rows)} streams, {len(server.calls)} calls of {np.mean(server.calls):.2f} rows on average")
print(f"largest difference from each stream's one-shot decode: {max(errors):.1e}")
assert max(errors) < MAX_ERROR and not server.states and np.mean(server.calls) > 1
offsets = np.array([[call.get(name, np.nan) for call in picture] for name in rows])
figure = plots.offsets(offsets, f"Who shared a call, and how many frames each had seen ({loaded.weights})")

# %% [markdown]
# ## 5. The real server does the same
#
# The same streams on Triton, with the Python model: each is a client of its own that sends a chunk, waits for its samples, and
# sends the next. What is said to the server is `audio_codes`, a number for the sequence, and whether this is its start or its end.

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
# A client that dies leaves a state behind. The server ends a sequence that asks nothing for `--idle` seconds, and the
# model frees its state then. A wrong chunk gets an error in the library's words, alone; who shares its call hears nothing of it.
#
# One trap is below all of this: a Python backend that was built before NumPy 2 (Triton 2.51 of 2024 is one) reads NumPy's
# structures at the wrong places under NumPy 2. An input comes with strides of 0 (every code is the first one), an output goes
# out empty, and nothing is said. `model.py` hands arrays over by DLPack, which does not depend on that.
#
# ## 6. What joining gains is measured
#
# Time for one frame of one stream, where 1 to 16 rows share a call, in this run on this machine's CPU. What every call costs
# once (starting each operation, reading the weights) is shared; the products are not. So sharing gains most where a call
# has least to do: at one frame a call. At 12 frames there is little left to share, and at the official dimensions, whose
# products keep two cores busy alone, still less: `notebooks/guide/costs.md` has those numbers. What a GPU gains was not measured; none was at
# hand.


# %%
def ms_per_frame(count: int, frames: int, repeats: int = 7) -> float:
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

# %%
plots.table(
    ["", *(f"{count} rows" for count, _ in series["N = 1"])],
    [[name, *(f"{ms:.2f} ms" for _, ms in points)] for name, points in series.items()],
)

# %% [markdown]
# `python -m qwen3_codec.measure.load GRAPH` measures the whole way: clients in real time, server, model, and back. `notebooks/guide/serving.md` has
# what it said for this model and for the official dimensions.
#
# ## 7. Ten thousand streams are a matter of arithmetic
#
# By arithmetic alone, nothing here was measured on a GPU: the operations that so many streams need in a second, over the
# float32 rates that NVIDIA's data sheets give. No program reaches the whole rate; a third is written beside it, as a guess that you
# can replace with a measurement of yours. The dimensions are the official ones, for which no weights are needed: shapes say how many operations
# there are.

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

# %%
assert all(third[name] > whole[name] > 0 for name in whole)

# %% [markdown]
# The states are no small part at that number: each stream carries its own, and it is read and written at every call. Longer
# chunks move it less often, and make a listener wait longer.

# %%
state = 10_000 * official.bytes_per_stream() / 1e9
print(f"{state:.0f} GB of state for 10,000 streams at the official dimensions")
for frames in (1, 4, 12):
    print(f"read and written for chunks of {frames:2}: {2 * state / (frames * official_ms / 1000):.0f} GB/s")

# %% [markdown]
# ## What you can do now
#
# Serve many streams from one graph, and tell a server what it must know. *Put rows of different ages under one mask* and *Give names that
# pair* in [11 · Your turn](12_capstones.ipynb) are the two things that go wrong there.
#
# To try next:
#
# - `make serve` starts the server with the demo; `python -m qwen3_codec.serving.client --help` is a client.
