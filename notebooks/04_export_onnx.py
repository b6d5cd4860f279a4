# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4 · Export to ONNX, and catch what the exporter loses
#
# The two streaming steps of [page 3](03_verify_wrapper.ipynb), the windowed one and the exact one, become ONNX files here. PyTorch has two exporters.
# Both keep the operations on tensors; neither keeps Python. What Python decided during the export is a constant in the file, so the file
# may be wrong at every length but the one that it was made with, and often nothing stops the export.
#
# After this page you can
#
# 1. say what a trace keeps and what it loses, and find the constant in the graph,
# 2. tell the one warning that matters from the others, and know when there is none,
# 3. name the inputs, outputs and dynamic axes of a step with some twenty states,
# 4. say what symbolic shapes lose, and export with both exporters,
# 5. check a graph before you give it away.
#
# **You need** the two steps of [page 3](03_verify_wrapper.ipynb). **Time:** 20 minutes, and 25 for three exercises.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/
# Set to 1 to leave out the export at the official dimensions (about a minute, 3 GB of memory, 435 MiB of disk).
SKIP_OFFICIAL = os.environ.get("QWEN3_CODEC_SKIP_OFFICIAL", "0") == "1"

# %%
import json
import time
from collections import Counter

import onnx
import onnxruntime
import torch

from qwen3_codec import ExactStreamingWrapper, StatefulCodecONNXWrapper, TorchSession, export
from qwen3_codec.course import build_folder, check, code, fails_with, plots, solution
from qwen3_codec.course.lab.traced_graph import traced_graphs
from qwen3_codec.exporting import OPSET, ExportError, captured, example_inputs, is_advice, random_inputs, trace
from qwen3_codec.model import checkpoint, small_config
from qwen3_codec.verification import MAX_ERROR

build = build_folder(BUILD)
loaded = checkpoint.load(CHECKPOINT)
print(f"weights: {loaded.weights}")

# %% [markdown]
# ## 1. A dynamic length is baked in; a TracerWarning may be the only sign
#
# `torch.onnx.export(..., dynamo=False)` *traces*: it runs the module once on an example and writes down each operation on a tensor. Python control flow and Python
# numbers are evaluated while it runs, so they end up in the graph as constants. Sizes lie on the border between the two. While tracing, `x.size(1)` returns a
# traced tensor, which the graph computes anew in each call; `int()` converts it to a number that the tracer cannot follow.
#
# | stays symbolic | becomes a constant |
# |---|---|
# | `x.size(1)` in a slice, an `arange`, a sum of integers | `int(x.size(1))`, `float(x.size(1))`, `x.sum().item()` |
# | `x[:, -8:]`, `x[:, :8]`: a slice clips by itself | `min(x.size(1), 8)`, `max(0, x.size(1) - 8)`, `math.ceil(x.size(1) / 4)` |
# | `torch.where(flag > 0.5, a, b)` | `if flag > 0.5:`, `if x.size(1) > 8:` |
# | an operation over the axis: `x.sum(1)`, `x.cumsum(1)` | `for i in range(x.size(1)):` |
#
# The smallest streaming step that can show it adds up all frames that came so far. Its state, `past` [B, 1], is the sum. The two classes differ
# in one `int()`, and PyTorch gives the same result for both.


# %%
class RunningSum(torch.nn.Module):
    def forward(self, x, past):
        frames = x.size(1)
        return torch.cat([past, x], dim=1).cumsum(1)[:, -frames:]


class BakedIn(torch.nn.Module):
    def forward(self, x, past):
        frames = int(x.size(1))
        return torch.cat([past, x], dim=1).cumsum(1)[:, -frames:]


def traced(step, example, path, inputs, outputs, axes):
    """The call of the exporter, and no check; returns all that was said meanwhile."""
    names = {"input_names": inputs, "output_names": outputs, "dynamic_axes": axes}
    with captured() as said, torch.no_grad():
        # A trace leaves all that is inside in the mode of the outermost module, so that one is told first.
        torch.onnx.export(step.eval(), example, path, dynamo=False, opset_version=OPSET, **names)
    return said


# %%
graphs, example = {}, (torch.randn(1, 3), torch.zeros(1, 1))
for line, step in {"frames = int(x.size(1))": BakedIn(), "frames = x.size(1)": RunningSum()}.items():
    path = build / "running_sum.onnx"
    said = traced(step, example, path, ["x", "past"], ["y"], {"x": {1: "frames"}, "y": {1: "frames"}})
    graphs[line] = onnx.load(path)
    print(f"{line:24}", [each.category for each in said if not is_advice(each)])
    path.unlink()
figure = traced_graphs(graphs, 3, "One step traced with 3 frames, with and without int()")

# %% [markdown]
# **Figure.** Every node of the two graphs, from the inputs down; constants stand in the node that takes them. On the left the `Slice` begins at −3 in every call,
# because 3 was the length of the example. On the right `Shape`, `Gather`, `Neg` and `Unsqueeze` compute the place from `x`, so it follows.
#
# The same line in a codec's step looks as harmless. To be quick, the demonstrations below use a decoder with one transformer layer and random weights: what an
# exporter loses depends on the code and not on the weights.


# %%
small_dims = {"num_hidden_layers": 1, "num_quantizers": 4, "upsample_rates": [3], "upsampling_ratios": [2]}
small = checkpoint.random_checkpoint(small_config(**small_dims), source="small")
steps = {"exact": ExactStreamingWrapper(small.decoder), "windowed": StatefulCodecONNXWrapper(small.decoder)}


class BakedInLength(torch.nn.Module):
    """A step behind one line too many."""

    def __init__(self, step):
        super().__init__()
        self.step, self.spec = step, step.spec

    def forward(self, audio_codes, *others):
        frames = int(audio_codes.size(1))
        return self.step(audio_codes[:, :frames], *others)


# %% [markdown]
# > **Predict.** Both steps are traced with 3 frames. Then 5 frames go into each graph. How many come out, and does anything warn?
#
# <details><summary>Answer</summary>Three: two frames are lost in every call. The export warns once, in the middle of warnings that right exports cause too; when the
# graph runs, nothing warns at all.</details>
#
# The names and axes of a step come from its `spec`, which section 3 is about.


# %%
def traced_by_spec(step, path):
    """`traced`, with the names and axes that the step's own declaration has."""
    tensors = [*step.spec.all_inputs, *step.spec.all_outputs]
    axes = {tensor.name: tensor.dynamic_axes for tensor in tensors if tensor.dynamic_axes}
    names = ([tensor.name for tensor in part] for part in (step.spec.all_inputs, step.spec.all_outputs))
    return traced(step, tuple(map(torch.from_numpy, example_inputs(step.spec).values())), path, *names, axes)


def frames_out(path, spec, frames):
    """Frames that come out of the graph, as samples, when `frames` go in at the start of a stream."""
    feeds = random_inputs(spec, {**dict.fromkeys(spec.limits, 0), "batch": 1, "frames": frames})
    (waveform,) = onnxruntime.InferenceSession(path).run([spec.outputs[0].name], feeds)
    return waveform.shape[1] // spec.samples_per_frame


# %%
path, rows, warned = build / "baked_in.onnx", [], {}
for design, right in steps.items():
    for name, step in {"int()": BakedInLength(right), "as it is": right}.items():
        warned[design, name] = said = traced_by_spec(step, path)
        about = [each.category for each in said if not is_advice(each)]
        out = [frames_out(path, step.spec, frames) for frames in (2, 3, 5)]
        rows.append((design, name, len(said), sum(map(is_advice, said)), ", ".join(about) or "none", *out))
path.unlink()
plots.table(["step", "line", "warnings", "advice", "about the graph", "2 in", "3 in", "5 in"], rows)

# %% [markdown]
# The table counts what was said during the four exports, and how many frames come out of each graph when 2, 3 and 5 go in. *Advice* is what PyTorch says of
# right graphs as well: that the exporter is old, that it did not fold a constant. This is what you get on your screen for the windowed step:

# %%
wrong = warned["windowed", "int()"]
for words, times in Counter(map(str, wrong)).items():
    print(f"{times} × {words}\n")
print(f"{len(wrong)} warnings, {sum(map(is_advice, wrong))} of them are advice")

# %% tags=["check"]
for design in steps:
    (sign,) = (each for each in warned[design, "int()"] if not is_advice(each))
    assert sign.category == "TracerWarning" and "Python integer" in sign.text
    assert all(map(is_advice, warned[design, "as it is"]))
assert [row[5:] for row in rows] == [(2, 3, 3), (2, 3, 5)] * 2

# %% [markdown]
# > **Trap.** Here the `TracerWarning` is the only sign. It names the line, but it is one warning among many, and it does not stop the export. Other
# > lengths are baked in without any sign: a loop over `range` with this exporter, and several of these lines with the other one, of section 4 ([7 · the catalogue](07_trap_catalogue.ipynb) has them all; in the exercise below it is `torch.tensor` on the same line that warns). So look at the result too: run the graph at other lengths than the example's.
#
# ### Exercise: lengths baked in ●○○ · 10 min
#
# This step works in PyTorch at every length. As a graph, it is right at the lengths of its example and at no other, because three lines
# make a Python number of a size. Free them, without changing what the step computes. `check` runs your function in PyTorch and as a graph of both exporters.
#
# *Needs:* the table above.


# %% tags=["exercise"]
def length_step(x, past):
    """x [1, N], past [1, P] -> x plus a ramp, the last 4 samples of both, their mean."""
    joined = torch.cat([past, x], dim=1)
    ramp = torch.tensor([0.1 * i for i in range(x.size(1))])
    kept = joined[:, max(0, joined.size(1) - 4) :]
    mean = joined.sum(dim=1, keepdim=True) / int(joined.size(1))
    return x + ramp, kept, mean


check("lengths baked in", length_step)

# %%
solution("lengths baked in")

# %% [markdown]
# ## 2. Only the traced branch is exported
#
# The windowed step has a flag, `is_last`: in the last call of a stream nothing stays buffered. (The exact step buffers nothing, so it has no such flag.) An `if` on the
# flag is decided once, by the example, and the other branch is not in the file. The graph does not even read `is_last` any more.
#
# > **Predict.** The example has `is_last` = 0. What does the graph do when a client passes 1?
#
# <details><summary>Answer</summary>What it does for 0. ONNX Runtime would refuse an input of that name, since the graph has none, so a client that is made
# for this file never passes it, and the last frames of every stream are lost.</details>


# %%
class BranchOnLast(StatefulCodecONNXWrapper):
    def forward(self, audio_codes, is_last, *state):
        if is_last.item() > 0.5:
            return super().forward(audio_codes, torch.ones(1), *state)
        return super().forward(audio_codes, torch.zeros(1), *state)


branching, path = BranchOnLast(small.decoder), build / "branch.onnx"
said = traced_by_spec(branching, path)
print(*(each for each in said if not is_advice(each)), sep="\n")
graph = onnxruntime.InferenceSession(path)
taken = {tensor.name for tensor in graph.get_inputs()}
print("does the graph take is_last?", "is_last" in taken)
path.unlink()

# %%
finished = {"module": [], "graph": []}
for last in (False, True):
    lengths = {**dict.fromkeys(branching.spec.limits, 2), "batch": 1, "frames": 3}
    feeds = random_inputs(branching.spec, lengths, is_last=last)
    finished["module"].append(int(TorchSession(branching).run(feeds)["num_finalize"][0]))
    feeds = {name: array for name, array in feeds.items() if name in taken}
    finished["graph"].append(int(graph.run(["num_finalize"], feeds)[0][0]))
plots.table(["frames that the call finishes", "is_last = 0", "is_last = 1"], [(n, *f) for n, f in finished.items()])

# %% tags=["check"]
assert [each.category for each in said if not is_advice(each)] == ["TracerWarning"] and "is_last" not in taken
assert finished["graph"][0] == finished["graph"][1] and finished["module"][0] < finished["module"][1]

# %% [markdown]
# ### Exercise: the if ●○○ · 5 min
#
# In the last call, when `is_last` is above 0.5, the samples `x` [1, N] come out half as loud. `check` runs your function in PyTorch and as a graph of
# both exporters.
#
# *Needs:* this section.


# %% tags=["exercise"]
def finish(x, is_last):
    if is_last.item() > 0.5:
        return x * 0.5
    return x


check("the if", finish)

# %%
solution("the if")

# %% [markdown]
# ## 3. Names and axes: each tensor must be named
#
# An ONNX graph knows no modules and no `*args`: every state is an input and an output of its own. If it gets no name, the exporter makes one up, and if an axis of an input is not
# declared dynamic, its length is a constant. Here is the exact step without names:

# %%
example = tuple(map(torch.from_numpy, example_inputs(steps["exact"].spec).values()))
traced(steps["exact"], example, build / "unnamed.onnx", [], [], {})
unnamed = onnx.load(build / "unnamed.onnx").graph
(build / "unnamed.onnx").unlink()
declared = [*steps["exact"].spec.all_inputs, *steps["exact"].spec.all_outputs]
rows = []
for value, tensor in zip([*unnamed.input, *unnamed.output], declared, strict=True):
    lengths = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    rows.append((f"`{value.name}`", lengths, f"`{tensor.name}`", list(tensor.shape)))
plots.table(["made up by the exporter", "its axes", "declared by the spec", "its axes"], rows)

# %% [markdown]
# Some twenty names in two lists, and their axes in a third, go wrong easily: the exporter takes fewer names than there are tensors, and of a misspelt one in
# `dynamic_axes` it only warns. Therefore one declaration, the step's `spec`, has for each tensor its name, dtype, shape and the names of its dynamic axes, and the states as
# pairs. The exporter's arguments, the checks, the file's own description and the client all read it. This is its size for the loaded decoder:

# %%
designs = {
    "exact": ExactStreamingWrapper(loaded.decoder),
    "windowed": StatefulCodecONNXWrapper(loaded.decoder, conv_history_frames=4, lookahead_frames=4),
}
rows = []
for design, step in designs.items():
    tensors = [*step.spec.all_inputs, *step.spec.all_outputs]
    free = {axis for tensor in tensors for axis in tensor.dynamic_axes.values()}
    rows.append((design, len(step.spec.all_inputs), len(step.spec.all_outputs), len(step.spec.states), len(free)))
plots.table(["step", "inputs", "outputs", "states among them", "names of dynamic axes"], rows)

# %% tags=["check"]
layers = loaded.decoder.config.num_hidden_layers
assert rows[1][1:3] == (5 + 2 * layers, 7 + 2 * layers), "21 and 23 at 8 layers"
assert rows[0][4] == 3 < rows[1][4], "batch, frames and samples"
assert all(value.name != tensor.name for value, tensor in zip(unnamed.output, steps["exact"].spec.all_outputs))

# %% [markdown]
# The windowed step's states grow until they are full, so each length has a name before the call and another one after it: three of the convolutions and one for each layer, which its keys and values share. With batch, frames and
# samples these are 25 at 8 layers. In the exact step they have one shape
# from the first call on: the rows, the frames of a call and its samples are all that is dynamic.
#
# ### Exercise: names and axes ●○○ · 10 min
#
# `forward(x, *past)` takes `x` [B, T] and one past [B, P] for each of `layers` layers; it gives `y` [B, T], and each past joined with x. Return the
# options for `torch.onnx.export(..., dynamo=False)`: names `x`, `past_0`, `past_1`, ... for the inputs, `y`, `next_0`, `next_1`, ... for the outputs, and
# axis 1 of all of them dynamic.
#
# *Needs:* `traced` and `traced_by_spec` of section 1.


# %% tags=["exercise"]
def export_names(layers):
    return {
        "input_names": ["x", "past"],
        "output_names": ["y", "next"],
        "dynamic_axes": {"x": {1: "length"}, "y": {1: "length"}, "past": {1: "past"}},
    }


check("names and axes", export_names)

# %%
solution("names and axes")

# %% [markdown]
# ## 4. Symbolic shapes, and what they lose
#
# `dynamo=True` does not record a run. It follows the code with a symbol in place of each dynamic length, so of the right column of section 1's table
# some lines stop the export with an error, some stay symbolic, and some are baked in without any sign ([7 · the catalogue](07_trap_catalogue.ipynb) has each). Its own loss is the *0/1 specialization*: an example with a length of 0 or 1 gets no symbol, because these two lengths mean something else
# to broadcasting and to memory layout, and the exporter would have to follow both cases.
#
# > **Predict.** `RunningSum` above is right for every length. It is exported with an example of one frame, and the axis of `x` is declared as `Dim.AUTO`, which means
# > "dynamic if possible". Is it?
#
# <details><summary>Answer</summary>No: the program takes one frame, and no other length. One line of a log says so. An example of
# three frames gives a symbol.</details>


# %%
def symbolic(frames):
    """The length of x in the program that `torch.export` makes of an example of `frames`, and what it says of it."""
    axes = {"x": {1: torch.export.Dim.AUTO}, "past": None}
    with captured() as said:
        example = torch.randn(1, frames), torch.zeros(1, 1)
        program = torch.export.export(RunningSum(), example, dynamic_shapes=axes)
    (x,) = (node for node in program.graph.nodes if node.name == "x")
    words = [each.text.strip().splitlines()[0] for each in said if not is_advice(each)]
    return frames, x.meta["val"].shape[1], "; ".join(words) or "nothing"


found = [symbolic(frames) for frames in (1, 3)]
plots.table(["frames in the example", "length of x in the program", "what is said"], found)

# %%
one, three = (length for _, length, _ in found)
if isinstance(one, int):
    print("a length of 1 became a constant: give every dynamic axis of an example at least 2")
else:
    print(f"torch {torch.__version__} keeps a length of 1 symbolic: this trap has gone")
print({tensor.name: list(example_inputs(steps["exact"].spec)[tensor.name].shape) for tensor in declared[:3]})
assert not isinstance(three, int)

# %% [markdown]
# The last line printed is the start of the example that the package uses for both exporters: at least 2 on every dynamic axis, each with a length of its own, since two
# equal lengths may be taken for one symbol. With it, both exporters give the same from the same class. TorchScript takes `dynamic_axes`, by the tensors' names, and dynamo `dynamic_shapes`, by the
# function's arguments, in which all of `*states` is *one* entry; the spec has both. Here is the package's call:

# %%
code(trace)

# %%
rows = []
for design, step in plots.progress(steps.items()):
    for exporter in ("torchscript", "dynamo") if design == "exact" else ("torchscript",):
        start = time.perf_counter()
        made = export(small, step, build / "small.onnx", exporter)
        took, error = f"{time.perf_counter() - start:.1f} s", f"{made.validation_error:.1e}"
        counts = sum(made.nodes.values()), len(made.warnings), made.validation_runs
        rows.append((design, exporter, took, *counts, error))
        assert made.validation_error < MAX_ERROR and not made.warnings
        made.path.unlink()
plots.table(
    ["step", "exporter", "export and checks", "nodes", "warnings about it", "validation runs", "largest error"], rows
)

# %% [markdown]
# Dynamo writes fewer nodes and takes several times as long; because of that the windowed step is left to you: give `export` its `exporter="dynamo"`. (The small decoder,
# random weights. What a validation run is, the next section says.)
#
# ## 5. The export checks what it writes
#
# `export` writes to a draft. The file gets its name only after
#
# 1. ONNX's own checker,
# 2. a look at the form: every declared input and output is there and is read, there is no `If` and no `Loop`, and no dynamic axis is specialised to a constant,
# 3. validation runs against the step in PyTorch: 1, 2, 5 and 12 frames, empty, partly filled and full states, `is_last` off and on, batch sizes 1 and 2,
# 4. a look at what was said: a warning that the graph lost something refuses it, even if all runs are right.
#
# The graphs of sections 1 and 2 do not get through:

# %%
wrong = {f"{design}, int()": BakedInLength(step) for design, step in steps.items()} | {"windowed, if": branching}
for name, step in wrong.items():
    print(f"{name}:")
    with fails_with(ExportError, "constant|is_last"):
        export(small, step, build / "refused.onnx")
    assert not (build / "refused.onnx").exists()

# %% [markdown]
# The first two refusals say what failed at the first validation run that did (its `fill` is how many frames the state holds), then the line that the trace names, and then the axis, which is looked for in calls of their own that change one length at a time. The third
# is refused by its form, before any run.
#
# > **Why.** What this validates is that the graph is the *step*. Whether the step is the *model*, it cannot say: a step with a wrong state exports without an error and without a
# > warning. That is why page 3 came first, and why [page 5](05_verify_onnxruntime.ipynb) compares whole streams.
#
# Now the loaded decoder, in both designs. Page 5 runs both files, and a third one with a longer left context.

# %%
folder = build / "onnx_export"
paths = {"exact": folder / "qwen3_tts_decoder_exact.onnx", "windowed": folder / "qwen3_tts_decoder_stateful.onnx"}
rows = []
for design, step in designs.items():
    done = export(loaded, step, paths[design], progress=plots.progress)
    assert done.validation_error < MAX_ERROR and not {"If", "Loop"} & done.nodes.keys()
    size, error = f"{done.bytes / 2**20:.1f}", f"{done.validation_error:.1e}"
    rows.append((design, done.path.name, size, sum(done.nodes.values()), done.validation_runs, error))
plots.table(["step", "file", "MiB", "nodes", "validation runs", "largest error"], rows)

# %% [markdown]
# The limit is 5e-5, derived on page 3. An error of some 2e-5 is larger than a stream's: the runs start from random states, which are far larger than
# those that speech leaves behind, and rounding grows with what is rounded. [Page 5](05_verify_onnxruntime.ipynb) measures both.
#
# The decoder's attention is loaded as `eager`: products and a softmax that anyone can read, under a mask that is ours. Other kinds may export too, but what they do to a
# mask, and how they look in a graph, changes from version to version.
#
# ## 6. The file describes itself
#
# A client needs nothing but the file: no config and no PyTorch. The `spec` is in it, and so are the rates, the weights' fingerprint and a self-test.

# %%
models = {design: onnx.load(path) for design, path in paths.items()}
facts = {design: {entry.key: entry.value for entry in model.metadata_props} for design, model in models.items()}
keys = facts["exact"].keys() | facts["windowed"].keys()
rows = [(key, *(f"`{facts[design].get(key, '')[:40]}`" for design in facts)) for key in sorted(keys)]
plots.table(["key", *facts], rows)

# %%
for design, model in models.items():
    spec = designs[design].spec
    assert [value.name for value in model.graph.input] == [tensor.name for tensor in spec.all_inputs]
    assert [value.name for value in model.graph.output] == [tensor.name for tensor in spec.all_outputs]
    assert json.loads(facts[design]["config"]) == loaded.config
    assert facts[design]["weights_sha256"] == loaded.fingerprint()
print({design: f"{len(m.graph.input)} inputs, {len(m.graph.output)} outputs" for design, m in models.items()})

# %% [markdown]
# ## 7. The official dimensions fit too
#
# Random weights, since the real ones must be downloaded; the graph's structure and size do not depend on them: 435 MiB (457 million bytes).

# %%
if SKIP_OFFICIAL:
    print("left out: QWEN3_CODEC_SKIP_OFFICIAL is 1")
else:
    official = checkpoint.load("random")
    official_step = StatefulCodecONNXWrapper(official.decoder)
    big = export(official, official_step, build / "official.onnx", progress=plots.progress)
    print(f"{official.weights}: {big.bytes / 2**20:.1f} MiB, largest error {big.validation_error:.1e}")
    assert round(big.bytes / 2**20) == 435
    big.path.unlink()
    del official, official_step

# %% [markdown]
# ## What you can do now
#
# - Read a step and say which lines a trace turns into constants; find them in the graph.
# - Name twenty states once, and use the names for both exporters.
# - Refuse a graph that is right at its example alone. ([11 · Another codec](11_another_codec.ipynb) exports a model that this project did not write.)
#
# **Next:** [5 · Verify in ONNX Runtime](05_verify_onnxruntime.ipynb), because a graph that is the step need not be the model, and a test that passes need not be a good test.
