"""Does the stream agree? One-shot decoder, wrapper in PyTorch and graph in ONNX Runtime, chunk by chunk.

`verify` runs them over chunk schedules with the same client code (`CodecStream`), and its report can fail. It judges
each design by an *oracle*: what that design must give, computed without any state.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..model.checkpoint import Checkpoint, OtherModel
from ..model.one_shot import one_shot
from ..runtime import CodecSession, CodecStream
from ..runtime.codes import check_codes
from ..runtime.metrics import chunk_lengths, max_error, mse, scaled_error, snr_db
from ..runtime.progress import Progress, no_progress
from ..runtime.protocols import Session
from ..spec import StateSpec
from ..streaming.session import StreamingModule, TorchSession
from .report import (
    NOTHING_COMPARED,
    ONE_SHOT,
    SCHEDULES,
    Agreement,
    ChunkResult,
    Limits,
    PathResult,
    Report,
    by_path,
    frame_errors,
)


def verify(
    checkpoint: Checkpoint | OtherModel,
    wrapper: StreamingModule,
    codes: np.ndarray,
    schedules: Sequence[Sequence[int]] = SCHEDULES,
    session: CodecSession | None = None,
    progress: Progress = no_progress,
    reference: Callable[[np.ndarray], np.ndarray] | None = None,
    limits: Limits | None = None,
) -> Report:
    """Stream `codes` ([N, Q] or [B, N, Q]) through `wrapper`, and through `session` where given, over each schedule.

    The audio is judged against the oracle: the one-shot decoder, and where the wrapper brings an `oracle` because its
    design must give something else, that, schedule by schedule. How far it is from one-shot is measured beside it. A
    wrapper that is meant to differ brings a `reference` of its own, codes [B, N, Q] -> waveform [B, N *
    samples_per_frame], in the place of both. Graph against wrapper is always judged, states included. `limits` are the
    project's unless given, or the accuracy bound of a graph in reduced precision.

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
    limits = limits or Limits.of(getattr(session, "metadata", {}), codes)
    wanted = reference(codes) if reference else one_shot(checkpoint.decoder, codes)
    oracle_of = None if reference else getattr(wrapper, "oracle", None)
    report = Report(checkpoint.weights, codes.shape[1], spec.frames_to_fill, design=spec.title, limits=limits)
    report.waveforms[ONE_SHOT, ()] = wanted
    if not schedules:
        report.failures.append(NOTHING_COMPARED)
    sessions = by_path(TorchSession(wrapper), session)
    for schedule in progress([list(schedule) for schedule in schedules], unit="schedule"):
        # A graph whose number of frames is fixed takes a longer push in several calls.
        calls = [spec.fixed_frames] if spec.fixed_frames else schedule
        oracle = oracle_of(checkpoint.decoder, codes, calls) if oracle_of else None
        oracle = wanted if oracle is None else oracle
        runs, states = _side_by_side(sessions, codes, schedule, limits)
        for path, run in runs.items():
            result = _result(path, schedule, run, wanted, oracle, spec, limits)
            report.results.append(result)
            report.waveforms[path, tuple(schedule)] = run.waveform
            report.failures += result.failures(wanted.shape[1], limits)
        if session:
            agreement = _agreement(schedule, [run.waveform for run in runs.values()], states, spec, limits)
            report.agreements.append(agreement)
            report.failures += agreement.failures(limits, getattr(session, "providers", ()))
    return report


@dataclass
class _Run:
    """One path over one schedule: the piece of audio and the seconds of each call."""

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


def _side_by_side(
    sessions: Mapping[str, Session], codes: np.ndarray, schedule: Sequence[int], limits: Limits
) -> tuple[dict[str, _Run], _StateError]:
    """Every session over `schedule`, call by call, and how far apart their states ever were.

    The states of a long stream are too much to keep, so each is compared as it comes.
    """
    lengths = [*chunk_lengths(codes.shape[1], schedule)]
    runs = {path: _Run(lengths) for path in sessions}
    streams = [CodecStream(session, codes.shape[0]) for session in sessions.values()]
    pushes = [stream.pushes(codes, schedule) for stream in streams]
    worst, start_frame = _StateError(), 0
    for length in lengths:
        for run, pieces in zip(runs.values(), pushes, strict=True):
            start = time.perf_counter()
            run.pieces.append(next(pieces))
            run.seconds.append(time.perf_counter() - start)
        expected, *others = (stream.state for stream in streams)
        for found in others:
            for name, wanted in expected.items():
                error = scaled_error(wanted, found[name])
                if not error <= worst.largest:
                    worst.largest, worst.name = error, name
                if not error <= limits.state_error and worst.first_frame is None:
                    worst.first_frame = start_frame
        start_frame += length
    return runs, worst


def _result(
    path: str,
    schedule: list[int],
    run: _Run,
    reference: np.ndarray,
    oracle: np.ndarray,
    spec: StateSpec,
    limits: Limits,
) -> PathResult:
    chunks, start_frame, start = [], 0, 0
    for frames, piece, seconds in zip(run.frames, run.pieces, run.seconds, strict=True):
        wanted, must = (whole[:, start : start + piece.shape[1]] for whole in (reference, oracle))
        found = piece[:, : wanted.shape[1]]
        errors = mse(wanted, found), max_error(wanted, found), mse(must, found)
        chunks.append(ChunkResult(start_frame, frames, piece.shape[1], *errors, seconds))
        start_frame, start = start_frame + frames, start + piece.shape[1]
    common = min(start, reference.shape[1])
    wanted, must, found = (whole[:, :common] for whole in (reference, oracle, run.waveform))
    by_frame, mse_by_frame = frame_errors(must, found, spec.samples_per_frame)
    return PathResult(
        path=path,
        schedule=schedule,
        samples=start,
        mse=mse(wanted, found),
        max_error=max_error(wanted, found),
        snr_db=snr_db(wanted, found),
        oracle_snr_db=snr_db(must, found),
        oracle_error=float(by_frame.max(initial=0.0)),
        worst_frame=int(by_frame.argmax()) if by_frame.size else 0,
        first_wrong_frame=limits.first_wrong(by_frame, mse_by_frame),
        realtime_factor=sum(run.seconds) / (reference.shape[1] / spec.sample_rate),
        chunks=chunks,
    )


def _agreement(
    schedule: list[int], waves: list[np.ndarray], states: _StateError, spec: StateSpec, limits: Limits
) -> Agreement:
    """The graph's audio and states against the wrapper's."""
    error, frames = float("inf"), [states.first_frame]
    if waves[0].shape == waves[1].shape:
        error = max_error(*waves)
        by_frame, _ = frame_errors(waves[0], waves[1], spec.samples_per_frame)
        frames.append(limits.first_wrong(by_frame))
    first = min((frame for frame in frames if frame is not None), default=None)
    return Agreement(schedule, error, states.largest, states.name, first)
