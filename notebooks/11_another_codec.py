# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11 · Another codec: Mimi, then EnCodec with its LSTM, then yours
#
# Mimi (arXiv:2410.00037) is the codec of Moshi, EnCodec (arXiv:2210.13438) the one of MusicGen and Bark. Here transformers' own classes, unchanged, become streaming ONNX graphs: Mimi of the parts that the earlier pages have shown, and
# EnCodec with one part more, because two of its layers are LSTMs. Both are small and have random weights, so that the page runs in no time; it is about lengths and states, not about how they sound.
#
# After this page you can
#
# 1. find out what a model that you did not write has to carry from call to call,
# 2. write its streaming step in some thirty lines, and say which test would miss which of its mistakes,
# 3. stream a part that the package does not know, and a recurrent one in both exporters,
# 4. start on a model of your own, from a template.
#
# *Prerequisites:* [1 · Streaming by hand](01_streaming_by_hand.ipynb), [3 · The wrapper](03_verify_wrapper.ipynb), [4 · Export](04_export_onnx.ipynb), [5 · ONNX Runtime](05_verify_onnxruntime.ipynb). *Time:* 20 minutes, and 10 more for an exercise.

# %% tags=["parameters"]
import os

BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/
FRAMES = int(os.environ.get("QWEN3_CODEC_FRAMES", "0"))  # 0: 400, far past the attention window

# %%
import numpy as np
import torch
from torch import nn
from transformers import EncodecConfig, EncodecModel, MimiConfig, MimiModel
from transformers.models.encodec import modeling_encodec as encodec

# %%
from qwen3_codec import (
    CodecSession,
    OtherModel,
    StreamEncoderWrapper,
    StreamingConv1d,
    StreamingConvTranspose1d,
    TorchSession,
    export,
    find_states,
    parity,
    verify,
)
from qwen3_codec.course import build_folder, check, code, fails_with, own_codec, plots, solution
from qwen3_codec.model import CodecEncoder
from qwen3_codec.model.inspection import receptive_field
from qwen3_codec.runtime import max_error
from qwen3_codec.spec import exact_spec
from qwen3_codec.streaming import ConvStates, StreamingSequence, split_states, states_of, stream_layers
from qwen3_codec.verification import MAX_ERROR

# %%
build = build_folder(BUILD) / "another_codec"
build.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## 1. A small Mimi
#
# The class is transformers' own. Attention is `eager`, plain products under a mask, because the mask is then ours to give.

# %%
layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
layers |= {"hidden_size": 32, "intermediate_size": 64, "sliding_window": 20, "layer_scale_initial_scale": 0.5}
convolutions = {"num_filters": 4, "upsampling_ratios": [4, 3], "upsample_groups": 32}
codebooks = {"num_quantizers": 4, "codebook_size": 64, "codebook_dim": 16, "vector_quantization_hidden_dimension": 16}
rates = {"sampling_rate": 1200, "frame_rate": 50}
config = MimiConfig(**layers, **convolutions, **codebooks, **rates)

# %% [markdown]
# Three things a random Mimi lacks: its codebooks begin as zeros, its attention hardly chooses (small queries give an almost even softmax), and its waveform goes far beyond 1. The first and the last are mended here. The second is left as it is for
# now, because section 6 needs it.


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
# ## 2. What it has to remember
#
# Before anything else: is it causal, and how large is its receptive field? `receptive_field` asks the one-shot decoder itself: it changes the codes of one frame and sees which samples move.

# %%
field = receptive_field(one_shot, codes[:1], at=codes.shape[1] // 4, tolerance=1e-6)
print(field)
assert field.first_sample >= 0, "it is causal"

# %% [markdown]
# > **Predict.** This decoder has convolutions, a transposed convolution and attention. Which of them does a list of the model's modules, in the order in which they are registered, show in the wrong place?
#
# <details><summary>Answer</summary>It may be any: the order of registration is that of `__init__`, and nothing ties it to the order of the data. So the states are read off a run.</details>
#
# `find_states` lets some codes through and watches every function that is called. It lists the convolutions in the order of the data, with what each needs of its own past: d·(k − 1) + 1 − s steps before an ordinary convolution of kernel k,
# dilation d and stride s, ⌈k / s⌉ − 1 before a transposed one (less where the model pads or cuts on both sides; then *look-ahead* is above 0). It names whatever else works along time: an LSTM, attention, a mirrored padding. The state of
# those is for you to find.

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
# Read the first row. The upsampling is *depthwise* (as many groups as channels) and has no bias; and it stands **before** the transformer. So attention makes two steps for a frame, its window of 20 is full after 10 frames, and everything that is
# counted there is counted in steps.

# %%
upsample = next(s for s in found if s.name == "decoder.upsample.conv")
assert (upsample.stride, upsample.groups, upsample.bias, upsample.left_context) == (2, config.hidden_size, False, 1)
transformer = model.decoder.decoder_transformer
print(
    "attention window:", transformer.config.sliding_window, "steps =", transformer.config.sliding_window // 2, "frames"
)

# %% [markdown]
# ## 3. The streaming step
#
# The parts are made once: `StreamingConvTranspose1d` for the upsampling, `StreamingSequence` for the convolutions behind the transformer. Each part says which state it has; `states_of` collects them, and `exact_spec` makes the declaration of them:
# names, axes, zeros, and because there is attention a counter, keys and values.


# %%
class MimiParts(nn.Module):
    def __init__(self, model):
        super().__init__()
        decoder = model.decoder
        self.quantizer, self.transformer = model.quantizer, decoder.decoder_transformer
        self.upsample = StreamingConvTranspose1d(decoder.upsample.conv)
        self.seanet = StreamingSequence(decoder.decoder_seanet.layers)
        steps, rate = self.upsample.stride, config.sampling_rate
        self.spec = exact_spec(
            config, samples_per_frame, states_of(self), attention=config, steps_per_frame=steps, sample_rate=rate
        )
        self.requires_grad_(False).eval()


# %% [markdown]
# One step is what `model.decode` does, line by line, with states handed in and out. The count of past *frames* becomes one of *steps* before attention sees it.


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
# These are the states. What the parts declare must be what the run has shown.

# %%
wrapper = StreamMimi(model)
plots.table(["state", "shape"], [(before.name, list(before.shape)) for before, _ in wrapper.spec.states])

# %%
assert wrapper.spec.limits == {"past_frames": 10}
assert states_of(wrapper) == [("conv", (s.channels, s.left_context)) for s in found if s.left_context]
assert len(wrapper.spec.states) == 1 + len(states_of(wrapper)) + 2 * config.num_hidden_layers

# %% [markdown]
# ## 4. Parity in PyTorch
#
# `verify` takes any wrapper with a `spec`, and any `reference`. `OtherModel` stands where a checkpoint would: a name for reports, the weights, and the config that goes into the file. ([3 · Where the limits come from](03_verify_wrapper.ipynb#8.-Where-the-limits-come-from) derives the limits.)

# %%
mimi = OtherModel("a small Mimi, random", model, config.to_dict())
schedules = [[1], [3], [7, 1, 2], [codes.shape[1]]]
report = verify(mimi, wrapper, codes, schedules, reference=one_shot)
print(report)
assert report.judged and report.passed

# %% [markdown]
# Batch rows at different offsets share a call: the first has seen 37 frames, the second none.

# %%
going, new = TorchSession(wrapper).stream(), TorchSession(wrapper).stream()
going.push(codes[:1, :37])
both = going.join(new).push(np.concatenate([codes[:1, 37:60], codes[1:, :23]]))
wanted = np.concatenate(
    [whole[:1, 37 * samples_per_frame : 60 * samples_per_frame], whole[1:, : 23 * samples_per_frame]]
)
print(f"largest error: {max_error(wanted, both):.1e}")
assert max_error(wanted, both) < MAX_ERROR

# %% [markdown]
# ## 5. Two mistakes, and the tests that miss them
#
# > **Predict.** The codec of this project makes one step of attention a frame, Mimi makes two. A wrapper that counts *frames* hides half of the valid cache slots behind the mask. At which chunk length does a test of 60 frames not show it?
#
# <details><summary>Answer</summary>At 60: if everything comes in one call, there is no past and nothing to hide. Every shorter chunk shows it.</details>


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
# **No count at all.** The keys begin as zeros, so why count? Because a zero key is not "no key": its product with the query is 0, and softmax gives 0 a weight like any other number. The mistake heals once the windows of all layers are full.


# %%
class CountsNothing(StreamMimi):
    def past_steps(self, past_frames):
        return torch.full_like(past_frames, self.transformer.config.sliding_window)


errors = {name: error_of(kind, [1]) for name, kind in (("no count", CountsNothing), ("a count of steps", StreamMimi))}
by_frame = {name: e.reshape(2, 60, -1).max(axis=(0, 2)) for name, e in errors.items()}
figure = plots.frame_errors(by_frame, "Chunks of one frame, random weights", "largest error in a frame")

# %% [markdown]
# **Figure.** Largest error in each frame against the one-shot decoder, for a wrapper without a count and for the right one. Later frames depend on the wrong ones for as long as these are in the window of some layer. Then the curves meet, so a
# test of a late stretch does not see it, and an SNR over a long stream hardly does.

# %%
assert error_of(CountsFrames, [60]).max() < MAX_ERROR < error_of(CountsFrames, [1]).max()
assert by_frame["no count"][:10].max() > 20 * MAX_ERROR > MAX_ERROR > by_frame["no count"][20:].max()
assert by_frame["a count of steps"].max() < MAX_ERROR

# %% [markdown]
# ## 6. Both exporters, and state ablation
#
# `export` names everything from `spec`, checks the graph, and runs it against the wrapper at other lengths. (It also runs the wrapper once before it traces. A model may keep something in Python at its first call, as Mimi's codebooks keep their
# tables in `_embed`; were that call the trace, what fills the cache would become a part of the graph.)
#
# Here two lines of transformers loop over the codebooks and compare their number, so the tracer warns that both are decided once. `export` refuses a file for such a warning. The number of codebooks *is* a constant of this graph (the last axis of
# `audio_codes` in `spec`), so both lines are right for every input, and `strict=False` has the file written.

# %%
done = export(mimi, wrapper, build / "mimi_torchscript.onnx", "torchscript", strict=False)
print(*done.warnings, sep="\n")
assert len(done.warnings) == 2 and all(
    "modeling_mimi.py" in line and "quantizer.decode" in line for line in done.warnings
)

# %% [markdown]
# `parity` knows nothing of a graph but its names (a state X comes out as next_X). It compares the stream with the one-shot decoder, then ablates each state in turn: if that changes nothing, the comparison does not test that state.
#
# > **Predict.** The weights are random and small, and parity is within rounding. For which of the 12 states does the ablation not show?
#
# <details><summary>Answer</summary>For the keys of both layers. Softmax of small products is almost even whatever the keys are; the values, the count and the convolutions' states all show.</details>

# %%
cuts = [[1], [3], [7, 1, 2], [60]]
result = parity(done.path, one_shot, codes[:, :60], cuts)
print(result)
assert result.passed and result.unnoticed

# %% [markdown]
# It passes, and it says what that is worth: the loss of the keys does not show. With these weights all products of query and key are small, softmax is almost even, and *any* keys would do. A test that cannot fail says nothing about the keys. So the
# weights are changed, not the test: larger queries make attention choose.

# %%
for layer in transformer.layers:
    layer.self_attn.q_proj.weight *= 30
graphs = {e: export(mimi, wrapper, build / f"mimi_{e}.onnx", e, strict=False).path for e in ("torchscript", "dynamo")}
results = {e: parity(path, one_shot, codes[:, :60], cuts) for e, path in graphs.items()}
print(results["dynamo"])

# %%
assert all(result.passed and not result.unnoticed for result in results.values())
sessions = {e: CodecSession(path) for e, path in graphs.items()}
for name, session in sessions.items():
    waveform = session.decode(codes, [7, 1, 2])
    print(f"{name}: {codes.shape[1]} frames within {max_error(one_shot(codes), waveform):.1e}")
    assert max_error(one_shot(codes), waveform) < MAX_ERROR

# %% [markdown]
# ## 7. A clamp too many
#
# This project's decoder ends with a clamp to [−1, 1], Mimi's does not. A wrapper that copies the line agrees wherever the waveform stays below 1, so look at the peak that every report prints beside its limit.


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
# ## 8. The encoder
#
# Qwen3-TTS's encoder *is* Mimi's, so the project's own wrapper takes it as it is: audio in chunks of any length, codes out.

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
# ## 9. EnCodec: parts that the package does not know
#
# EnCodec's decoder is a stack of layers like Mimi's, but two LSTM layers stand where Mimi has attention, and its convolutions carry weight norm. `pad_mode` decides whether it streams from its first sample on: the default of its config pads with
# `reflect`, which makes the left context of the *mirrored first samples*, so the first outputs wait for inputs that come later. `constant` is zeros, which is what a stream that has seen nothing has.

# %%
sizes = {"num_filters": 4, "hidden_size": 16, "upsampling_ratios": [4, 3, 2], "num_lstm_layers": 2}
sizes |= {"codebook_size": 64, "target_bandwidths": [2.4], "sampling_rate": 2400, "pad_mode": "constant"}
torch.manual_seed(0)
lstm_codec = EncodecModel(EncodecConfig(**sizes)).eval().requires_grad_(False)
for name, buffer in lstm_codec.named_buffers():
    if name.endswith("codebook.embed"):
        buffer.normal_()


def decode(codes):
    """Codes [B, N, Q] -> waveform [B, samples], all at once, by transformers' own code."""
    return lstm_codec.decode(torch.from_numpy(codes).transpose(1, 2)[None], [None]).audio_values[:, 0].numpy()


settings = lstm_codec.config
lstm_codes = rng.integers(settings.codebook_size, size=(2, FRAMES or 400, settings.num_quantizers))
lstm_whole = decode(lstm_codes)

# %% [markdown]
# > **Predict.** How many frames does one frame of codes reach?
#
# <details><summary>Answer</summary>All that follow. The hidden state of an LSTM is made of everything that came before, so the receptive field has no end, however soon the influence drops below the rounding of float32. There is no chunk length with
# overlap that would be exact; only the state is.</details>

# %%
print(receptive_field(decode, lstm_codes[:1]))
few = torch.from_numpy(lstm_codes[:1, :40])
remembers = find_states(lstm_codec, few, 40, run=lambda codes: decode(codes.numpy()))
rows = [(s.name.removeprefix("decoder."), s.kind, s.left_context, s.why) for s in remembers if s.left_context != 0]
plots.table(["layer", "kind", "left context", "what it does"], rows)

# %%
assert receptive_field(decode, lstm_codes[:1]).frames is None
assert [s.kind for s in remembers if s.left_context is None] == ["LSTM"] and not any(s.lookahead for s in remembers)

# %% [markdown]
# `to_streaming` knows torch's `nn.LSTM` and `nn.GRU`: their counterparts carry hidden and cell state, [B, layers, hidden_size]. It does not know EnCodec's own classes, so these get counterparts by class. Each is one line, since all of them are made of
# parts that are there. The convolutions fold their weight norm by themselves: left in, the norm of every weight would be computed in every call.


# %%
def residual(block):
    return StreamingSequence(block.block, block.shortcut, COUNTERPARTS)


COUNTERPARTS = {
    encodec.EncodecConv1d: lambda layer: StreamingConv1d(layer.conv),
    encodec.EncodecConvTranspose1d: lambda layer: StreamingConvTranspose1d(layer.conv),
    encodec.EncodecLSTM: lambda layer: StreamingSequence([layer.lstm], shortcut=nn.Identity()),
    encodec.EncodecResnetBlock: residual,
}

# %% [markdown]
# The step is the stack with states handed in and out. There is no attention, so there is no counter either, and `exact_spec` declares the layers' states alone. Counterparts and step together are some 25 lines.


# %%
class StreamEncodec(nn.Module):
    def __init__(self, model):
        super().__init__()
        config, self.quantizer = model.config, model.quantizer
        self.layers = StreamingSequence(model.decoder.layers, counterparts=COUNTERPARTS)
        self.spec = exact_spec(config, config.hop_length, states_of(self), sample_rate=config.sampling_rate)
        self.requires_grad_(False).eval()

    def forward(self, audio_codes, *states):
        convs = ConvStates(states)
        latents = self.quantizer.decode(audio_codes.permute(2, 0, 1))
        return self.layers(latents, convs)[:, 0], *convs.after


step = StreamEncodec(lstm_codec)
plots.table(["state", "shape"], [(before.name, list(before.shape)) for before, _ in step.spec.states])

# %% [markdown]
# First in PyTorch, then the graphs of both exporters in ONNX Runtime. The states of an LSTM are never full, so "past everything" means what it can mean here: all frames, in chunks of every kind, and each state ablated.

# %%
small_encodec = OtherModel("a small EnCodec, random", lstm_codec, settings.to_dict())
report = verify(small_encodec, step, lstm_codes, schedules, reference=decode)
print(report)
assert report.passed

# %%
rows = []
for exporter in ("torchscript", "dynamo"):
    done = export(small_encodec, step, build / f"encodec_{exporter}.onnx", exporter, strict=False)
    result = parity(done.path, decode, lstm_codes[:, :60], [[1], [3], [7, 1, 2]])
    streamed = CodecSession(done.path).decode(lstm_codes, [7, 1, 2])
    errors = max(result.errors.values()), max_error(lstm_whole, streamed)
    rows.append((exporter, *(f"{error:.1e}" for error in errors), len(result.lost), result.unnoticed or "none"))
    assert result.passed and not result.unnoticed and errors[1] < MAX_ERROR
    assert done.nodes["LSTM"] == settings.num_lstm_layers and not {"Loop", "Scan", "Sqrt"} & {*done.nodes}
plots.table(["exporter", "60 frames", f"{lstm_codes.shape[1]} frames", "states ablated", "not noticed"], rows)

# %% [markdown]
# In both graphs each layer is ONNX's own `LSTM`, so its length is dynamic. Left to itself, `torch.export` takes a torch LSTM apart into one step for each input of the example, and the length is baked in (the first export of a process alone keeps a loop); [7 · The trap
# catalogue](07_trap_catalogue.ipynb) has that trap. The counterpart writes the operator itself: by `torch.onnx.ops.symbolic_multi_out` under dynamo, by a `symbolic` of an autograd function under TorchScript.
#
# > **Trap.** torch stacks the gates of an LSTM as input, forget, cell, output, and ONNX reads them as input, output, forget, cell. All shapes fit, so nothing reports it.
#
# > **Trap.** torch's own LSTM has its states as [layers, B, hidden]. Everything here has the batch first, because streams are forked and joined along axis 0, so a step of your own transposes them, and `parity` refuses a graph that
# > does not. Exported by TorchScript, such an LSTM also makes torch warn of `batch_size other than 1 with a variable length with LSTM`. The warning is about states that the layer makes by itself; as its text says, states that are
# > inputs of the graph are the remedy.
#
# An error behind an LSTM is in every later frame, so its reach tells nothing of its place. The states do: they stand in `spec` in the order of the data, and in the first call that is wrong, the first of them that differs belongs to the
# faulty layer or to the one behind it (a convolution's state is its input, which the layer before has made). To hold a step against the full-sequence decoder so, give one layer after the other the inputs that the full decode gave it (a forward hook keeps them), whole and in chunks.
#
# ### Exercise: gate order ●●○ · 10 min
#
# Given the four parameters of a torch LSTM layer, return what ONNX's operator takes: W [1, 4·hidden, inputs], R [1, 4·hidden, hidden] and B [1, 8·hidden], in which the bias of the input comes first, then that of the hidden state. The check runs the
# operator with your weights in ONNX Runtime, in chunks and from states that are not zero. *Needs:* the trap above.


# %% tags=["exercise"]
def in_onnx_order(weight_ih, weight_hh, bias_ih, bias_hh):
    return weight_ih[None], weight_hh[None], torch.cat([bias_ih, bias_hh])[None]


check("gate order", in_onnx_order)

# %%
solution("gate order")

# %% [markdown]
# ## 10. A template for a model of your own
#
# `qwen3_codec/course/own_codec.py` is a file to copy. It has three places that are marked: your model, your layers, your step. As it comes, a small codec with a GRU stands there, so it runs at once. The step is what takes thought:

# %%
code(own_codec.Step)

# %% [markdown]
# `main` is the way of this page and stays as it is: it exports, verifies, and ablates each state.

# %%
assert own_codec.main(build, exporters=("torchscript",))

# %% [markdown]
# What to look at, in this order:
#
# 1. **Is it causal?** [`receptive_field`](02_inspect_dims.ipynb#5.-Measuring-the-receptive-field) says so. If it looks ahead by a fixed time, buffer frames as [the windowed step](03_verify_wrapper.ipynb#2.-The-windowed-step,-line-by-line) does.
# 2. **Read the foreign code**: the order of its axes (Mimi's codes are [B, Q, N]), the side on which each transposed convolution is cut, what it pads with, what is added or clamped at the end, and what is kept in Python between calls.
# 3. **Read every dimension, compute none**, from [config and weights](02_inspect_dims.ipynb#4.-Dimensions:-config-and-weights-side-by-side).
# 4. **Load it with `eager` attention**, and call its layers one by one under a mask and positions of your own: [a KV cache of pre-RoPE keys](03_verify_wrapper.ipynb#4.-A-KV-cache-of-pre-RoPE-keys).
# 5. **Give every state one shape, zeros at the start, and for attention a count** for each row, in its own steps.
# 6. **Validate the step in PyTorch before any export**: one frame at a time, odd chunk schedules, past the window, two rows, batch rows at different offsets.
# 7. **Export, and run the graph at other lengths** than the example's: [a dynamic length is baked in](04_export_onnx.ipynb#1.-A-dynamic-length-is-baked-in;-a-TracerWarning-may-be-the-only-sign).
# 8. **Validate the graph, and ablate each state in turn**: what nobody would notice, nobody has tested.
#
# If the loss of a state does not show, the comparison is too blunt for it. Scale the weights that read this state (section 6) or the input; stream longer, if the state is not yet full; or, if the whole waveform is quiet, give `parity` a
# `limit` relative to the peak that it prints.
#
# A dozen states are carried by name most easily. `spec` has the names, so `old = dict(zip((before.name for before, _ in self.spec.states), states, strict=True))` takes them apart at the top of `forward`, the step fills a dictionary
# `new` with the same keys, and `*(new[name] for name in old)` hands them on. Where layers run in the order of the data, `ConvStates` does without names: each layer takes the next one and gives back its own.
#
# `export` and `verify` ask little of a model that is not ours. Of the *wrapper*: a `spec` (a `StateSpec`, of `exact_spec` or your own), and a `forward` that takes `spec.all_inputs` and returns `spec.all_outputs`, in order. In place of the
# *checkpoint*: what `OtherModel` has. And codes under the name `audio_codes`, [B, N, Q].
#
# ## What you can do now
#
# - Read off a run what a codec has to carry from call to call, and how far one frame reaches, if there is an end.
# - Write the streaming step of a codec that you did not write, a recurrent one too, and export it with either exporter.
# - Say which mistakes a single call, a late stretch, small weights or a quiet waveform would hide.
#
# **Next:** [12 · Capstones](12_capstones.ipynb), because a streaming counterpart and a parity test of your own are the two things that a new model asks for.
