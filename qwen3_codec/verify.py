"""Does the stream agree? One-shot decoder, wrapper in PyTorch and graph in ONNX Runtime, chunk by chunk.

`verify` runs them over chunk schedules with the same client code (`CodecStream`), and its report can fail. What it
measures and does not judge it says in its last line.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .bits.int8 import Int8StreamingWrapper
from .codes import check_codes
from .metrics import chunk_lengths, max_error, mse, scaled_error, snr_db
from .model.checkpoint import Checkpoint, OtherModel
from .model.inspection import attention_reach, conv_reach
from .promise import INT8, promise_of
from .report import MAX_ERROR, MAX_MSE, ONE_SHOT, ONNX, WRAPPER, Agreement, ChunkResult, Limits, PathResult, Report
from .runtime import CodecSession, CodecStream
from .states import ENCODER, StateSpec
from .streaming.encoder import StreamEncoderWrapper
from .streaming.exact import ExactStreamingWrapper
from .streaming.fixed import FixedAxes
from .streaming.session import TorchSession
from .streaming.windowed import StatefulCodecONNXWrapper

__all__ = ["MAX_ERROR", "MAX_MSE", "ONE_SHOT", "ONNX", "WRAPPER", "Limits", "one_shot", "verify", "wrapper_like"]

# A longer reference is decoded in pieces of so many frames, each with all the frames that it depends on. That keeps its
# memory bounded; and since each piece counts positions from its own start, its float32 angles do not lose digits.
PIECE_FRAMES = 512
# Of a graph in fewer bits, over a state's largest value: a state that is wrong is off by about 1.
PROMISED_STATE_ERROR = 0.25


def wrapper_like(checkpoint: Checkpoint, session: CodecSession) -> torch.nn.Module:
    """The wrapper that `session`'s graph was exported from, on the weights of `checkpoint`.

    Raises ValueError where the graph was made from other weights or another config.
    """
    spec = session.spec
    if spec.part == ENCODER:
        wrapper = StreamEncoderWrapper(checkpoint.encoder)
    elif spec.kind == "exact":
        in_8_bits = session.metadata.get("precision") == INT8
        wrapper = (Int8StreamingWrapper if in_8_bits else ExactStreamingWrapper)(checkpoint.decoder)
    else:
        wrapper = StatefulCodecONNXWrapper(checkpoint.decoder, spec.limits["history_frames"], spec.lookahead_frames)
    if spec.fixed_frames or spec.fixed_batch:
        wrapper = FixedAxes(wrapper, spec.fixed_frames, spec.fixed_batch)
    if wrapper.spec != spec:
        raise ValueError(f"{session.path}: its interface is not that of the checkpoint {checkpoint.source}")
    if session.metadata.get("weights_sha256") != checkpoint.fingerprint(spec.part):
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
    checkpoint: Checkpoint | OtherModel,
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
    always judged, states included. `limits` are the project's unless given, or what a graph in fewer bits promises.

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


def _limits_of(session: CodecSession | None, codes: np.ndarray) -> Limits:
    promise = promise_of(getattr(session, "metadata", {}))
    return Limits(min_snr_db=promise.least(codes), state_error=PROMISED_STATE_ERROR) if promise else Limits()


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
    elif report.judged and limits.min_snr_db is not None:
        if not result.snr_db >= limits.min_snr_db:
            found.append(f"{where}: {result.snr_db:.1f} dB against one-shot, the file promises {limits.min_snr_db:.1f}")
    elif report.judged:
        worst = max(result.chunks, key=lambda chunk: chunk.mse)
        if not (result.max_error <= limits.max_error and worst.mse <= limits.max_mse):
            found.append(
                f"{where}: largest error {result.max_error:.1e} (limit {limits.max_error:.0e}), worst chunk at frame "
                f"{worst.start_frame} with MSE {worst.mse:.1e} (limit {limits.max_mse:.0e})"
            )
    return found


def _disagreements(agreement: Agreement, limits: Limits, session: CodecSession) -> list[str]:
    audio = limits.min_snr_db is not None or agreement.max_error <= limits.max_error
    if audio and agreement.state_error <= limits.state_error:
        return []
    hint = ""
    if "CUDAExecutionProvider" in getattr(session, "providers", ()):
        hint = ". On CUDA, ONNX Runtime multiplies in TF32 (10 bits) unless the provider option use_tf32 is 0"
    return [
        f"chunks {agreement.schedule}: graph and wrapper differ by {agreement.max_error:.1e} in the audio (limit "
        f"{limits.max_error:.0e}) and by {agreement.state_error:.1e} in {agreement.worst_state} (limit "
        f"{limits.state_error:.0e}){hint}"
    ]
