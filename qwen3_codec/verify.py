"""Does the stream agree? One-shot decoder, wrapper in PyTorch and graph in ONNX Runtime, chunk by chunk.

`verify` runs them over chunk schedules with the same client code (`CodecStream`), and its report can fail.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from .codes import check_codes
from .metrics import chunk_lengths, max_error, mse, scaled_error, snr_db
from .model.checkpoint import Checkpoint
from .model.inspection import conv_reach
from .runtime import CodecSession, CodecStream
from .states import StateSpec
from .streaming.exact import ExactStreamingWrapper
from .streaming.windowed import StatefulCodecONNXWrapper

ONE_SHOT, WRAPPER, ONNX = "one-shot", "PyTorch wrapper", "ONNX Runtime"
# float32 keeps 24 bits; a waveform of standard deviation 0.2 that went through some forty layers in another order of
# additions comes out within about 1e-5. A wrong state starts at 1e-4 and is mostly far above.
MAX_ERROR = 5e-5
# Mean over a chunk: for a design that is exact by construction.
MAX_MSE = 1e-9


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
    """What `verify` measured. `failures` says in words what is not as it must be; `passed` is that there are none."""

    weights: str
    design: str
    frames: int
    judged: bool
    results: list[PathResult] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    waveforms: dict[tuple[str, tuple[int, ...]], np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def passed(self) -> bool:
        return not self.failures

    def to_json(self) -> str:
        entries = {
            name: getattr(self, name) for name in ("weights", "design", "frames", "judged", "passed", "failures")
        }
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
        lines += [f"FAILED: {failure}" for failure in self.failures] or ["passed"]
        return "\n".join(lines)


class TorchSession:
    """A wrapper behind the interface of `CodecSession`, so that `CodecStream` runs it: numpy in, numpy out."""

    def __init__(self, wrapper: torch.nn.Module):
        self.wrapper = wrapper
        self.spec: StateSpec = wrapper.spec

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = self.wrapper(*(torch.from_numpy(feeds[tensor.name]) for tensor in self.spec.all_inputs))
        return {t.name: output.numpy() for t, output in zip(self.spec.all_outputs, outputs, strict=True)}

    def stream(self, batch: int = 1) -> CodecStream:
        return CodecStream(self, batch)


def wrapper_like(checkpoint: Checkpoint, session: CodecSession) -> torch.nn.Module:
    """The wrapper that `session`'s graph was exported from, on the weights of `checkpoint`.

    Raises ValueError where the graph was made from other weights or another config.
    """
    spec = session.spec
    if spec.kind == "exact":
        wrapper = ExactStreamingWrapper(checkpoint.decoder)
    else:
        wrapper = StatefulCodecONNXWrapper(checkpoint.decoder, spec.limits["history_frames"], spec.lookahead_frames)
    if wrapper.spec != spec:
        raise ValueError(f"{session.path}: its interface is not that of the checkpoint {checkpoint.source}")
    if session.metadata.get("weights_sha256") != checkpoint.fingerprint():
        raise ValueError(f"{session.path}: was exported from other weights than the checkpoint {checkpoint.source} has")
    return wrapper


def one_shot(decoder, codes: np.ndarray) -> np.ndarray:
    """Reference waveform [B, N * samples_per_frame] of codes [B, N, Q]."""
    with torch.no_grad():
        return decoder(torch.from_numpy(codes)).numpy()


def verify(
    checkpoint: Checkpoint,
    wrapper: torch.nn.Module,
    codes: np.ndarray,
    schedules: Sequence[Sequence[int]] = ((3,), (1,), (12,), (7, 1, 2)),
    session: CodecSession | None = None,
    progress=lambda iterable, **_: iterable,
) -> Report:
    """Stream `codes` ([N, Q] or [B, N, Q]) through `wrapper`, and through `session` where given, over each schedule.

    The one-shot comparison is judged (MAX_ERROR, MAX_MSE) where the design is exact: the windowed one is where its
    history reaches the conv stack's measured receptive field. Graph against wrapper is always judged, states included.
    """
    spec = wrapper.spec
    codes = check_codes(codes, spec)
    reference = one_shot(checkpoint.decoder, codes)
    report = Report(checkpoint.weights, describe(spec), codes.shape[1], _is_exact(checkpoint.decoder, spec))
    sessions = {WRAPPER: TorchSession(wrapper)} | ({ONNX: session} if session else {})
    report.waveforms[ONE_SHOT, ()] = reference
    for schedule in progress(list(schedules), unit="schedule"):
        schedule = list(schedule)
        traces = {path: _trace(path_session, codes, schedule) for path, path_session in sessions.items()}
        for path, trace in traces.items():
            result = _compare(path, schedule, trace, reference, spec)
            report.results.append(result)
            report.waveforms[path, tuple(schedule)] = trace.waveform
            report.failures += _failures(result, reference, report.judged)
        if session:
            agreement = _agreement(schedule, traces[WRAPPER], traces[ONNX])
            report.agreements.append(agreement)
            if not max(agreement.max_error, agreement.state_error) <= MAX_ERROR:
                report.failures.append(
                    f"chunks {schedule}: graph and wrapper differ by {agreement.max_error:.1e} in the audio and by "
                    f"{agreement.state_error:.1e} in {agreement.worst_state} (limit {MAX_ERROR:.0e})"
                )
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
    """One path's run: the frames of each call, its piece of audio, the state after it, its seconds."""

    frames: list[int]
    pieces: list[np.ndarray] = field(default_factory=list)
    states: list[dict[str, np.ndarray]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def waveform(self) -> np.ndarray:
        return np.concatenate(self.pieces, axis=1)


def _trace(session, codes: np.ndarray, schedule: list[int]) -> _Trace:
    stream = CodecStream(session, codes.shape[0])
    trace, pushes = _Trace(list(chunk_lengths(codes.shape[1], schedule))), stream.pushes(codes, schedule)
    for _ in trace.frames:
        start = time.perf_counter()
        trace.pieces.append(next(pushes))
        trace.seconds.append(time.perf_counter() - start)
        trace.states.append(stream.state)
    return trace


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


def _failures(result: PathResult, reference: np.ndarray, judged: bool) -> list[str]:
    found, where = [], f"{result.path}, chunks {result.schedule}"
    if result.samples != reference.shape[1]:
        found.append(f"{where}: {result.samples} samples came out, the one-shot decoder gives {reference.shape[1]}")
    if not np.isfinite(result.max_error):
        found.append(f"{where}: the waveform is not finite")
    elif judged:
        worst = max(result.chunks, key=lambda chunk: chunk.mse)
        if not (result.max_error <= MAX_ERROR and worst.mse <= MAX_MSE):
            found.append(
                f"{where}: largest error {result.max_error:.1e} (limit {MAX_ERROR:.0e}), worst chunk at frame "
                f"{worst.start_frame} with MSE {worst.mse:.1e} (limit {MAX_MSE:.0e})"
            )
    return found


def _agreement(schedule: list[int], wrapper: _Trace, graph: _Trace) -> Agreement:
    worst, worst_state = 0.0, "no state"
    for before, after in zip(wrapper.states, graph.states, strict=True):
        for name, wanted in before.items():
            error = scaled_error(wanted, after[name])
            if not error <= worst:
                worst, worst_state = error, name
    same = wrapper.waveform.shape == graph.waveform.shape
    error = max_error(wrapper.waveform, graph.waveform) if same else float("inf")
    return Agreement(schedule, error, worst, worst_state)
