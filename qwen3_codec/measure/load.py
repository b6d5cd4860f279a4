"""How many streams in real time a server holds, and how long a chunk takes: `python -m qwen3_codec.measure.load`.

Each stream asks for a chunk of N frames every N frames of time, as a player would, from a moment of its own. A chunk's
latency counts from when it was due, not from when it was sent, so that a server which falls behind is not flattered.
The server and all clients share this machine's cores: a client costs one to two milliseconds a chunk.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..files import written_whole
from ..runtime.codes import random_codes
from ..runtime.console import importing, run_module
from ..runtime.metrics import parse_schedule

with importing(__name__):
    import tritonclient.grpc.aio as triton_aio

    from ..runtime import CodecSession
    from ..serving import repository
    from ..serving.client import AsyncRemoteStream, WebSocketStream
    from ..serving.server import Server

STREAMS = (1, 2, 4, 8, 16, 32, 64)
WARM_SECONDS = 1.0  # of the same traffic before each measurement: memory of new shapes, connections
# On Triton up to 64 rows in a call, or one; and the server of `serving.websocket`.
JOINED, APART, WEBSOCKET = "joined", "apart", "websocket"
CALLS = (JOINED, APART, WEBSOCKET)
# Float32 rates that NVIDIA's data sheets give, in TFLOP/s (T4, L4, A10 and H100 SXM).
GPU_TFLOPS = {"T4": 8.1, "L4": 30.3, "A10": 31.2, "H100 SXM": 67.0}

ABOUT = "measure how many streams in real time a server holds on this machine"
EXAMPLE = "build/decoder.onnx --streams 1,4,16 --chunk 4 --seconds 10"


@dataclass(frozen=True)
class Load:
    """One measurement. `latency_ms` is every chunk's; `rows_per_call` is Triton's requests over its calls, else NaN."""

    calls: str
    streams: int
    chunk: int
    chunk_ms: float
    infer_per_second: float
    rows_per_call: float
    latency_ms: list[float]

    def percentile(self, share: float) -> float:
        """The latency in ms that `share` percent of the chunks stay below."""
        return float(np.percentile(self.latency_ms, share))

    @property
    def held(self) -> bool:
        """Whether 99 of 100 chunks were there before the next one was due."""
        return self.percentile(99) <= self.chunk_ms

    def __str__(self) -> str:
        p50, p95, p99 = map(self.percentile, (50, 95, 99))
        return (
            f"{self.calls:9} {self.streams:7} {self.infer_per_second:12.1f} {self.rows_per_call:10.2f} "
            f"{np.mean(self.latency_ms):9.1f} {p50:9.1f} {p95:9.1f} {p99:9.1f}  {'yes' if self.held else 'no'}"
        )


HEADER = " ".join(
    ["calls    ", "streams", "   infer/sec", " rows/call", *map("{:>9}".format, ("avg ms", "p50", "p95", "p99"))]
)
HEADER += "  held"


def measure(
    graph: Path,
    streams: Sequence[int] = STREAMS,
    chunk: int = 4,
    seconds: float = 10.0,
    threads: int = 0,
    calls: Sequence[str] = (JOINED, APART),
    on_result: Callable[[Load], None] = lambda load: None,
) -> list[Load]:
    """Run `graph` on a server of its own for each of `calls` with ever more streams, until they are no longer held.

    Raises ValueError for numbers below 1, NoServer where no Triton server runs here.
    """
    for name, value in (("streams", min(streams, default=0)), ("chunk", chunk), ("seconds", seconds)):
        if value < 1:
            raise ValueError(f"{name} is {value}, must be at least 1")
    spec, loads = CodecSession(graph).spec, []
    chunk_seconds = chunk * spec.samples_per_frame / spec.sample_rate
    for kind in calls:
        with _serving(kind, graph, threads) as (connected, counted), asyncio.Runner() as runner:
            for number in sorted(streams):
                runner.run(_talk(connected, spec, number, chunk, chunk_seconds, WARM_SECONDS))
                requests, executions = counted()
                waits = runner.run(_talk(connected, spec, number, chunk, chunk_seconds, seconds))
                after = counted()
                rows = (after[0] - requests) / max(1, after[1] - executions)
                latency = [1e3 * wait for wait in waits]
                loads.append(Load(kind, number, chunk, 1e3 * chunk_seconds, len(waits) / seconds, rows, latency))
                on_result(loads[-1])
                if not loads[-1].held:
                    break
    return loads


@contextmanager
def _serving(kind: str, graph: Path, threads: int) -> Iterator[tuple[Callable[[], Any], Callable[[], tuple]]]:
    """A server while it is entered: what opens streams on it, and what counts (requests, calls) there."""
    if kind == WEBSOCKET:
        command = [sys.executable, "-m", "qwen3_codec.serving.websocket", graph, "--port", 0, "--threads", threads]
        command += ["--max-streams", 10**6]
        with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as process:
            try:
                if not (ready := re.match(r"ready: (\S+);", process.stdout.readline())):
                    raise RuntimeError("the WebSocket server did not become ready")
                yield partial(_on_websocket, ready[1]), lambda: (float("nan"), 0)
            finally:
                process.terminate()
        return
    with TemporaryDirectory() as folder:
        repository.write(graph, Path(folder, kind), max_batch=64 if kind == JOINED else 1, threads=threads)
        with Server(Path(folder, kind)) as server:
            yield partial(_on_triton, server.url), server.statistics


@asynccontextmanager
async def _on_triton(url: str) -> AsyncIterator[Callable[[], Any]]:
    async with triton_aio.InferenceServerClient(url) as client:
        yield partial(AsyncRemoteStream, url, client=client)


@asynccontextmanager
async def _on_websocket(url: str) -> AsyncIterator[Callable[[], Any]]:
    yield partial(WebSocketStream, url)


async def _talk(
    connected: Callable[[], Any], spec, streams: int, chunk: int, chunk_seconds: float, seconds: float
) -> list[float]:
    """The latency of each chunk, in seconds, of `streams` that speak for `seconds`."""
    rng, loop, waits = np.random.default_rng(0), asyncio.get_running_loop(), []
    codes = random_codes(spec, chunk)
    begin = loop.time() + 0.1

    async def speak(first: float, open_stream) -> None:
        due = begin + first
        async with open_stream() as stream:
            while due < begin + seconds:
                await asyncio.sleep(due - loop.time())
                await stream.push(codes)
                waits.append(loop.time() - due)
                due += chunk_seconds

    async with connected() as open_stream:
        await asyncio.gather(*(speak(first, open_stream) for first in rng.uniform(0, chunk_seconds, streams)))
    return waits


def most_held(loads: Sequence[Load], calls: str = JOINED) -> int:
    """The largest number of streams that were held, 0 for none."""
    return max((load.streams for load in loads if load.calls == calls and load.held), default=0)


def fleet(gflop_per_frame: float, frame_ms: float, streams: int = 10_000, share: float = 1.0) -> dict[str, float]:
    """By arithmetic, not measured: {GPU: how many for `streams`}, where `share` of its float32 rate is reached."""
    tflops = streams * gflop_per_frame / frame_ms  # GFLOP in a ms are TFLOP in a second
    return {name: tflops / (share * rate) for name, rate in GPU_TFLOPS.items()}


def add_options(parser) -> None:
    parser.add_argument("graph", type=Path, metavar="FILE", help="an exported .onnx file, of the exact design")
    parser.add_argument(
        "--streams",
        default=",".join(map(str, STREAMS)),
        metavar="N,N,...",
        help="numbers of streams; ends where they are not held",
    )
    parser.add_argument("--chunk", type=int, default=4, metavar="N", help="frames in a chunk")
    parser.add_argument("--seconds", type=float, default=10, metavar="S", help="time of each measurement")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="ONNX Runtime threads; 0: all cores")
    calls = "on Triton, joined: up to 64 rows in a call, apart: one; websocket: the server of serving.websocket"
    parser.add_argument("--calls", default=f"{JOINED},{APART}", help=calls)
    parser.add_argument(
        "--figure", type=Path, metavar="FILE.png", help="draw latency against streams (needs matplotlib)"
    )
    parser.add_argument("--json", action="store_true", help="print every chunk's latency, as JSON")


def run(args) -> int:
    numbers, kinds = parse_schedule(args.streams), args.calls.split(",")
    if odd := [kind for kind in kinds if kind not in CALLS]:
        raise ValueError(f"--calls has {odd[0]!r}, must be of {', '.join(CALLS)}")
    if args.figure:  # before the measurement, which would be lost
        from ..course.lab import plots
    show = partial(print, file=sys.stderr if args.json else sys.stdout, flush=True)
    show(HEADER)
    loads = measure(args.graph, numbers, args.chunk, args.seconds, args.threads, kinds, show)
    if args.json:
        print(json.dumps([asdict(load) for load in loads], indent=2))
    if args.figure:
        title = f"Streams in real time on one server: {args.graph.stem}, chunks of {args.chunk} frames"
        figure = plots.latency_of_streams(loads, title)
        with written_whole(args.figure) as draft:
            figure.savefig(draft, format="png", dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(run_module(sys.modules[__name__], "qwen3_codec.measure.load"))
