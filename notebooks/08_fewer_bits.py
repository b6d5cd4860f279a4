# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8 · Quantization: what int8 costs in audio quality
#
# A float32 number has 32 bits. At the official dimensions the exact graph reads 435 MiB of them in every call, and at one frame a call (the
# lowest latency) reading takes most of its time. [*Quantization*](guide/glossary.md#quantization) stores and multiplies numbers as small integers, `x ≈ scale · q`. Weights in 8 bits are
# a quarter of the size, and processors multiply them faster. However, each rounded number adds a little noise, and this noise can be heard.
#
# [SNR](guide/glossary.md#mse-snr) says how much: 10 dB more is a tenth of the noise's power. [STOI](guide/glossary.md#stoi) estimates how well speech is understood, 1 at best.
#
# After this page you can
#
# 1. say which layers are hurt by 8 bits, and measure it for a model,
# 2. write an 8-bit matrix product, and get the precision of 16 bits from two of them,
# 3. hold a file to the SNR that was measured when it was written,
# 4. judge by number and by ear what is left of the audio, and what it costs in time,
# 5. tell the precision of a file from that of the runtime, and read back which one ran,
# 6. move a stream from one precision to another in mid-sentence,
# 7. say when a row's rounding depends on its batch,
# 8. say why random weights tell nothing about it.
#
# *Prerequisites:* [4 · Export](04_export_onnx.ipynb) and [5 · Verify](05_verify_onnxruntime.ipynb). About 10 minutes. Each number is of the weights that are named
# beside it: the demo is a small model, and the official weights are not part of this project.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
AUDIO = os.environ.get("QWEN3_CODEC_AUDIO", "")
BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/
FRAMES = int(os.environ.get("QWEN3_CODEC_BITS_FRAMES", "60"))

# %%
from importlib.util import find_spec

import numpy as np
import torch
from pystoi import stoi

from qwen3_codec import CodecSession, one_shot, verify
from qwen3_codec.course import build_folder, check, fails_with, plots, solution, to_int8
from qwen3_codec.exporting import ExportError, exported
from qwen3_codec.exporting.precision import PRECISIONS, export_in, sensitivity, wrapper_in
from qwen3_codec.measure import benchmark
from qwen3_codec.model import checkpoint, small_config
from qwen3_codec.runtime import max_error, measured_snr_of, snr_db

# %%
loaded = checkpoint.load(CHECKPOINT, audio=AUDIO)
decoder, rate = loaded.decoder, loaded.sample_rate
codes = checkpoint.example_codes(loaded, FRAMES)
reference = one_shot(decoder, codes)
graphs = build_folder(BUILD) / "bench"
SPEECH = loaded.source == "demo"  # claims about speech are checked where it is known to be speech

# %% [markdown]
# ## 1. Which layers are hurt by 8 bits
#
# One experiment for each kind of layer: that kind alone gets 8 bits, for its weights and for its inputs, and everything else stays in float32. The transformer
# differs in one respect: its weights have a scale for each *block* of inputs ([block-wise int8](guide/glossary.md#block-wise-int8)).
#
# > **Predict.** The decoder raises the rate from 12.5 frames to 24,000 samples a second. Do the slow layers at its beginning hurt most, or the fast ones at its end?
#
# <details><summary>Answer</summary>On the demo neither: the transformer and the convolution before it, the slowest, are among those that are hurt least, together with
# the last residual blocks. Those in between are hurt most: upsampling and the first decoder block.</details>

# %%
rows = sensitivity(loaded, frames=min(FRAMES, 36), progress=plots.progress)
figure = plots.sensitivity(rows, f"8 bits in one kind of layer ({loaded.weights})")

# %% [markdown]
# **Figure.** SNR against the float32 decoder when one kind of layer is in 8 bits; further left hurts more. The marks say what the `int8` graph does with that kind.

# %%
ordered = sorted(rows, key=lambda row: row.snr_db)
print("hurts most: ", ", ".join(f"{row.name} ({row.snr_db:.1f} dB)" for row in ordered[:3]))
print("hurts least:", ", ".join(f"{row.name} ({row.snr_db:.1f} dB)" for row in ordered[-3:]))

# %% [markdown]
# The figure alone did not decide what the `int8` graph does; the second criterion was the cost of a kind at the official widths. Seven tenths of the work there are in the
# residual convolutions, so these get a second term in the first block only, although they are hurt in others too. The last convolution is so small that float32 costs next
# to nothing. The decisions are one table in the package:

# %%
from qwen3_codec.exporting.precision import PRODUCT_OF_KIND, IntegerProduct, treatment

plots.table(
    ["kind of layer", "in block 1", "in block 2", "in later ones"],
    [(kind, *(treatment(kind, block) for block in range(3))) for kind in PRODUCT_OF_KIND],
)

# %% [markdown]
# If the noises of all kinds are independent, their powers add up. That gives an estimate for a graph with everything in plain int8, before it is built:

# %%
noise = {row.name: row.snr_db for row in rows}
alone = {name: 10 ** (-value / 10) for name, value in noise.items()}
together = -10 * np.log10(sum(alone.values()))
print(f"all kinds in 8 bits, if their noises add up: {together:.1f} dB")
assert together < min(noise.values())

# %% [markdown]
# ## 2. An int8 matrix product, and two-term int8
#
# Weights have one scale for each output. Inputs have one for each row of the batch, which is found anew in every call (*[dynamic quantization](guide/glossary.md#dynamic-quantization)*). The product of the integers
# is exact, and the scales are multiplied in afterwards, so all of the noise comes from rounding.
#
# **Two-term int8** rounds again what the first rounding left over: `x ≈ s · (q₁ + q₂ / 254)`, with `q₁` and `q₂` from -127 to 127. The remainder lies within half a step, hence the 254. Two 8-bit products that
# share their weights then give the inputs about 16 bits: twice the multiplications, hardly more memory.
#
# > **Predict.** The second term is for the inputs alone; the weights keep one term of 8 bits. By how much does the SNR of the product rise?
#
# <details><summary>Answer</summary>By a few dB: with the inputs' noise gone, the weights' noise is what remains. Measured against the same rounded weights it rises by more
# than 30 dB.</details>

# %%
rng = torch.Generator().manual_seed(0)
x, weight = torch.randn(1, 50, 256, generator=rng), torch.randn(64, 256, generator=rng)
wanted = x @ weight.T
errors = {}
for terms in (1, 2):
    product = IntegerProduct(weight, None, terms)
    found, rounded = product(x).numpy(), product.weight * product.scale  # the weights that it really has
    errors[terms] = snr_db((x @ rounded).numpy(), found), snr_db(wanted.numpy(), found)
plots.table(
    ["terms", "SNR with the same rounded weights (dB)", "SNR (dB)"],
    [(terms, f"{activations:.1f}", f"{both:.1f}") for terms, (activations, both) in errors.items()],
)

# %% tags=["check"]
assert errors[2][0] > errors[1][0] + 30  # the second term takes the activations' noise away,
assert errors[2][1] > errors[1][1]  # and the weights' stays

# %% [markdown]
# In ONNX Runtime these are the operators `QuantizeLinear` and `MatMulIntegerToFloat` for convolutions (each is one product over neighbouring steps), and
# `MatMulNBits` for the transformer. The wrapper is made of the same operations in PyTorch, therefore it can be checked before any export.
#
# ### Exercise: two terms ●●○ · 15 min
#
# *Needs:* the formula above. Return the two integer terms and the scale of `x` [..., K]: one scale for each row [..., 1], integers from -127 to 127 as floats. The code
# below does it with one term. Mind a row of zeros.


# %% tags=["exercise"]
def two_terms(x):
    scale = x.abs().amax(dim=-1, keepdim=True) / 127
    first = (x / scale).round()
    return first, torch.zeros_like(first), scale


check("two terms", two_terms)

# %%
solution("two terms")

# %% [markdown]
# ## 3. A file stores its measured SNR
#
# A quantizing export decodes an example in chunks of 1, 3 and 12 frames before the file gets its name. The worst SNR of the three is stored in the file, with a hash of
# the codes that it was measured on. The default threshold is 30 dB for `int8` and 50 dB for `float16`; it is off here, because this page also runs on
# weights that were never trained.

# %%
example = checkpoint.example_codes(loaded, decoder.config.sliding_window + 8)
any_snr = {"write": exported, "codes": example, "least_snr_db": float("-inf")}
paths = {"float32": exported(loaded, wrapper_in(loaded, "float32"), graphs / "exact.onnx")}
for precision in ("float16", "int8"):
    path = graphs / f"exact_{precision}.onnx"
    paths[precision] = export_in(precision, loaded, wrapper_in(loaded, precision), path, **any_snr)
sessions = {precision: CodecSession(path, threads=1) for precision, path in paths.items()}
measured = {precision: measured_snr_of(session.metadata) for precision, session in sessions.items()}
plots.table(
    ["precision", "MB", "measured SNR"],
    [
        (precision, f"{paths[precision].stat().st_size / 1e6:.2f}", measured[precision] or "the limits of float32")
        for precision in PRECISIONS
    ],
)

# %% [markdown]
# An export that does not reach the SNR it is asked for is refused, and no file appears. A decoder of one layer (random weights) is asked for 60 dB here:

# %%
dims = {"num_hidden_layers": 1, "upsample_rates": [3], "upsampling_ratios": [2]}
small = checkpoint.random_checkpoint(small_config(**dims), source="small")
refused = graphs / "refused.onnx"
with fails_with(ExportError, "a lower one is for you to name"):
    export_in("int8", small, wrapper_in(small, "int8"), refused, least_snr_db=60)

# %% tags=["check"]
assert not refused.exists()
assert measured["float32"] is None and measured["float16"].snr_db > measured["int8"].snr_db
assert not SPEECH or (measured["int8"].snr_db >= 35 and measured["float16"].snr_db >= 55)

# %% [markdown]
# `verify` holds such a file to its measured SNR instead of float32's tolerance. When the threshold was off, the file vouches for nothing but the codes that it was measured on, so these
# are taken here; for other codes `verify` would say that it judged nothing.

# %%
report = verify(loaded, wrapper_in(loaded, "int8"), example, ((7, 1, 2),), sessions["int8"], progress=plots.progress)
print(report)
assert report.passed

# %% [markdown]
# ## 4. What is left of the audio
#
# One row is new: all matrix products and convolutions in 8 bits with *one scale for each tensor*, which ONNX Runtime's quantizer does in a single line.

# %%
sessions["one scale for each tensor"] = CodecSession(to_int8(paths["float32"], "too_far", ["MatMul", "Conv"]), 1)
waves = {name: session.decode(codes, [3]) for name, session in sessions.items()}
heard = {
    name: (snr_db(reference, wave), stoi(reference[0], wave[0], rate), max_error(reference, wave))
    for name, wave in waves.items()
}
plots.table(
    ["graph", "SNR (dB)", "STOI beside float32", "largest error"],
    [(name, f"{snr:.1f}", f"{clear:.4f}", f"{error:.1e}") for name, (snr, clear, error) in heard.items()],
)

# %% tags=["check"]
assert heard["float32"][0] > 80
assert heard["float32"][0] > heard["float16"][0] > heard["int8"][0] > heard["one scale for each tensor"][0]
assert not SPEECH or heard["int8"][1] > 0.997

# %% [markdown]
# Listen for a faint hiss while somebody speaks: int8's noise rises and falls with the speech. The last player has nothing but that noise, ten times as loud.

# %%
print("float32")
plots.player(waves["float32"], rate)

# %%
print(f"int8, {heard['int8'][0]:.1f} dB")
plots.player(waves["int8"], rate)

# %%
print(f"one scale for each tensor, {heard['one scale for each tensor'][0]:.1f} dB")
plots.player(waves["one scale for each tensor"], rate)

# %%
print("the noise of int8 alone, ten times as loud")
plots.player(np.clip(10 * (waves["int8"] - reference), -1, 1), rate)

# %% [markdown]
# ## 5. The precision of the runtime
#
# The file is one place where bits can be saved, the runtime is another. [OpenVINO](https://docs.openvino.ai) takes a float32 file and computes its products in bfloat16 on a processor that has
# instructions for it, and it does so by itself: `CodecSession` asks for f32 unless you say `precision="bf16"`, whereas a program that loads a file with OpenVINO directly has to set `INFERENCE_PRECISION_HINT`. A bfloat16 is the upper half of a float32: the same range, and 8 significant bits in place of 24. The file and the states stay in float32, therefore the client changes nothing but one argument. What is asked for
# is a *hint*, and on another processor something else may run; `session.precision` is what the compiled model says of itself.
#
# > **Predict.** An int8 number has 8 bits, and a bfloat16 has 8 significant ones. Which of the two is closer to float32 here?
#
# <details><summary>Answer</summary>bfloat16, on the demo by some 5 dB. It rounds each number to 8 significant bits, a small one as finely as a large one; in int8 a weight shares its scale with all others of its
# output, and in the one-term layers an input with its row.</details>

# %%
rows = []
for hint in ("f32", "bf16", "f16") if find_spec("openvino") else ():
    session = CodecSession(paths["float32"], 1, runtime="openvino", precision=hint)
    rows.append((hint, session.precision, f"{snr_db(reference, session.decode(codes, [3])):.1f}"))
    sessions[session.title] = session
if not rows:
    print("OpenVINO is not here: pip install openvino")
plots.table(["asked for", "what ran", f"SNR (dB), {loaded.weights}"], rows)

# %% [markdown]
# A float32 product that another library computes differs by rounding alone, as the row f32 shows. (What is asked for and what runs can differ: compare the two columns.) Below f32 the tolerance of float32 cannot hold, so `verify --runtime openvino --precision bf16` measures the SNR, as it does for an int8
# file.
#
# Now the time of all these, each design alone, in rounds:

# %%
designs = ["exact", "exact_int8"]
designs += [f"exact_openvino_{hint}" for hint in ("f32", "bf16") if rows]
options = {"chunks": (1, 12), "threads": 1, "rounds": 1, "designs": designs, "streams": ()}
result = benchmark(loaded, graphs, 24, progress=plots.progress, **options)
print(f"on {result.processor}")
figure = plots.cost_against_sound(result.chunked, f"Compute time against SNR ({result.weights})")

# %% [markdown]
# **Figure.** Each mark is a design with chunks of N frames: compute time of one frame, and SNR of the stream. Upwards is better, and so is left. On a model as small as the demo 8 or 16 bits
# gain no time: its layers are so narrow that there is little to multiply, and rounding is work too. The gain comes with the official widths, for which [costs](guide/costs.md) has the table.

# %% [markdown]
# ## 6. A stream moves from one precision to another
#
# All these graphs have the same states, in float32. Therefore a stream can change over in mid-sentence, from file to file and from runtime to runtime: start in 8 bits while the machine is busy, go on in float32.
#
# > **Predict.** The second half is computed in float32. Is it as exact as a stream that was in float32 from the start?
#
# <details><summary>Answer</summary>Not at once: the states that it takes over hold the noise of the 8-bit half, until the receptive field has passed.</details>

# %%
half = FRAMES // 2
stream = sessions["int8"].stream()
pieces = [stream.push(codes[:, :half])]
stream = stream.move_to(sessions["float32"])
pieces.append(stream.push(codes[:, half:], last=True))

# %%
samples = half * decoder.samples_per_frame
before, after = snr_db(reference[:, :samples], pieces[0]), snr_db(reference[:, samples:], pieces[1])
print(f"in 8 bits {before:.1f} dB, then in float32 {after:.1f} dB: the noise in the states is still measurable")
assert after > before

# %% [markdown]
# ## 7. When a row's rounding depends on its batch
#
# The scale of a layer's input is found in each call, so the same frame is rounded differently in another chunk. `int8` is therefore not exact for any chunk schedule: it is as exact as its
# measured SNR says. Rows of a batch have scales of their own, so the *values* of a neighbour do not matter. The *number* of rows can matter, because a runtime may add the same float32
# numbers in another order when there are more rows, and a last digit that differs moves some values over the edge between two integers.

# %%
few = codes[:, :24]
cuts = {n: sessions["int8"].decode(few, [n]) for n in (1, 12)}
print(f"chunks of 1 against chunks of 12: {snr_db(cuts[12], cuts[1]):.1f} dB")
alone, batch, others = (
    sessions["int8"].decode(np.concatenate([few, *(np.roll(few, k, axis=1) for k in neighbours)]), [3])[:1]
    for neighbours in ((), range(1, 8), range(11, 18))
)
print(f"alone against the same row in a batch of 8: {snr_db(alone, batch):.1f} dB")
print(f"in a batch of 8, with other neighbours: {snr_db(batch, others):.1f} dB")
assert np.array_equal(batch, others)

# %% [markdown]
# The last line's rows are equal to the bit (infinite SNR), although their neighbours differ. Even a row of nothing but NaN stays alone with it:

# %%
pair = sessions["int8"].stream(2)
loud = {name: array.copy() for name, array in pair.state.items()}
for array in loud.values():
    array[1] = np.nan if array.dtype == np.float32 else 0
pair.state = loud
beside = pair.push(np.repeat(codes[:, :12], 2, axis=0))
wanted = sessions["int8"].stream().push(codes[:, :12])
print(f"beside a row of nothing but NaN: {snr_db(wanted[0], beside[0]):.1f} dB")
assert np.isfinite(beside[0]).all() and not np.isfinite(beside[1]).all()
assert snr_db(wanted[0], beside[0]) > 25

# %% [markdown]
# ## 8. Random weights tell nothing about it
#
# The same kind of graph in the same bits has another SNR on weights that were never trained, and so has float32. A number from random weights is therefore no bound for trained ones, nor is the demo's
# for the official ones. That is why each file is measured when it is written.

# %%
table = []
for weights in (loaded, checkpoint.load("random-small")):
    some = checkpoint.example_codes(weights, 24)
    whole = one_shot(weights.decoder, some)
    found = {
        precision: snr_db(
            whole, verify(weights, wrapper_in(weights, precision), some, ((3,),)).waveforms["PyTorch wrapper", (3,)]
        )
        for precision in ("float32", "int8")
    }
    table.append((weights.weights, f"{found['float32']:.0f}", f"{found['int8']:.1f}"))
plots.table(["weights", "float32, streamed (dB)", "int8 (dB)"], table)

# %% [markdown]
# ## What you can do now
#
# - Choose a precision by what it does to the audio, and say which layers are to blame.
# - Hold a file to its measured SNR, and refuse one that does not reach yours: `python -m qwen3_codec export --precision int8 --output int8.onnx`, then `describe` and `verify` it.
# - Put all precisions, both exporters and their costs on one page: `python -m qwen3_codec card --checkpoint ... --output card.md`. With the official weights, such a page is welcome.
# - Try another table: `Int8StreamingWrapper(decoder, choose)` takes a function that gives each kind of layer its product.
#
# **Next:** [9 · The encoder](09_your_voice.ipynb), because codes have to come from somewhere: the other half of the codec, as a stream.
