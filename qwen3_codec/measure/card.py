"""One page on a checkpoint: what its exports weigh, how exact they are and what they cost, on this machine.

With weights that this project does not have, run it once: `python -m qwen3_codec card --checkpoint ...`.
"""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path

from ..exporting.export import export
from ..exporting.precision.export import PRECISIONS, export_in, wrapper_in
from ..exporting.tracing import EXPORTERS, ExportError
from ..model.checkpoint import Checkpoint, example_codes
from ..runtime import CodecSession
from ..runtime.codes import random_codes
from ..runtime.cpu import UNKNOWN, processor, usable_cores
from ..runtime.engines import F32, ONNX_RUNTIME, starter
from ..runtime.measured_snr import FLOAT32, INT8, LEAST_SNR_DB
from ..runtime.progress import no_progress
from ..runtime.providers import CPU
from ..verification.graph import is_reduced, verify_graph
from .bench import benchmark
from .costs import Benchmark

SCHEDULES = ([3], [12], [7, 1, 2])
MORE_THAN_WINDOWS = 2  # so many windows of attention are verified, and a rest that no chunk divides


@dataclass(frozen=True)
class Made:
    """One export and what its verification gave; `precision` is the file's, `problem` says what stopped it.

    `runtime` is what verified it, and what that says that it computes in.
    """

    precision: str
    exporter: str
    runtime: str = ""
    seconds: float = 0.0
    bytes: int = 0
    snr_db: float = 0.0
    max_error: float = 0.0
    verdict: str = ""
    problem: str = ""


def make(
    checkpoint: Checkpoint,
    folder: Path,
    frames: int = 48,
    chunks: tuple[int, ...] = (1, 4, 12),
    threads: int = 2,
    progress: Callable = no_progress,
    provider: str = CPU,
    exporters: tuple[str, ...] = EXPORTERS,
    runtime: str = ONNX_RUNTIME,
    precision: str = F32,
    least_snr_db: float = LEAST_SNR_DB[INT8],
) -> tuple[list[Made], Benchmark]:
    """Export in every precision by all `exporters`, verify each past the window, and measure what they cost.

    `runtime` and `precision` are a `CodecSession`'s, which is held to `least_snr_db` below f32. Raises ValueError for
    an exporter that is none.
    """
    starter(runtime, precision)
    load = partial(CodecSession, runtime=runtime, precision=precision)
    if odd := [name for name in exporters if name not in EXPORTERS]:
        raise ValueError(f"exporter is {odd[0]!r}, must be one of {', '.join(EXPORTERS)}")
    every = [*product(PRECISIONS, exporters)]
    made = [
        _made(checkpoint, folder, *each, load, least_snr_db) for each in progress(every, desc="exports", unit="graph")
    ]
    cost = benchmark(
        checkpoint, folder, frames, chunks, threads, progress, provider, runtime=runtime, precision=precision
    )
    return made, cost


def _made(
    checkpoint: Checkpoint,
    folder: Path,
    precision: str,
    exporter: str,
    load: Callable[[Path], CodecSession] = CodecSession,
    least_snr_db: float = LEAST_SNR_DB[INT8],
) -> Made:
    wrapper, path = wrapper_in(checkpoint, precision), folder / f"{precision}_{exporter}.onnx"
    # Past the window. A quantized file is measured on them too, so that its verification is held to a number.
    frames = MORE_THAN_WINDOWS * wrapper.spec.frames_to_fill + 5
    example = example_codes(checkpoint, frames)
    quantized = partial(export_in, precision, least_snr_db=float("-inf"), codes=example)
    write = export if precision == FLOAT32 else quantized
    start = time.perf_counter()
    try:
        done = write(checkpoint, wrapper, path, exporter)
    except ExportError as error:
        return Made(precision, exporter, problem=str(error))
    seconds = time.perf_counter() - start
    session = load(path)
    codes = example if is_reduced(session) else random_codes(session.spec, frames)
    report = verify_graph(checkpoint, session, SCHEDULES, codes, least_snr_db=least_snr_db)
    graph = [result for result in report.results if result.path != report.results[0].path]
    return Made(
        precision,
        exporter,
        session.title,
        seconds,
        done.bytes,
        min(result.snr_db for result in graph),
        max(result.max_error for result in graph),
        report.verdict,
        "; ".join(report.failures),
    )


def markdown(checkpoint: Checkpoint, made: list[Made], cost: Benchmark, versions: str) -> str:
    """The page: what was exported, how far it is from the one-shot decoder, and the benchmark's table."""
    dims = checkpoint.decoder.config
    lines = [
        f"# {Path(checkpoint.source).name or checkpoint.source}, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"- weights: {checkpoint.weights}, SHA-256 {checkpoint.fingerprint()}",
        f"- {dims.num_quantizers} codebooks of {dims.codebook_size}, window {dims.sliding_window}, "
        f"{checkpoint.decoder.samples_per_frame} samples a frame at {checkpoint.sample_rate} Hz",
        f"- {versions}",
        f"- machine: {machine()}; {cost.threads} threads",
        "",
        f"Exports, each verified in chunks of {' and '.join(','.join(map(str, each)) for each in SCHEDULES)} past the "
        "attention window. SNR is the lowest, the error the largest, against the one-shot decoder in PyTorch.",
        "",
        "| precision of the file | exporter | runtime | MB | seconds | SNR, dB | largest error | |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    for row in made:
        numbers = f"{row.bytes / 1e6:.1f} | {row.seconds:.0f} | {row.snr_db:.1f} | {row.max_error:.1e}"
        verdict = f"{row.verdict} {row.problem}".strip()
        lines.append(
            f"| {row.precision} | {row.exporter} | {row.runtime} | {numbers if row.bytes else '| | |'} | {verdict} |"
        )
    lines += [
        "",
        f"Cost: {cost.gemm_gflops:.0f} GFLOP/s in a matrix product, {cost.gflop_per_frame:.2f} GFLOP a frame, so at "
        f"least {cost.limit_ms_per_frame:.1f} ms in float32. A frame is {cost.frame_ms:g} ms. Each design alone.",
        "",
        "| design | runtime | N | ms a call | p95 | ms a frame | of real time | first audio, ms | largest error "
        "| SNR, dB |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in cost.rows:
        lines.append(
            f"| {row.design} | {row.runtime} | {row.chunk} | {row.median_ms:.1f} | {row.p95_ms:.1f} "
            f"| {row.ms_per_frame:.1f} | {row.realtime_factor:.2f} | {row.first_audio_ms:.0f} | {row.max_error:.1e} "
            f"| {row.snr_db:.1f} |"
        )
    return "\n".join([*lines, ""])


def machine() -> str:
    """This processor, what it has for products, and the cores that are ours."""
    name = processor()
    if name == UNKNOWN:
        name = platform.processor() or platform.machine()
    return f"{name}, {usable_cores()} of {os.cpu_count()} cores, {platform.system()}"
