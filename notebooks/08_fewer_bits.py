# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8 · Fewer bits: what a bit costs to the ear
#
# A float32 number has 32 bits. At the official dimensions the exact graph reads 435 MiB of them for every call, and at one
# frame a call (the lowest latency) that is most of its time. Weights in 8 bits are a quarter of that, and processors
# multiply them faster. But every number that is rounded adds a little noise, and a decoder of sound is heard.
#
# SNR (signal-to-noise ratio) says how much: the power of the sound over that of the noise, in dB. 10 dB more is a tenth of
# the noise. STOI says how well speech can be understood, 1 at best.
#
# At the end of this notebook you know
#
# 1. which layers a few bits hurt, and why,
# 2. how a product in 8 bits works, and how two terms make 16 of them,
# 3. which accuracy a file in fewer bits is held to, and that no file below it is written,
# 4. what is left of the sound, and what it costs in time,
# 5. how a stream goes from one precision to another in mid-sentence,
# 6. what a row's rounding has to do with its neighbours,
# 7. why random weights say nothing here.
#
# Everything is of the weights that are named beside it. The demo is a small model; the official one was not at hand.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
AUDIO = os.environ.get("QWEN3_CODEC_AUDIO", "")
BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/
FRAMES = int(os.environ.get("QWEN3_CODEC_BITS_FRAMES", "60"))

# %%
import numpy as np
import torch
from pystoi import stoi

from qwen3_codec import CodecSession, one_shot, verify
from qwen3_codec.course import build_folder, fails_with, plots, to_int8
from qwen3_codec.exporting import ExportError, exported
from qwen3_codec.exporting.precision import EXAMPLE_FRAMES, PRECISIONS, export_in, sensitivity, wrapper_in
from qwen3_codec.measure import benchmark
from qwen3_codec.model import checkpoint
from qwen3_codec.runtime import max_error, measured_snr_of, snr_db

# %%
loaded = checkpoint.load(CHECKPOINT, audio=AUDIO)
decoder, rate = loaded.decoder, loaded.sample_rate
codes = checkpoint.example_codes(loaded, FRAMES)
reference = one_shot(decoder, codes)
graphs = build_folder(BUILD) / "bench"
SPEECH = loaded.source == "demo"  # claims about speech are checked where it is known to be speech

# %% [markdown]
# ## 1. Some layers are hurt more than others
#
# Each bar is one experiment: one kind of layer has 8 bits for its weights and for what goes into it, all others have
# float32. The transformer's bar is another treatment than the rest: its weights have a scale for each block of inputs.

# %%
rows = sensitivity(loaded, frames=min(FRAMES, 36), progress=plots.progress)
figure = plots.sensitivity(rows, f"8 bits in one kind of layer ({loaded.weights})")

# %%
ordered = sorted(rows, key=lambda row: row.snr_db)
print("hurts most: ", ", ".join(f"{row.name} ({row.snr_db:.1f} dB)" for row in ordered[:3]))
print("hurts least:", ", ".join(f"{row.name} ({row.snr_db:.1f} dB)" for row in ordered[-3:]))

# %% [markdown]
# The hatching is the answer: what the `int8` graph does with that kind. Two things decided it: the bars, as they are on the demo, and what a kind
# of layer costs at the official widths. There seven tenths of the work are in the residual convolutions, so these get a second term in the first
# block alone, where they hurt most; the last convolution is so small that float32 costs next to nothing there. It is one table in the package:

# %%
from qwen3_codec.exporting.precision import PRODUCT_OF_KIND, IntegerProduct, treatment

plots.table(
    ["kind of layer", "in the first block", "in later ones"],
    [(kind, treatment(kind, 0), treatment(kind, 99)) for kind in PRODUCT_OF_KIND],
)

# %%
noise = {row.name: row.snr_db for row in rows}
alone = {name: 10 ** (-value / 10) for name, value in noise.items()}
together = -10 * np.log10(sum(alone.values()))
print(f"all kinds in 8 bits, if their noises add up: {together:.1f} dB")
assert together < min(noise.values())

# %% [markdown]
# ## 2. A product in 8 bits is written so
#
# Weights get a scale for each output; what goes in gets one for each row of the batch, found anew at each call. Rounded to
# whole numbers, both are multiplied without any error, and the scales are put back at the end. The noise is what was
# rounded away. **Two terms**: round, then round what was left over. That is 16 bits from two 8-bit products which share
# their weights; it costs twice the multiplications and hardly more memory.

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
    ["terms", "SNR without the weights' part (dB)", "SNR (dB)"],
    [(terms, f"{activations:.1f}", f"{both:.1f}") for terms, (activations, both) in errors.items()],
)

# %%
assert errors[2][0] > errors[1][0] + 30  # the second term takes the activations' noise away,
assert errors[2][1] > errors[1][1]  # and the weights' stays

# %% [markdown]
# In ONNX Runtime that is `QuantizeLinear` and `MatMulIntegerToFloat` for the convolutions (each one product over
# neighbouring steps) and `MatMulNBits` for the transformer. The wrapper is made of the same operations in PyTorch, so it
# runs here too, before any export.
#
# ## 3. A file carries its measured SNR
#
# An export in fewer bits decodes an example in chunks of 1, 3 and 12 frames before the file gets its name. The worst SNR
# goes into the file, with a hash of the codes that it was measured on. The least is 30 dB for `int8` and 50 for
# `float16`; here it is switched off, because this page also runs on weights that were never trained.

# %%
paths = {
    precision: export_in(
        precision, loaded, wrapper_in(loaded, precision), graphs / f"{name}.onnx", write=exported, **least
    )
    for precision, name, least in (
        ("float32", "exact", {}),
        ("float16", "exact_float16", {"least_snr_db": float("-inf")}),
        ("int8", "exact_int8", {"least_snr_db": float("-inf")}),
    )
}
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
# Asked for more than there is, the export refuses, and no file appears:

# %%
too_much = measured["int8"].snr_db + 1
refused = graphs / "refused.onnx"
with fails_with(ExportError, "a lower one is for you to name"):
    export_in("int8", loaded, wrapper_in(loaded, "int8"), refused, least_snr_db=too_much)

# %%
assert not refused.exists()
assert measured["float32"] is None and measured["float16"].snr_db > measured["int8"].snr_db
assert not SPEECH or (measured["int8"].snr_db >= 35 and measured["float16"].snr_db >= 55)

# %% [markdown]
# `verify` holds such a file to its measured SNR, and not to the limits of float32. A file that was held to nothing has an accuracy bound for the codes alone that it
# was measured on, so these are taken; of others `verify` would say that it judged nothing.

# %%
example = checkpoint.example_codes(loaded, EXAMPLE_FRAMES)
report = verify(
    loaded, wrapper_in(loaded, "int8"), example, ((3,), (7, 1, 2)), sessions["int8"], progress=plots.progress
)
print(report)
assert report.passed

# %% [markdown]
# ## 4. What is left of the sound is measured
#
# Beside the three: all matrix products and convolutions in 8 bits with one scale for each tensor, as ONNX Runtime's
# quantizer does it in one line. That is a bit too far.

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

# %%
assert heard["float32"][0] > 80
assert heard["float32"][0] > heard["float16"][0] > heard["int8"][0] > heard["one scale for each tensor"][0]
assert not SPEECH or heard["int8"][1] > 0.997

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
# ### What it costs is measured too
#
# Each design is loaded and called alone, in rounds. On a model as small as the demo 8 bits are *slower*: its layers are so
# narrow that there is nothing to gain, and rounding is work too. The gain is at the official widths;
# `notebooks/guide/costs.md` has that table.

# %%
designs = ("windowed", "exact", "exact_float16", "exact_int8")
result = benchmark(loaded, graphs, 24, chunks=(1, 12), threads=1, rounds=1, designs=designs, progress=plots.progress)
figure = plots.cost_against_sound(result.chunked, f"Cost against sound ({result.weights})")

# %% [markdown]
# ## 5. A stream goes from one precision to another
#
# All three graphs have the same states, in float32. So a stream can change over in mid-sentence: start in 8 bits while the
# machine is busy, go on in float32.

# %%
half = FRAMES // 2
stream = sessions["int8"].stream()
pieces = [stream.push(codes[:, :half])]
stream = stream.move_to(sessions["float32"])
pieces.append(stream.push(codes[:, half:], last=True))

# %%
samples = half * decoder.samples_per_frame
before, after = snr_db(reference[:, :samples], pieces[0]), snr_db(reference[:, samples:], pieces[1])
print(
    f"in 8 bits {before:.1f} dB, then in float32 {after:.1f} dB: the states bring some of the noise along, and it stays measurable"
)
assert after > before

# %% [markdown]
# ## 6. What a neighbour holds changes nothing; that there is one may
#
# The scale of what goes into a layer is found in each call. So a frame is rounded differently in another chunk: `int8` is as
# exact for any chunk schedule as its measured SNR says, and not more. Rows of a batch have scales of their own, so the *values* of a neighbour
# do not matter. The *number* of rows can: a runtime may add the same float32 numbers in another order when there are more, and a last digit
# that differs moves some values over the edge between two integers.

# %%
cuts = {n: sessions["int8"].decode(codes, [n]) for n in (1, 12)}
print(f"chunks of 1 against chunks of 12: {snr_db(cuts[12], cuts[1]):.1f} dB")
others = np.concatenate([codes, *(np.roll(codes, k, axis=1) for k in range(1, 8))])
batch = sessions["int8"].decode(others, [3])[:1]
print(f"alone against in a batch of 8: {snr_db(waves['int8'], batch):.1f} dB")
others = np.concatenate([codes, *(np.roll(codes, k, axis=1) for k in range(11, 18))])
print(f"in a batch of 8, beside other neighbours: {snr_db(batch, sessions['int8'].decode(others, [3])[:1]):.1f} dB")
assert np.array_equal(batch, sessions["int8"].decode(others, [3])[:1])

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
# ## 7. Random weights say nothing
#
# The same graph in the same bits comes to another number on weights that were never trained. That is so in float32 already:

# %%
few = checkpoint.load("random-small")
table = []
for weights in (loaded, few):
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
# So a number from random weights is no bound for trained ones, nor is the demo's for the official ones. That is why each
# file is measured when it is written.
#
# ## What you can do now
#
# Choose a precision by what it does to the sound, and hold a file to its measured SNR. There is no exercise on it; [11 · Your
# turn](12_capstones.ipynb) is on states, which are the same in every precision.
#
# To try next:
#
# - `python -m qwen3_codec export --checkpoint ... --precision int8 --output int8.onnx`, then `describe` and `verify` it.
# - `python -m qwen3_codec card --checkpoint ... --output card.md`: all precisions, both exporters and their cost on one page.
#   With the official weights, such a page is welcome.
# - Another table: `Int8StreamingWrapper(decoder, choose)` takes a function that gives each kind of layer its product.
