# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 0 · The lab: break a stream, see it and hear it
#
# A *stream* is decoded in *chunks*: a few frames in, a little sound out, where a frame is 16 codes for 80 ms. What the
# decoder remembers between two chunks is its *state*. The *one-shot* decoder sees all codes at once; it is what every
# stream is measured against. Here you choose a design, a cut into chunks and a *trap* (a mistake that is easily made),
# and see the damage.
#
# At the end of this notebook you know
#
# 1. what a right stream looks like in the lab's picture,
# 2. what a lost state does to it, for the eye and for the ear,
# 3. which trap goes unnoticed for six seconds,
# 4. what a graph without any state makes of a stream,
# 5. how to ask your own questions: the lab itself.
#
# The cells before the lab make the same pictures with plain function calls, so that this page reads without a kernel.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
AUDIO = os.environ.get("QWEN3_CODEC_AUDIO", "")  # a recording of yours, to take the codes from
FRAMES = int(os.environ.get("QWEN3_CODEC_LAB_FRAMES", "32"))

# %%
from dataclasses import replace

from IPython.display import display

from qwen3_codec.course import plots
from qwen3_codec.course.lab.experiment import EXACT, ONE_SHOT, RANDOM, WINDOWED, Settings, figure, run, utterances
from qwen3_codec.course.lab.widget import Lab
from qwen3_codec.model import checkpoint, conv_reach
from qwen3_codec.runtime import mse
from qwen3_codec.verification import MAX_MSE

loaded = checkpoint.load(CHECKPOINT, audio=AUDIO)
plots.table(["utterance", "frames"], [(name, codes.shape[1]) for name, codes in utterances(loaded).items()])

# %% [markdown]
# ## 1. A right stream shows nothing
#
# `Settings` says what to do, `run` does it and gives both waveforms and their distance. First the *exact* design of
# notebook 5, where every layer keeps its own state, in chunks of 3 frames. The *SNR*, the signal-to-noise ratio, compares
# the sound's power with that of the error: each 10 dB more is a tenth of the error's power. Float32 rounding lies beyond
# 100 dB.

# %%
settings = Settings(frames=FRAMES, design=EXACT, chunk=3)
right = run(loaded, settings)
plots.table(["", f"exact, chunks of 3 ({right.weights})"], list(right.numbers().items()))

# %%
assert right.snr_db > 100 and max(right.chunk_mse) < MAX_MSE

# %% [markdown]
# How it is cut does not matter. With chunks of random lengths (from a seed, so that you get the same ones) it is as exact:

# %%
shuffled = run(loaded, replace(settings, cut=RANDOM, seed=7))
print(f"chunks of {shuffled.schedule}: {shuffled.snr_db:.1f} dB on {shuffled.weights}")
assert shuffled.snr_db > 100 and sum(shuffled.schedule) == sum(right.schedule)

# %% [markdown]
# ## 2. One trap is on
#
# Now the convolutions' states are set to zero after every call, as a server does that forgets to pass them on. Nothing
# raises an error, and as many samples come out as before.

# %%
lost = run(loaded, replace(settings, trap="conv state lost"))
drawn = figure(lost)

# %% [markdown]
# From top to bottom:
#
# - **Both waveforms.** The streamed one (black, thin) leaves the one-shot one (blue, wide) where the second chunk begins.
# - **The difference.** Rounding only in the first chunk, which needs no past. From then on it is as large as the speech.
# - **The error of each chunk.** MSE is the mean squared error, on a log scale: rounding in the first chunk, then a jump
#   of many powers of ten. A stream that is right stays far below the dashed limit everywhere.
# - **The spectrogram of the difference.** Where in time and frequency the error lies, dark is nothing. Here it is bright at
#   all frequencies of the speech: whole sounds are lost, not only a click at each border.

# %%
first, *rest = lost.chunk_mse
print(f"MSE on {lost.weights}: first chunk {first:.0e}, the others {min(rest):.0e} to {max(rest):.0e}")
assert first < MAX_MSE < min(rest) and lost.streamed.size == right.streamed.size
assert lost.snr_db < 20 < 100 < right.snr_db

# %% [markdown]
# Listen to both. (With random weights both are noise.)

# %%
print("one-shot")
plots.player(right.reference, right.sample_rate)

# %%
print("streamed, conv state lost")
plots.player(lost.streamed, lost.sample_rate)

# %% [markdown]
# ## 3. This trap waits
#
# The *windowed* design decodes some frames of history again with each chunk. With as many as the conv stack looks back it
# is exact too, so that a trap is seen alone. Its attention sees a window of frames. If their positions stop growing when
# that window is full, nothing is wrong until then: on the demo for about six seconds, longer than most test sentences.

# %%
window, history = loaded.decoder.config.sliding_window, conv_reach(loaded.decoder)
longest = max(utterances(loaded), key=lambda name: utterances(loaded)[name].shape[1])
waiting = Settings(longest, window + 24, WINDOWED, history, lookahead=0, chunk=8, trap="positions that saturate")
late = run(loaded, waiting)
drawn = figure(late)

# %%
full = window * loaded.decoder.samples_per_frame
parts = {"before": slice(0, full), "after": slice(full, None)}
errors = {name: mse(late.reference[part], late.streamed[part]) for name, part in parts.items()}
print(", ".join(f"{name} the window is full: MSE {error:.0e}" for name, error in errors.items()))
assert errors["before"] < MAX_MSE
if window > 1:  # each frame of a window of one sees itself alone, wherever it stands
    assert errors["after"] > 100 * MAX_MSE

# %% [markdown]
# A test with a short sentence passes. **Test past the window.**
#
# ## 4. All state is lost
#
# A one-shot graph has no state to pass on. Fed with chunks, it decodes each one as if the stream began there. No trap is
# needed for that: it is what the graph does. Longer chunks have fewer borders.

# %%
alone = {chunk: run(loaded, replace(settings, design=ONE_SHOT, chunk=chunk)) for chunk in (1, 3, 12)}
rows = [(chunk, f"{result.snr_db:.1f} dB") for chunk, result in alone.items()]
plots.table(["frames in a chunk", f"SNR, each chunk decoded alone ({loaded.weights})"], rows)

# %%
assert all(result.snr_db < 30 for result in alone.values())

# %% [markdown]
# ## 5. Try it in the lab
#
# Every change runs at once. What means nothing in the chosen design is switched off, and the line below the controls says
# why. Try: *windowed*, then history from 4 up to 10. *Random chunks* with another seed. A trap, then chunks of 1 frame:
# some of them vanish.

# %%
lab = Lab({CHECKPOINT: loaded, "random-small": checkpoint.load("random-small")}, settings)
display(lab)

# %%
assert lab.result.snr_db > 100 and not lab.message.value

# %% [markdown]
# ## What you can do now
#
# Tell by eye which state a stream lost. *Write the proof* in [11 · Your turn](12_capstones.ipynb) asks for a program that
# tells it.
#
# To try next:
#
# - *en_passage*, all of its frames, *windowed* with *positions that saturate*: find the second at which it begins.
# - *load other weights*: a folder with your own `config.json` and `model.safetensors`.
# - The same without a widget: `run(loaded, Settings(design=WINDOWED, history=0))`.
