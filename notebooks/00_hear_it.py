# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 0 · Hear it: a stream that loses its memory
#
# After this page you can
#
# 1. say why a codec is decoded in chunks, and what it costs if each chunk decodes its past again,
# 2. write the loop that passes a stream's state from one call to the next,
# 3. hear a lost state, and say from a picture which part of the codec lost it,
# 4. name a mistake that no test with a short sentence finds,
# 5. break a stream in your own way, in the lab.
#
# **Prerequisites:** Python, and what a convolution and attention are. **Time:** 15 minutes.
#
# ## The codec in three sentences
#
# A neural audio *codec* represents speech as integers: at the official rates, one [**frame**](guide/glossary.md#frame) is 16 *codes* for 80 ms. A
# text-to-speech model such as Qwen3-TTS writes these frames one after the other, and the codec's *decoder* turns them into
# a waveform of 24,000 samples a second. The decoder is causal, so it could begin with the first frame; but its
# convolutions and its attention depend on earlier frames, and whatever they need of those has to be carried along.
#
# Two ways to decode run through all pages. The [*full-sequence decode*](guide/glossary.md#full-sequence-decode-one-shot) takes all frames in one call; we call it *one-shot*,
# and it is the reference. A *stream* takes a [**chunk**](guide/glossary.md#chunk-chunk-schedule) of a few frames in each call and carries a [**state**](guide/glossary.md#state) from call to
# call. It is right if its waveform equals the one-shot waveform.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
AUDIO = os.environ.get("QWEN3_CODEC_AUDIO", "")  # a recording of yours, to take the codes from
FRAMES = int(os.environ.get("QWEN3_CODEC_LAB_FRAMES", "32"))

# %%
import numpy as np
import torch
from IPython.display import display
from torch.utils.flop_counter import FlopCounterMode

from qwen3_codec import ExactStreamingWrapper, TorchSession, one_shot
from qwen3_codec.course import plots, schematics
from qwen3_codec.course.lab.experiment import WINDOWED, Settings, figure, run, utterances
from qwen3_codec.course.lab.widget import Lab
from qwen3_codec.model import checkpoint, conv_receptive_field, memory_stages
from qwen3_codec.runtime import mse, snr_db
from qwen3_codec.verification import MAX_MSE

loaded = checkpoint.load(CHECKPOINT, audio=AUDIO)
decoder, config, rate = loaded.decoder, loaded.decoder.config, loaded.sample_rate
codes = next(iter(utterances(loaded).values()))[:, :FRAMES]
frame_ms = 1000 * decoder.samples_per_frame / rate
print(f"{loaded.weights}: {codes.shape[1]} frames of {codes.shape[2]} codes, {frame_ms:g} ms each")

# %% [markdown]
# ## 1. Why chunks, and why a state
#
# A listener waits until the first chunk is complete. If a chunk is the whole sentence, that is the length of the sentence;
# if it is one frame, it is 80 ms. So short chunks are wanted. But the convolutions of this decoder need several
# earlier frames (9.4 at the official kernels, so ten whole ones; [page 2](02_inspect_dims.ipynb) measures it). A decoder without a state has to
# *recompute* this [left context](guide/glossary.md#left-context) with every chunk and throw the result away.
#
# > **Predict.** The left context is ten frames. How much more work do the convolutions have with chunks of one frame than
# > with the whole sentence at once?
#
# <details><summary>Answer</summary>
#
# Eleven times as much: for each new frame, eleven frames are decoded. With chunks of three it is (3 + 10) / 3, still more
# than four times. Attention would be worse, because through all its layers its receptive field is hundreds of frames.
#
# </details>
#
# The cell counts the multiplications and additions in the convolutions: of a chunk that is decoded with its left context, and of the streaming step of section 2, which has a state. Both are over what
# the same frames take in a decode of the whole sentence.


# %%
def operations(call, argument):
    """Multiplications and additions in the convolutions of a call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(argument)
    return counter.get_flop_counts()["Global"][torch.ops.aten.convolution]


reach, session = conv_receptive_field(decoder), TorchSession(ExactStreamingWrapper(decoder))
latents, start = torch.zeros(1, config.latent_dim, codes.shape[1] + reach), session.spec.zero_state()
whole = operations(decoder, torch.from_numpy(codes)) / codes.shape[1]
work, rows = {}, []
for n in (1, 3, 12, codes.shape[1]):
    again = reach if n < codes.shape[1] else 0  # nothing comes before the whole sentence
    recomputed = operations(decoder.decode_latent, latents[:, :, : n + again])
    with_state = operations(session.run, {"audio_codes": codes[:, :n], **start})
    work[n] = recomputed / whole / n, with_state / whole / n
    rows.append((n, f"{n * frame_ms:.0f} ms", *(f"{times:.1f} ×" for times in work[n])))
plots.table(
    ["frames in a chunk", "first audio waits for", f"work, {reach} frames recomputed", "work, with a state"], rows
)

# %% tags=["check"]
assert all(abs(times - (n + reach) / n) < 0.05 * times for n, (times, _) in work.items() if n < codes.shape[1])
assert all(abs(with_state - 1) < 0.05 for _, with_state in work.values())

# %% [markdown]
# **The state removes this choice:** each layer keeps the few inputs that it needs, so that nothing is recomputed and a
# chunk may be one frame. (How much *time* this is worth on your machine, [page 5](05_verify_onnxruntime.ipynb) measures.)
#
# ## 2. A streaming step is a loop
#
# The *streaming step* is a function without memory: the state is an input and an output. So the client holds the state,
# and an ONNX graph, which keeps nothing between two calls, can do the same. Here is the step in its *exact* design, in which every layer
# has a state of its own.

# %%
spec, chunk = session.spec, 3
picture = schematics.step_loop(
    f"One streaming step ({loaded.weights}, exact design)",
    chunk=f"{chunk} frames, [1, {chunk}, {codes.shape[2]}]",
    state=f"{len(spec.states)} tensors, {spec.bytes_per_stream() / 1024:.0f} KiB",
    audio=f"{chunk * decoder.samples_per_frame:,} samples",
)

# %% [markdown]
# **Figure.** The loop of a stream, with the sizes of this checkpoint. What comes out as the next state goes in with the
# next chunk; the first chunk gets zeros.
#
# As code, it is this. `lost` is for the next section: states that we throw away.


# %%
def stream(codes, chunk, lost=()):
    """Decode codes [1, N, Q] in chunks; the states named in `lost` are zeros again after each call."""
    state, pieces = spec.zero_state(), []
    for start in range(0, codes.shape[1], chunk):
        outputs = session.run({"audio_codes": codes[:, start : start + chunk]} | state)
        pieces.append(outputs["waveform"][0])
        state = {before.name: outputs[after.name] for before, after in spec.states}
        state |= {name: np.zeros_like(state[name]) for name in lost}
    return np.concatenate(pieces)


# %% [markdown]
# ## 3. A right stream
#
# The *[SNR](guide/glossary.md#mse-snr)*, the signal-to-noise ratio, compares the power of the speech with that of the error: 10 dB more is a tenth of the
# error's power. Float32 rounding alone gives more than 100 dB, which nobody hears.

# %%
reference = one_shot(decoder, codes)[0]
right = {chunk: stream(codes, chunk) for chunk in (1, 3, 7)}
rows = [(chunk, f"{snr_db(reference, wave):.1f} dB") for chunk, wave in right.items()]
plots.table(["frames in a chunk", f"SNR against one-shot ({loaded.weights})"], rows)

# %% tags=["check"]
assert all(snr_db(reference, wave) > 100 for wave in right.values())

# %% [markdown]
# Listen to both: they should sound the same. (With random weights, all players of this page have noise.)

# %%
print("one-shot")
plots.player(reference, rate)

# %%
print("streamed, chunks of 3 frames: no difference to the one above")
plots.player(right[3], rate)

# %% [markdown]
# ## 4. Lose one state, and hear which
#
# Now one part of the codec loses its state after every call, as happens if a server forgets to pass one tensor on. Nothing
# raises an error, and as many samples come out as before.
#
# > **Predict.** Three parts lose their state, one at a time: the transformer's [KV cache](guide/glossary.md#kv-cache) (12.5 Hz), the block of the
# > convolutional decoder that puts out 400 Hz, and its last block (24,000 Hz). Which of the two blocks will be the louder loss?
# > And can you tell how loud the cache's will be?
#
# <details><summary>Answer</summary>
#
# The block at 400 Hz: the state of the last block is a few milliseconds, so its loss damages just
# the first samples of each chunk. How loud the cache's loss is cannot be told: it has most of the bytes, and on the demo its loss lies between
# those two. That depends on the weights, so it has to be measured.
#
# </details>

# %%
stages = [stage for stage in memory_stages(session.wrapper) if stage.states]
broken = {"nothing": right[3]} | {stage.name: stream(codes, 3, stage.states) for stage in stages}
broken["everything"] = stream(codes, 3, [before.name for before, _ in spec.states])
snr = {name: snr_db(reference, wave) for name, wave in broken.items()}
picture = plots.state_worth(
    {loaded.weights: snr}, f"One stage loses its state after each call of 3 frames ({loaded.weights})"
)

# %% [markdown]
# **Figure.** SNR of the stream against one-shot if the states of one stage are zeros again after each call, in the order of
# the data (top to bottom); a short bar is a loud error. *Nothing* lost is cut at the right edge. The stages have their names in the weights:
# `pre_transformer` holds the KV cache, `upsample` raises 12.5 Hz to 50 Hz, `decoder.0` is a convolution at that rate, `decoder.1` is the block that puts out 400 Hz (on the
# demo), and `decoder.4` is the last block. The loudest of all, printed below, need not be among the three of the question: on the demo
# it is `decoder.0`. (The length of a state does not tell how loud its loss is: `upsample.0.1` holds twice as much and is quieter.) [Page 2](02_inspect_dims.ipynb#1.-The-codec-on-one-line) has them all in one picture.

# %%
loudest = min(stages, key=lambda stage: snr[stage.name])
print(f"loudest alone: {loudest.name}, whose state holds {loudest.left_context_ms:.0f} ms ({snr[loudest.name]:.1f} dB)")

# %% tags=["check"]
assert snr["nothing"] > 100 and snr["everything"] < 20
unused = {"nothing"} | ({"pre_transformer"} if config.sliding_window == 1 else set())
assert all(value < 100 for name, value in snr.items() if name not in unused)

# %%
convs = [stage.name for stage in stages if stage.name.startswith("decoder.")]
shown = ["pre_transformer", convs[1], convs[-2], "everything"]
borders = np.arange(chunk, codes.shape[1], chunk) * decoder.samples_per_frame
parts = {f"{name} lost": broken[name] for name in shown}
picture = plots.differences(reference, parts, rate, f"What the loss of a state adds ({loaded.weights})", borders)

# %% [markdown]
# **Figure.** The one-shot waveform, and below it what each lost state adds to it, on one scale; dotted lines are chunk
# borders. The first chunk is right everywhere, because it has no past. Losing the KV cache (*pre_transformer*) spoils a chunk
# as a whole: a haze. A convolution without its state spoils the beginning of the chunk, for as long as that layer and
# those after it reach: the first block for a good part of it, the last block for a few milliseconds, so that it is heard as
# a click at each border.
#
# Listen for the haze, then for a jolt at the start of each chunk, for about four clicks a second, and for all of it together.

# %%
print(f"{shown[0]} lost: {snr[shown[0]]:.1f} dB")
plots.player(broken[shown[0]], rate)

# %%
print(f"{shown[1]} lost: {snr[shown[1]]:.1f} dB")
plots.player(broken[shown[1]], rate)

# %%
print(f"{shown[2]} lost: {snr[shown[2]]:.1f} dB")
plots.player(broken[shown[2]], rate)

# %%
print(f"everything lost: {snr['everything']:.1f} dB")
plots.player(broken["everything"], rate)

# %% [markdown]
# Losing everything is what a *one-shot graph* does if it is fed with chunks: it decodes each of them as if the stream began
# there. Longer chunks have fewer borders, so they are less wrong, and never right:

# %%
alone = {
    chunk: snr_db(reference, stream(codes, chunk, [before.name for before, _ in spec.states])) for chunk in (1, 3, 12)
}
plots.table(
    ["frames in a chunk", f"SNR, all state lost ({loaded.weights})"], [(n, f"{x:.1f} dB") for n, x in alone.items()]
)

# %% tags=["check"]
assert all(value < 30 for value in alone.values())

# %% [markdown]
# ## 5. Long pieces with some left context
#
# Upstream's own `decode` has no state. It cuts the codes into pieces of 300 frames and decodes each with 25 frames of left context, whose samples it drops. The
# convolutions need ten frames; the receptive field of attention is longer than 25.
#
# > **Predict.** What does a sentence of 3 seconds lose? And a passage of 34 seconds?
#
# <details><summary>Answer</summary>
#
# The sentence nothing, as it is a single piece. The passage is exact up to frame 300; there attention has 25 earlier frames in place of
# all that its layers see, and the error falls off over seconds.
#
# </details>

# %%
PIECE, CONTEXT = 300, 25  # upstream's own numbers (qwen-tts 0.1.1)
passage = max(utterances(loaded).values(), key=lambda found: found.shape[1])
pieces = []
for start in range(0, passage.shape[1], PIECE):
    first = max(0, start - CONTEXT)
    piece = one_shot(decoder, passage[:, first : start + PIECE])
    pieces.append(piece[0, (start - first) * decoder.samples_per_frame :])
whole, cut = one_shot(decoder, passage)[0], np.concatenate(pieces)
streamed = session.stream().run(passage, [12])[0]
seam = min(PIECE * decoder.samples_per_frame, whole.size)
rows = []
for name, found in {"pieces with left context": cut, "stream with a state": streamed}.items():
    parts = [np.abs(whole - found)[part].max(initial=0) for part in (slice(0, seam), slice(seam, None))]
    rows.append((name, *(f"{error:.1e}" for error in parts)))
plots.table([f"largest error, {passage.shape[1]} frames", f"up to frame {PIECE}", "after it"], rows)

# %%
after = [slice(seam + n * rate, seam + (n + 1) * rate) for n in range(5) if seam + n * rate < whole.size]
print("SNR by second after the seam (dB):", *(f"{snr_db(whole[second], cut[second]):.0f}" for second in after))
plots.player(cut, rate, 5, max(0.0, seam / rate - 2))

# %% tags=["check"]
assert np.abs(whole - streamed).max() < 5e-5
assert loaded.source != "demo" or np.abs(whole - cut)[seam:].max() > 1e-2

# %% [markdown]
# Listen for the seam after two seconds (demo weights). [In your program](guide/in-your-program.md) has a drop-in for that `decode` which
# keeps its state.
#
# ## 6. A trap that waits
#
# Attention sees a window of frames (72 on the demo with the frame itself, 5.8 s). Each key is rotated by its position (RoPE), and a
# stream has to count positions itself. A usual mistake: the position is taken from the length of the KV cache, and this
# length stops growing when the cache is full.
#
# > **Predict.** A test decodes a sentence of four seconds with this mistake. What does it report?
#
# <details><summary>Answer</summary>
#
# Nothing. Up to the full window the positions are right, so the stream equals one-shot to rounding.
#
# </details>
#
# This runs in the other design of this course, the *windowed* one, which recomputes some left context of the convolutions. With a left
# context as long as their receptive field it is exact too, so that the trap is alone.

# %%
longest = max(utterances(loaded), key=lambda name: utterances(loaded)[name].shape[1])
waiting = Settings(
    longest, config.sliding_window + 36, WINDOWED, reach, lookahead=0, chunk=8, trap="positions that saturate"
)
late = run(loaded, waiting)
picture = figure(late)

# %% [markdown]
# **Figure.** The lab's picture of one stream. From top to bottom: the one-shot waveform; the streamed one; their difference on the same
# scale; the mean squared error of each chunk, with the limit that an exact design has to keep
# ([page 3](03_verify_wrapper.ipynb) says where limits come from) as a dashed line; and in which frequencies the difference lies. The solid
# line marks where the window is full. The call that begins there still counts right, since the cache has grown until now;
# from the next call on, every position is too small, and the error jumps from rounding to far above the limit.

# %%
full = min(late.window_samples, late.reference.size)
errors = {
    part: mse(late.reference[x], late.streamed[x])
    for part, x in (("before", slice(0, full)), ("after", slice(full, None)))
}
print(", ".join(f"{part} the window is full: MSE {error:.0e}" for part, error in errors.items()))

# %% tags=["check"]
assert errors["before"] < MAX_MSE
if config.sliding_window > 1:  # each frame of a window of one sees itself alone, wherever it stands
    assert errors["after"] > 100 * MAX_MSE

# %%
start = max(0.0, full / rate - 1)
print(f"one-shot from {start:.1f} s on; the window is full {full / rate - start:.1f} s later")
plots.player(late.reference, rate, 5, start)

# %%
print("positions that saturate, the same stretch: right at first, then a haze over the voice")
plots.player(late.streamed, rate, 5, start)

# %% [markdown]
# > **Trap.** A test that is shorter than the attention window passes with this mistake in. Test past the window.
#
# ## 7. Try it in the lab
#
# Every change runs at once. A control that means nothing in the chosen design is switched off, and the line below says why.
# There is also a lab that runs in a browser, without Python: `make page` builds it and serves it at `localhost:8000`.
#
# > **Try it.** *windowed*, then a left context from 4 up to 10 frames. *Random chunks*, with another seed. A trap, then
# > chunks of 1 frame: some traps vanish. The longest utterance, all of its frames, with *positions that saturate*.

# %%
lab = Lab({CHECKPOINT: loaded, "random-small": checkpoint.load("random-small")}, Settings(frames=FRAMES))
display(lab)

# %% tags=["check"]
assert lab.result.snr_db > 100 and not lab.message.value

# %% [markdown]
# [Page 5](05_verify_onnxruntime.ipynb) loses keys and values too and finds another SNR, because it keeps the count of filled slots and measures a later stretch, in
# which the window is full. An SNR belongs to its fault, its weights, its codes and its chunk schedule.
#
# ## What you can do now
#
# - Explain to a colleague what a streaming codec costs without a state, with a number.
# - Write a stream's loop, and lose any of its states on purpose: `stream(codes, 3, lost=[...])`.
# - Tell clicks at the borders (a short convolution's state), jolts (a long one's) and a haze (attention)
#   from each other.
#
# **Next:** [1 · Streaming by hand](01_streaming_by_hand.ipynb), because a state is understood best when one has written it.
