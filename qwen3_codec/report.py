"""What a verification measured, chunk by chunk and state by state, as text and as JSON; and what is too far apart."""

import json
from dataclasses import asdict, dataclass, field

import numpy as np

ONE_SHOT, WRAPPER, ONNX = "one-shot", "PyTorch wrapper", "ONNX Runtime"
# float32 keeps 24 bits; a waveform of standard deviation 0.2 that went through some forty layers in another order of
# additions comes out within about 1e-5. A wrong state starts at 1e-4 and is mostly far above.
MAX_ERROR = 5e-5
# Mean over a chunk: for a design that is exact by construction.
MAX_MSE = 1e-9
PASSED, FAILED, NOT_JUDGED = "passed", "failed", "not judged"


@dataclass(frozen=True)
class Limits:
    """How far apart is too far: samples and a chunk's MSE against the reference, states against the wrapper's.

    The states' limit is over a state's largest value where that is above 1. Where `min_snr_db` is set, the audio is
    judged by that alone: it is what a graph in fewer bits promises.
    """

    max_error: float = MAX_ERROR
    max_mse: float = MAX_MSE
    state_error: float = MAX_ERROR
    min_snr_db: float | None = None


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
    def peak(self) -> float:
        """Largest |sample| of the reference. What clips at 1 shows where the reference goes there, and nowhere else."""
        return float(np.max(np.abs(self.waveforms[ONE_SHOT, ()]), initial=0.0))

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
        entries["peak"] = self.peak
        entries["limits"] = asdict(self.limits)
        entries["results"] = [asdict(result) for result in self.results]
        entries["agreements"] = [asdict(agreement) for agreement in self.agreements]
        return json.dumps(entries, indent=2)

    def __str__(self) -> str:
        against = "judged" if self.judged else "approximate by design: measured, not judged"
        lines = [
            f"weights: {self.weights}; design: {self.design}; {self.frames} frames",
            f"against the one-shot decoder ({against}), which peaks at {self.peak:.2g}:",
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
