"""What a verification measured, chunk by chunk and state by state, as text and as JSON; and what is too far apart."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from ..runtime.engines import ONNX_RUNTIME, TITLES
from ..runtime.measured_snr import measured_snr_of
from ..runtime.metrics import MAX_ERROR, chunk_lengths
from ..runtime.protocols import Session

ONE_SHOT, WRAPPER, ONNX = "one-shot", "PyTorch wrapper", TITLES[ONNX_RUNTIME]
# Mean over a chunk: a root mean square of 3e-5, stricter than MAX_ERROR where an error is as large everywhere.
MAX_MSE = 1e-9
# Of a graph in reduced precision, over a state's largest value: a state that is wrong is off by about 1.
REDUCED_STATE_ERROR = 0.25
PASSED, FAILED, NOT_JUDGED = "passed", "failed", "not judged"
SCHEDULES = ((3,), (1,), (12,), (7, 1, 2))
NOTHING_COMPARED = "no schedule was given: nothing was compared"


def by_path(wrapper: Session, graph: Session | None) -> dict[str, Session]:
    """The sessions that are compared, under the names that a report has for them: a graph's is its runtime's."""
    return {WRAPPER: wrapper} | ({getattr(graph, "title", ONNX): graph} if graph else {})


@dataclass(frozen=True)
class Limits:
    """How far apart is too far: samples and a chunk's MSE against the oracle, states against the wrapper's.

    The states' limit is over a state's largest value where that is above 1. Where `min_snr_db` is set, the audio is
    judged by that alone: it is the accuracy bound of a graph in reduced precision, or of a runtime that computes in it.
    """

    max_error: float = MAX_ERROR
    max_mse: float = MAX_MSE
    state_error: float = MAX_ERROR
    min_snr_db: float | None = None

    @classmethod
    def of(cls, metadata: dict[str, str], codes: np.ndarray) -> "Limits":
        """The project's, or the accuracy bound that a file in reduced precision carries in its metadata."""
        measured = measured_snr_of(metadata)
        return cls(min_snr_db=measured.least(codes), state_error=REDUCED_STATE_ERROR) if measured else cls()

    def first_wrong(self, max_errors: np.ndarray, mses: np.ndarray | float = 0.0) -> int | None:
        """The first frame that is beyond a limit, by the errors of each; None where none is, or the SNR is to judge."""
        wrong = ~((max_errors <= self.max_error) & (mses <= self.max_mse))
        return int(wrong.argmax()) if self.min_snr_db is None and wrong.any() else None


def frame_errors(wanted: np.ndarray, found: np.ndarray, samples_per_frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest error and MSE of each frame, over all rows."""
    error = np.abs(wanted.astype(np.float64) - found)
    error = np.pad(error, ((0, 0), (0, -error.shape[1] % samples_per_frame)))
    error = error.reshape(len(error), -1, samples_per_frame)
    return error.max(axis=(0, 2), initial=0.0), (error**2).mean(axis=(0, 2))


@dataclass(frozen=True)
class ChunkResult:
    """One call. `mse` and `max_error` are against the one-shot decoder's samples, `oracle_mse` against the oracle's."""

    start_frame: int
    frames: int
    samples: int
    mse: float
    max_error: float
    oracle_mse: float
    seconds: float


@dataclass(frozen=True)
class PathResult:
    """One way to decode (`path`), over one schedule. `realtime_factor` is compute time over audio time.

    `mse`, `max_error` and `snr_db` are against the one-shot decoder: what the design costs. `oracle_error` and
    `oracle_snr_db` are against the *oracle*, what the design must give: one of them is judged. The error is largest in
    `worst_frame`; `first_wrong_frame` is the first one that is beyond a limit (None: none is).
    """

    path: str
    schedule: list[int]
    samples: int
    mse: float
    max_error: float
    snr_db: float
    oracle_error: float
    oracle_snr_db: float
    worst_frame: int
    first_wrong_frame: int | None
    realtime_factor: float
    chunks: list[ChunkResult]

    def failures(self, samples: int, limits: Limits) -> list[str]:
        """What is not as it must be, `samples` being the one-shot decoder's."""
        found, where = [], f"{self.path}, chunks {self.schedule}"
        worst = max(self.chunks, key=lambda chunk: chunk.oracle_mse)
        if self.samples != samples:
            found.append(f"{where}: {self.samples} samples came out, the one-shot decoder gives {samples}")
        if not np.isfinite(self.max_error):
            found.append(f"{where}: the waveform is not finite, for the first time in frame {self.worst_frame}")
        elif limits.min_snr_db is not None:
            if not self.oracle_snr_db >= limits.min_snr_db:
                found.append(f"{where}: {self.oracle_snr_db:.1f} dB, the bound is {limits.min_snr_db:.1f}")
        elif not (self.oracle_error <= limits.max_error and worst.oracle_mse <= limits.max_mse):
            found.append(
                f"{where}: the first wrong frame is {self.first_wrong_frame}; largest error "
                f"{self.oracle_error:.1e} (limit {limits.max_error:.0e}) in frame {self.worst_frame}, worst chunk "
                f"at frame {worst.start_frame} with MSE {worst.oracle_mse:.1e} (limit {limits.max_mse:.0e})"
            )
        return found


@dataclass(frozen=True)
class Agreement:
    """The graph against the wrapper over one schedule: the audio and, after every call, each state.

    `first_wrong_frame` is where either is beyond its limit for the first time: a frame of the audio, or the first frame
    of the call that gave the state.
    """

    schedule: list[int]
    max_error: float
    state_error: float
    worst_state: str
    first_wrong_frame: int | None

    def failures(self, limits: Limits, providers: Sequence[str] = ()) -> list[str]:
        """How far graph and wrapper are apart where that is too far, and what may explain it."""
        audio = limits.min_snr_db is not None or self.max_error <= limits.max_error
        if audio and self.state_error <= limits.state_error:
            return []
        first = self.first_wrong_frame
        hint = "" if first is None else f", audio or state for the first time at frame {first}"
        if "CUDAExecutionProvider" in providers:
            hint += ". On CUDA, ONNX Runtime multiplies in TF32 (10 bits) unless the provider option use_tf32 is 0"
        return [
            f"chunks {self.schedule}: graph and wrapper differ by {self.max_error:.1e} in the audio (limit "
            f"{limits.max_error:.0e}) and by {self.state_error:.1e} in {self.worst_state} (limit "
            f"{limits.state_error:.0e}){hint}"
        ]


@dataclass
class Verdict:
    """What a report on either part has: what was streamed, `results`, and in `failures` what is not as it must be.

    `passed` means judged and right. `frames_to_fill` is the spec's: a stream that does not go past that (`past_window`)
    says nothing of what comes after.
    """

    weights: str
    frames: int
    frames_to_fill: int
    results: list = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def judged(self) -> bool:
        return True

    @property
    def passed(self) -> bool:
        return self.judged and not self.failures

    @property
    def past_window(self) -> bool:
        """A schedule made a call after all states were full, and not only just full.

        The call that begins *at* that frame is still right where positions or counts stop growing; the next one is not.
        """
        starts = (self.frames - [*chunk_lengths(self.frames, result.schedule)][-1] for result in self.results)
        return not self.frames_to_fill or any(start > self.frames_to_fill for start in starts)

    @property
    def verdict(self) -> str:
        """PASSED, FAILED or NOT_JUDGED."""
        if self.failures:
            return FAILED
        return PASSED if self.judged else NOT_JUDGED

    def last_lines(self) -> list[str]:
        """The failures, or how far the tests went."""
        if self.failures or self.past_window:
            return [f"FAILED: {failure}" for failure in self.failures] or [PASSED]
        return [
            f"{PASSED}, but these {self.frames} frames do not go past the window: all states are full after "
            f"{self.frames_to_fill}, and no call began later than that"
        ]


@dataclass(kw_only=True)
class Report(Verdict):
    """What `verify` measured.

    `judged` is False for a file in reduced precision without an accuracy bound for these codes: it is measured, and
    `verdict` is "not judged".
    """

    design: str
    limits: Limits = field(default_factory=Limits)
    agreements: list[Agreement] = field(default_factory=list)
    waveforms: dict[tuple[str, tuple[int, ...]], np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def peak(self) -> float:
        """The reference's largest magnitude. What clips at 1 shows if the reference goes there, and nowhere else."""
        return float(np.max(np.abs(self.waveforms[ONE_SHOT, ()]), initial=0.0))

    @property
    def judged(self) -> bool:
        """The audio was held against a limit that something can miss."""
        return self.limits.min_snr_db != float("-inf")

    def to_json(self) -> str:
        names = (
            "weights",
            "design",
            "frames",
            "frames_to_fill",
            "past_window",
            "judged",
            "verdict",
            "passed",
            "failures",
        )
        entries = {name: getattr(self, name) for name in names}
        entries["peak"] = self.peak
        entries["limits"] = asdict(self.limits)
        entries["results"] = [asdict(result) for result in self.results]
        entries["agreements"] = [asdict(agreement) for agreement in self.agreements]
        return json.dumps(entries, indent=2)

    def __str__(self) -> str:
        lines = [
            f"weights: {self.weights}; design: {self.design}; {self.frames} frames",
            "error: from what the design must give; MSE to SNR: from the one-shot decoder, "
            f"which peaks at {self.peak:.2g}",
            f"  {'path':16} {'chunks':>12} {'error':>9} {'MSE':>9} {'max error':>10} {'SNR dB':>7} {'real time':>10}",
        ]
        for r in self.results:
            chunks_text = ",".join(map(str, r.schedule))
            lines.append(
                f"  {r.path:16} {chunks_text:>12} {r.oracle_error:9.1e} {r.mse:9.1e} {r.max_error:10.1e} "
                f"{r.snr_db:7.1f} {r.realtime_factor:9.2f}x"
            )
        if self.agreements:
            lines.append(f"{self.results[-1].path} against the {WRAPPER}:")
            for a in self.agreements:
                chunks_text = ",".join(map(str, a.schedule))
                lines.append(
                    f"  chunks {chunks_text:>12}: audio within {a.max_error:.1e}, "
                    f"states within {a.state_error:.1e} ({a.worst_state})"
                )
        if self.verdict == NOT_JUDGED:
            worst = min(result.snr_db for result in self.results)
            lines.append(
                f"{NOT_JUDGED}: the file has no accuracy bound for these codes; {worst:.1f} dB against one-shot"
            )
            return "\n".join(lines)
        return "\n".join([*lines, *self.last_lines()])
