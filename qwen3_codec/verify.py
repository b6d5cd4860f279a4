"""Does the stream agree? One-shot decoder, wrapper in PyTorch and graph in ONNX Runtime, chunk by chunk.

`verify` runs them over chunk schedules with the same client code (`CodecStream`), and its report can fail. What it
measures and does not judge it says in its last line.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from .codes import check_codes
from .metrics import chunk_lengths, max_error, mse, scaled_error, snr_db
from .model.checkpoint import Checkpoint
from .model.inspection import attention_reach, conv_reach
from .runtime import CodecSession, CodecStream
from .states import StateSpec
from .streaming.exact import ExactStreamingWrapper
from .streaming.fixed import FixedAxes
from .streaming.session import TorchSession
from .streaming.windowed import StatefulCodecONNXWrapper

ONE_SHOT, WRAPPER, ONNX = "one-shot", "PyTorch wrapper", "ONNX Runtime"
# float32 keeps 24 bits; a waveform of standard deviation 0.2 that went through some forty layers in another order of
# additions comes out within about 1e-5. A wrong state starts at 1e-4 and is mostly far above.
MAX_ERROR = 5e-5
# Mean over a chunk: for a design that is exact by construction.
MAX_MSE = 1e-9
# A longer reference is decoded in pieces of so many frames, each with all the frames that it depends on. That keeps its
# memory bounded; and since each piece counts positions from its own start, its float32 angles do not lose digits.
PIECE_FRAMES = 512
PASSED, FAILED, NOT_JUDGED = "passed", "failed", "not judged"


@dataclass(frozen=True)
class Limits:
    """How far apart is too far: samples and a chunk's MSE against the reference, states against the wrapper's.

    The states' limit is over a state's largest value where that is above 1.
    """

    max_error: float = MAX_ERROR
    max_mse: float = MAX_MSE
    state_error: float = MAX_ERROR


@dataclass(frozen=True)
class ChunkResult:
    """One call. `mse` and `max_error` compare the samples that it gave with the one-shot decoder's."""

    start_frame: int
    frames: int
    samples: int
    mse: float
    max_error: float
    seconds: float


@dataclass(frozen=True)
class PathResult:
    """One way to decode (`path`), over one schedule. `realtime_factor` is compute time over audio time."""

    path: str
    schedule: list[int]
    samples: int
    mse: float
    max_error: float
    snr_db: float
    realtime_factor: float
    chunks: list[ChunkResult]


@dataclass(frozen=True)
class Agreement:
    """ONNX Runtime against the wrapper over one schedule: the audio and, after every call, each state."""

    schedule: list[int]
    max_error: float
    state_error: float
    worst_state: str


@dataclass
class Report:
    """What `verify` measured. `failures` says in words what is not as it must be; `passed` is that there are none.

    `judged` says that the audio was held against `limits`. Where it was not (a windowed design whose history is
    too short to be exact), `passed` speaks of the rest alone, and `verdict` is not "passed" but "not judged".
    """

    weights: str
    design: str
    frames: int
    judged: bool
    limits: Limits = field(default_factory=Limits)
    results: list[PathResult] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    waveforms: dict[tuple[str, tuple[int, ...]], np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def verdict(self) -> str:
        """PASSED, FAILED or NOT_JUDGED."""
        if self.failures:
            return FAILED
        return PASSED if self.judged else NOT_JUDGED

    def to_json(self) -> str:
        entries = {
            name: getattr(self, name)
            for name in ("weights", "design", "frames", "judged", "verdict", "passed", "failures")
        }
        entries["limits"] = asdict(self.limits)
        entries["results"] = [asdict(result) for result in self.results]
        entries["agreements"] = [asdict(agreement) for agreement in self.agreements]
        return json.dumps(entries, indent=2)

    def __str__(self) -> str:
        against = "judged" if self.judged else "approximate by design: measured, not judged"
        lines = [
            f"weights: {self.weights}; design: {self.design}; {self.frames} frames",
            f"against the one-shot decoder ({against}):",
            f"  {'path':16} {'chunks':>12} {'MSE':>9} {'max error':>10} {'SNR dB':>7} {'real time':>10}",
        ]
        for r in self.results:
            chunks_text = ",".join(map(str, r.schedule))
            lines.append(
                f"  {r.path:16} {chunks_text:>12} {r.mse:9.1e} {r.max_error:10.1e} {r.snr_db:7.1f} "
                f"{r.realtime_factor:9.2f}x"
            )
        if self.agreements:
            lines.append(f"{ONNX} against the {WRAPPER}:")
            for a in self.agreements:
                chunks_text = ",".join(map(str, a.schedule))
                lines.append(
                    f"  chunks {chunks_text:>12}: audio within {a.max_error:.1e}, "
                    f"states within {a.state_error:.1e} ({a.worst_state})"
                )
        lines += [f"FAILED: {failure}" for failure in self.failures] or [self._last_line()]
        return "\n".join(lines)

    def _last_line(self) -> str:
        if self.judged:
            return PASSED
        worst = min(result.snr_db for result in self.results)
        return f"{NOT_JUDGED}: approximate by design, {worst:.1f} dB against one-shot; all else is as it must be"


def wrapper_like(checkpoint: Checkpoint, session: CodecSession) -> torch.nn.Module:
    """The wrapper that `session`'s graph was exported from, on the weights of `checkpoint`.

    Raises ValueError where the graph was made from other weights or another config.
    """
    spec = session.spec
    if spec.kind == "exact":
        wrapper = ExactStreamingWrapper(checkpoint.decoder)
    else:
        wrapper = StatefulCodecONNXWrapper(checkpoint.decoder, spec.limits["history_frames"], spec.lookahead_frames)
    if spec.fixed_frames or spec.fixed_batch:
        wrapper = FixedAxes(wrapper, spec.fixed_frames, spec.fixed_batch)
    if wrapper.spec != spec:
        raise ValueError(f"{session.path}: its interface is not that of the checkpoint {checkpoint.source}")
    if session.metadata.get("weights_sha256") != checkpoint.fingerprint():
        raise ValueError(f"{session.path}: was exported from other weights than the checkpoint {checkpoint.source} has")
    return wrapper


def one_shot(decoder, codes: np.ndarray) -> np.ndarray:
    """Reference waveform [B, N * samples_per_frame] of codes [B, N, Q], with no state and no wrapper.

    More than PIECE_FRAMES frames are decoded in pieces: the latents with all the frames that attention reaches, the
    waveform with all the latents that the conv stack reaches.
    """
    codes = torch.from_numpy(codes)
    with torch.no_grad():
        if codes.shape[1] <= PIECE_FRAMES:
            return decoder(codes).numpy()
        latents = _in_pieces(decoder.latents, codes, attention_reach(decoder.config, decoder.pre_conv.history))
        waveform = _in_pieces(lambda part: decoder.decode_latent(part.transpose(1, 2)), latents, conv_reach(decoder))
    return waveform.numpy()


def _in_pieces(step: Callable, x: torch.Tensor, reach: int) -> torch.Tensor:
    """A causal `step` over frames `x` [B, N, ...] -> [B, N * r, ...], piece by piece; it sees `reach` frames back."""
    pieces = []
    for start in range(0, x.shape[1], PIECE_FRAMES):
        first = max(0, start - reach)
        given = x[:, first : start + PIECE_FRAMES]
        made = step(given)
        pieces.append(made[:, (start - first) * (made.shape[1] // given.shape[1]) :])
    return torch.cat(pieces, dim=1)


def verify(
    checkpoint: Checkpoint,
    wrapper: torch.nn.Module,
    codes: np.ndarray,
    schedules: Sequence[Sequence[int]] = ((3,), (1,), (12,), (7, 1, 2)),
    session: CodecSession | None = None,
    progress=lambda iterable, **_: iterable,
    reference: Callable[[np.ndarray], np.ndarray] | None = None,
    limits: Limits | None = None,
) -> Report:
    """Stream `codes` ([N, Q] or [B, N, Q]) through `wrapper`, and through `session` where given, over each schedule.

    The comparison with the one-shot decoder is judged where the design is exact: the windowed one is where its history
    reaches the conv stack's measured receptive field. A wrapper that is meant to differ brings a `reference` of its
    own, codes [B, N, Q] -> waveform [B, N * samples_per_frame], and is judged against that. Graph against wrapper is
    always judged, states included. `limits` are the project's unless given.

    Raises ValueError for a wrapper that does not give what its spec declares, CheckpointError where the decoder's
    config is no longer the checkpoint's.
    """
    checkpoint.check_unchanged()
    spec, limits = wrapper.spec, limits or Limits()
    codes = check_codes(codes, spec)
    judged = reference is not None or _is_exact(checkpoint.decoder, spec)
    wanted = reference(codes) if reference else one_shot(checkpoint.decoder, codes)
    report = Report(checkpoint.weights, describe(spec), codes.shape[1], judged, limits)
    if not schedules:
        report.failures.append("no schedule was given: nothing was compared")
    sessions = {WRAPPER: TorchSession(wrapper)} | ({ONNX: session} if session else {})
    report.waveforms[ONE_SHOT, ()] = wanted
    for schedule in progress([list(schedule) for schedule in schedules], unit="schedule"):
        traces, state_error, worst_state = _trace(sessions, codes, schedule)
        for path, trace in traces.items():
            result = _compare(path, schedule, trace, wanted, spec)
            report.results.append(result)
            report.waveforms[path, tuple(schedule)] = trace.waveform
            report.failures += _failures(result, wanted, report)
        if session:
            waves = [trace.waveform for trace in traces.values()]
            error = max_error(*waves) if waves[0].shape == waves[1].shape else float("inf")
            agreement = Agreement(schedule, error, state_error, worst_state)
            report.agreements.append(agreement)
            report.failures += _disagreements(agreement, limits, session)
    return report


def describe(spec: StateSpec) -> str:
    """A graph's design in a few words."""
    if spec.kind == "windowed":
        return f"windowed, history {spec.limits['history_frames']}, look-ahead {spec.lookahead_frames}"
    return spec.kind


def _is_exact(decoder, spec: StateSpec) -> bool:
    return "history_frames" not in spec.limits or spec.limits["history_frames"] >= conv_reach(decoder)


@dataclass
class _Trace:
    """One path's run: the frames of each call, its piece of audio, its seconds."""

    frames: list[int]
    pieces: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def waveform(self) -> np.ndarray:
        return np.concatenate(self.pieces, axis=1)


def _trace(sessions: dict, codes: np.ndarray, schedule: list[int]) -> tuple[dict[str, _Trace], float, str]:
    """Every session over `schedule`, call by call side by side: their traces, and how far apart their states ever were.

    Side by side, because the states of a long stream are too much to keep: each is compared as it comes.
    """
    frames = list(chunk_lengths(codes.shape[1], schedule))
    traces = {path: _Trace(frames) for path in sessions}
    streams = {path: CodecStream(session, codes.shape[0]) for path, session in sessions.items()}
    pushes = {path: stream.pushes(codes, schedule) for path, stream in streams.items()}
    worst, worst_state = 0.0, "no state"
    for _ in frames:
        for path, trace in traces.items():
            start = time.perf_counter()
            trace.pieces.append(next(pushes[path]))
            trace.seconds.append(time.perf_counter() - start)
        expected, *others = (stream.state for stream in streams.values())
        for found in others:
            for name, wanted in expected.items():
                error = scaled_error(wanted, found[name])
                if not error <= worst:
                    worst, worst_state = error, name
    return traces, worst, worst_state


def _compare(path: str, schedule: list[int], trace: _Trace, reference: np.ndarray, spec: StateSpec) -> PathResult:
    rows, start_frame, start = [], 0, 0
    for frames, piece, seconds in zip(trace.frames, trace.pieces, trace.seconds, strict=True):
        wanted = reference[:, start : start + piece.shape[1]]
        piece = piece[:, : wanted.shape[1]]
        rows.append(
            ChunkResult(start_frame, frames, piece.shape[1], mse(wanted, piece), max_error(wanted, piece), seconds)
        )
        start_frame, start = start_frame + frames, start + piece.shape[1]
    waveform = trace.waveform
    common = slice(None, min(waveform.shape[1], reference.shape[1]))
    pair = reference[:, common], waveform[:, common]
    audio_seconds = reference.shape[1] / spec.sample_rate
    return PathResult(
        path=path,
        schedule=schedule,
        samples=waveform.shape[1],
        mse=mse(*pair),
        max_error=max_error(*pair),
        snr_db=snr_db(*pair),
        realtime_factor=sum(trace.seconds) / audio_seconds,
        chunks=rows,
    )


def _failures(result: PathResult, reference: np.ndarray, report: Report) -> list[str]:
    found, where, limits = [], f"{result.path}, chunks {result.schedule}", report.limits
    if result.samples != reference.shape[1]:
        found.append(f"{where}: {result.samples} samples came out, the one-shot decoder gives {reference.shape[1]}")
    if not np.isfinite(result.max_error):
        found.append(f"{where}: the waveform is not finite")
    elif report.judged:
        worst = max(result.chunks, key=lambda chunk: chunk.mse)
        if not (result.max_error <= limits.max_error and worst.mse <= limits.max_mse):
            found.append(
                f"{where}: largest error {result.max_error:.1e} (limit {limits.max_error:.0e}), worst chunk at frame "
                f"{worst.start_frame} with MSE {worst.mse:.1e} (limit {limits.max_mse:.0e})"
            )
    return found


def _disagreements(agreement: Agreement, limits: Limits, session: CodecSession) -> list[str]:
    if agreement.max_error <= limits.max_error and agreement.state_error <= limits.state_error:
        return []
    hint = ""
    if "CUDAExecutionProvider" in getattr(session, "providers", ()):
        hint = ". On CUDA, ONNX Runtime multiplies in TF32 (10 bits) unless the provider option use_tf32 is 0"
    return [
        f"chunks {agreement.schedule}: graph and wrapper differ by {agreement.max_error:.1e} in the audio (limit "
        f"{limits.max_error:.0e}) and by {agreement.state_error:.1e} in {agreement.worst_state} (limit "
        f"{limits.state_error:.0e}){hint}"
    ]
