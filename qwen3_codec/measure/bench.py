"""What each design costs: `python -m qwen3_codec bench`. Times are of one machine in one run; read them as ratios.

Ways to decode the same codes: the one-shot decoder in PyTorch and in ONNX Runtime; the stateless graph that recomputes
25 frames of left context for each chunk (as `chunked_decode` upstream and many servers do); the windowed design with
4 + 4 frames and with a full left context; the exact one in float32, quantized, and with several streams in one call;
where asked for, the files of the exact one under OpenVINO.

Each is measured alone: loaded, warmed up, called, and unloaded again, in several rounds in turn so that a change of the
machine's speed meets them all. (Graphs that share a process hurt each other's caches, and their threads wait for each
other. How much is measured too: the column "in turn" has all of them loaded, and called one after the other.)
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from math import ceil
from pathlib import Path

import numpy as np
import torch

from ..exporting.export import exported
from ..exporting.precision.export import export_in, wrapper_in
from ..model.checkpoint import Checkpoint, example_codes
from ..model.one_shot import one_shot
from ..model.receptive_field import conv_receptive_field
from ..runtime import CodecSession
from ..runtime.cpu import processor
from ..runtime.engines import F32, ONNX_RUNTIME, OPENVINO, PRECISIONS, starter
from ..runtime.measured_snr import FLOAT16, FLOAT32, INT8
from ..runtime.metrics import chunk_lengths, max_error, snr_db
from ..runtime.progress import no_progress
from ..runtime.providers import CPU, provider_name
from ..spec import StateSpec
from ..streaming.exact import ExactStreamingWrapper, OneShotWrapper
from ..streaming.windowed import StatefulCodecONNXWrapper
from .costs import PYTORCH, Benchmark, Row
from .operations import gemm_gflops, gflop_per_frame

CONTEXT_FRAMES = 25  # upstream's `left_context_size`
CHUNKS = (1, 3, 4, 12)
STREAMS = (4, 16)  # rows of one call, at one frame a call
ROUNDS = 3
CALLS = 5  # that are timed, of each design in each round
EXACT = {"exact": FLOAT32, "exact_float16": FLOAT16, "exact_int8": INT8}  # graph: precision
# The same files under OpenVINO, measured where it is asked for: {design: (graph, what it is to compute in)}.
OPENVINO_IN = {f"{file}_openvino_{ran}": (file, ran) for file, ran in product(EXACT, PRECISIONS)}
DESIGNS = ("one_shot", "windowed", "full_history", *EXACT)  # graphs, each of which has its rows


def _file_of(design: str) -> str:
    """The design of whose graph the file is: under OpenVINO that of ONNX Runtime."""
    return OPENVINO_IN.get(design, (design, F32))[0]


@dataclass
class _Case:
    """One design at one chunk length.

    `start(session, codes, warm)` begins a stream that has seen the first `warm` frames, and gives what each call gives.
    """

    design: str
    graph: str | None  # None: PyTorch
    chunk: int
    start: Callable[[CodecSession | None, np.ndarray, int], Iterator[np.ndarray]]
    streams: int = 1
    lookahead: int = 0
    state_bytes: int = 0
    file_bytes: int = 0
    runtime: str = PYTORCH
    waveform: np.ndarray | None = None
    seconds: list[float] = field(default_factory=list)
    in_turn: list[float] = field(default_factory=list)

    def listen(self, session: CodecSession | None, codes: np.ndarray) -> None:
        """Keep the sound of all codes; this is the warm-up too. What ran, and in which precision, the runtime says."""
        if session:
            self.runtime = session.title + (f" ({session.asked} asked)" if session.note else "")
        self.waveform = np.concatenate([*self.start(session, codes, 0)], axis=1)

    def row(self, reference: np.ndarray, frame_ms: float) -> Row:
        times = 1000 * np.array(self.seconds)
        # Of the round that was least disturbed: what else a machine does falls on whole seconds.
        median = float(np.median(times.reshape(-1, CALLS), axis=1).min())
        first_calls = ceil((self.lookahead + 1) / self.chunk)
        pair = np.repeat(reference, self.streams, 0)[:, : self.waveform.shape[1]], self.waveform
        return Row(
            design=self.design,
            runtime=self.runtime,
            chunk=self.chunk,
            streams=self.streams,
            median_ms=median,
            p95_ms=float(np.percentile(times, 95)),
            in_turn_ms=1000 * float(np.median(self.in_turn)),
            ms_per_frame=median / self.chunk / self.streams,
            realtime_factor=median / (self.chunk * frame_ms),
            first_audio_ms=first_calls * self.chunk * frame_ms + median,
            max_error=max_error(*pair),
            snr_db=snr_db(*pair),
            state_bytes=self.state_bytes,
            file_bytes=self.file_bytes,
            call_ms=times.tolist(),
        )


def _call(calls: Iterator[np.ndarray], seconds: list[float]) -> None:
    """One call, its time into `seconds`."""
    start = time.perf_counter()
    next(calls)
    seconds.append(time.perf_counter() - start)


def benchmark(
    checkpoint: Checkpoint,
    folder: Path,
    frames: int = 48,
    chunks: tuple[int, ...] = CHUNKS,
    threads: int = 2,
    progress: Callable = no_progress,
    provider: str = CPU,
    rounds: int = ROUNDS,
    designs: Sequence[str] = DESIGNS,
    streams: Sequence[int] = STREAMS,
    runtime: str = ONNX_RUNTIME,
    precision: str = F32,
) -> Benchmark:
    """Measure `designs` on the same codes; graphs are kept in `folder` and made again only where they do not fit.

    `runtime` and `precision` are a `CodecSession`'s, for all but the designs that name their own.

    PyTorch's one-shot decoder is always among them. Errors are of the first `frames`; times are of full chunks behind
    them. Quantized graphs are written whatever their SNR is: it stands in the row. Raises ValueError for frames,
    threads, rounds or chunks below 1, for a chunk that is longer than the codes, and for a design that there is not;
    CheckpointError where the decoder's config was changed after it was loaded.
    """
    checkpoint.check_unchanged()
    numbers = ("frames", frames), ("threads", threads), ("rounds", rounds), *(("a chunk", chunk) for chunk in chunks)
    for name, value in numbers:
        if value < 1:
            raise ValueError(f"{name} is {value}, must be at least 1")
    if max(chunks) > frames:
        raise ValueError(f"a chunk of {max(chunks)} frames is longer than the codes, which have {frames}")
    if odd := [design for design in designs if design not in (*DESIGNS, *OPENVINO_IN)]:
        raise ValueError(f"there is no design {odd[0]!r}; there are {', '.join((*DESIGNS, *OPENVINO_IN))}")
    provider_name(provider)
    # Before the measurement, which would be lost.
    for name, wanted in {(runtime, precision), *((OPENVINO, F32) for design in designs if design in OPENVINO_IN)}:
        starter(name, wanted)
    codes = example_codes(checkpoint, frames)

    def load(graph: str, path: Path) -> CodecSession:
        if graph in OPENVINO_IN:
            return CodecSession(path, threads, runtime=OPENVINO, precision=OPENVINO_IN[graph][1])
        return CodecSession(path, threads, [provider], runtime=runtime, precision=precision)

    with _torch_threads(threads):
        return _measured(checkpoint, codes, folder, frames, chunks, threads, progress, load, rounds, designs, streams)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """PyTorch with so many threads, until the block ends."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(
    checkpoint, codes, folder, frames, chunks, threads, progress, load_file, rounds, designs, streams
) -> Benchmark:
    decoder = checkpoint.decoder
    reference = one_shot(decoder, codes)
    paths, specs = _graphs(checkpoint, folder, designs, progress)
    cases = _cases(decoder, paths, specs, frames, chunks, streams)

    def load(graph: str | None) -> CodecSession | None:
        return load_file(graph, paths[graph]) if graph else None

    # Long enough that each design has all its left context when its calls are timed.
    timed = np.resize(codes, (1, CONTEXT_FRAMES + CALLS * max(frames, *chunks), codes.shape[2]))
    for number, graph in progress([*product(range(rounds), (None, *paths))], desc="alone", unit="design"):
        session = load(graph)
        for case in (case for case in cases if case.graph == graph):
            if number == 0:
                case.listen(session, codes)
            calls = case.start(session, timed, CONTEXT_FRAMES)
            for _ in range(CALLS):
                _call(calls, case.seconds)
        del session, calls
    sessions = {graph: load(graph) for graph in (None, *paths)}
    runs = [
        (case.start(sessions[case.graph], timed, CONTEXT_FRAMES), case.in_turn)
        for case in progress(cases, desc="start", unit="design")
    ]
    for _ in progress(range(CALLS), desc="in turn", unit="round"):
        for run in runs:
            _call(*run)

    frame_ms = 1000 * decoder.samples_per_frame / checkpoint.sample_rate
    return Benchmark(
        weights=checkpoint.weights,
        threads=threads,
        frames=frames,
        gemm_gflops=gemm_gflops(),
        gflop_per_frame=gflop_per_frame(ExactStreamingWrapper(decoder)),
        frame_ms=frame_ms,
        processor=processor(),
        rows=[case.row(reference, frame_ms) for case in cases],
    )


def _graphs(
    checkpoint: Checkpoint, folder: Path, designs: Sequence[str], progress: Callable
) -> tuple[dict[str, Path], dict[str, StateSpec]]:
    """{name: path} and {name: spec}, exported where they are not there yet."""
    decoder = checkpoint.decoder
    makers = {
        "one_shot": lambda: OneShotWrapper(decoder),
        "windowed": lambda: StatefulCodecONNXWrapper(decoder, 4, 4),
        "full_history": lambda: StatefulCodecONNXWrapper(decoder, conv_receptive_field(decoder), 0),
    }
    makers |= {name: partial(wrapper_in, checkpoint, precision) for name, precision in EXACT.items()}
    wanted, paths, specs = {*map(_file_of, designs)}, {}, {}
    for name in progress([name for name in makers if name in wanted], desc="graphs", unit="graph"):
        wrapper, precision = makers[name](), EXACT.get(name, FLOAT32)
        in_fewer_bits = partial(export_in, precision, write=exported, least_snr_db=float("-inf"))
        write = exported if precision == FLOAT32 else in_fewer_bits
        paths[name], specs[name] = write(checkpoint, wrapper, folder / f"{name}.onnx"), wrapper.spec
    # Designs of one file share it.
    ordered = [name for name in (*DESIGNS, *OPENVINO_IN) if name in designs]
    return {name: paths[_file_of(name)] for name in ordered}, {name: specs[_file_of(name)] for name in ordered}


def _cases(decoder, paths: dict[str, Path], specs: dict[str, StateSpec], frames: int, chunks, streams) -> list[_Case]:
    def stream(chunk, rows=1):
        def start(session, codes, warm):
            repeated = np.repeat(codes, rows, axis=0)
            stream = session.stream(rows)
            if warm:
                stream.push(repeated[:, :warm])
            return stream.pushes(repeated[:, warm:], [chunk])

        return start

    def whole(decode):
        """One call for all codes, over and over where it is timed."""
        return lambda session, codes, warm: (decode(session, codes[:, :frames]) for _ in range(CALLS if warm else 1))

    def case(design, graph, chunk, start, rows=1):
        spec, size = specs[graph], paths[graph].stat().st_size
        return _Case(design, graph, chunk, start, rows, spec.lookahead_frames, spec.bytes_per_stream(), size)

    def again(chunk):
        return lambda session, codes, warm: _with_context(session, codes, chunk, warm)

    def name_of(graph):
        """As the report says it; the windowed designs by their frames of left context and of look-ahead."""
        if (file := _file_of(graph)) in EXACT:
            return file.replace("_", ", ")
        return "windowed {conv_history_frames}+{lookahead_frames}".format_map(specs[graph].settings)

    names = {graph: name_of(graph) for graph in specs if graph != "one_shot"}
    cases = [_Case("PyTorch one-shot", None, frames, whole(lambda _, codes: one_shot(decoder, codes)))]
    if "one_shot" in specs:
        run = whole(lambda session, codes: session.stream().push(codes))
        cases.append(case("ONNX one-shot", "one_shot", frames, run))
    for chunk in chunks:
        if "one_shot" in specs:
            cases.append(case(f"ONNX, {CONTEXT_FRAMES} frames again", "one_shot", chunk, again(chunk)))
        cases += [case(design, graph, chunk, stream(chunk)) for graph, design in names.items()]
    for graph, rows in product([graph for graph in EXACT if graph in specs], streams):
        cases.append(case(f"{names[graph]}, {rows} streams", graph, 1, stream(1, rows), rows))
    return cases


def _with_context(session: CodecSession, codes: np.ndarray, chunk: int, start: int) -> Iterator[np.ndarray]:
    """Each chunk from `start` on decoded with the frames before it, of which only the new ones' samples are kept."""
    rate = session.spec.samples_per_frame
    for length in chunk_lengths(codes.shape[1] - start, [chunk]):
        first = max(0, start - CONTEXT_FRAMES)
        yield session.stream().push(codes[:, first : start + length])[:, (start - first) * rate :]
        start += length
