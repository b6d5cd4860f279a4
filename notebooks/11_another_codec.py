# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11 · Another codec: the same tools on a model that we did not write
#
# Mimi (arXiv:2410.00037) is the codec of Moshi. Of its decoder, as transformers has it, we know of no streaming ONNX export (2026-11). It is made into
# one here, over the parts of this project: a convolution with its past, a transposed convolution with its past, layers of
# attention with their keys and values. Nothing here was written for Mimi but what you see on this page.
#
# At the end of this notebook you know
#
# 1. how to find out what a model has to remember,
# 2. how to write its streaming step, in some thirty lines,
# 3. how to prove that it is right, and how to find out what the proof does not see,
# 4. what changes where a codec makes several steps of attention for a frame,
# 5. ten steps for a model of your own.
#
# If you want to try it yourself first, read section 1 alone and come back with your own wrapper.

# %% tags=["parameters"]
import os

BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/
FRAMES = int(os.environ.get("QWEN3_CODEC_FRAMES", "0"))  # 0: 400, far past the attention window

# %%
import numpy as np
import torch
from torch import nn
from transformers import MimiConfig, MimiModel

from qwen3_codec import (
    CodecSession,
    OtherModel,
    StreamEncoderWrapper,
    StreamingConvTranspose1d,
    TorchSession,
    export,
    find_states,
    verify,
)
from qwen3_codec.course import build_folder, fails_with, plots
from qwen3_codec.model import CodecEncoder
from qwen3_codec.runtime import max_error
from qwen3_codec.spec import exact_spec
from qwen3_codec.streaming import ConvStates, StreamingSequence, split_states, stream_layers
from qwen3_codec.verification import MAX_ERROR

# %%
build = build_folder(BUILD) / "another_codec"
build.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1. This is a small Mimi
#
# The class is transformers' own, unchanged. The weights are random and the layers narrow, so that it runs in no time; what is shown is
# about lengths and states, not about sound. Attention is `eager`: plain products, under a mask that is ours to give.

# %%
layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
layers |= {"hidden_size": 32, "intermediate_size": 64, "sliding_window": 20, "layer_scale_initial_scale": 0.5}
convolutions = {"num_filters": 4, "upsampling_ratios": [4, 3, 2], "upsample_groups": 32}
codebooks = {"num_quantizers": 4, "codebook_size": 64, "codebook_dim": 16, "vector_quantization_hidden_dimension": 16}
rates = {"sampling_rate": 2400, "frame_rate": 50}
config = MimiConfig(**layers, **convolutions, **codebooks, **rates)

# %% [markdown]
# Three things a random Mimi lacks: its codebooks begin as zeros, its attention hardly looks anywhere (small queries give an almost
# even softmax), and it is louder than sound can be. The second is left as it is for now. It will matter.


# %%
def small_mimi(seed=0):
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = MimiModel(config).eval().requires_grad_(False)
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            buffer.normal_()
    last = model.decoder.decoder_seanet.layers[-1].conv
    last.weight *= 0.02
    return model


model = small_mimi()


def one_shot(codes):
    """Codes [B, N, Q] -> waveform [B, samples], all at once, by transformers' own code."""
    return model.decode(torch.from_numpy(codes).transpose(1, 2)).audio_values[:, 0].detach().numpy()


# %%
rng = np.random.default_rng(0)
codes = rng.integers(config.codebook_size, size=(2, FRAMES or 400, config.num_quantizers))
whole = one_shot(codes)
samples_per_frame = whole.shape[1] // codes.shape[1]
print(
    f"codes {codes.shape} -> waveform {whole.shape}, {samples_per_frame} samples a frame, peak {abs(whole).max():.2f}"
)
assert abs(whole).max() < 2

# %% [markdown]
# ## 2. It has to remember this
#
# Before anything else: does it look ahead? Change the codes of one frame, and see which samples move. None before the frame may.

# %%
at = 100
changed = codes[:1].copy()
changed[:, at] = (changed[:, at] + 1) % config.codebook_size
moved = np.flatnonzero(np.abs(one_shot(changed) - whole[:1])[0] > 1e-6)
first, last = moved[0] - at * samples_per_frame, moved[-1] // samples_per_frame - at
print(f"the first sample that moves: {first} after the frame's begin; the last one is {last} frames later")
assert first >= 0, "it is causal"

# %% [markdown]
# `find_states` lets some codes through and watches every function that is called. It lists the convolutions in the order in which the data come
# by, with what each needs of its own past: d·(k − 1) + 1 − s steps before an ordinary convolution of kernel k, dilation d and
# stride s, ⌈k / s⌉ − 1 before a transposed one (less where the model pads or cuts on both sides; then *look-ahead* is above 0). Whatever else
# looks along time it names: an LSTM, attention, a mirrored padding. There the history is not known, and is for you to find.

# %%
few = torch.from_numpy(codes[:1, :30]).transpose(1, 2)
found = find_states(model, few, run=model.decode)
fields = ["kind", "channels", "kernel", "stride", "groups", "bias", "left_context", "lookahead", "steps_per_frame"]
rows = [(s.name.removeprefix("decoder."), *(getattr(s, field) for field in fields)) for s in found if s.left_context]
plots.table(["layer", *(field.replace("_", " ") for field in fields)], rows)

# %%
unknown = [(s.name.removeprefix("decoder."), s.kind, s.why) for s in found if s.left_context is None]
plots.table(["layer", "kind", "what it does"], unknown)

# %%
assert {s.kind for s in found if s.left_context is None} == {"MimiAttention"} and not any(s.lookahead for s in found)

# %% [markdown]
# Read the first row. The upsampling is *depthwise* (as many groups as channels) and has no bias; and it stands **before** the transformer. So
# attention makes two steps for a frame. Its window of 20 is full after 10 frames, and everything that is counted there is
# counted in steps.

# %%
upsample = next(s for s in found if s.name == "decoder.upsample.conv")
assert (upsample.stride, upsample.groups, upsample.bias, upsample.left_context) == (2, config.hidden_size, False, 1)
transformer = model.decoder.decoder_transformer
print(
    "attention window:", transformer.config.sliding_window, "steps =", transformer.config.sliding_window // 2, "frames"
)

# %% [markdown]
# ## 3. The streaming step is short
#
# The parts are made once: `StreamingConvTranspose1d` for the upsampling, `StreamingSequence` for the stack of convolutions. The states' order is
# that of the data, as they are handed out.


# %%
class MimiParts(nn.Module):
    def __init__(self, model):
        super().__init__()
        decoder = model.decoder
        self.quantizer, self.transformer = model.quantizer, decoder.decoder_transformer
        self.upsample = StreamingConvTranspose1d(decoder.upsample.conv)
        self.seanet = StreamingSequence(decoder.decoder_seanet.layers)
        states = [("conv", (s.channels, s.left_context)) for s in found if s.left_context]
        steps, rate = upsample.stride, config.sampling_rate
        self.spec = exact_spec(
            config, samples_per_frame, states, attention=config, steps_per_frame=steps, sample_rate=rate
        )
        self.requires_grad_(False).eval()


# %% [markdown]
# One step: what `model.decode` does, line for line, with states handed in and out. The count of past *frames* becomes one of
# *steps* before attention sees it.


# %%
class StreamMimi(MimiParts):
    def forward(self, audio_codes, past_frames, *states):
        layers, keep = len(self.transformer.layers), self.transformer.config.sliding_window - 1
        past_convs, keys, values = split_states(states, layers)
        convs = ConvStates(past_convs)
        hidden = self.upsample(self.quantizer.decode(audio_codes.transpose(1, 2)), convs)
        steps = self.past_steps(past_frames).clamp(max=keep)
        hidden, keys, values = stream_layers(self.transformer, hidden.transpose(1, 2), keys, values, keep, steps)
        waveform = self.seanet(hidden.transpose(1, 2), convs).squeeze(1)
        seen = (past_frames + audio_codes.size(1)).clamp(max=self.spec.limits["past_frames"])
        return waveform, seen, *convs.after, *keys, *values

    def past_steps(self, past_frames):
        return past_frames * self.upsample.stride


# %% [markdown]
# The declaration, `spec`, is made of the config and the list of convolutions. Names, axes and zeros all come from it.

# %%
wrapper = StreamMimi(model)
plots.table(["state", "shape"], [(before.name, list(before.shape)) for before, _ in wrapper.spec.states])

# %%
assert wrapper.spec.limits == {"past_frames": 10}
assert len(wrapper.spec.states) == 1 + sum(bool(s.left_context) for s in found) + 2 * config.num_hidden_layers

# %% [markdown]
# ## 4. Does it agree?
#
# `verify` takes any wrapper with a `spec`, and any `reference`. `OtherModel` stands where a checkpoint would: a name for reports, the
# weights, and the config that goes into the file.

# %%
mimi = OtherModel("a small Mimi, random", model, config.to_dict())
schedules = [[1], [3], [7, 1, 2], [codes.shape[1]]]
report = verify(mimi, wrapper, codes, schedules, reference=one_shot)
print(report)
assert report.judged and report.passed

# %% [markdown]
# Rows of different ages in one call: the first has seen 37 frames, the second none.

# %%
old, young = TorchSession(wrapper).stream(), TorchSession(wrapper).stream()
old.push(codes[:1, :37])
both = old.join(young).push(np.concatenate([codes[:1, 37:60], codes[1:, :23]]))
wanted = np.concatenate(
    [whole[:1, 37 * samples_per_frame : 60 * samples_per_frame], whole[1:, : 23 * samples_per_frame]]
)
print(f"largest error: {max_error(wanted, both):.1e}")
assert max_error(wanted, both) < MAX_ERROR

# %% [markdown]
# ## 5. A quick test misses two mistakes
#
# **A count in frames.** Where the codec of this project makes one step a frame, Mimi makes two. A count that is half too small hides
# half of the past behind the mask. When everything comes in one call there is no past, and nothing is wrong.


# %%
class CountsFrames(StreamMimi):
    def past_steps(self, past_frames):
        return past_frames


def error_of(kind, schedule, frames=60):
    waveform = TorchSession(kind(model)).stream(len(codes)).run(codes[:, :frames], schedule)
    return np.abs(waveform - whole[:, : waveform.shape[1]])


rows = [(f"chunks of {n}", f"{error_of(CountsFrames, [n]).max():.1e}") for n in (60, 12, 3, 1)]
plots.table(["a count in frames", "largest error"], rows)

# %% [markdown]
# **No count at all.** The keys begin as zeros, so why count? Because a zero key is not "no key": its product with the query is 0, and softmax
# gives 0 a weight like any other number. The mistake heals once the windows of all layers are full.


# %%
class CountsNothing(StreamMimi):
    def past_steps(self, past_frames):
        return torch.full_like(past_frames, self.transformer.config.sliding_window)


errors = {name: error_of(kind, [1]) for name, kind in (("no count", CountsNothing), ("a count of steps", StreamMimi))}
by_frame = {name: e.reshape(2, 60, -1).max(axis=(0, 2)) for name, e in errors.items()}
figure = plots.frame_errors(by_frame, "Chunks of one frame, random weights", "largest error in a frame")

# %% [markdown]
# Later frames hear the wrong ones as long as these are in the window of some layer. Then the curves meet: the average over a long
# test hides what the first second would have shown.

# %%
assert error_of(CountsFrames, [60]).max() < MAX_ERROR < error_of(CountsFrames, [1]).max()
assert by_frame["no count"][:10].max() > 20 * MAX_ERROR > MAX_ERROR > by_frame["no count"][20:].max()
assert by_frame["a count of steps"].max() < MAX_ERROR

# %% [markdown]
# ## 6. Both exporters give the graph
#
# `export` does here what it does for the project's own codec: it names everything from `spec`, checks the graph, and runs it against the
# wrapper at other lengths. (It also runs the wrapper once before it traces. A model may keep something in Python at its first call, as Mimi's
# codebooks keep their tables in `_embed`; were that call the trace, what fills the cache would become a part of the graph.) `parity` then looks at the file with other eyes. It knows nothing but the names (a state X comes
# out as next_X), and it loses each state in turn.
#
# Each warning of the tracer that is not about every export says that something became a constant, and `export` then refuses the file. Here two
# lines of `transformers` loop over the codebooks and compare their number. That number *is* a constant of this graph (the last axis of `audio_codes`
# in `spec`), so both are right for every input, and `strict=False` has the file written.

# %%
done = export(mimi, wrapper, build / "mimi_torchscript.onnx", "torchscript", strict=False)
print(*done.warnings, sep="\n")
assert len(done.warnings) == 2 and all(
    "modeling_mimi.py" in line and "quantizer.decode" in line for line in done.warnings
)

# %%
from qwen3_codec import parity

path = done.path
cuts = [[1], [3], [7, 1, 2], [60]]
check = parity(path, one_shot, codes[:, :60], cuts)
print(check)
assert check.passed and check.unnoticed

# %% [markdown]
# It passes, and it says what that is worth: the loss of the keys does not show. With these weights all products of query and key are small,
# softmax is almost even, and *any* keys would do. A test that cannot fail proves nothing about the keys. So the weights are changed, not the test: larger queries make
# attention choose.

# %%
for layer in transformer.layers:
    layer.self_attn.q_proj.weight *= 30
graphs = {e: export(mimi, wrapper, build / f"mimi_{e}.onnx", e, strict=False).path for e in ("torchscript", "dynamo")}
checks = {e: parity(path, one_shot, codes[:, :60], cuts) for e, path in graphs.items()}
print(checks["dynamo"])

# %%
assert all(check.passed and not check.unnoticed for check in checks.values())
sessions = {e: CodecSession(path) for e, path in graphs.items()}
for name, session in sessions.items():
    waveform = session.decode(codes, [7, 1, 2])
    print(f"{name}: {codes.shape[1]} frames within {max_error(one_shot(codes), waveform):.1e}")
    assert max_error(one_shot(codes), waveform) < MAX_ERROR

# %% [markdown]
# ## 7. A clamp too many hides
#
# This project's decoder ends with a clamp to [−1, 1]. Mimi's does not. Whoever copies that line gets a wrapper that agrees wherever the
# waveform stays below 1, so look at the peak that every report prints beside its limit.


# %%
class Clamped(StreamMimi):
    def forward(self, *inputs):
        waveform, *after = super().forward(*inputs)
        return waveform.clamp(-1, 1), *after


quiet = verify(mimi, Clamped(model), codes[:1, :8], [[1]], reference=one_shot)
print(f"peak {quiet.peak:.2f}: {quiet.verdict}")
model.decoder.decoder_seanet.layers[-1].conv.weight *= 10
loud = verify(mimi, Clamped(model), codes[:1, :8], [[1]], reference=one_shot)
print(f"peak {loud.peak:.2f}: {loud.verdict}")

# %%
assert quiet.peak < 1 < loud.peak and quiet.passed and not loud.passed
with fails_with(ValueError, "give a reference"):
    verify(mimi, wrapper, codes[:1, :8])

# %% [markdown]
# ## 8. Its encoder streams too
#
# Qwen3-TTS's encoder *is* Mimi's, so the project's own wrapper takes it as it is: sound in chunks of any length, codes out.

# %%
encoder = CodecEncoder(config.encoder_config, config.num_quantizers)
encoder.model, encoder.quantizer = model.encoder, model.quantizer
sound = rng.normal(0, 0.1, (2, 60 * samples_per_frame)).astype(np.float32)
path = export(
    OtherModel("a small Mimi, random", encoder, config.to_dict()),
    StreamEncoderWrapper(encoder),
    build / "mimi_encoder.onnx",
).path
wanted = encoder(torch.from_numpy(sound)).numpy()
found_codes = [CodecSession(path).encode(sound, schedule) for schedule in ([1], [7, 1, 2], [60])]
print("codes equal:", [float((wanted == part).mean()) for part in found_codes])
assert all((wanted == part).all() for part in found_codes)

# %% [markdown]
# ## 9. Do this for your own model
#
# 1. **Is it causal?** Change one frame and see whether anything moves before it: [section 2 here](#2.-It-has-to-remember-this), and [1 · How far back it looks is measured](02_inspect_dims.ipynb#5.-How-far-back-it-looks-is-measured).
#    If it looks ahead by a fixed time, hold frames back: [2 · Frames are held back, then finished](03_verify_wrapper.ipynb#2.-Frames-are-held-back,-then-finished).
#    Read off the foreign code: in which order it has its axes (Mimi's codes are [B, Q, N]), which side each transposed convolution is cut on, what is
#    added or clamped at the end, and what is kept in Python between calls.
# 2. **Read every dimension, compute none**: [1 · Every dimension is read from two sources](02_inspect_dims.ipynb#1.-Every-dimension-is-read-from-two-sources).
# 3. **List what it remembers**, in the order of the data: [section 2 here](#2.-It-has-to-remember-this).
# 4. **Load it with `eager` attention**, and call its layers one by one under a mask and positions of your own: [5 · This is the whole wrapper](05_exact_streaming.ipynb#This-is-the-whole-wrapper).
# 5. **Give every state one shape, zeros at the start, and a counter** for each row, in the steps of the attention: [section 5 here](#5.-A-quick-test-misses-two-mistakes).
# 6. **Declare names, axes and zeros once**, and let everything read that: [1 · This is what a stream carries](02_inspect_dims.ipynb#4.-This-is-what-a-stream-carries).
# 7. **Prove the step in PyTorch before any export**: one frame at a time, odd cuts, past the window, two rows, rows of two ages: [section 4 here](#4.-Does-it-agree?).
# 8. **Export, and run the graph at other lengths** than the example's: [3 · A dynamic length is baked in](04_export_onnx.ipynb#1.-A-dynamic-length-is-baked-in;-the-only-sign-is-a-warning).
# 9. **Prove the graph, and lose each state in turn**: what nobody would notice, nobody has tested: [section 6 here](#6.-Both-exporters-give-the-graph).
# 10. **Put its interface and a self-test into the file**, so that a client needs nothing else: [4 · A client needs the file alone](05_verify_onnxruntime.ipynb#1.-A-client-needs-the-file-alone).
#
# `export` and `verify` ask little of a model that is not ours. Of the *wrapper*: a `spec` (a `StateSpec`, of `exact_spec` or your own), and a
# `forward` that takes `spec.all_inputs` and returns `spec.all_outputs`, in order. In place of the *checkpoint*: what `OtherModel` has.
# And codes under the name `audio_codes`, [B, N, Q].
#
# ## What you can do now
#
# Make an exact streaming export of a causal codec, and prove it. The exercises of [11 · Your turn](12_capstones.ipynb) are its parts, one by one.
