"""What a benchmark measured, as text, as JSON, and as the table of the guide."""

import json
from dataclasses import asdict, dataclass, field

from ..runtime.engines import ONNX_RUNTIME, TITLES

PYTORCH = "PyTorch"


@dataclass(frozen=True)
class Row:
    """One design at one chunk length. Times in ms; `first_audio_ms` is the audio time waited for, plus compute.

    `median_ms` is that of the quickest round, `p95_ms` and `call_ms` are of all.

    `ms_per_frame` is for one stream's frame: a call's time over its frames and its `streams`. `in_turn_ms` is the
    median call where every other design is loaded and called in between. `runtime` names what ran, and what it computed
    in where that is not the file's own.
    """

    design: str
    runtime: str
    chunk: int
    streams: int
    median_ms: float
    p95_ms: float
    in_turn_ms: float
    ms_per_frame: float
    realtime_factor: float
    first_audio_ms: float
    max_error: float
    snr_db: float
    state_bytes: int
    file_bytes: int
    call_ms: list[float] = field(repr=False)

    @property
    def label(self) -> str:
        """The design, and the runtime where that is not the usual one."""
        return self.design if self.runtime in (PYTORCH, TITLES[ONNX_RUNTIME]) else f"{self.design}, {self.runtime}"


@dataclass(frozen=True)
class Benchmark:
    """All rows, and what the machine can do: `gemm_gflops` is the rate of a float32 matrix product in this run."""

    weights: str
    threads: int
    frames: int
    gemm_gflops: float
    gflop_per_frame: float
    frame_ms: float
    processor: str
    rows: list[Row]

    @property
    def limit_ms_per_frame(self) -> float:
        """Time for one frame if every operation ran at the matrix product's rate."""
        return 1000 * self.gflop_per_frame / self.gemm_gflops

    @property
    def chunked(self) -> list[Row]:
        """The rows of one stream that is decoded chunk by chunk."""
        return [row for row in self.rows if row.streams == 1 and row.chunk < self.frames]

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"limit_ms_per_frame": self.limit_ms_per_frame}, indent=2)

    def __str__(self) -> str:
        lines = [
            f"weights: {self.weights}; {self.frames} frames of {self.frame_ms:.0f} ms; {self.threads} threads",
            f"processor: {self.processor}",
            f"matrix product: {self.gemm_gflops:.0f} GFLOP/s; the decoder: {self.gflop_per_frame:.2f} GFLOP a frame, "
            f"so at least {self.limit_ms_per_frame:.1f} ms",
            f"{'design':28} {'runtime':24} {'N':>4} {'ms/call':>8} {'p95':>8} {'in turn':>8} {'ms/frame':>9} "
            f"{'x real':>7} {'first audio':>12} {'max error':>10} {'SNR dB':>7} {'state bytes':>12} {'file MB':>8}",
        ]
        for r in self.rows:
            lines.append(
                f"{r.design:28} {r.runtime:24} {r.chunk:4} {r.median_ms:8.1f} {r.p95_ms:8.1f} {r.in_turn_ms:8.1f} "
                f"{r.ms_per_frame:9.1f} {r.realtime_factor:7.2f} {r.first_audio_ms:9.0f} ms {r.max_error:10.1e} "
                f"{r.snr_db:7.1f} {r.state_bytes:12,} {r.file_bytes / 1e6:8.1f}"
            )
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """The table of the guide: a row for each design of one stream, with its times by the chunk's length.

        What does not depend on the length is that of the shortest one.
        """
        lengths = sorted({row.chunk for row in self.chunked})
        times = [f"N = {length}" for length in lengths]
        names = ["design", "runtime", "processor", f"{times[0]}: ms a call", *times[1:], f"first audio, {times[0]}"]
        names += ["largest error", "SNR, dB", "state, bytes", "file, MB"]
        lines = ["| " + " | ".join(names) + " |", "|---|---|---|" + "--:|" * (len(names) - 3)]
        for label in dict.fromkeys(row.label for row in self.chunked):
            calls = {row.chunk: row for row in self.chunked if row.label == label}
            first = calls[lengths[0]]
            cells = [first.design, first.runtime, self.processor, *(f"{calls[n].median_ms:.1f}" for n in lengths)]
            cells += [f"{first.first_audio_ms:.0f} ms", f"{first.max_error:.1e}", f"{first.snr_db:.1f}"]
            cells += [f"{first.state_bytes:,}".replace(",", " "), f"{first.file_bytes / 1e6:.1f}"]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)
