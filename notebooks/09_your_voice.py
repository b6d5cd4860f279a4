# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9 · Your voice: from a waveform to codes and back
#
# The other half of the codec. The *encoder* turns sound into codes: 16 whole numbers for every 80 ms (a *frame*), which the
# decoder of the other notebooks turns back into sound. Here it runs as a stream too: samples in, codes out, and what it must
# remember between two calls (its *state*) goes in and comes out of the graph.
#
# At the end of this notebook you know
#
# 1. what the encoder is made of, and what it remembers,
# 2. that the stream gives the codes of one shot, for any cut,
# 3. what happens at the edges: the first sample, and a last frame that is not full,
# 4. what codes look like, and how agreement is counted,
# 5. that ONNX Runtime gives the same codes,
# 6. how long it takes from a spoken sample to a heard one,
# 7. how your own voice sounds through it: the widget at the end.
#
# `QWEN3_CODEC_AUDIO` is a recording of yours: one channel, at the encoder's rate. Without one, the checkpoint's own is used.

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
from qwen3_codec.course import build_folder, fails_with, plots
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
print(f"weights: {loaded.weights}; {len(audio) / rate:.1f} s of sound, {step} samples a frame at {rate} Hz")

# %% [markdown]
# ## 1. The encoder remembers this
#
# Upstream's encoder is Mimi's ([arXiv:2410.00037](https://arxiv.org/abs/2410.00037)): convolutions that take larger and larger
# steps, a transformer, one more convolution that halves the rate, and *residual quantisation*: the nearest entry of a
# codebook, then the nearest to what is left over, and so on. All of it is causal.

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
    *(history / hz for _, history, hz in memory),
    (encoder.config.sliding_window - 1) * step / encoder.steps_per_frame / rate,
]
bytes_ = [*(size for name, size in sizes.items() if name.startswith("conv_")), attention]
figure = plots.states_along(labels, seconds, bytes_, f"{spec.bytes_per_stream():,} bytes a stream ({loaded.weights})")

# %%
assert all(d.config == d.weights for d in rows)
assert sum(bytes_) + 8 == spec.bytes_per_stream()

# %% [markdown]
# ## 2. The stream gives the codes of one shot
#
# In one shot the encoder sees all samples. As a stream it gets some at a time, any number: what does not fill a frame waits.
# Codes are choices, so two paths agree or they do not; before the choice, what is quantised agrees to rounding.

# %%
wanted = encoder(torch.from_numpy(audio)[None])[0].numpy()
stream = TorchSession(wrapper).stream()
pieces = [stream.push(audio[start : start + 1000]) for start in plots.progress(range(0, len(audio), 1000))]
found = np.concatenate([*pieces, stream.finish()], axis=1)[0]
print(f"{len(found)} frames from pushes of 1000 samples; equal codes: {100 * (found == wanted).mean():.2f} %")
assert found.shape == wanted.shape and (found == wanted).mean() >= 0.999

# %% [markdown]
# ## 3. The edges need care
#
# **The first sample.** One convolution pads with copies of its edge, not with zeros. A stream whose state begins with zeros
# must copy its own first step. With plain zeros, the first frames are others:

# %%
first = audio[: 12 * step]


def latents_of(wrapper):
    """What is quantised, streamed by single frames, [hidden_size, N]."""
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
figure = plots.frame_errors(series, f"What is quantised, against one shot ({loaded.weights})", "largest error")

# %%
size = max(1.0, right.abs().max().item())
assert series["edge copied"].max() / size < MAX_LATENT_ERROR < series["zeros"][0] / size

# %% [markdown]
# **The last half frame.** Sound ends where it ends. Each strided convolution then completes *its own* input with zeros. Zeros
# behind the waveform are something else: on their way they meet biases.

# %%
ends = 10 * step + step // 2
half = torch.from_numpy(audio[:ends])[None]
padded = torch.cat([half, torch.zeros(1, step - step // 2)], dim=1)
apart = (encoder.latents(half) - encoder.latents(padded))[0].abs().amax(dim=0).detach().numpy()
figure = plots.frame_errors(
    {"zeros behind the sound": apart}, f"Against what upstream does ({loaded.weights})", "largest difference"
)

# %%
stream = TorchSession(wrapper).stream()
codes = np.concatenate([stream.push(audio[:ends]), stream.finish()], axis=1)
assert codes.shape[1] == 11 and (codes[0] == encoder(half)[0].numpy()).mean() >= 0.99
assert apart[:10].max() / size < MAX_LATENT_ERROR < apart[10] / size

# %% [markdown]
# ## 4. Codes can be looked at
#
# The codebooks are residual: each quantizes what those before it left over. A change that is large enough moves a choice, and then the
# next codebook gets another residual, so that its choice may move too. Below: which codes differ when the recording is half as loud.

# %%
quieter = encoder(torch.from_numpy(0.5 * audio)[None])[0].numpy()
figure = plots.codes(quieter, step / rate, f"codes of the recording at −6 dB ({loaded.weights})", wanted)

# %%
apart = quieter != wanted
begins = np.where(apart.any(axis=1), apart.argmax(axis=1), apart.shape[1])  # the codebook that differs first, by frame
after = np.arange(apart.shape[1]) > begins[:, None]
print(f"{100 * apart.any(axis=1).mean():.0f} % of the frames and {100 * apart.mean():.0f} % of all codes differ")
print(f"of the codes after a frame's first that differs, {100 * apart[after].mean():.0f} % differ too")
assert apart.any() and apart[after].any()

# %% [markdown]
# So a frame that differs need not differ in all its later codes, and one number for all codebooks would hide where it begins. Agreement is
# therefore counted by codebook. The stream's codes stand beside: same recording, other chunks.

# %%
by_codebook = {"at −6 dB": (quieter == wanted).mean(axis=0), "streamed": (found == wanted).mean(axis=0)}
figure = plots.agreement(by_codebook, f"Equal codes ({loaded.weights})")
assert by_codebook["at −6 dB"].min() < by_codebook["streamed"].min()

# %% [markdown]
# ## 5. The graph agrees
#
# Exported as the decoder is: same states, same checks, a self-test in the file. `verify_encoder` counts, and where a code
# differs it measures the *gap*: how much farther the chosen entry is than the nearest. Rounding flips near ties, and no others.

# %%
path = exported(loaded, wrapper, build_folder(BUILD) / "encoder.onnx", progress=plots.progress)
session = CodecSession(path)
report = verify_encoder(loaded, wrapper, audio, [[3], [1], [7, 1, 2]], session, plots.progress)
print(report)
assert report.passed

# %% [markdown]
# Sound that is none is refused in words, and changes nothing:

# %%
with fails_with(ValueError, "channels"):
    session.encode(np.stack([audio, audio], axis=1))
with fails_with(ValueError, "audio is int16"):
    session.encode((32767 * audio).astype(np.int16))

# %% [markdown]
# ## 6. Both halves run at once
#
# Each chunk is encoded, and its codes are decoded at once. From a spoken sample to a heard one it takes the chunk's own length
# and both calls. (Times are of this machine and this model.)

# %%
fits = loaded.misfit()
print(fits or "the halves fit each other")
if not fits:
    trip = round_trip(*sessions(loaded), audio, chunk=3, progress=plots.progress)
    print(f"first sound after {trip.first_sound_ms:.0f} ms, of which the chunk is {trip.chunk_ms:.0f}")
    print(f"SNR of the sound against the recording: {snr_db(trip.audio, trip.decoded):.1f} dB ({loaded.weights})")
    times = {"encode": trip.encode_ms, "decode": trip.decode_ms}
    figure = plots.call_times(times, 3, trip.chunk_ms, f"Time per chunk of 3 frames ({loaded.weights})")
    assert (trip.codes == wanted).mean() >= 0.999

# %%
if not fits:
    figure = plots.waveforms(
        trip.audio,
        trip.decoded,
        rate,
        f"Recording and what its codes keep of it ({loaded.weights})",
        labels=("recording", "decoded"),
    )

# %%
print("the recording")
plots.player(audio, rate)

# %%
print("from its codes")
plots.player(trip.decoded if not fits else audio, rate)

# %% [markdown]
# ## 7. Take your own voice
#
# Choose a sound file of at most 10 MB: JupyterLab takes no more from a page. **The demo knows seven sentences and nothing else**: your voice comes out of it as noise that resembles
# speech at best. With the official weights it is your voice:
# `make walkthrough CHECKPOINT=Qwen/Qwen3-TTS-Tokenizer-12Hz AUDIO=my.wav`.

# %%
if not fits:
    voice = Voice(loaded)
    voice.show(trip)
    display(voice)

# %% [markdown]
# ## What you can do now
#
# Take codes of any recording, in chunks, and bring them back to sound. *How long is the history?* and *Count steps, not
# frames* in [11 · Your turn](12_capstones.ipynb) are about what the encoder's convolutions and its attention remember.
#
# To try next:
#
# - `python -m qwen3_codec export --part encoder --output build/encoder.onnx`, then `encode` and `decode` from the command line.
# - Past 10 s: the transformer's window has 250 steps of 40 ms. Under transformers 4.57 it is ignored; [notebook
#   6](07_trap_catalogue.ipynb) has that as a trap.
# - The traps of the encoder: [6 · The traps](07_trap_catalogue.ipynb), section 8.
