# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2 · Look before you export: dimensions, shapes, states, reach
#
# Qwen3-TTS writes speech as *codes*: 16 whole numbers for every 80 ms. A vector of 16 codes is a **frame**. The *codec
# decoder* turns frames into a waveform of 24 000 samples a second. This walkthrough exports that decoder to ONNX so that
# it can run chunk by chunk, with everything it must remember between two chunks (its **state**) going in and coming out.
#
# At the end of this notebook you know
#
# 1. each dimension of the decoder, and which ones a formula gets wrong,
# 2. how a frame becomes 1920 samples, stage by stage,
# 3. which tensors a stream has to carry, and how large they are,
# 4. how far back the decoder looks, measured.

# %% [markdown]
# The cell below is the only one with settings. `QWEN3_CODEC_CHECKPOINT` picks the weights: a name, a folder or a Hub id.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")

# %%
import numpy as np

from qwen3_codec import StatefulCodecONNXWrapper, TorchSession
from qwen3_codec.course import check, fails_with, plots, schematics, solution
from qwen3_codec.course.lab import course
from qwen3_codec.model import checkpoint, receptive_field
from qwen3_codec.model.dimensions import dimensions, stages, state_table
from qwen3_codec.runtime.versions import versions

loaded = checkpoint.load(CHECKPOINT)
decoder, config = loaded.decoder, loaded.decoder.config
print(f"weights: {loaded.weights}")
print(versions())

# %% [markdown]
# ## This is the way through the notebooks
#
# Each box gives the reading time, at 200 words a minute (prose, code, and the text that cells print), and how long the notebook ran when it was last executed. Whoever has ten
# minutes reads this one and number 5. Whoever wants to be able to do it takes all, with their exercises (green).

# %%
figure = schematics.walkthrough_map(course.pages())

# %% [markdown]
# ## 1. Every dimension is read from two sources
#
# The config says what a dimension should be. The weights cannot lie about it: a matrix has the shape it has. The fourth
# column is what a usual formula would give, or another field of the config that is often taken for it. Where it differs, code that
# computes the number instead of reading it breaks.

# %%
found = dimensions(decoder)
plots.table(
    ["dimension", "config", "weights", "usual formula", "", "formula"],
    [(d.name, d.config, d.weights, d.formula or "", "**differs**" if d.trap else "", d.formula_text) for d in found],
)

# %%
assert all(d.config == d.weights for d in found)
head_dim = next(d for d in found if d.name == "head_dim")
print("head_dim:", "a trap" if head_dim.trap else "this checkpoint has no such trap, the formula is right")

# %% [markdown]
# ## 2. `head_dim` is read, not computed
#
# `head_dim` is the width of one attention head. Most models have `hidden_size / num_attention_heads`, and many exporters
# compute it so. Where the config sets it apart, that fails. The cell makes a stream's state with the *computed* width, with
# five frames in it, and runs one step.

# %%
session = TorchSession(StatefulCodecONNXWrapper(decoder))
computed = config.hidden_size // config.num_attention_heads
codes = np.zeros((1, 3, config.num_quantizers), np.int64)
inputs = {"audio_codes": codes, "is_last": np.zeros(1, np.float32)}


seen = min(5, config.sliding_window)


def state_with(head_dim, frames=seen):
    state = session.spec.zero_state()
    wide = np.zeros((1, config.num_key_value_heads, frames, head_dim), np.float32)
    return {name: wide if name.startswith("past_") else array for name, array in state.items()}


if head_dim.trap:
    with fails_with(RuntimeError, "must match"):
        session.run(inputs | state_with(computed))

# %% [markdown]
# The fix is to read the number: `config.head_dim`.

# %%
outputs = session.run(inputs | state_with(config.head_dim))
print("head_dim", config.head_dim, "->", outputs["next_key_0"].shape)
kept = min(seen + 3, config.sliding_window)
assert outputs["next_key_0"].shape == (1, config.num_key_value_heads, kept, config.head_dim)

# %% [markdown]
# The official checkpoint has the same trap, 64 against 512 / 16 = 32. Its dimensions are public; the weights here are
# random, since nothing is downloaded.

# %% tags=["own-model"]
official = checkpoint.load("random")
rows = dimensions(official.decoder)
parameters = sum(p.numel() for p in official.decoder.parameters())
print(f"{official.weights}: {parameters / 1e6:.1f} M parameters")
plots.table(["dimension", "config", "usual formula"], [(d.name, d.config, d.formula) for d in rows if d.trap])

# %% tags=["own-model"]
head_dim = next(d for d in rows if d.name == "head_dim")
assert (head_dim.config, head_dim.formula) == (64, 32)
del official

# %% [markdown]
# ## 3. A frame becomes samples, stage by stage
#
# The table is read off a real run. Up to `pre_transformer` there is one vector a frame; from there the time axis grows.

# %%
steps = stages(decoder)
plots.table(
    ["stage", "channels", "steps per frame", "rate (Hz)"],
    [(s.name, s.channels, s.samples_per_frame, f"{s.rate:.1f}") for s in steps],
)

# %%
assert steps[-1].samples_per_frame == decoder.samples_per_frame
assert steps[-1].rate == loaded.sample_rate

# %% [markdown]
# ## 4. This is what a stream carries
#
# The *windowed* design (notebook 2) keeps the transformer's keys and values, two frames for the first convolution, and a
# few finished frames for the rest. `0..72` (on the demo) is a length that grows from 0 to 72, the attention window. One declaration, `spec.py`, says this;
# the exporter, the file's metadata and the runtime all read it.

# %%
spec = session.spec
print(f"{len(spec.all_inputs)} inputs, {len(spec.all_outputs)} outputs, {spec.bytes_per_stream():,} bytes a stream")
plots.table(["state", "shape", "bytes"], state_table(spec))

# %%
layers = config.num_hidden_layers
assert len(spec.all_inputs) == 5 + 2 * layers
assert len(spec.all_outputs) == 7 + 2 * layers

# %% [markdown]
# ## 5. How far back it looks is measured
#
# Change one frame, and see which samples move. What moves *before* the changed frame would be a look into the future.
# How far the change reaches *after* it says how many earlier frames a sample depends on. The conv stack and the
# transformer are measured apart: the first looks a fixed time back, the second one window for each layer.

# %%
field = receptive_field.receptive_field(decoder)
print(field)
at = 2
conv = receptive_field.conv_influence(decoder, frames=16, at=at)
reach = receptive_field.attention_reach(config, decoder.pre_conv.left_context)
rule = f"{layers} layers of {config.sliding_window - 1} frames and the {decoder.pre_conv.left_context} of pre_conv"
print(f"attention by the rule: {rule}, {reach} in all")
attention = receptive_field.attention_influence(decoder, frames=reach + 20)
figure = plots.receptive_field(conv, attention, decoder.samples_per_frame, at, loaded.weights)

# %% [markdown]
# The faintest part of the right curve is what is left of a change after all layers, some 1e-16. It shows because everything
# is computed in float64: the norms and the softmax of transformers go to float32 whatever comes in, and are kept from it here.
#
# Nothing moves before the frame: the decoder is **causal**, so no look-ahead is ever needed. A history of
# `conv_frames` is enough for the conv stack; anything shorter is an approximation. Notebook 2 measures how large.

# %%
assert field.first_sample == 0
assert not conv[: at * decoder.samples_per_frame].any()
assert field.attention_frames >= config.sliding_window
if config.upsample_rates == [8, 5, 4, 3]:
    assert field.conv_frames == 10

# %% [markdown]
# ## Your turn: read the shape of the keys
#
# The keys that a stream carries have the shape [batch, heads, frames, width]. Read it from the config; the code below computes it. Change it and
# run the cell: `check` tries it on three models, says what is wrong, and gives a hint. (As shipped it is not solved.)


# %% tags=["exercise"]
def key_shape(config, batch, frames):
    return batch, config.num_attention_heads, frames, config.hidden_size // config.num_attention_heads


check("head_dim", key_shape)

# %%
solution("head_dim")

# %% [markdown]
# ## What you can do now
#
# Read every number that an export needs off a config and its weights, see where a formula would be wrong, and measure how far
# a decoder looks back. The exercise above asks for it on three models; [11 · Your turn](12_capstones.ipynb) asks for the
# length of any convolution's history.
#
# To try next:
#
# - Run this notebook on another model: `make walkthrough CHECKPOINT=path/to/folder`.
# - Print the same from the command line: `python -m qwen3_codec inspect --checkpoint random`.
# - Go on to [2 · Verify the wrapper](03_verify_wrapper.ipynb).
