# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2 · Read a codec: rates, codebooks, dimensions, state, receptive field
#
# After this page you can
#
# 1. draw a codec as one line of layers, with the rate of each and what a stream has to carry for it,
# 2. say what each codebook adds, and hear it,
# 3. read every dimension from the config and from the weights, and find those that a formula gets wrong,
# 4. compute how many earlier samples a convolution needs, and measure how far back a whole decoder looks.
#
# **Prerequisites:** [1 · Streaming by hand](01_streaming_by_hand.ipynb), or what a causal convolution and a KV cache are.
# **Time:** 12 minutes, and 10 more for two exercises.
#
# The cell below is the only one with settings. `QWEN3_CODEC_CHECKPOINT` picks the weights: a name, a folder or a Hub id.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")

# %%
import copy

import numpy as np
import torch
from IPython.display import display

from qwen3_codec import ExactStreamingWrapper, StatefulCodecONNXWrapper, TorchSession, one_shot
from qwen3_codec.course import check, fails_with, plots, schematics, solution
from qwen3_codec.model import OFFICIAL_CONFIG, checkpoint, memory_stages, receptive_field
from qwen3_codec.model.dimensions import dimensions, stages, state_table
from qwen3_codec.runtime import snr_db

loaded = checkpoint.load(CHECKPOINT)
decoder, config, rate = loaded.decoder, loaded.decoder.config, loaded.sample_rate
codes = checkpoint.example_codes(loaded, 48)
print(f"weights: {loaded.weights}")

# %% [markdown]
# ## 1. The codec on one line
#
# A [**frame**](guide/glossary.md#frame) is one vector of codes (16 integers at the official size, 12.5 times a second). The decoder looks them up,
# runs a transformer at the frame rate, and then upsamples step by step to the sample rate. What a stream carries from call
# to call, its [**state**](guide/glossary.md#state), sits at each layer that depends on earlier inputs.
#
# > **Predict.** The transformer runs at 12.5 Hz, the last block at 24,000 Hz. Which of them has more bytes of state?
#
# <details><summary>Answer</summary>
#
# The transformer, by far: it keeps keys and values of a whole window of frames (71, because the newest frame needs no slot: 5.7 s) for each layer. The last block runs
# fast, but reaches back a few milliseconds, and has few channels.
#
# </details>

# %%
line = memory_stages(ExactStreamingWrapper(decoder))
picture = schematics.memory_line(line, f"The codec on one line ({loaded.weights})")

# %% [markdown]
# **Figure.** The decoder's stages by their names in the weights, codes at the top, waveform at the bottom. Left: how many
# state tensors a stage has (of the transformer: keys and values of each layer, and a counter of frames), and the rate of
# what it puts out. Middle: how far its states reach back, of convolutions added up, of the transformer for one layer (section 5 has all of them); note the log
# scale, on which the 5.7 s of attention and the 160 ms of the first convolution look closer than they are. Right: bytes for one stream.
#
# The shapes are read off a real run. Up to `pre_transformer` there is one vector a frame; from there the time axis grows.

# %%
largest, total = max(line, key=lambda stage: stage.bytes), sum(stage.bytes for stage in line)
print(f"{largest.name} has {largest.bytes / total:.0%} of the {total:,} bytes")

# %%
steps = stages(decoder)
plots.table(
    ["stage", "channels", "time steps per frame", "rate (Hz)"],
    [(s.name, s.channels, s.samples_per_frame, f"{s.rate:.1f}") for s in steps],
)

# %% tags=["check"]
assert steps[-1].samples_per_frame == decoder.samples_per_frame and steps[-1].rate == rate
assert [stage.name for stage in line] == [stage.name for stage in steps[1:]]

# %% [markdown]
# ## 2. Residual vector quantization, heard
#
# *Residual vector quantization* (RVQ) writes a vector as a sum: the first codebook holds coarse vectors, and each further
# codebook refines what the ones before it left over, the *[residual](guide/glossary.md#codebook)*. A code is the row number of one vector, so a frame of 16 codes is a
# sum of 16 vectors. (The official codec's first codebook is [*semantic*](guide/glossary.md#semantic-codebook): it is trained to carry what is said, and the others
# how it sounds. The demo's was not trained for that.)
#
# > **Predict.** Is the first of 16 codebooks more than half of the vectors' energy? And is the last one, whose vectors are among the smallest,
# > small enough to be left out?
#
# <details><summary>Answer</summary>
#
# Neither can be told without a measurement. On the demo the first carries little more than a third: it is the largest share, but the sum of
# the small ones is larger. Without the last codebook, the SNR is 24 dB, because the decoder has learned to rely on it.
#
# </details>
#
# To hear what each codebook adds, the cell uses the model's own quantizer, in a copy whose later codebooks hold zeros: their
# vectors then add nothing to the sum. Everything after the quantizer stays as it is.


# %%
def with_first_codebooks(count):
    """A copy of the decoder that sums the vectors of the first `count` codebooks alone."""
    changed = copy.deepcopy(decoder)
    books = [*changed.quantizer.rvq_first.vq.layers, *changed.quantizer.rvq_rest.vq.layers]
    for book in books[count:]:
        book._codebook.embedding_sum.zero_()
    return changed


def missing(count):
    """Share of the energy of the quantizer's vectors that the first `count` codebooks leave out."""
    whole, part = (d.quantizer.decode(torch.from_numpy(codes)) for d in (decoder, with_first_codebooks(count)))
    return float(((whole - part) ** 2).sum() / (whole**2).sum())


# %%
total_books, reference = config.num_quantizers, one_shot(decoder, codes)[0]
waves = {count: one_shot(with_first_codebooks(count), codes)[0] for count in range(1, total_books)}
snr = {count: snr_db(reference, wave) for count, wave in waves.items()}
shares = [missing(count) for count in range(1, total_books + 1)]
picture = plots.residual_by_codebook(shares, snr, f"What the first codebooks leave out ({loaded.weights})")

# %% [markdown]
# **Figure.** Left: the energy of the quantizer's vectors (what the decoder gets) that is missing if only the first codebooks
# are summed. Right: SNR of the audio against that of all codebooks. The first codebooks repair the most energy; the audio
# improves with every codebook up to the last one.

# %% tags=["check"]
assert shares[-1] == 0 and np.allclose(one_shot(with_first_codebooks(total_books), codes), reference)
assert all(share > 0 for share in shares[:-1])

# %% [markdown]
# Listen to what 1, 2, 4, 8 codebooks give, and then to all of them: from which count on do you follow the sentence, and from
# which would you know the voice? The demo's decoder was trained with all codebooks at once, so with fewer it gets vectors that it has never
# seen; a codec that is trained with a random number of codebooks (*quantizer dropout*) is made for this. With random weights
# all of them are noise.

# %%
for count in (2**n for n in range(total_books.bit_length()) if 2**n < total_books):
    print(f"the first {count} of {total_books} codebooks: {snr[count]:.1f} dB")
    display(plots.player(waves[count], rate))
print(f"all {total_books} codebooks")
plots.player(reference, rate)

# %% [markdown]
# ## 3. What a stream carries
#
# The *windowed* design of [page 3](03_verify_wrapper.ipynb) keeps the transformer's keys and values, the last frames of input for the
# first convolution, and a few frames for the convolutions after the transformer. `0..72` (on the demo) is a length that
# grows from 0 to 72, the attention window (this design keeps one slot more than it needs, see page 3). One declaration, `spec.py`, says this; the exporter, the file's metadata and the runtime all
# read it.

# %%
session = TorchSession(StatefulCodecONNXWrapper(decoder))
spec = session.spec
print(f"{len(spec.all_inputs)} inputs, {len(spec.all_outputs)} outputs, {spec.bytes_per_stream():,} bytes a stream")
plots.table(["state", "shape", "bytes"], state_table(spec))

# %% tags=["check"]
layers = config.num_hidden_layers
assert len(spec.all_inputs) == 5 + 2 * layers and len(spec.all_outputs) == 7 + 2 * layers

# %% [markdown]
# ## 4. Dimensions: config and weights side by side
#
# The config says what a dimension should be. The weights cannot be wrong about it, because a matrix has the shape that it has. The
# fourth column is what a usual formula gives, or another field of the config that is often taken for it. If it differs, code
# that computes the number instead of reading it breaks.

# %%
found = dimensions(decoder)
plots.table(
    ["dimension", "config", "weights", "usual formula", "", "formula"],
    [(d.name, d.config, d.weights, d.formula or "", "**differs**" if d.trap else "", d.formula_text) for d in found],
)

# %% tags=["check"]
assert all(d.config == d.weights for d in found)

# %% [markdown]
# `head_dim` is the width of one attention head. Most models have `hidden_size / num_attention_heads`, and many exporters
# compute it so. Here the config sets it apart.
#
# > **Predict.** A client computes `head_dim` and sends a KV cache of that width. Does the step raise an error?
#
# <details><summary>Answer</summary>
#
# Yes: keys of two widths cannot be joined. This is the harmless kind of mistake. The cell fills a KV cache with five frames,
# with the *computed* head width, and runs one streaming step.
#
# </details>

# %%
head_dim = next(d for d in found if d.name == "head_dim")
inputs = {"audio_codes": codes[:, :3], "is_last": np.zeros(1, np.float32)}  # 0: more calls follow (page 3)
seen = min(5, config.sliding_window)


def state_with(width):
    cache = np.zeros((1, config.num_key_value_heads, seen, width), np.float32)
    return {name: cache if name.startswith("past_") else array for name, array in spec.zero_state().items()}


if head_dim.trap:
    with fails_with(RuntimeError, "must match"):
        session.run(inputs | state_with(head_dim.formula))
else:
    print("this checkpoint has no such trap: the formula is right")

# %% [markdown]
# With `config.head_dim` it runs. The official config has the same trap:

# %%
outputs = session.run(inputs | state_with(config.head_dim))
print(f"head_dim {config.head_dim}: next_key_0 has the shape {outputs['next_key_0'].shape}")
official = OFFICIAL_CONFIG["decoder_config"]
by_formula = official["hidden_size"] // official["num_attention_heads"]
print(f"official: head_dim {official['head_dim']}, and {by_formula} by the formula")

# %% tags=["check"]
kept = min(seen + 3, config.sliding_window)
assert outputs["next_key_0"].shape == (1, config.num_key_value_heads, kept, config.head_dim)
assert (official["head_dim"], by_formula) == (64, 32)

# %% [markdown]
# ### Exercise: head_dim ●○○ · 5 min
#
# The keys that a stream carries have the shape [batch, heads, frames, width]. Read it from the config; the code below
# computes it. Change it and run the cell: `check` tries it on three models, says what is wrong, and gives a hint. (As shipped
# it is not solved.)
#
# *Needs:* this section. In *grouped-query attention* several query heads share one head of keys and values; the config has a number for each.


# %% tags=["exercise"]
def key_shape(config, batch, frames):
    return batch, config.num_attention_heads, frames, config.hidden_size // config.num_attention_heads


check("head_dim", key_shape)

# %%
solution("head_dim")

# %% [markdown]
# ## 5. Measuring the receptive field
#
# The *[receptive field](guide/glossary.md#receptive-field)* of a sample is what it depends on. It is measured from the other side: change one frame, and see
# which samples move. How far the change reaches says how many earlier frames a sample depends on; anything that moved
# *before* the changed frame would be a look into the future. The convolutions and the transformer are measured apart, because the first reach a fixed time
# back, and the second one window for each layer.
#
# > **Predict.** The window is 72 frames and there are 8 layers. How far back does a
# > *latent*, a vector that the transformer gives to the convolutions, depend on the codes?
#
# <details><summary>Answer</summary>
#
# Each layer sees 71 earlier frames, and each of those has seen 71 before it in the layer below. So it is 8 × 71, and 2 more
# for the first convolution: 570 frames, 46 seconds.
#
# </details>

# %%
field, at = receptive_field.receptive_field(decoder), 5
conv = receptive_field.conv_influence(decoder, frames=field.conv_frames + at + 4, at=at)
reach = receptive_field.attention_receptive_field(config, decoder.pre_conv.left_context)
attention = receptive_field.attention_influence(decoder, frames=reach + 20)
print(
    f"{layers} layers × {config.sliding_window - 1} frames + {decoder.pre_conv.left_context} of pre_conv = {reach} frames"
)
print(
    f"measured: {field.attention_frames} frames, and {field.conv_samples / decoder.samples_per_frame:.1f} of the convolutions,"
    f" of which {field.conv_samples / decoder.samples_per_frame - 1:.1f} are earlier ones: {field.conv_frames} whole frames to keep"
)

# %%
conv_marks = {
    "causal: nothing\nmoves before": 0,
    "receptive field ends": field.conv_samples / decoder.samples_per_frame,
}
attention_marks = {"one window": config.sliding_window, "receptive field ends": reach}
picture = plots.receptive_field(
    conv, attention, decoder.samples_per_frame, at, loaded.weights, (conv_marks, attention_marks)
)

# %% [markdown]
# **Figure.** Top: how much each sample changes if one frame of latents is changed, over the time from that frame on. Bottom:
# the same for the transformer, if the codes of one frame are changed. Look at the two vertical lines of each panel. At the
# top, nothing moves before 0, so the decoder is **causal** and needs no look-ahead; and nothing moves after the second line, so this much
# [left context](guide/glossary.md#left-context) is enough. At the bottom, the change is largest within one window and fades with every layer.
#
# The tail of the lower curve, near 1e-16, is real: the change survives all layers. To see it we compute in float64
# throughout; transformers' norms and softmax would otherwise cast to float32, so the measurement patches them. What is exactly zero has no place on a log axis and is left out.

# %% tags=["check"]
assert field.first_sample == 0 and not conv[: at * decoder.samples_per_frame].any()
assert config.sliding_window <= field.attention_frames <= reach
if config.upsample_rates == [8, 5, 4, 3]:
    assert field.conv_frames == 10

# %% [markdown]
# > **Why.** A stream that keeps less left context than this is an approximation. The exact design never recomputes any: it keeps, in
# > each layer, the few inputs that this layer needs. How many that are is the next exercise.
#
# ### Exercise: length of the left context ●○○ · 5 min
#
# A causal convolution with a kernel of `kernel` taps, `dilation` apart, makes one step for every `stride` new samples. How many
# *earlier* samples does it need? The code below is right for the simplest case.
#
# *Needs:* the convolutions of [page 1](01_streaming_by_hand.ipynb).


# %% tags=["exercise"]
def left_context_length(kernel, dilation, stride):
    return kernel - 1


check("length of the left context", left_context_length)

# %%
solution("length of the left context")

# %% [markdown]
# ## What you can do now
#
# - Draw a codec from its config: `python -m qwen3_codec inspect --checkpoint random` prints the official one's dimensions.
# - Say which numbers to read and which never to compute, and measure a receptive field where no paper gives it.
# - Run this page on another model: `make walkthrough CHECKPOINT=path/to/folder`.
#
# **Next:** [3 · Verify the wrapper](03_verify_wrapper.ipynb), because now that each state is known, the step that carries
# them can be read line by line.
