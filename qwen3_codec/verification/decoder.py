"""Does the stream agree? One-shot decoder, wrapper in PyTorch and graph in ONNX Runtime, chunk by chunk.

`verify` runs them over chunk schedules with the same client code (`CodecStream`), and its report can fail. It judges
each design by an *oracle*: what that design must give, computed without any state.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..exporting.precision import int8  # noqa: F401  its wrapper is one of `wrapper_like`'s
from ..model.checkpoint import Checkpoint, OtherModel
from ..model.one_shot import one_shot
from ..runtime import CodecSession, CodecStream
from ..runtime.codes import check_codes
from ..runtime.measured_snr import measured_snr_of
from ..runtime.metrics import chunk_lengths, max_error, mse, scaled_error, snr_db
from ..runtime.progress import no_progress
from ..spec import StateSpec
from ..streaming.designs import wrapper_like
from ..streaming.session import TorchSession
from .report import (
    MAX_ERROR,
    MAX_MSE,
    NOTHING_COMPARED,
    ONE_SHOT,
    ONNX,
    SCHEDULES,
    WRAPPER,
    Agreement,
    ChunkResult,
    Limits,
    PathResult,
    Report,
)

__all__ = [
    "MAX_ERROR",
    "MAX_MSE",
    "ONE_SHOT",
    "ONNX",
    "WRAPPER",
    "Limits",
    "one_shot",
    "verify",
    "wrapper_like",
]

# Of a graph in fewer bits, over a state's largest value: a state that is wrong is off by about 1.
REDUCED_STATE_ERROR = 0.25


def verify(
    checkpoint: Checkpoint | OtherModel,
    wrapper: torch.nn.Module,
    codes: np.ndarray,
    schedules: Sequence[Sequence[int]] = SCHEDULES,
    session: CodecSession | None = None,
    progress=no_progress,
    reference: Callable[[np.ndarray], np.ndarray] | None = None,
    limits: Limits | None = None,
) -> Report:
    """Stream `codes` ([N, Q] or [B, N, Q]) through `wrapper`, and through `session` where given, over each schedule.

    The audio is judged against the oracle: the one-shot decoder, and where the wrapper brings an `oracle` because its
    design must give something else, that, schedule by schedule. How far it is from one-shot is measured beside it. A
    wrapper that is meant to differ brings a `reference` of its own, codes [B, N, Q] -> waveform [B, N *
    samples_per_frame], in the place of both. Graph against wrapper is always judged, states included. `limits` are the
    project's unless given, or the accuracy bound of a graph in fewer bits.

    Raises ValueError for a wrapper that does not give what its spec declares, and for another model without a
    `reference`; CheckpointError where the decoder's config is no longer the checkpoint's.
    """
    checkpoint.check_unchanged()
    if reference is None and not isinstance(checkpoint, Checkpoint):
        raise ValueError(
            f"{checkpoint.source}: give a reference, codes [B, N, Q] -> waveform: its decoder is not known here"
        )
    spec = wrapper.spec
    codes = check_codes(codes, spec)
    limits = limits or _limits_of(session, codes)
    wanted = reference(codes) if reference else one_shot(checkpoint.decoder, codes)
    oracle_of = None if reference else getattr(wrapper, "oracle", None)
    report = Report(
        weights=checkpoint.weights,
        frames=codes.shape[1],
        frames_to_fill=spec.frames_to_fill,
        design=spec.title,
        limits=limits,
    )
    if not schedules:
        report.failures.append(NOTHING_COMPARED)
    sessions = {WRAPPER: TorchSession(wrapper)} | ({ONNX: session} if session else {})
    report.waveforms[ONE_SHOT, ()] = wanted
    for schedule in progress([list(schedule) for schedule in schedules], unit="schedule"):
        # A graph whose number of frames is fixed takes a longer push in several calls.
        calls = [spec.fixed_frames] if spec.fixed_frames else schedule
        oracle = oracle_of(checkpoint.decoder, codes, calls) if oracle_of else None
        oracle = wanted if oracle is None else oracle
        traces, states = _trace(sessions, codes, schedule, limits)
        for path, trace in traces.items():
            result = _compare(path, schedule, trace, wanted, oracle, spec, limits)
            report.results.append(result)
            report.waveforms[path, tuple(schedule)] = trace.waveform
            report.failures += _failures(result, wanted, report)
        if session:
            agreement = _agreement(schedule, [trace.waveform for trace in traces.values()], states, spec, limits)
            report.agreements.append(agreement)
            report.failures += _disagreements(agreement, limits, session)
    return report


def _limits_of(session: CodecSession | None, codes: np.ndarray) -> Limits:
    measured = measured_snr_of(getattr(session, "metadata", {}))
    return Limits(min_snr_db=measured.least(codes), state_error=REDUCED_STATE_ERROR) if measured else Limits()


@dataclass
class _Trace:
    """One path's run: the frames of each call, its piece of audio, its seconds."""

    frames: list[int]
    pieces: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def waveform(self) -> np.ndarray:
        return np.concatenate(self.pieces, axis=1)


@dataclass
class _StateError:
    """The largest error of any state after any call, and the first frame of the first call that went beyond a limit."""

    largest: float = 0.0
    name: str = "no state"
    first_frame: int | None = None


def _trace(
    sessions: dict, codes: np.ndarray, schedule: list[int], limits: Limits
) -> tuple[dict[str, _Trace], _StateError]:
    """Every session over `schedule`, call by call side by side: their traces, and how far apart their states ever were.

    Side by side, because the states of a long stream are too much to keep: each is compared as it comes.
    """
    frames = list(chunk_lengths(codes.shape[1], schedule))
    traces = {path: _Trace(frames) for path in sessions}
    streams = {path: CodecStream(session, codes.shape[0]) for path, session in sessions.items()}
    pushes = {path: stream.pushes(codes, schedule) for path, stream in streams.items()}
    worst, start_frame = _StateError(), 0
    for length in frames:
        for path, trace in traces.items():
            start = time.perf_counter()
            trace.pieces.append(next(pushes[path]))
            trace.seconds.append(time.perf_counter() - start)
        expected, *others = (stream.state for stream in streams.values())
        for found in others:
            for name, wanted in expected.items():
                error = scaled_error(wanted, found[name])
                if not error <= worst.largest:
                    worst.largest, worst.name = error, name
                if not error <= limits.state_error and worst.first_frame is None:
                    worst.first_frame = start_frame
        start_frame += length
    return traces, worst


def _compare(
    path: str,
    schedule: list[int],
    trace: _Trace,
    reference: np.ndarray,
    oracle: np.ndarray,
    spec: StateSpec,
    limits: Limits,
) -> PathResult:
    rows, start_frame, start = [], 0, 0
    for frames, piece, seconds in zip(trace.frames, trace.pieces, trace.seconds, strict=True):
        samples = slice(start, start + piece.shape[1])
        wanted, must = reference[:, samples], oracle[:, samples]
        piece = piece[:, : wanted.shape[1]]
        errors = mse(wanted, piece), max_error(wanted, piece), mse(must, piece)
        rows.append(ChunkResult(start_frame, frames, piece.shape[1], *errors, seconds))
        start_frame, start = start_frame + frames, start + piece.shape[1]
    waveform = trace.waveform
    common = slice(None, min(waveform.shape[1], reference.shape[1]))
    pair = reference[:, common], waveform[:, common]
    by_frame, mse_by_frame = frame_errors(oracle[:, common], waveform[:, common], spec.samples_per_frame)
    right = (by_frame <= limits.max_error) & (mse_by_frame <= limits.max_mse)
    return PathResult(
        path=path,
        schedule=schedule,
        samples=waveform.shape[1],
        mse=mse(*pair),
        max_error=max_error(*pair),
        snr_db=snr_db(*pair),
        oracle_error=float(by_frame.max(initial=0.0)),
        worst_frame=int(by_frame.argmax()) if by_frame.size else 0,
        first_wrong_frame=_first(~right) if limits.min_snr_db is None else None,
        realtime_factor=sum(trace.seconds) / (reference.shape[1] / spec.sample_rate),
        chunks=rows,
    )


def frame_errors(wanted: np.ndarray, found: np.ndarray, samples_per_frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest error and MSE of each frame, over all rows."""
    error = np.abs(wanted.astype(np.float64) - found)
    error = np.pad(error, ((0, 0), (0, -error.shape[1] % samples_per_frame)))
    error = error.reshape(len(error), -1, samples_per_frame)
    return error.max(axis=(0, 2), initial=0.0), (error**2).mean(axis=(0, 2))


def _first(wrong: np.ndarray) -> int | None:
    return int(wrong.argmax()) if wrong.any() else None


def _failures(result: PathResult, reference: np.ndarray, report: Report) -> list[str]:
    found, where, limits = [], f"{result.path}, chunks {result.schedule}", report.limits
    if result.samples != reference.shape[1]:
        found.append(f"{where}: {result.samples} samples came out, the one-shot decoder gives {reference.shape[1]}")
    if not np.isfinite(result.max_error):
        found.append(f"{where}: the waveform is not finite, for the first time in frame {result.worst_frame}")
    elif limits.min_snr_db is not None:
        if not result.snr_db >= limits.min_snr_db:
            found.append(
                f"{where}: {result.snr_db:.1f} dB against one-shot, the file's bound is {limits.min_snr_db:.1f}"
            )
    else:
        worst = max(result.chunks, key=lambda chunk: chunk.oracle_mse)
        if not (result.oracle_error <= limits.max_error and worst.oracle_mse <= limits.max_mse):
            found.append(
                f"{where}: the first wrong frame is {result.first_wrong_frame}; largest error "
                f"{result.oracle_error:.1e} (limit {limits.max_error:.0e}) in frame {result.worst_frame}, worst chunk "
                f"at frame {worst.start_frame} with MSE {worst.oracle_mse:.1e} (limit {limits.max_mse:.0e})"
            )
    return found


def _agreement(
    schedule: list[int], waves: list[np.ndarray], states: _StateError, spec: StateSpec, limits: Limits
) -> Agreement:
    """The graph's audio and states against the wrapper's."""
    error, frames = float("inf"), [states.first_frame]
    if waves[0].shape == waves[1].shape:
        error = max_error(*waves)
        if limits.min_snr_db is None:
            by_frame, _ = frame_errors(*waves, spec.samples_per_frame)
            frames.append(_first(~(by_frame <= limits.max_error)))
    first = min((frame for frame in frames if frame is not None), default=None)
    return Agreement(schedule, error, states.largest, states.name, first)


def _disagreements(agreement: Agreement, limits: Limits, session: CodecSession) -> list[str]:
    audio = limits.min_snr_db is not None or agreement.max_error <= limits.max_error
    if audio and agreement.state_error <= limits.state_error:
        return []
    hint = "" if agreement.first_wrong_frame is None else f", for the first time at frame {agreement.first_wrong_frame}"
    if "CUDAExecutionProvider" in getattr(session, "providers", ()):
        hint += ". On CUDA, ONNX Runtime multiplies in TF32 (10 bits) unless the provider option use_tf32 is 0"
    return [
        f"chunks {agreement.schedule}: graph and wrapper differ by {agreement.max_error:.1e} in the audio (limit "
        f"{limits.max_error:.0e}) and by {agreement.state_error:.1e} in {agreement.worst_state} (limit "
        f"{limits.state_error:.0e}){hint}"
    ]
