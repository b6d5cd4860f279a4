"""Traps of who feeds a graph and who plays what it gives: which frames go in, how often, and the rate of the audio."""

import io
import tempfile
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...exporting.diagnostics import captured
from ...model.checkpoint import example_codes
from ...model.one_shot import one_shot
from ...runtime.audio import pcm16
from ...runtime.metrics import MAX_ERROR, chunks
from .clients import exact
from .graphs import export_step, raw_session, run_with, why_it_stopped
from .precision import demo, demo_graph, heard
from .trap import STOPS, WRONG, Outcome, Trap, caught_by


def every_frame(frames: np.ndarray, codebook_size: int) -> np.ndarray:
    """The frames of a language model's output that the decoder is to have."""
    return frames  # trap


def frames_before_the_end(frames: np.ndarray, codebook_size: int) -> np.ndarray:
    """The frames of a language model's output that the decoder is to have."""
    controls = np.flatnonzero(frames[:, 0] >= codebook_size)
    return frames[: controls[0]] if controls.size else frames


class TableEach(nn.Module):
    """Two codebooks, each looked up in a table of its own: [frames, 2] to [frames]."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("tables", torch.arange(2.0 * size).reshape(2, size, 1))

    def forward(self, codes):
        return sum(F.embedding(codes[:, i], table) for i, table in enumerate(self.tables)).squeeze(1)


@caught_by("check the range of every code before it goes in")
@torch.no_grad()
def a_control_code(frames_of: Callable) -> Outcome:
    """12 of the demo's frames, and one that ends the utterance: into a small graph, and into the demo's exact one."""
    decoder, codes = demo().decoder, example_codes(demo(), 12)[0]
    size = decoder.config.codebook_size
    end = np.zeros_like(codes[:1])
    end[:, 0] = size + 1
    fed = frames_of(np.concatenate([codes, end]), size)
    stop = _into_a_table_each(fed[:, :2], size)
    frames = _into_the_exact_graph(fed)
    lines = f"a table for each codebook: {stop or 'right'}\none table for all, as in the exact graph: "
    right = not stop and frames == len(codes)
    text = f"{lines}no error; audio of {frames} frames, must be {len(codes)}"
    cases = () if right else (STOPS, WRONG)
    return Outcome(0.0 if right else float("inf"), text, "" if right else "the end of the utterance", cases)


def _into_a_table_each(codes: np.ndarray, size: int) -> str:
    """What ONNX Runtime says, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        with captured():
            export_step(TableEach(size), {"codes": torch.from_numpy(codes % size)}, path, "torchscript")
        try:
            run_with(raw_session(path, log=False), {"codes": codes})
        except Exception as stop:  # ONNX Runtime's exceptions share no narrower base class
            return why_it_stopped(stop)
    return ""


def _into_the_exact_graph(codes: np.ndarray) -> int:
    """Frames of audio that come out: the graph itself, without the checks of `CodecSession`."""
    spec, decoder = exact().spec, demo().decoder
    feeds = {"audio_codes": codes[None]} | spec.zero_state(batch=1)
    samples = run_with(raw_session(demo_graph()), feeds, [spec.outputs[0].name])[0]
    return samples.shape[1] // decoder.samples_per_frame


def from_the_start(codes: np.ndarray, chunk: int) -> Iterator[tuple[np.ndarray, int]]:
    """The samples of each chunk, and how many frames were computed for it."""
    decoder = demo().decoder
    for end in range(chunk, codes.shape[1] + 1, chunk):
        samples = one_shot(decoder, codes[:, :end])  # trap
        yield samples[:, (end - chunk) * decoder.samples_per_frame :], end


def from_the_state(codes: np.ndarray, chunk: int) -> Iterator[tuple[np.ndarray, int]]:
    """The samples of each chunk, and how many frames were computed for it."""
    stream = exact().stream()
    for part in chunks(codes, [chunk]):
        yield stream.push(part), part.shape[1]


@caught_by("count the frames that each call computes, or time the calls of a long stream")
def work_of_each_call(decode: Callable, frames: int = 60, chunk: int = 3) -> Outcome:
    """The demo's passage in chunks: is the audio right, and how many frames does each call compute?"""
    codes = example_codes(demo(), frames)
    pieces, counts = zip(*decode(codes, chunk), strict=True)
    outcome = heard(one_shot(demo().decoder, codes), np.concatenate(pieces, axis=1))
    text = f"frames computed by the first call {counts[0]}, by the last {counts[-1]}, by all {sum(counts)} of {frames}"
    costs = sum(counts) > frames
    return Outcome(outcome.error, f"{text}; {outcome.text}", "the second call" if costs else "", costs=costs)


def at_the_sound_cards_rate(samples: np.ndarray, sample_rate: int) -> bytes:
    return wav(samples, 48000)  # trap


def at_the_models_rate(samples: np.ndarray, sample_rate: int) -> bytes:
    return wav(samples, sample_rate)


def wav(samples: np.ndarray, rate: int) -> bytes:
    """A file of 16 bits, one channel, which says `rate` of itself."""
    with io.BytesIO() as file:
        with wave.open(file, "wb") as out:
            out.setparams((1, 2, rate, 0, "NONE", ""))
            out.writeframes(pcm16(samples).tobytes())
        return file.getvalue()


@caught_by("compare the seconds that the file says with frames / frame rate")
def seconds_of_a_file(write: Callable[[np.ndarray, int], bytes]) -> Outcome:
    """Two seconds of the demo as a file: how long does a player take, and how high are the tones?"""
    rate, decoder = demo().sample_rate, demo().decoder
    frames = round(2 * rate / decoder.samples_per_frame)
    samples = one_shot(decoder, example_codes(demo(), frames))[0]
    with wave.open(io.BytesIO(write(samples, rate))) as file:
        seconds = file.getnframes() / file.getframerate()
    wanted = frames * decoder.samples_per_frame / rate
    faster = wanted / seconds
    text = f"{frames} frames last {seconds:.2f} s, must be {wanted:.2f} s; each tone is {faster:.2f} times as high"
    error = abs(faster - 1)
    return Outcome(error, text, "the first sample" if error > MAX_ERROR else "")


TRAPS = (
    Trap(
        name="a control code among the codes",
        naive=every_frame,
        fix=frames_before_the_end,
        demonstrate=a_control_code,
        symptoms=("bounds", "end"),
        within=0.0,
        why="A language model's vocabulary has more than the codebook: the codes above it end the utterance or mean "
        "something else, and belong to no frame. A graph with a table for each codebook stops. In one with all tables "
        "in one, as in this project's graphs, such a code is an entry of the next codebook: nothing stops, and a frame "
        "too many is heard. (`CodecSession` checks the range, and names the code.) Cut before the first control code.",
        sources=("open-mmlab/Amphion#476", "sgl-project/sglang-omni#1418"),
    ),
    Trap(
        name="every chunk decoded from the start of the stream",
        naive=from_the_start,
        fix=from_the_state,
        demonstrate=work_of_each_call,
        symptoms=("grows", "slow"),
        within=MAX_ERROR,
        why="The audio is right, and each call costs more than the last: the work for a stream grows with the square "
        "of its length, the memory of a call with the length. Keep a state, so that a call computes its own frames. "
        "(What else grows, not measured here: a KV cache that nothing trims, and what ONNX Runtime keeps for shapes "
        "that change from call to call.)",
        sources=("Blaizzy/mlx-audio#537", "gabriele-mastrapasqua/qwen3-tts#8", "hexgrad/kokoro#358"),
    ),
    Trap(
        name="samples played at another rate",
        naive=at_the_sound_cards_rate,
        fix=at_the_models_rate,
        demonstrate=seconds_of_a_file,
        symptoms=("rate",),
        why="Samples do not know their rate: the header of a file, or the player, says it. Too high a rate, and all is "
        "too fast and too high; too low, and all is slow and deep. Take the rate from the model (`sample_rate`), and "
        "resample where the player has another one.",
        sources=("deepgram-devs/deepgram-ai-agent-demo#73", "AreevAI/flowcat#10"),
    ),
)
