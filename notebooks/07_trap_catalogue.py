# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6 · The traps, one by one: fall in, look, get out
#
# Each trap below is run here, on the versions that are installed. First the naive code, what is said while it runs, and what
# it does today: an error, a wrong result after a warning, or a wrong result that nothing reports. Then why, the fix, and what that does.
#
# Two exporters come up again and again. **torchscript** (`dynamo=False`) runs the module once and writes down the
# operations that it sees. **dynamo** (`dynamo=True`) follows the code with a symbol in place of each length. Most traps
# are small *steps* on tensors of one row, so that the mistake stands alone; the states' traps are on the speech model that
# ships with the package.
#
# At the end of this notebook you know
#
# 1. why a branch on a tensor vanishes,
# 2. which cache an exporter can take, and how one drifts,
# 3. why `head_dim` must be read and not computed,
# 4. how names and axes go together with `*args`,
# 5. what freezes a length, and how to find the frozen axis of a graph,
# 6. which states are wrong although every shape is right,
# 7. what half precision and 8 bits do to the sound,
# 8. what went wrong in other people's exports, servers and tests,
# 9. a checklist of one page: what to write and what not to write.
#
# `show_trap(name)` shows and runs the naive code, `show_fix(name)` the fix. Both stop this notebook where a trap or a fix is no
# longer as described, and where something else is said than what is recorded of it: warnings, log records, and what is written to
# the screen. Two things are left out: what the exporters say of right exports too (their own future, packages that they
# miss), and in ONNX Runtime's log the errors that it also raises. *Right* says, in sections 1 to 5, that the graph does what
# the module does from which it was made; from section 6 on, that the stream equals the one-shot decode. The source is
# `qwen3_codec/course/pitfalls/`.

# %% tags=["parameters"]
import os

BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/

# %%
from collections import Counter

import onnx
import onnxruntime
import torch
import transformers

from qwen3_codec import StatefulCodecONNXWrapper
from qwen3_codec.course import TRAPS, build_folder, code, plots, schematics, show_fix, show_trap
from qwen3_codec.course.pitfalls import axes_of, caches, find_frozen_axes, lengths, precision, signatures, streams
from qwen3_codec.exporting import example_inputs, trace
from qwen3_codec.model import checkpoint, random_checkpoint, small_config
from qwen3_codec.streaming import sliding_window_mask, stream_transformer
from qwen3_codec.verification import MAX_ERROR

versions = {module.__name__: module.__version__ for module in (torch, transformers, onnx, onnxruntime)}
print(len(TRAPS), "traps on", ", ".join(f"{name} {version}" for name, version in versions.items()))
reported = Counter(trap.reported for trap in TRAPS.values())
print("reported by:", ", ".join(f"{by} {count}" for by, count in reported.most_common()))
assert len(TRAPS) >= 30 and set(reported) == {"error", "warning", "nothing"}

# %% [markdown]
# ## 1. A branch on a tensor vanishes
#
# A streaming step has to know whether a chunk is the last one. In Python that is an `if`. In a graph there is no `if`:
# there are only operations. The step here gets a waveform and holds the last `HELD_BACK` = 2 samples back, unless it is the last.

# %% [markdown]
# ### An `if` in a trace
#
# `is_last` is 0 in the example, so the trace sees the second return only.

# %%
show_trap("if on a tensor, torchscript")

# %%
show_fix("if on a tensor, torchscript")

# %% [markdown]
# ### The same `if` under dynamo
#
# This exporter sees that the code could go two ways, and refuses. An error is the better outcome.

# %%
show_trap("if on a tensor, dynamo")

# %%
show_fix("if on a tensor, dynamo")

# %% [markdown]
# ### The end of a slice as a Python number
#
# Cut the waveform at both sides: the start is known, the end is data.

# %%
show_trap("an end of a slice as a number")

# %%
show_fix("an end of a slice as a number")

# %% [markdown]
# ### The end of a slice as a tensor
#
# Left as a tensor, the end stays in the graph and the values are right. Look at the lengths.

# %%
show_trap("an end of a slice as a tensor")

# %%
show_fix("an end of a slice as a tensor")

# %% [markdown]
# ## 2. A cache object cannot be traced
#
# Attention looks back at the keys and values of earlier frames. In PyTorch a *cache* object keeps them. A graph has no
# objects. (Here: one layer of the codec's transformer, random weights, small dimensions. The sizes of errors are of these
# weights.) Before attention, queries and keys are turned by an angle that grows with their position (*rotary positions*, RoPE),
# so that their product depends on the distance alone.
#
# The naive code calls transformers' own forward between the codec's two projections:

# %%
code(caches.library_forward)

# %% [markdown]
# The fix calls the project's `stream_transformer`, which walks the layers itself, with tensors for keys and values:

# %%
code(stream_transformer)

# %% [markdown]
# ### A cache object as an input
#
# transformers' own cache class, handed to the exporter beside the frames.

# %%
show_trap("DynamicCache as an input, torchscript")

# %%
show_fix("DynamicCache as an input, torchscript")

# %% [markdown]
# ### A cache object as an input, dynamo
#
# The other exporter is no more willing.

# %%
show_trap("DynamicCache as an input, dynamo")

# %%
show_fix("DynamicCache as an input, dynamo")

# %% [markdown]
# ### A cache of one's own for the library's forward
#
# So one writes a small class with the one method that attention calls, `update`.

# %%
show_trap("a home-made cache: get_query_offset")

# %%
show_fix("a home-made cache: get_query_offset")

# %% [markdown]
# ### The next missing method
#
# One adds the method that was missing.

# %%
show_trap("a home-made cache: get_mask_sizes")

# %%
show_fix("a home-made cache: get_mask_sizes")

# %% [markdown]
# ### A cache rebuilt from trimmed keys
#
# Tensors go in, a `DynamicCache` is built from them inside the step, and what comes out is cut to the window. It
# exports. Frame by frame against the transformer that sees everything at once:

# %%
show_trap("a cache rebuilt from trimmed keys")

# %%
show_fix("a cache rebuilt from trimmed keys")

# %% [markdown]
# ### Positions that restart
#
# To keep positions small, one lets them begin again. Here 30 frames go through in one call, and positions restart at
# the fifteenth.

# %%
show_trap("positions that restart")

# %%
show_fix("positions that restart")

# %% [markdown]
# ## 3. `head_dim` is read, not computed
#
# The exporter needs an example of every state, so one has to know its shape.

# %% [markdown]
# ### `head_dim` by the usual formula
#
# `hidden_size / num_attention_heads` is right for most models.

# %%
show_trap("head_dim by the formula")

# %%
show_fix("head_dim by the formula")

# %% [markdown]
# ## 4. Every name and axis must be given
#
# A stateful decoder has some forty tensors going in and out. Each needs a name, and each length that changes must be declared.
# The step here has `*past` in its signature, like the wrappers of this project. `EXAMPLE` are an `x` of length 3 and two pasts
# of length 2; `NAMES` are the names of all inputs and outputs.

# %%
code(signatures.Variadic)

# %% [markdown]
# ### Too few input names
#
# Only the first input is named.

# %%
show_trap("too few input names")

# %%
show_fix("too few input names")

# %% [markdown]
# ### A misspelt name in `dynamic_axes`
#
# `past_kv_0` in place of `past_0`.

# %%
show_trap("a misspelt name in dynamic_axes")

# %%
show_fix("a misspelt name in dynamic_axes")

# %% [markdown]
# ### `dynamic_axes` with `*args` under dynamo
#
# The older exporter's word, given to the newer exporter.

# %%
show_trap("dynamic_axes with *args, dynamo")

# %%
show_fix("dynamic_axes with *args, dynamo")

# %% [markdown]
# ### `dynamic_shapes` for torchscript
#
# And the other way round.

# %%
show_trap("dynamic_shapes, torchscript")

# %%
show_fix("dynamic_shapes, torchscript")

# %% [markdown]
# ### `dynamic_shapes` as a flat list
#
# One entry for each tensor seems natural.

# %%
show_trap("dynamic_shapes, one for each tensor")

# %%
show_fix("dynamic_shapes, one for each tensor")

# %% [markdown]
# ### `dynamic_shapes` by the names of the graph's inputs
#
# A dict with the names that the graph will have.

# %%
show_trap("dynamic_shapes by input name")

# %%
show_fix("dynamic_shapes by input name")

# %% [markdown]
# ## 5. A length freezes where Python sees a number
#
# A chunk may have any number of frames, and the past grows. A size that becomes a Python number is written into the graph as
# it was in the example (here 5). The graph is right at that length, and it is the length at which everybody tests. TorchScript's
# exporter warns where Python gets the number, and goes on. `MOST` is 8.

# %% [markdown]
# ### `int()`
#
# The plainest way.

# %%
show_trap("int() on a length, torchscript")

# %%
show_fix("int() on a length, torchscript")

# %% [markdown]
# ### `float()`
#
# For a mean, say. No shape is wrong.

# %%
show_trap("float() on a length, torchscript")

# %%
show_fix("float() on a length, torchscript")

# %% [markdown]
# ### `math.ceil`
#
# Padding to a multiple of 4, as upstream's convolutions pad.

# %%
show_trap("math.ceil on a length, torchscript")

# %%
show_fix("math.ceil on a length, torchscript")

# %% [markdown]
# ### `min()`
#
# At most 8 frames. Right up to 8, so a test with short chunks passes.

# %%
show_trap("min() on a length, torchscript")

# %%
show_fix("min() on a length, torchscript")

# %% [markdown]
# ### `max()`
#
# The new frames and one frame of the past, where there is one.

# %%
show_trap("max() on a length, torchscript")

# %%
show_fix("max() on a length, torchscript")

# %% [markdown]
# ### `if` on a length
#
# At most the last 8 frames, by a branch.

# %%
show_trap("if on a length, torchscript")

# %%
show_fix("if on a length, torchscript")

# %% [markdown]
# ### `range()`
#
# A loop over the frames. Here even the warning is missing.

# %%
show_trap("range() on a length, torchscript")

# %%
show_fix("range() on a length, torchscript")

# %% [markdown]
# ### The same under dynamo
#
# Measured for both exporters: what the exporter says, and at how many of the lengths tried the graph is right, wrong without an
# error, or refuses to run. Dynamo knows `math.ceil` and `min`. It is wrong *without an error* for `max(0, past - 1)` and for `if`, and
# `int()`, `float()` and `range` make an axis static that was declared dynamic. It warns of none of them. The last column is the export-safe rewrite.

# %%
found = lengths.verdicts()
rows = [
    (v.name, v.exporter, ", ".join(v.warns) or "–", v.right, v.wrong, v.refused, f"{v.fix} of {v.lengths}")
    for v in found
]
plots.table(
    ["on a length", "exporter", "warns", "right", "wrong, no error", "refused", "the export-safe rewrite is right at"],
    rows,
)

# %%
traced, dynamo = ({v.name: v for v in found if v.exporter == exporter} for exporter in ("torchscript", "dynamo"))
assert {name for name, v in traced.items() if not v.warns} == {"range()"} and not any(v.warns for v in dynamo.values())
assert all(dynamo[name].wrong and not dynamo[name].refused for name in ("max()", "if"))
assert all(dynamo[name].refused for name in ("int()", "float()", "range()"))
assert all(dynamo[name].right == dynamo[name].lengths for name in ("math.ceil", "min()"))
assert all(v.fix == v.lengths for v in found)

# %% [markdown]
# ### An example of length 1
#
# The natural example of a streaming step is one frame. Through `torch.export`, with every axis declared `AUTO` (dynamic
# where that is possible):

# %%
show_trap("an example of length 1")

# %%
show_fix("an example of length 1")

# %% [markdown]
# ### Find the frozen axis
#
# `find_frozen_axes` changes one axis at a time, runs the graph beside the module it was made from, and names the axis, its
# inputs, and the first node that does not follow. On a wrapper of the real decoder with one `int()` in it (small, random
# weights):


# %%
class Mine(StatefulCodecONNXWrapper):
    def _transform(self, hidden, past):
        return super()._transform(hidden[:, : int(hidden.size(1))], past)


config = small_config(num_hidden_layers=2, upsample_rates=[5], upsampling_ratios=[2])
decoder = random_checkpoint(config, source="two layers").decoder
wrapper, draft = Mine(decoder), build_folder(BUILD) / "mine.onnx"

# %%
trace(wrapper, draft, "torchscript")
example, axes = example_inputs(wrapper.spec), axes_of(wrapper.spec)
states = axes.keys() - {"batch", "frames"}  # these may be empty
found = find_frozen_axes(draft, wrapper, example, axes, may_be_empty=states)
print(*found, sep="\n")
assert [axis.axis for axis in found] == ["frames"] and "Slice" in found[0].node

# %% [markdown]
# Without the `int()` every axis follows:

# %%
good = StatefulCodecONNXWrapper(decoder)
trace(good, draft, "torchscript")
assert find_frozen_axes(draft, good, example, axes, may_be_empty=states) == []
draft.unlink()
print(f"{', '.join(axes)}: right at 1, 2, 5, 12, and the states at 0")

# %% [markdown]
# ## 6. A state is wrong although every shape is right
#
# Nothing stops, nothing warns, and the sound is only a little off, or only after some seconds. The demonstrations are on the demo's
# weights, streamed in PyTorch and compared with the one-shot decode. SNR is the power of the sound over that of the error;
# every 10 dB more is a tenth of the error's power.

# %% [markdown]
# ### History from the new frames alone
#
# After each call one keeps the last frames as the next call's history. Of what?

# %%
show_trap("history from the new frames alone")

# %%
show_fix("history from the new frames alone")

# %% [markdown]
# ### Keys trimmed before attention
#
# The store holds a window of keys, so one cuts to the window, then attends. In a call of 24 frames the early ones lose what they should see:

# %%
window, new = checkpoint.load("demo").decoder.config.sliding_window, 24
right = 2 * (sliding_window_mask(torch.arange(window - 1 + new), window - 1, window, torch.float32)[0, 0] == 0)
lost = right.clone()
lost[:, :new] = lost[:, :new] // 2
panels = {"right": right.numpy(), "trimmed before attention": lost.numpy()}
figure = schematics.masks(panels, window - 1, f"The mask of a call of {new} frames, window {window}")

# %%
show_trap("keys trimmed before attention")

# %%
show_fix("keys trimmed before attention")

# %% [markdown]
# ### Positions that saturate
#
# Keys are stored as attention used them: rotated by their position.

# %%
show_trap("positions that saturate")

# %%
show_fix("positions that saturate")

# %% [markdown]
# ### A mask on the wrong side
#
# The mask's columns are past and new frames together. Off by one, and a frame sees the next.

# %%
show_trap("a mask on the wrong side")

# %%
show_fix("a mask on the wrong side")

# %% [markdown]
# ### A transposed convolution's bias, twice
#
# The outputs of two chunks overlap, so one keeps the overlap and adds it to the next chunk's.

# %%
show_trap("a transposed convolution that adds its bias twice")

# %%
show_fix("a transposed convolution that adds its bias twice")

# %% [markdown]
# ### Too little conv history
#
# Four frames of history seem plenty: 320 ms.

# %%
show_trap("too little conv history")

# %%
show_fix("too little conv history")

# %% [markdown]
# ### One buffer for a state, before and after
#
# ONNX Runtime can write its outputs into buffers that one binds. Why not give it the same one for the old state and the new?
# The step is a small filter whose state is a running mean; each call is bound like this:

# %%
code(streams.HighPass, streams.run_bound)

# %%
show_trap("one buffer bound as input and output")

# %%
show_fix("one buffer bound as input and output")

# %% [markdown]
# The project's own exact graph with buffers bound both ways, 90 frames of the demo:

# %%
bound = {buffers.__name__: streams.exact_graph_bound(buffers) for buffers in (streams.one_buffer, streams.two_buffers)}
print(*(f"{name}: {outcome.text}" for name, outcome in bound.items()), sep="\n")
harm = bound["one_buffer"].error > MAX_ERROR
print(
    "In this graph one buffer",
    "does harm." if harm else "happens to do none: every old state is read before it is overwritten.",
)
assert bound["two_buffers"].error < MAX_ERROR

# %% [markdown]
# Whether one buffer does harm depends on the order in which the nodes run: a node that reads an old state after the new one was
# written gets the new one. No exporter promises an order.
#
# ## 7. Fewer bits have traps of their own
#
# Smaller numbers make smaller files. ONNX Runtime brings the converters; this is what they do to graphs of the demo, with
# these two functions.

# %%
code(precision.to_half, precision.to_int8)

# %% [markdown]
# ### States of another dtype than declared
#
# Everything to float16, inputs and outputs included.

# %%
show_trap("states in half precision")

# %%
show_fix("states in half precision")

# %% [markdown]
# ### A mask with float32's lowest number
#
# This one is PyTorch's own: a mask for a model in half precision, where the largest number is 65504.

# %%
show_trap("a mask with float32's lowest number")

# %%
show_fix("a mask with float32's lowest number")

# %% [markdown]
# ### Running sums in half precision
#
# The windowed graph divides sums by counts. Both are constants of it.

# %%
show_trap("running sums in half precision")

# %%
show_fix("running sums in half precision")

# %% [markdown]
# ### 8-bit convolutions straight from the exporter
#
# ONNX Runtime's dynamic quantization, on the file as it was exported.

# %%
show_trap("8-bit convolutions straight from the exporter")

# %%
show_fix("8-bit convolutions straight from the exporter")

# %% [markdown]
# ### What one can expect
#
# Chunks of 3 frames on one thread of this machine's CPU; times are ratios to float32 within this run, and ratios within some 10 %
# of 1 say nothing. The files shrink. What is left of the sound is of the demo's weights. Notebook 8 does it layer by layer,
# and comes to 35 dB.

# %%
measured = precision.precisions()
rows = [(p.name, f"{p.bytes / 1e6:.2f}", f"{p.snr_db:.1f}", f"{p.time_ratio:.2f}") for p in measured]
plots.table(["graph", "MB", "SNR (dB)", "time / float32's"], rows)

# %%
snr = {p.name: p.snr_db for p in measured}
assert snr["float32"] > 110 and snr["float16"] > 50
assert all(value < 45 for name, value in snr.items() if name.startswith("int8"))

# %% [markdown]
# ## 8. These were seen in the field
#
# These are mistakes of exports and servers of this codec and its relatives. Where a public report of one is known, it is linked; the others
# were met without one that we could cite. First those in the module, then those around the graph: what a server does with
# streams, and what a test measures. Sizes are of the demo's weights where nothing else is said.
#
# ### Both sides of a transposed convolution cut
#
# A transposed convolution of kernel 2s and stride s gives s samples more than it has room for. The naive layer cuts them on both
# sides. Four of them in a row, at the official rates:

# %%
show_trap("both sides of a transposed convolution cut")

# %%
show_fix("both sides of a transposed convolution cut")

# %% [markdown]
# ### Attention to everything
#
# The decoder was trained with a window of 72 frames. A causal mask without it:

# %%
show_trap("attention to everything where the model has a window")

# %%
show_fix("attention to everything where the model has a window")

# %% [markdown]
# ### A mask of minus infinity
#
# A query that may look at nothing, such as a row of padding:

# %%
show_trap("a mask of minus infinity")

# %%
show_fix("a mask of minus infinity")

# %% [markdown]
# ### State in a buffer
#
# The module remembers, so it works in PyTorch. The graph is called twice with 4 samples each:

# %%
show_trap("state in a buffer, torchscript")

# %%
show_fix("state in a buffer, torchscript")

# %% [markdown]
# Dynamo writes something else down, and reports it no more than the other did:

# %%
show_trap("state in a buffer, dynamo")

# %%
show_fix("state in a buffer, dynamo")

# %% [markdown]
# ### One position for all rows
#
# Two streams of different ages share a call, and the position is taken from the first:

# %%
show_trap("one position for all rows of a batch")

# %%
show_fix("one position for all rows of a batch")

# %% [markdown]
# ### A library's new version
#
# The same class, the same weights, with its window and without:

# %%
show_trap("a version of a library that changes the numbers")

# %%
show_fix("a version of a library that changes the numbers")

# %% [markdown]
# ### A size after `unflatten`
#
# In section 5 a bare `size()` stays symbolic. There is an exception:

# %%
show_trap("a size after unflatten, torchscript")

# %%
show_fix("a size after unflatten, torchscript")

# %% [markdown]
# ### One stream's reset
#
# A runner serves two streams in one call. The second begins anew:

# %%
show_trap("one stream's reset in a shared runner")

# %%
show_fix("one stream's reset in a shared runner")

# %% [markdown]
# ### Padding by code 0
#
# Rows of unequal length are filled up to one batch:

# %%
show_trap("padding by code 0")

# %%
show_fix("padding by code 0")

# %% [markdown]
# ### Zeros where a state should be empty
#
# Most of the windowed graph's first states have length 0. Some clients cannot make such tensors and send zeros of full length:

# %%
show_trap("zeros where a state should be empty")

# %%
show_fix("zeros where a state should be empty")

# %% [markdown]
# ### Samples cut in proportion
#
# A chunk is decoded with the frames before it, of which only the new ones' sound is kept:

# %%
show_trap("samples cut in proportion")

# %%
show_fix("samples cut in proportion")

# %% [markdown]
# ### A test no longer than the window
#
# A wrapper with the positions trap of section 6, and a test of a sentence's length:

# %%
show_trap("a test no longer than the window")

# %%
show_fix("a test no longer than the window")

# %% [markdown]
# ### An average that hides a seam
#
# One state is lost once in 34 seconds. A metric says whether the stream is good:

# %%
show_trap("an average that hides a seam")

# %%
show_fix("an average that hides a seam")

# %% [markdown]
# ### A clone that was not primed
#
# A voice is cloned from 60 frames of reference. Its first words:

# %%
show_trap("a clone that was not primed")

# %%
show_fix("a clone that was not primed")

# %% [markdown]
# ### States paired by sorted name
#
# A server finds which output belongs to which input by sorting the names:

# %%
show_trap("states paired by sorted name")

# %%
show_fix("states paired by sorted name")

# %% [markdown]
# ### Each chunk resampled on its own
#
# The codec gives 24,000 samples a second, a sound card wants 48,000. Chunks of 3 frames, resampled as they come:

# %%
show_trap("each chunk resampled on its own")

# %%
show_fix("each chunk resampled on its own")

# %% [markdown]
# ### The encoder: strided convolutions
#
# The encoder turns sound into codes ([notebook 9](09_your_voice.ipynb)). Its convolutions take steps of several samples:

# %%
show_trap("a strided convolution that keeps kernel - 1 samples")

# %%
show_fix("a strided convolution that keeps kernel - 1 samples")

# %% [markdown]
# ### The encoder: how a stream begins
#
# The last convolution pads with copies of the edge. A stream that begins from zeros:

# %%
show_trap("a stream that begins with zeros")

# %%
show_fix("a stream that begins with zeros")

# %% [markdown]
# ### The encoder: how a stream ends
#
# A recording ends in the middle of a frame:

# %%
show_trap("zeros behind the sound")

# %%
show_fix("zeros behind the sound")

# %% [markdown]
# ### The encoder: the nearest entry
#
# A codebook's entry is chosen by distance. By the largest product instead (small random weights):

# %%
show_trap("the entry with the largest product")

# %%
show_fix("the entry with the largest product")

# %% [markdown]
# ## 9. Check this before you ship
#
# | Do not write | Write | Trap |
# |---|---|---|
# | `if is_last:` | `torch.where(is_last > 0.5, a, b)` | 1 |
# | `wav[:, start:end]` | `wav[:, start:]`, and return `valid_samples` | 1 |
# | a cache object in the signature | one tensor of keys and one of values for each layer | 2 |
# | the library's `forward` with a cache of your own | a loop over the layers, with a mask and an `update()` of your own | 2 |
# | keys stored rotated, positions from the trimmed length | keys stored unrotated, rotated at places within the window | 2, 6 |
# | `hidden_size // num_attention_heads` | `config.head_dim`, `config.num_key_value_heads` | 3 |
# | names and axes by hand | both from one declaration, and count them in the graph | 4 |
# | `dynamic_axes` for dynamo, flat `dynamic_shapes` | nested `dynamic_shapes`: all of `*past` is one entry | 4 |
# | `int()` or `float()` of a size | a bare `size()`, or `torch.zeros(1) + size` | 5 |
# | `min`, `max`, `math.ceil`, `if`, `range` on a size | slices with fixed ends, whole-number arithmetic, operations over the axis | 5 |
# | an example of length 0 or 1 on a dynamic axis | at least 2 on every axis | 5 |
# | `new[..., -k:]` as the next state | `cat(old, new)[..., -k:]` | 6 |
# | trim, then attend | attend, then trim what is stored | 6 |
# | the overlap of outputs as a state | the last inputs as a state | 6 |
# | a history length that sounds right | the measured receptive field, or a state for each layer | 6 |
# | one buffer for a state before and after | two, which change places | 6 |
# | a conversion that you only listen to | a conversion that you measure, with inputs and outputs as declared | 7 |
# | `unflatten` and `flatten` before a size | `reshape` | 8 |
# | a transposed convolution cut on both sides | cut what is over on the right | 8 |
# | a mask of `-inf`, or one without the model's window | the lowest number of the type, and the window | 8 |
# | a buffer that remembers | a state that goes in and comes out | 8 |
# | one position, one reset, one length for a batch | one for each row; padding by -1 | 8 |
# | zeros where a state is empty | the exact graph, whose states have one shape | 8 |
# | samples by share, states by sorted name | samples by frames, states as the file declares them | 8 |
# | `kernel - 1` before a strided convolution, zeros behind the sound | `kernel - stride`, and `stride - 1` behind each layer's own input | 8 |
# | a chunk resampled on its own | one resampler for the stream, flushed at its end | 8 |
# | a test of one sentence, and its mean | a test past the window, and its worst chunk | 8 |
#
# And before you ship: read the exporter's warnings (a right wrapper causes no `TracerWarning`), and run the graph at 1, 2 and many frames, from an empty, a half-filled and a full state, past the window,
# with a short last chunk, and compare every output and every state with the module, and the stream with the one-shot decode.
# `export` of this package runs such a set before it gives a file its name; `verify` compares chunk by chunk and state by state.
#
# ## What you can do now
#
# Recognise each of these by what it does. The exercises of [11 · Your turn](11_your_turn.ipynb) put the commonest of them into
# code that runs, for you to mend.
#
# To try next:
#
# - `python -m qwen3_codec.course.pitfalls` runs every trap and says how each is reported and which have changed: try it after an update of torch.
# - Write a step of your own, export it with `qwen3_codec.course.pitfalls.graphs.export_step`, and ask `find_frozen_axes`.
# - Hear the states' traps: [7 · The lab](07_lab.ipynb).
