"""What each design costs: `python -m qwen3_codec bench`. Times are of one machine in one run; read them as ratios.

Six ways to decode the same codes, called in turn (interleaved, after a warm-up), so that a change of the machine's
speed meets them all: the one-shot decoder in PyTorch and in ONNX Runtime, the stateless graph that decodes 25 frames of
context again for each chunk (upstream's `chunked_decode` and many servers do this), the windowed design with 4 + 4
frames and with a full history, and the exact design.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from .export import exported
from .metrics import chunk_lengths, max_error, snr_db
from .model.checkpoint import Checkpoint, example_codes
from .model.inspection import conv_reach
from .runtime import CodecSession
from .streaming.exact import ExactStreamingWrapper, OneShotWrapper
from .streaming.windowed import StatefulCodecONNXWrapper
from .verify import one_shot

CONTEXT_FRAMES = 25  # upstream's `left_context_size`
CHUNKS = (1, 3, 4, 12)
GEMM_SIZE = 1536


@dataclass(frozen=True)
class Row:
    """One design at one chunk length. Times in ms; `first_audio_ms` is the audio time waited for, plus compute."""

    design: str
    chunk: int
    median_ms: float
    p95_ms: float
    ms_per_frame: float
    realtime_factor: float
    first_audio_ms: float
    max_error: float
    snr_db: float
    state_bytes: int
    call_ms: list[float] = field(repr=False)


@dataclass(frozen=True)
class Benchmark:
    """All rows, and what the machine can do: `gemm_gflops` is the rate of a float32 matrix product in this run."""

    weights: str
    threads: int
    frames: int
    gemm_gflops: float
    gflop_per_frame: float
    frame_ms: float
    rows: list[Row]

    @property
    def limit_ms_per_frame(self) -> float:
        """Time for one frame if every operation ran at the matrix product's rate."""
        return 1000 * self.gflop_per_frame / self.gemm_gflops

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"limit_ms_per_frame": self.limit_ms_per_frame}, indent=2)

    def __str__(self) -> str:
        lines = [
            f"weights: {self.weights}; {self.frames} frames of {self.frame_ms:.0f} ms; {self.threads} threads",
            f"matrix product: {self.gemm_gflops:.0f} GFLOP/s; the decoder: {self.gflop_per_frame:.2f} GFLOP a frame, "
            f"so at least {self.limit_ms_per_frame:.1f} ms",
            f"{'design':28} {'N':>4} {'ms/call':>8} {'p95':>8} {'ms/frame':>9} {'x real':>7} {'first audio':>12} "
            f"{'max error':>10} {'SNR dB':>7} {'state bytes':>12}",
        ]
        for r in self.rows:
            lines.append(
                f"{r.design:28} {r.chunk:4} {r.median_ms:8.1f} {r.p95_ms:8.1f} {r.ms_per_frame:9.1f} "
                f"{r.realtime_factor:7.2f} {r.first_audio_ms:9.0f} ms {r.max_error:10.1e} {r.snr_db:7.1f} "
                f"{r.state_bytes:12,}"
            )
        return "\n".join(lines)


class _Run:
    """One design at one chunk length: a generator that makes a call each time it is asked, and what it has measured."""

    def __init__(self, design: str, chunk: int, calls: Iterator[np.ndarray], lookahead: int = 0, state_bytes: int = 0):
        self.design, self.chunk, self.lookahead, self.state_bytes = design, chunk, lookahead, state_bytes
        self.calls, self.pieces, self.seconds = calls, [], []

    def call(self) -> bool:
        """One timed call; False when the codes are used up."""
        start = time.perf_counter()
        piece = next(self.calls, None)
        if piece is None:
            return False
        self.seconds.append(time.perf_counter() - start)
        self.pieces.append(piece)
        return True

    def row(self, reference: np.ndarray, frames: int, frame_ms: float) -> Row:
        times = 1000 * np.array(self.seconds)
        # The schedule's last call may be shorter; its time says nothing about a full one.
        full = times[:-1] if frames % self.chunk and len(times) > 1 else times
        median = float(np.median(full))
        waveform = np.concatenate(self.pieces, axis=1)
        first_calls = ceil((self.lookahead + 1) / self.chunk)
        return Row(
            design=self.design,
            chunk=self.chunk,
            median_ms=median,
            p95_ms=float(np.percentile(full, 95)),
            ms_per_frame=median / self.chunk,
            realtime_factor=median / (self.chunk * frame_ms),
            first_audio_ms=first_calls * self.chunk * frame_ms + median,
            max_error=max_error(reference[:, : waveform.shape[1]], waveform),
            snr_db=snr_db(reference[:, : waveform.shape[1]], waveform),
            state_bytes=self.state_bytes,
            call_ms=times.tolist(),
        )


def benchmark(
    checkpoint: Checkpoint,
    folder: Path,
    frames: int = 48,
    chunks: tuple[int, ...] = CHUNKS,
    threads: int = 2,
    progress: Callable = lambda iterable, **_: iterable,
) -> Benchmark:
    """Measure all designs on the same codes; graphs are kept in `folder` and made again only where they do not fit.

    Raises ValueError for frames, threads or chunks below 1, and for a chunk that is longer than the codes.
    """
    for name, value in (("frames", frames), ("threads", threads), *(("a chunk", chunk) for chunk in chunks)):
        if value < 1:
            raise ValueError(f"{name} is {value}, must be at least 1")
    decoder = checkpoint.decoder
    codes = example_codes(checkpoint, frames)
    if max(chunks) > frames:
        raise ValueError(f"a chunk of {max(chunks)} frames is longer than the codes, which have {frames}")
    torch.set_num_threads(threads)
    reach = conv_reach(decoder)
    wrappers = {
        "one_shot": OneShotWrapper(decoder),
        "windowed": StatefulCodecONNXWrapper(decoder, 4, 4),
        "full_history": StatefulCodecONNXWrapper(decoder, reach, 0),
        "exact": ExactStreamingWrapper(decoder),
    }
    paths = {
        name: exported(checkpoint, wrapper, folder / f"{name}.onnx")
        for name, wrapper in progress(wrappers.items(), desc="graphs", unit="graph")
    }
    sessions = {name: CodecSession(path, threads) for name, path in paths.items()}
    for session in sessions.values():
        session.stream().push(codes[:, :3])

    reference = one_shot(decoder, codes)
    runs = [_Run("PyTorch one-shot", frames, (one_shot(decoder, codes) for _ in range(3)))]
    runs.append(_Run("ONNX one-shot", frames, (sessions["one_shot"].stream().push(codes) for _ in range(3))))
    for chunk in chunks:
        runs.append(
            _Run(f"ONNX, {CONTEXT_FRAMES} frames again", chunk, _with_context(sessions["one_shot"], codes, chunk))
        )
        for name, design in (
            ("windowed", "windowed 4+4"),
            ("full_history", f"windowed {reach}+0"),
            ("exact", "exact"),
        ):
            spec = sessions[name].spec
            calls = sessions[name].stream().pushes(codes, [chunk])
            runs.append(_Run(design, chunk, calls, spec.lookahead_frames, spec.bytes_per_stream()))
    _interleave(runs, progress)

    frame_ms = 1000 * decoder.samples_per_frame / checkpoint.sample_rate
    for run in runs[:2]:  # each call gave the whole waveform
        run.pieces = run.pieces[:1]
    return Benchmark(
        weights=checkpoint.weights,
        threads=threads,
        frames=frames,
        gemm_gflops=gemm_gflops(),
        gflop_per_frame=gflop_per_frame(wrappers["exact"]),
        frame_ms=frame_ms,
        rows=[run.row(reference, frames, frame_ms) for run in runs],
    )


def _interleave(runs: list[_Run], progress: Callable) -> None:
    """Call every run in turn until each has used up its codes. Only then has the longest of them been asked in vain."""
    longest = max(ceil(runs[0].chunk / run.chunk) for run in runs)
    waiting = runs
    for _ in progress(range(longest + 1), desc="rounds", unit="round"):
        waiting = [run for run in waiting if run.call()]


def _with_context(session: CodecSession, codes: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    """Each chunk decoded with the frames before it, of which only the new ones' samples are kept."""
    start, rate = 0, session.spec.samples_per_frame
    for length in chunk_lengths(codes.shape[1], [chunk]):
        first = max(0, start - CONTEXT_FRAMES)
        yield session.stream().push(codes[:, first : start + length])[:, (start - first) * rate :]
        start += length


def gemm_gflops(size: int = GEMM_SIZE, repeats: int = 10) -> float:
    """Best rate of a float32 matrix product in PyTorch, in GFLOP/s: what this machine can do at most."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


def gflop_per_frame(wrapper: ExactStreamingWrapper, frames: int = 12) -> float:
    """Operations of matrix products and convolutions for one frame (PyTorch's own counter), in GFLOP."""
    state = [torch.from_numpy(array) for array in wrapper.spec.zero_state().values()]
    codes = torch.zeros(1, frames, wrapper.spec.num_quantizers, dtype=torch.int64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        wrapper(codes, *state)
    return counter.get_total_flops() / frames / 1e9
