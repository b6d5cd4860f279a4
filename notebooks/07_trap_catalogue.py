# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 7 · The trap catalogue: look it up by symptom, by message, by exporter
#
# A reference, not a chapter. Each trap is a record that runs: naive code, what it does, why, and the fix. With this page you can
#
# 1. find a trap from what you hear or see ([symptoms](#Symptoms)) or from what an exporter or ONNX Runtime says ([messages](#What-this-message-means)),
# 2. see what TorchScript's exporter and dynamo each do with it, where it first shows, and which check catches it ([matrix](#The-matrix)),
# 3. run any of them on your versions, before and after the fix,
# 4. go through a [checklist](#Checklist) of one page before you ship.
#
# You need the words of [3 · Verify the wrapper](03_verify_wrapper.ipynb): left context, KV cache, chunk schedule, parity. The pages
# before this one teach the commonest traps; here you look up the others. It runs in ten seconds.

# %% tags=["parameters"]
import os

BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where a graph goes; by default the project's build/

# %%
from collections import Counter

from qwen3_codec import StatefulCodecONNXWrapper
from qwen3_codec.course import build_folder, code, show_trap
from qwen3_codec.course.pitfalls import (
    TRAPS,
    axes_of,
    caches,
    catalogue,
    find_baked_in_axes,
    record,
    signatures,
    streams,
)
from qwen3_codec.exporting import example_inputs, trace
from qwen3_codec.model import random_checkpoint, small_config
from qwen3_codec.streaming import stream_transformer

same = record.versions() == record.recorded_versions()
print(len(TRAPS), "traps, measured with", ", ".join(f"{n} {v}" for n, v in record.recorded_versions().items()))
print("These are the versions here." if same else f"Here: {record.versions()}. A trap may have gone since.")

# %% [markdown]
# ## The matrix
#
# One row a trap. **right**: the graph does what it should. **costs**: so it does, with more time, memory or file than it needs. **warns**: it is
# wrong, and something was said, though seldom what is wrong. **unreported**: the export (or the code, if none takes part) says nothing; what the
# graph then does, wrong numbers or a stop in ONNX Runtime, stands under *First visible at*. **refuses**: it stops with an error before that, which
# is the best of the last three. A dash: that exporter has no such option, or it was not tried. *With either or none*: the mistake is in the
# design, in a conversion or around the graph, so every exporter keeps it.
#
# **TorchScript** (`dynamo=False`) runs the module once and records the operations that it sees. **dynamo** (`dynamo=True`) follows the code with
# a symbol for each length. What stands here was measured, with every warning, log record and printed line; left out is what the exporters say of
# right exports too (their own future, packages that they miss).
#
# The search field takes a message or a symptom as you have it, and gives up to five cards that share most with it; a card that shares little is
# no answer. (On GitHub, where there is no field, use the tables below or the browser's own search.)

# %%
catalogue.matrix()

# %%
runs = [run for trap in TRAPS.values() for run in record.recorded(trap, "naive").values()]
verdicts = Counter(run.verdict for run in runs)
print(", ".join(f"{verdict}: {count}" for verdict, count in verdicts.most_common()))

# %% tags=["check"]
assert len(TRAPS) >= 55 and set(verdicts) == {"right", "costs", "warns", "unreported", "refuses"}
assert all(run.verdict == "right" for trap in TRAPS.values() for run in record.recorded(trap, "fix").values())

# %% [markdown]
# ## Symptoms
#
# What you hear or see, and what it may be.

# %%
catalogue.symptoms()

# %% [markdown]
# ## What this message means
#
# Errors, warnings and log lines word for word (a long line is cut), so that the browser's search finds them; at the end some that these versions do
# not give any more, from public threads. A `TracerWarning` names the line where a tensor becomes a Python value; it is printed once among
# many others, stops nothing, and may also be said of lines that do no harm.

# %%
catalogue.messages()

# %% [markdown]
# ## Three traps, run here
#
# The cards below show what was measured when this page was made. `show_trap(name)` runs a trap there and then, both sides, on whatever is
# installed; if it does something else than what is recorded, the card says so and nothing stops. `python -m qwen3_codec.course.pitfalls` runs all of them and says
# which have changed: try it after an update of torch.
#
# > **Predict.** A step adds `torch.zeros(1, int(x.size(1)))` to `x` and is exported with 5 samples. What does the graph do with 2, and with 1? Does anything warn?
#
# <details><summary>Answer</summary>With 2 ONNX Runtime stops: 5 zeros cannot be added to 2 samples. With 1 the single sample is broadcast, and 5 come out, without an error. TorchScript's exporter warns of the line; dynamo makes the whole axis static and says nothing.</details>

# %%
show_trap("int() on a length")

# %% [markdown]
# > **Predict.** `if is_last > 0.5: return wav` is exported with `is_last` at 0. What becomes of the input `is_last`?
#
# <details><summary>Answer</summary>In TorchScript's trace only the branch that was taken exists. Nothing depends on `is_last`, so the graph has no such input, and a client that feeds it gets an error. dynamo refuses the export.</details>

# %%
show_trap("if on a tensor")

# %% [markdown]
# > **Predict.** A post-RoPE cache is trimmed to the window of 72 frames, and positions are taken from its length. In chunks of 3, which is the first wrong frame?
#
# <details><summary>Answer</summary>75. The call that begins at frame 72 still finds 72 keys and the position 72; the next one finds 72 keys again, and takes 72 for its position once more.</details>

# %%
show_trap("positions that saturate")

# %% tags=["check"]
naive = {name: record.recorded(TRAPS[name], "naive") for name in ("int() on a length", "if on a tensor")}
assert [run.verdict for run in naive["int() on a length"].values()] == ["warns", "unreported"]
assert "the graph has no input is_last" in naive["if on a tensor"]["torchscript"].text
assert naive["if on a tensor"]["dynamo"].verdict == "refuses"
assert record.recorded(TRAPS["positions that saturate"], "naive")[""].first == "frame 75"

# %% [markdown]
# > **Try it.** `show_trap("state in a buffer")`, or any other name of the matrix.
#
# ### Find the axis that was baked in
#
# `find_baked_in_axes` changes one axis at a time, runs the graph beside the module it was made from, and names the axis, its
# inputs, and the first node that does not follow. On a wrapper of the real decoder with one `int()` in it (small, random weights):


# %%
class Mine(StatefulCodecONNXWrapper):
    def _transform(self, hidden, past):
        return super()._transform(hidden[:, : int(hidden.size(1))], past)


config = small_config(num_hidden_layers=2, upsample_rates=[5], upsampling_ratios=[2])
decoder = random_checkpoint(config, source="two layers").decoder
draft, found = build_folder(BUILD) / "mine.onnx", {}
for wrapper in (Mine(decoder), StatefulCodecONNXWrapper(decoder)):
    trace(wrapper, draft, "torchscript")
    axes = axes_of(wrapper.spec)
    states = axes.keys() - {"batch", "frames"}  # these may be empty
    name, example = type(wrapper).__name__, example_inputs(wrapper.spec)
    found[name] = find_baked_in_axes(draft, wrapper, example, axes, may_be_empty=states)
    print(f"{name}:", *found[name] or ["every axis follows"], sep="\n  ")
draft.unlink()

# %% tags=["check"]
assert [axis.axis for axis in found["Mine"]] == ["frames"] and "Slice" in found["Mine"][0].node
assert not found["StatefulCodecONNXWrapper"]

# %% [markdown]
# ## 1. Only the traced branch is exported
#
# A streaming step has to know whether a chunk is the last one. In Python that is an `if`; in a graph there are only operations. The step here
# gets a waveform and buffers the last `HELD_BACK` = 2 samples, unless it is the last.

# %%
catalogue.cards("branches")

# %% [markdown]
# ## 2. A cache object cannot be exported
#
# Attention uses the keys and values of earlier frames. In PyTorch a *cache* object keeps them; a graph has tensors only.
# (Here: one layer of the codec's transformer, random weights, small dimensions; the sizes of errors are of these
# weights.) Before attention, queries and keys are rotated by an angle that grows with their position (*RoPE*), so that their product depends on
# the distance alone. The naive code calls transformers' own forward, the fix `stream_transformer`, which walks the layers itself:

# %%
code(caches.library_forward, stream_transformer)

# %%
catalogue.cards("caches")

# %% [markdown]
# ## 3. Every name and axis must be given
#
# A stateful decoder has some forty tensors going in and out. Each needs a name, and each length that changes must be declared.
# The step here has `*past` in its signature, like the wrappers of this project. `EXAMPLE` are an `x` of length 3 and two pasts
# of length 2; `NAMES` are the names of all inputs and outputs.

# %%
code(signatures.Variadic)

# %%
catalogue.cards("signatures")

# %% [markdown]
# ## 4. A length is baked in as a constant
#
# A chunk may have any number of frames, and the past grows. A size that becomes a Python number is written into the graph as
# it was in the example (here 5). The graph is right at that length, and it is the length at which everybody tests. `MOST` is 8.
# First what becomes of each under both exporters, at lengths from 1 to 12:

# %%
catalogue.lengths()

# %% tags=["check"]
of_lengths = {name: record.recorded(trap, "naive") for name, trap in TRAPS.items() if name.endswith(" on a length")}
warned = {name for name, by in of_lengths.items() if by["torchscript"].verdict == "warns"}
assert of_lengths.keys() - warned == {"range() on a length"}
right = {name for name, by in of_lengths.items() if by["dynamo"].verdict == "right"}
assert right == {"math.ceil on a length", "min() on a length"}
assert all(by["dynamo"].verdict == "unreported" for name, by in of_lengths.items() if name not in right)

# %%
catalogue.cards("lengths")

# %% [markdown]
# ## 5. A state is wrong although every shape is right
#
# Nothing stops, nothing warns, and the audio is only a little off, or only after some seconds. The demonstrations are on the demo's
# weights, streamed in PyTorch and compared with the full-sequence decode. SNR is the power of the audio over that of the error;
# every 10 dB more is a tenth of the error's power. Of the bound buffers, this is how each call is bound:

# %%
code(streams.HighPass, streams.run_bound)

# %%
catalogue.cards("streams")

# %% [markdown]
# ## 6. A layer pads, normalises or remembers in its own way

# %%
catalogue.cards("layers")

# %% [markdown]
# What weight norm leaves behind, in a graph and in a copy:

# %%
catalogue.cards("weight_norm")

# %% [markdown]
# An operator that an exporter does not have:

# %%
catalogue.cards("operators")

# %% [markdown]
# ## 7. Quantization and half precision
#
# ONNX Runtime brings the converters; this is what they do to graphs of the demo. What each precision costs in audio quality, layer by layer, is
# measured in [8 · Quantization](08_fewer_bits.ipynb).

# %%
catalogue.cards("precision")

# %% [markdown]
# ## 8. Seen in other exports
#
# In the module: what a layer trims, what it attends to, where its state lives.

# %%
catalogue.cards("modules")

# %% [markdown]
# ## 9. Around the graph: servers, clients and tests
#
# What a server does with streams, and what a test measures. Sizes are of the demo's weights unless something else is said.

# %%
catalogue.cards("clients")

# %% [markdown]
# Which frames go in, how much each call computes, and at which rate the samples are played:

# %%
catalogue.cards("players")

# %% [markdown]
# ## 10. The encoder
#
# The encoder turns a waveform into codes ([9 · Your voice](09_your_voice.ipynb)).

# %%
catalogue.cards("sound_in")

# %% [markdown]
# ## Checklist
#
# And before you ship: read the exporter's warnings (a right wrapper causes no `TracerWarning` in its own lines), and run the graph at 1, 2 and many frames, from an empty, a
# half-filled and a full state, past the window, with a short last chunk, with rows at different offsets, and compare every output and every state with the
# module, and the stream with the full-sequence decode. `export` of this package runs such a set before it gives a file its name.

# %%
catalogue.checklist()

# %% [markdown]
# ## What you can do now
#
# - Find a trap by what you hear, by what is said, or by exporter, and see its fix as a difference.
# - Run it on your own versions, and see which traps an update has closed.
# - Ask `find_baked_in_axes` which axis of your own graph is a constant, and where.
#
# **Next:** [8 · Quantization](08_fewer_bits.ipynb), because a graph that is right in float32 can be made smaller, and what that costs can be measured.
