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
# `torch.onnx.export` runs the wrapper once and records the operations on tensors, and nothing else. A Python `if` or `int()` is
# evaluated while it runs, and its result ends up in the graph as a constant. The file is then wrong at every length but the one it was made with.
#
# At the end of this notebook you know
#
# 1. how a frozen length and a lost input look, what the exporter says of them, and what catches them,
# 2. what the finished graph has: names, axes, nodes, and a description of itself,
# 3. that both of PyTorch's exporters give it,
# 4. that the official dimensions give a file of 435 MiB (456 million bytes).

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/
# Set to 1 to leave out the export at the official dimensions (about a minute, 3 GB of memory, 435 MiB of disk).
SKIP_OFFICIAL = os.environ.get("QWEN3_CODEC_SKIP_OFFICIAL", "0") == "1"

# %%
import json
from collections import Counter

import onnx
import torch

from qwen3_codec import CodecSession, StatefulCodecONNXWrapper, TorchSession, export
from qwen3_codec.course import build_folder, check, code, fails_with, plots, schematics, solution
from qwen3_codec.exporting import OPSET, ExportError, captured, example_inputs, is_advice, trace
from qwen3_codec.model import checkpoint, small_config
from qwen3_codec.verification import MAX_ERROR

build = build_folder(BUILD)
loaded = checkpoint.load(CHECKPOINT)
decoder = loaded.decoder
print(f"weights: {loaded.weights}")

# %% [markdown]
# ## 1. A dynamic length is baked in; the only sign is a warning
#
# This wrapper does what ours does, with one harmless-looking line: it takes the number of frames as a Python `int`.
# PyTorch gives the same result. The trace keeps the *number* that it saw, 3.


# %%
class FrozenLength(StatefulCodecONNXWrapper):
    def _transform(self, hidden, past):
        frames = int(hidden.size(1))
        return super()._transform(hidden[:, :frames], past)


# %% [markdown]
# The call of the exporter is written out here, so that nothing stands between you and what it says: `captured` collects warnings,
# log records, and what is written to the screen.


# %%
def written(wrapper, path):
    """Write the wrapper's graph to `path`, without any check; what was said meanwhile."""
    spec, axes = wrapper.spec, {}
    for tensor in [*spec.all_inputs, *spec.all_outputs]:
        axes |= {tensor.name: tensor.dynamic_axes} if tensor.dynamic_axes else {}
    names = {"input_names": [t.name for t in spec.all_inputs], "output_names": [t.name for t in spec.all_outputs]}
    example = tuple(torch.from_numpy(array) for array in example_inputs(spec).values())
    with captured() as said, torch.no_grad():
        torch.onnx.export(wrapper, example, path, dynamo=False, opset_version=OPSET, dynamic_axes=axes, **names)
    return said


# %%
frozen_file = build / "frozen.onnx"
said = written(FrozenLength(decoder), frozen_file)
print(f"written, {frozen_file.stat().st_size} bytes; {len(said)} warnings:")
print(*(f"\n{times} × {words}" for words, times in Counter(map(str, said)).items()))
(sign,) = (each for each in said if not is_advice(each))
assert sign.category == "TracerWarning" and "Python integer" in sign.text

# %% [markdown]
# The `TracerWarning` is the only sign. It names the line, but it is one warning among many, and it stops nothing. The others speak of the
# exporter itself and come with every export, also with that of the right wrapper, which causes no `TracerWarning`:

# %%
right_file = build / "right.onnx"
said = written(StatefulCodecONNXWrapper(decoder), right_file)
print(f"the right wrapper: {len(said)} warnings, {sum(not is_advice(each) for each in said)} of them about the graph")
assert all(map(is_advice, said))
right_file.unlink()

# %% [markdown]
# Nor does every frozen length warn. `min`, `max` and `if` on a size warn with one exporter and not with the other, and `range` with
# neither ([the table of notebook 6](07_trap_catalogue.ipynb#The-same-under-dynamo)). So look at the result as well: run the file by hand with
# the 3 frames of the example, then with 5. `onnxruntime` knows nothing of our checks.

# %%
import onnxruntime

from qwen3_codec.exporting import random_inputs

spec = StatefulCodecONNXWrapper(decoder).spec
raw = onnxruntime.InferenceSession(frozen_file)


def frames_decoded(frames):
    """Frames that come out of the graph, as samples, when `frames` go in at the start of a stream."""
    feeds = random_inputs(spec, {**dict.fromkeys(spec.limits, 0), "batch": 1, "frames": frames})
    return raw.run(["final_wav"], feeds)[0].shape[1] // spec.samples_per_frame


print({frames: frames_decoded(frames) for frames in (2, 3, 5)})
assert frames_decoded(3) == 3

# %% [markdown]
# Five frames go in and three come out: no error when it runs either, and two frames are lost. `export` runs every graph at other lengths before
# it gives it a name, and refuses this one.

# %%
assert frames_decoded(5) == 3, "frozen at the example's length, without an error"
with fails_with(ExportError, "frozen|shape|differs"):
    export(loaded, FrozenLength(decoder), frozen_file)
frozen_file.unlink()

# %% [markdown]
# The fix: a bare `size()` in a slice, an `arange` or a sum stays symbolic. `int()`, `float()`, `item()`, `min`, `max`,
# `math.ceil`, `if` and `range` on a size do not.
#
# ## 2. A branch on a tensor vanishes
#
# The trace follows one side of the `if`. The graph then does not read `is_last` at all. Again a warning is all that is said:


# %%
class BranchOnLast(StatefulCodecONNXWrapper):
    def forward(self, audio_codes, is_last, *state):
        if is_last.item() > 0.5:
            return super().forward(audio_codes, torch.ones(1), *state)
        return super().forward(audio_codes, torch.zeros(1), *state)


branch_file = build / "branch.onnx"
said = written(BranchOnLast(decoder), branch_file)
print(*(each for each in said if not is_advice(each)), sep="\n")
assert [each.category for each in said if not is_advice(each)] == ["TracerWarning"]
one_branch = onnxruntime.InferenceSession(branch_file)
print("does the graph take is_last?", "is_last" in {tensor.name for tensor in one_branch.get_inputs()})

# %%
cases = {"is_last = 0": False, "is_last = 1": True}
taken = {tensor.name for tensor in one_branch.get_inputs()}
finished = {"module": {}, "graph": {}}
for case, last in cases.items():
    feeds = random_inputs(spec, {**dict.fromkeys(spec.limits, 2), "batch": 1, "frames": 3}, is_last=last)
    finished["module"][case] = TorchSession(BranchOnLast(decoder)).run(feeds)["num_finalize"][0]
    feeds = {name: array for name, array in feeds.items() if name in taken}
    finished["graph"][case] = one_branch.run(["num_finalize"], feeds)[0][0]
title = "The trace keeps the branch that its example took"
figure = schematics.branches(finished["module"], finished["graph"], title, "frames that the call finishes")

# %%
assert finished["graph"]["is_last = 0"] == finished["graph"]["is_last = 1"]
assert finished["module"]["is_last = 0"] < finished["module"]["is_last = 1"]
branch_file.unlink()
with fails_with(ExportError, "is_last"):
    export(loaded, BranchOnLast(decoder), branch_file)
assert not branch_file.exists()

# %% [markdown]
# ## 3. The export checks what it writes
#
# `dynamo=False` (called `torchscript` here) is the default. All names come from `spec.py`. Then the graph is checked: ONNX's
# own checker, no `If` and no `Loop`, every declared input there, no axis frozen; and it is run against the wrapper at
# 1, 2, 5 and 12 frames, with empty, partly filled and full states, `is_last` off and on, one row and two. The file appears only after that.
#
# What such a check proves is that the graph is the *wrapper*. Whether the wrapper is the *model*, only `verify` says (notebooks 2 and 4): a wrapper
# with a wrong state exports without an error and without a warning.
#
# The transformer is loaded with `eager` attention: products and a softmax that anyone can read, under a mask that is ours. (Other kinds may
# export too. What they do to a mask, and how they look in a graph, changes from version to version.) The call itself, as the package makes it:

# %%
code(trace)

# %%
wrapper = StatefulCodecONNXWrapper(decoder, conv_history_frames=4, lookahead_frames=4)
path = build / "onnx_export" / "qwen3_tts_decoder_stateful.onnx"
done = export(loaded, wrapper, path, progress=plots.progress)
print(
    f"{done.path.name}: {done.bytes / 2**20:.1f} MiB; {done.validation_runs} validation runs, largest error {done.validation_error:.1e}"
)
assert done.validation_error < MAX_ERROR

# %% [markdown]
# That is some 40 times the rounding of a stream (4e-7 in notebook 5, same weights), because most of these runs start from a state of random normal values, far larger
# than what speech leaves behind. The runs that start empty show the difference, so the limit is one for the validation runs and not a description of the sound:

# %%
from qwen3_codec.exporting import compare_once, validation_cases

session = CodecSession(path)
errors = {fill: [] for fill in ("empty", "random")}
for case in validation_cases(spec):
    errors["random" if case["fill"] else "empty"].append(compare_once(wrapper, session, case))
print(", ".join(f"from {fill} states: at most {max(found):.1e}" for fill, found in errors.items()))
assert max(errors["empty"]) < max(errors["random"])

# %% [markdown]
# ## 4. The file describes itself

# %%
model = onnx.load(path)


def axes(value):
    return ", ".join(d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)


print(len(model.graph.input), "inputs,", len(model.graph.output), "outputs")
plots.table(["input", "axes"], [(v.name, axes(v)) for v in model.graph.input])

# %%
plots.table(["output", "axes"], [(v.name, axes(v)) for v in model.graph.output])

# %%
layers = decoder.config.num_hidden_layers
assert len(model.graph.input) == 5 + 2 * layers and len(model.graph.output) == 7 + 2 * layers
assert not {"If", "Loop"} & done.nodes.keys()
figure = plots.node_histogram(done.nodes, f"{sum(done.nodes.values())} nodes from the TorchScript exporter")

# %% [markdown]
# The file describes itself. A client needs nothing else: no config, no PyTorch.

# %%
facts = {entry.key: entry.value for entry in model.metadata_props}
plots.table(["key", "value"], [(key, f"`{value[:70]}`") for key, value in facts.items()])

# %%
assert json.loads(facts["config"]) == loaded.config
assert facts["weights_sha256"] == loaded.fingerprint()

# %% [markdown]
# ## 5. The other exporter gives the same
#
# `dynamo=True` follows the code with symbolic sizes instead of recording one run. It takes longer, so here it gets a
# decoder with two transformer layers, 4 codebooks and one upsampling step of each kind. The wrapper is the same class.

# %% tags=["own-model"]
tiny_config = small_config(num_hidden_layers=2, num_quantizers=4, upsample_rates=[3], upsampling_ratios=[2])
tiny = checkpoint.random_checkpoint(tiny_config, source="tiny")
for exporter in ("torchscript", "dynamo"):
    made = export(tiny, StatefulCodecONNXWrapper(tiny.decoder), build / f"tiny_{exporter}.onnx", exporter)
    print(
        f"{exporter}: {sum(made.nodes.values())} nodes, {made.validation_runs} validation runs within {made.validation_error:.1e}"
    )
    made.path.unlink()

# %% [markdown]
# ## 6. The official dimensions fit too
#
# Random weights, since the real ones must be downloaded; the graph's structure and size do not depend on them.

# %%
if SKIP_OFFICIAL:
    print("left out: QWEN3_CODEC_SKIP_OFFICIAL is 1")
else:
    official = checkpoint.load("random")
    official_wrapper = StatefulCodecONNXWrapper(official.decoder)
    big = export(official, official_wrapper, build / "official.onnx", progress=plots.progress)
    print(f"{official.weights}: {big.bytes / 2**20:.1f} MiB, largest error {big.validation_error:.1e}")
    assert round(big.bytes / 2**20) == 435
    big.path.unlink()
    del official, official_wrapper

# %% [markdown]
# ## Your turn: replace the `if`
#
# In the last call, where `is_last` is above 0.5, the samples `x` [1, N] come out half as loud. `check` runs your function in PyTorch and as a graph of
# both exporters.


# %% tags=["exercise"]
def finish(x, is_last):
    if is_last.item() > 0.5:
        return x * 0.5
    return x


check("the if", finish)

# %%
solution("the if")

# %% [markdown]
# ## What you can do now
#
# Export a step and say what a trace loses. The exercise above mends an `if`; *Free three frozen lengths*, *Name what an export
# needs* and *How much of it is valid?* in [11 · Your turn](12_capstones.ipynb) are the others of that kind.
#
# To try next:
#
# - Put `frames = hidden.size(1)` without `int()` into `FrozenLength` and export it: it passes.
# - `python -m qwen3_codec export --help`
# - Every K/V axis here grows. The exact graph of [notebook 5](05_exact_streaming.ipynb) has states of one shape only.
# - Go on to [4 · Verify in ONNX Runtime](05_verify_onnxruntime.ipynb).
