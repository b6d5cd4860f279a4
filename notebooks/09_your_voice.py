# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9 · Your voice: the encoder as a stream
#
# The decoder of the other pages needs codes, and the *encoder* makes them: audio in, one [frame](guide/glossary.md#frame) of codes for every 80 ms (at the official rates) out. It runs as a stream
# too: samples in, codes out, and the [state](guide/glossary.md#state) as inputs and outputs of the graph.
#
# After this page you can
#
# 1. say what the encoder is made of and which states it carries,
# 2. stream it, and compare integers that either match or do not,
# 3. treat the edges: the first sample, and a last frame that is not full,
# 4. read a picture of codes, and see how a change runs through the [codebooks](guide/glossary.md#codebook),
# 5. verify its graph in ONNX Runtime,
# 6. run both halves at once and say how long it takes from a spoken sample to a heard one,
# 7. send your own voice through it.
#
# *Prerequisites:* [3 · Verify the wrapper](03_verify_wrapper.ipynb). About 10 minutes. `QWEN3_CODEC_AUDIO` is a recording of yours: one channel, at the encoder's rate. Without one, the
# checkpoint's own is used.

# %% tags=["parameters"]
import os

CHECKPOINT = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo")
AUDIO = os.environ.get("QWEN3_CODEC_AUDIO", "")
BUILD = os.environ.get("QWEN3_CODEC_BUILD", "")  # where graphs go; by default the project's build/
FRAMES = int(os.environ.get("QWEN3_CODEC_VOICE_FRAMES", "0"))  # 0: past the attention window

# %%
import numpy as np
import torch
from IPython.display import display

from qwen3_codec import CodecSession, StreamEncoderWrapper, TorchSession
from qwen3_codec.course import build_folder, check, fails_with, plots, solution
from qwen3_codec.course.lab.voice import Voice, round_trip, sessions
from qwen3_codec.course.pitfalls.sound_in import BeginsWithZeros
from qwen3_codec.exporting import exported
from qwen3_codec.model import checkpoint, conv_memory, encoder_dimensions, state_table
from qwen3_codec.runtime import snr_db
from qwen3_codec.verification import MAX_LATENT_ERROR, verify_encoder

# %%
loaded = checkpoint.load(CHECKPOINT, audio=AUDIO)
try:
    encoder = loaded.encoder
except checkpoint.CheckpointError as error:
    print(f"{error}: the demo takes its place on this page")
    loaded = checkpoint.load("demo")
    encoder = loaded.encoder
wrapper = StreamEncoderWrapper(encoder)
audio = checkpoint.example_audio(loaded, FRAMES or wrapper.spec.frames_to_fill + 18)
rate, step = encoder.config.sampling_rate, encoder.samples_per_frame
print(f"weights: {loaded.weights}; {len(audio) / rate:.1f} s of audio, {step} samples a frame at {rate} Hz")

# %% [markdown]
# ## 1. What the encoder is made of, and its states
#
# Upstream's encoder (the one in Qwen's own package) is that of Mimi ([arXiv:2410.00037](https://arxiv.org/abs/2410.00037)): strided convolutions that lower the rate step by step, a transformer, one more convolution that
# halves the rate, and residual vector quantization, which [2 · Read a codec](02_inspect_dims.ipynb) lets you hear. All of it is causal, so it can be
# streamed without look-ahead.

# %%
rows = encoder_dimensions(encoder)
plots.table(
    ["dimension", "config", "weights", "usual formula"], [(d.name, d.config, d.weights, d.formula or "") for d in rows]
)

# %%
spec, memory = wrapper.spec, conv_memory(wrapper)
sizes = {name: size for name, _, size in state_table(spec)}
attention = sum(size for name, size in sizes.items() if name.startswith(("key", "value")))
labels = [*(name for name, _, _ in memory), "keys and values, all layers"]
seconds = [
    *(context / hz for _, context, hz in memory),
    (encoder.config.sliding_window - 1) * step / encoder.steps_per_frame / rate,
]
bytes_ = [*(size for name, size in sizes.items() if name.startswith("conv_")), attention]
figure = plots.states_along(labels, seconds, bytes_, f"{spec.bytes_per_stream():,} bytes a stream ({loaded.weights})")

# %% [markdown]
# **Figure.** Each bar is a state: how far back it reaches, and how many bytes it has. Compare the last one, the transformer's keys and values, with all the convolutions together:

# %%
print(
    f"keys and values: {100 * attention / sum(bytes_):.0f} % of the bytes, in {2 * encoder.config.num_hidden_layers} of the states"
)

# %% tags=["check"]
assert all(d.config == d.weights for d in rows)
assert sum(bytes_) + 8 == spec.bytes_per_stream()


# %% [markdown]
# ## 2. Parity of a stream that gives integers
#
# In one shot the encoder sees all samples. A stream gets any number at a time, and buffers what does not fill a frame.
#
# > **Predict.** Codes are integers. With which tolerance do you compare them?
#
# <details><summary>Answer</summary>With none: two codes match or they do not. The latents *before* quantization match to float32 rounding, therefore a code can flip only when two entries
# are almost equally near. Section 5 measures how near.</details>

# %%
wanted = encoder(torch.from_numpy(audio)[None])[0].numpy()
stream = TorchSession(wrapper).stream()
pieces = [stream.push(audio[start : start + 1000]) for start in plots.progress(range(0, len(audio), 1000))]
found = np.concatenate([*pieces, stream.finish()], axis=1)[0]
print(f"{len(found)} frames from pushes of 1000 samples; equal codes: {100 * (found == wanted).mean():.2f} %")
assert found.shape == wanted.shape and (found == wanted).mean() >= 0.999

# %% [markdown]
# ## 3. The edges: the first sample, and a last frame that is not full
#
# **The first sample.** One convolution pads with copies of its edge (`replicate`) instead of zeros. Its empty state is therefore not zeros: the stream has to copy its own first step into it. With
# plain zeros, the beginning differs:

# %%
first = audio[: 12 * step]


def latents_of(wrapper):
    """The latents before quantization, streamed by single frames, [hidden_size, N]."""
    state = [torch.from_numpy(array) for array in wrapper.spec.zero_state().values()]
    parts = []
    for part in torch.from_numpy(first)[None].split(step, dim=1):
        latents, *state = wrapper.latents(part, *state)
        parts.append(latents[0])
    return torch.cat(parts, dim=1)


right = encoder.latents(torch.from_numpy(first)[None])[0]
series = {
    "edge copied": (latents_of(wrapper) - right).abs().amax(dim=0).numpy(),
    "zeros": (latents_of(BeginsWithZeros(encoder)) - right).abs().amax(dim=0).numpy(),
}
figure = plots.frame_errors(
    series, f"Latents before quantization, against one-shot ({loaded.weights})", "largest error"
)

# %% [markdown]
# **Figure.** Largest error of the latents by frame. With the edge copied it is rounding; with zeros it is large in the first frame. On the demo it is large there alone, because that convolution's padding is all that differs.

# %% tags=["check"]
size = max(1.0, right.abs().max().item())
assert series["edge copied"].max() / size < MAX_LATENT_ERROR < series["zeros"][0] / size

# %% [markdown]
# **The last frame.** A recording ends where it ends. In one shot, each strided convolution completes *its own* input with zeros.
#
# > **Predict.** Is it the same to append zeros to the waveform until the frame is full?
#
# <details><summary>Answer</summary>No. On their way through the layers the appended zeros meet biases, so deeper layers see something else than zeros.</details>

# %%
ends = 10 * step + step // 2
half = torch.from_numpy(audio[:ends])[None]
padded = torch.cat([half, torch.zeros(1, step - step // 2)], dim=1)
apart = (encoder.latents(half) - encoder.latents(padded))[0].abs().amax(dim=0).detach().numpy()
figure = plots.frame_errors(
    {"zeros appended to the waveform": apart},
    f"Latents, against upstream's way ({loaded.weights})",
    "largest difference",
)

# %% [markdown]
# **Figure.** The full frames are equal to rounding. The last one is not: that is the price of appending zeros to the waveform.

# %%
stream = TorchSession(wrapper).stream()
codes = np.concatenate([stream.push(audio[:ends]), stream.finish()], axis=1)
assert codes.shape[1] == 11 and (codes[0] == encoder(half)[0].numpy()).mean() >= 0.99
assert apart[:10].max() / size < MAX_LATENT_ERROR < apart[10] / size

# %% [markdown]
# ### Exercise: steps and frames ●●○ · 15 min
#
# *Needs:* the mask and the valid cache slots of [3 · Verify the wrapper](03_verify_wrapper.ipynb). In this encoder a frame makes more than one step of the transformer: its attention
# runs at a higher rate than the codes. The stream carries `past_frames` [B, 1]. Return the number of stored *steps* that are valid, as the mask needs it (at most `window` − 1 are stored), and the count for the
# next call after `new_frames` more. The count must not grow for ever, and it may not stop before the window is full.


# %% tags=["exercise"]
def count_steps(past_frames, new_frames, steps_per_frame, window):
    return past_frames, (past_frames + new_frames).clamp(max=window - 1)


check("steps and frames", count_steps)

# %%
solution("steps and frames")

# %% [markdown]
# ## 4. How a change runs through the codebooks
#
# Each codebook quantizes what those before it left over. A change that is large enough flips a code, and then the next codebook gets another remainder, so its code may flip too. Below: which codes differ
# when the recording is half as loud (−6 dB).

# %%
quieter = encoder(torch.from_numpy(0.5 * audio)[None])[0].numpy()
figure = plots.codes(quieter, step / rate, f"codes of the recording at −6 dB ({loaded.weights})", wanted)

# %% [markdown]
# **Figure.** One column a frame, one row a codebook; marked codes differ from those of the recording as it is.

# %%
apart = quieter != wanted
begins = np.where(apart.any(axis=1), apart.argmax(axis=1), apart.shape[1])  # the codebook that differs first, by frame
after = np.arange(apart.shape[1]) > begins[:, None]
print(f"{100 * apart.any(axis=1).mean():.0f} % of the frames and {100 * apart.mean():.0f} % of all codes differ")
print(f"of the codes after a frame's first that differs, {100 * apart[after].mean():.0f} % differ too")
assert apart.any() and apart[after].any()

# %% [markdown]
# So a frame that differs need not differ in all of its later codes, and one number for all codebooks would hide where it begins. Agreement is therefore counted by codebook. The stream's codes
# stand beside it: the same recording in other chunks.

# %%
by_codebook = {"at −6 dB": (quieter == wanted).mean(axis=0), "streamed": (found == wanted).mean(axis=0)}
figure = plots.agreement(by_codebook, f"Equal codes ({loaded.weights})")

# %% [markdown]
# **Figure.** Share of equal codes by codebook, against the recording in one shot. Streaming keeps them; half the loudness does not.

# %% tags=["check"]
assert by_codebook["at −6 dB"].min() < by_codebook["streamed"].min()

# %% [markdown]
# ## 5. Parity of its graph in ONNX Runtime
#
# It is exported as the decoder is: same kind of states, same checks, a self-test in the file. `verify_encoder` counts codes, and when one differs it measures the *gap*: how much farther the chosen entry is than
# the nearest one. Rounding flips near-ties only, so a larger gap is a fault.

# %%
path = exported(loaded, wrapper, build_folder(BUILD) / "encoder.onnx", progress=plots.progress)
session = CodecSession(path)
report = verify_encoder(loaded, wrapper, audio, [[3], [1], [7, 1, 2]], session, plots.progress)
print(report)
assert report.passed

# %% [markdown]
# Invalid input raises a clear error and leaves the stream unchanged:

# %%
with fails_with(ValueError, "channels"):
    session.encode(np.stack([audio, audio], axis=1))
with fails_with(ValueError, "audio is int16"):
    session.encode((32767 * audio).astype(np.int16))

# %% [markdown]
# ## 6. Both halves at once
#
# Each chunk is encoded, and its codes are decoded at once. From a spoken sample to a heard one it takes the chunk's own length and both calls. (Times are of this machine and this
# model.)

# %%
fits = loaded.misfit()
print(fits or "the halves fit each other")
if not fits:
    trip = round_trip(*sessions(loaded), audio, chunk=3, progress=plots.progress)
    print(f"first audio after {trip.first_sound_ms:.0f} ms, of which the chunk is {trip.chunk_ms:.0f}")
    print(
        f"SNR of the decoded audio against the recording: {snr_db(trip.audio, trip.decoded):.1f} dB ({loaded.weights})"
    )
    times = {"encode": trip.encode_ms, "decode": trip.decode_ms}
    figure = plots.call_times(times, 3, trip.chunk_ms, f"Time per chunk of 3 frames ({loaded.weights})")
    assert (trip.codes == wanted).mean() >= 0.999

# %% [markdown]
# **Figure.** Time of each call, encoder and decoder, beside the duration of a chunk: both together have to stay below it.

# %%
if not fits:
    figure = plots.waveforms(
        trip.audio,
        trip.decoded,
        rate,
        f"A recording, and decoded from its codes ({loaded.weights})",
        labels=("recording", "decoded"),
    )

# %% [markdown]
# **Figure.** Above, the recording and what comes back from its codes; below, their difference. A codec does not restore the waveform sample by sample, so the difference is far above rounding; what counts
# is what one hears:

# %%
print("the recording")
plots.player(audio, rate)

# %%
print("from its codes")
plots.player(trip.decoded if not fits else audio, rate)

# %% [markdown]
# ## 7. Your own voice
#
# Choose an audio file of at most 10 MB: JupyterLab takes no more from a page. **The demo was trained on seven sentences and knows nothing else**: your voice comes out of it as noise that resembles
# speech at best. To hear your own voice, run it with the official weights: `make walkthrough CHECKPOINT=Qwen/Qwen3-TTS-Tokenizer-12Hz AUDIO=my.wav`.

# %%
if not fits:
    voice = Voice(loaded)
    voice.show(trip)
    display(voice)

# %% [markdown]
# ## What you can do now
#
# - Turn any recording into codes, chunk by chunk, and back into audio: `python -m qwen3_codec export --part encoder --output build/encoder.onnx`, then `encode` and `decode`.
# - Compare integers without a tolerance, and tell rounding from a fault by the gap.
# - Treat both ends of a stream as the model does. The [catalogue of traps](07_trap_catalogue.ipynb) has what goes wrong there; one of them shows past 10 s only: the transformer's window has 250 steps of 40 ms, and
#   transformers 4.57 ignores it.
#
# **Next:** [10 · Many streams](10_many_streams.ipynb), because a service has more than one listener.
