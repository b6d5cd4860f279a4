"""One stream under chosen settings, beside the one-shot decoder: what the interactive lab and page 0 run.

`run` takes a `Settings` and gives a `Result`, and `figure` draws it. A trap is a mistake of `course.pitfalls.state`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from matplotlib.figure import Figure

from ... import demo
from ...exporting.precision.int8 import Int8StreamingWrapper
from ...model.checkpoint import Checkpoint, example_codes
from ...model.one_shot import one_shot
from ...runtime.codes import read_rows
from ...runtime.metrics import chunk_lengths, max_error, mse, parse_schedule, per_chunk, snr_db
from ...runtime.progress import no_progress
from ...streaming.exact import ExactStreamingWrapper, OneShotWrapper
from ...streaming.windowed import StatefulCodecONNXWrapper
from ...verification.decoder import TorchSession
from ...verification.report import MAX_MSE
from ..pitfalls.state import (
    HistoryFromNewFramesAlone,
    SaturatingPositions,
    SeesTheFuture,
    TrimmedBeforeAttention,
    dropped,
)
from . import plots

EXACT, WINDOWED, ONE_SHOT, IN_8_BITS = "exact", "windowed", "one-shot", "exact, 8 bits"
DESIGNS = {
    EXACT: "Every layer keeps its own state: it needs no left context and no look-ahead.",
    WINDOWED: "The left context is recomputed with each chunk, the look-ahead is buffered. "
    "A short left context is an approximation in itself.",
    IN_8_BITS: "The exact design with its products in 8 bits: a quarter of the file, and a hiss that stays far below "
    "the speech. It has the same states, so the same traps.",
    ONE_SHOT: "A one-shot graph has no state: each chunk is decoded alone, as if the stream began with it. "
    "So there is no left context, no look-ahead, and no trap to switch on; the damage is the design's own.",
}
EQUAL, RANDOM, WRITTEN = "equal chunks", "random chunks", "a schedule of your own"
LONGEST_RANDOM_CHUNK = 12
RANDOM_FRAMES = 400
NO_TRAP = "none"


@dataclass(frozen=True)
class Fault:
    """One mistake: in the wrapper (windowed design), or what is done to the state between two calls."""

    look_for: str = ""
    change_state: Callable[[dict], dict] = dict
    wrapper: type[StatefulCodecONNXWrapper] = StatefulCodecONNXWrapper
    needs_full_window: bool = False


_LOST = "lost after every call: look for steps at the chunk borders."
TRAPS = {
    EXACT: {
        NO_TRAP: Fault(),
        "all state lost": Fault(f"Every state is {_LOST}", dropped("")),
        "conv state lost": Fault(f"What the convolutions remember is {_LOST}", dropped("conv_")),
        "keys and values lost": Fault(
            "Attention forgets after every call: a haze, not a click.", dropped("past_frames", "key_", "value_")
        ),
    },
    WINDOWED: {
        NO_TRAP: Fault(),
        "all state lost": Fault(f"Every state is {_LOST}", dropped("")),
        "conv state lost": Fault(f"The left context of the convolutions is {_LOST}", dropped("pre_conv_h", "conv_h")),
        "keys and values lost": Fault("Attention forgets after every call: a haze, not a click.", dropped("past_")),
        "positions that saturate": Fault(
            "Positions stop growing when the attention window is full.",
            wrapper=SaturatingPositions,
            needs_full_window=True,
        ),
        "trimmed before attention": Fault(
            "Keys and values are cut to the window too early: a chunk's first frames lose their oldest ones. "
            "Chunks of 1 frame lose nothing.",
            wrapper=TrimmedBeforeAttention,
            needs_full_window=True,
        ),
        "mask that sees the future": Fault(
            "Inside a chunk each frame sees the next one. Chunks of 1 frame have no next one.", wrapper=SeesTheFuture
        ),
        "left context from the new frames alone": Fault(
            "Only chunks shorter than the left context of the first convolution (officially 2 frames) are hurt.",
            wrapper=HistoryFromNewFramesAlone,
        ),
    },
    ONE_SHOT: {NO_TRAP: Fault()},
}
TRAPS[IN_8_BITS] = TRAPS[EXACT]


@dataclass(frozen=True)
class Settings:
    """What the controls say; lengths are in frames. Fields that the design or the cut does not use are not looked at.

    `utterance` None is the checkpoint's first; `frames` beyond its end take all of it.
    """

    utterance: str | None = None
    frames: int = 48
    design: str = EXACT
    left_context: int = 4
    lookahead: int = 4
    cut: str = EQUAL
    chunk: int = 3
    seed: int = 0
    written: str = "3,1,7"
    trap: str = NO_TRAP


@dataclass(frozen=True)
class Result:
    """A stream beside the one-shot decoder: both waveforms [samples], and the frames and samples of each call."""

    settings: Settings
    weights: str
    sample_rate: int
    reference: np.ndarray
    streamed: np.ndarray
    schedule: list[int]
    samples: list[int]
    window_samples: int = 0

    @property
    def snr_db(self) -> float:
        return snr_db(self.reference, self.streamed)

    @property
    def max_error(self) -> float:
        return max_error(self.reference, self.streamed)

    @property
    def mse(self) -> float:
        return mse(self.reference, self.streamed)

    @property
    def chunk_mse(self) -> list[float]:
        """MSE over the samples of each call; 0 for a call that buffered all that it had."""
        return per_chunk(mse, self.reference, self.streamed, self.samples)

    @property
    def worst_chunk(self) -> int:
        return int(np.argmax(self.chunk_mse))

    @property
    def harmless(self) -> str:
        """Why a trap that was chosen does nothing here; empty where it does something, or where none was chosen."""
        lone = self.settings.trap != NO_TRAP and len(self.samples) == 1 and self.mse <= MAX_MSE
        return "one chunk has no border, and this trap acts at borders" if lone else ""

    def numbers(self) -> dict[str, str]:
        """What the lab prints, {what: value with its unit}."""
        worst = self.worst_chunk
        start = sum(self.samples[:worst]) / self.sample_rate
        return {
            "SNR": f"{self.snr_db:.1f} dB" + (f" ({self.harmless})" if self.harmless else ""),
            "largest error": f"{self.max_error:.1e}",
            "MSE": f"{self.mse:.1e}",
            "worst chunk": f"{worst + 1} of {len(self.samples)}, from {start:.2f} s, MSE {self.chunk_mse[worst]:.1e}",
            "samples": f"{self.streamed.size:,} streamed, {self.reference.size:,} one-shot",
        }


def utterances(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """{name: codes [1, N, Q]} to choose from: the demo's recorded sentences, or what `example_codes` gives.

    Raises CodesError, with the file, for codes that do not fit the checkpoint's config.
    """
    folder, dims = checkpoint.folder, checkpoint.decoder.config
    if not checkpoint.audio and folder and (folder / "utterances.json").is_file():
        names = [utterance.name for utterance in demo.utterances(folder)]
        return {name: read_rows(demo.codes_file(name, folder), dims)[0][None] for name in names}
    return {"example codes": example_codes(checkpoint, max(RANDOM_FRAMES, 2 * dims.sliding_window))}


def schedule(settings: Settings, frames: int) -> list[int]:
    """The frames of each call, `frames` in sum. Raises ValueError for a cut that is none."""
    cuts = {
        EQUAL: lambda: [settings.chunk],
        RANDOM: lambda: _random_lengths(settings.seed, frames),
        WRITTEN: lambda: parse_schedule(settings.written),
    }
    return list(chunk_lengths(frames, _choose(cuts, settings.cut, "the cut")()))


def run(checkpoint: Checkpoint, settings: Settings, progress=no_progress) -> Result:
    """Stream an utterance as `settings` says, in PyTorch; `progress` wraps the loop over the chunks (tqdm does).

    Raises ValueError with the value that is at fault.
    """
    trap = _choose(_choose(TRAPS, settings.design, "the design"), settings.trap, f"the {settings.design} design's trap")
    if settings.frames < 1:
        raise ValueError(f"frames is {settings.frames}, must be at least 1")
    available = utterances(checkpoint)
    codes = _choose(available, settings.utterance or next(iter(available)), "the utterance")[:, : settings.frames]
    lengths = schedule(settings, codes.shape[1])

    stream = TorchSession(_wrapper(checkpoint.decoder, settings, trap)).stream()
    pieces = []
    for piece in stream.pushes(codes, lengths, progress):
        pieces.append(piece[0])
        stream.state = trap.change_state(stream.state)
    return Result(
        settings=settings,
        weights=checkpoint.weights,
        sample_rate=checkpoint.sample_rate,
        reference=_reference(checkpoint.decoder, codes.tobytes(), codes.shape),
        streamed=np.concatenate(pieces),
        schedule=lengths,
        samples=[piece.size for piece in pieces],
        window_samples=checkpoint.decoder.config.sliding_window * checkpoint.decoder.samples_per_frame,
    )


def describe(settings: Settings) -> str:
    """Settings in a line, as a figure's title."""
    design, cut = settings.design, settings.cut
    if design == WINDOWED:
        design += f", left context {settings.left_context}, look-ahead {settings.lookahead}"
    cuts = {
        EQUAL: f"chunks of {settings.chunk}",
        RANDOM: f"random chunks (seed {settings.seed})",
        WRITTEN: f"chunks of {settings.written}",
    }
    return f"{design}; {cuts.get(cut, cut)}; trap: {settings.trap}"


def figure(result: Result) -> Figure:
    """Both waveforms, their difference, the error of each chunk, and where in time and frequency it lies."""
    title = f"{describe(result.settings)} ({result.weights}): SNR {result.numbers()['SNR']}"
    settings, waves = result.settings, (result.reference, result.streamed)
    waits = TRAPS[settings.design][settings.trap].needs_full_window and result.window_samples < result.reference.size
    marks = {"attention window full": result.window_samples} if waits else {}
    return plots.stream_error(*waves, result.sample_rate, result.samples, result.chunk_mse, title, MAX_MSE, marks=marks)


def _random_lengths(seed: int, count: int) -> list[int]:
    if seed < 0:
        raise ValueError(f"the seed is {seed}, must not be negative")
    return np.random.default_rng(seed).integers(1, LONGEST_RANDOM_CHUNK + 1, count).tolist()


def _choose(options: dict, name: str, what: str):
    if name not in options:
        raise ValueError(f"{what} is {name!r}, must be one of {', '.join(options)}")
    return options[name]


def _wrapper(decoder, settings: Settings, trap: Fault):
    if settings.design == WINDOWED:
        return trap.wrapper(decoder, settings.left_context, settings.lookahead)
    designs = {EXACT: ExactStreamingWrapper, IN_8_BITS: Int8StreamingWrapper, ONE_SHOT: OneShotWrapper}
    return designs[settings.design](decoder)


@lru_cache(maxsize=8)
def _reference(decoder, codes: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The one-shot waveform [samples]; codes come as bytes because a cache needs something that can be compared."""
    return one_shot(decoder, np.frombuffer(codes, np.int64).reshape(shape).copy())[0]
