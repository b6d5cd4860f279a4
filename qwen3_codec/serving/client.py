"""A client of either server, on the command line: each row of the codes is a stream of its own, all at once.

python -m qwen3_codec.serving.client --codes codes.npy --url 127.0.0.1:8001 --output speech.wav
python -m qwen3_codec.serving.client --codes codes.npy --url ws://127.0.0.1:8765 --output speech.wav

The streams in Python: `RemoteStream` and `AsyncRemoteStream` for Triton, `WebSocketStream` for `serving.websocket`.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import loaded_when_asked
from ..runtime.audio import row_paths, write_waveforms
from ..runtime.codes import KINDS, read_rows
from ..runtime.console import run_module
from ..runtime.metrics import chunks, parse_schedule
from ..runtime.progress import progress
from . import MODEL
from .remote import Dimensions, ServerError

if TYPE_CHECKING:
    from .triton_client import AsyncRemoteStream as AsyncRemoteStream
    from .triton_client import RemoteStream as RemoteStream
    from .triton_client import dimensions as dimensions
    from .websocket_client import WebSocketStream as WebSocketStream

__all__ = ["AsyncRemoteStream", "Dimensions", "RemoteStream", "ServerError", "WebSocketStream", "dimensions"]

# So that a client of one kind of server needs no package of the other's.
__getattr__, _, _ = loaded_when_asked(
    __package__,
    {
        "AsyncRemoteStream": "triton_client",
        "RemoteStream": "triton_client",
        "WebSocketStream": "websocket_client",
        "dimensions": "triton_client",
    },
)

URL = "127.0.0.1:8001"
WEBSOCKET = ("ws://", "wss://")

ABOUT = "decode codes on a server, chunk by chunk, each row as a stream of its own"
EXAMPLE = "--codes codes.npy --url 127.0.0.1:8001 --output speech.wav"


def add_options(parser) -> None:
    parser.add_argument("--codes", type=Path, required=True, metavar="FILE", help=f"{KINDS}, [N, Q] or [B, N, Q]")
    where = (
        "a Triton server's gRPC address, or ws://HOST:PORT of serving.websocket, with ?rate=, ?pcm=, ?fork= as it takes"
    )
    parser.add_argument("--url", default=URL, help=where)
    parser.add_argument("--model", default=MODEL, help="the model's name on a Triton server")
    parser.add_argument("--chunks", default="4", metavar="N,N,...", help="chunk lengths in frames; repeats")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help=".npy, .wav or .flac; of several rows each gets a file, OUT_0.wav, ...",
    )


def run(args) -> int:
    schedule = parse_schedule(args.chunks)
    dims, rate, stream = _server(args.url, args.model)
    rows = read_rows(args.codes, dims)
    paths = row_paths(args.output, len(rows)) if args.output else []
    waveforms, waits = asyncio.run(_decode_all(stream, rows, schedule))
    if paths:
        write_waveforms(paths, waveforms, rate)
    waits = 1000 * np.array(waits)
    seconds = sum(map(len, rows)) * dims.samples_per_frame / dims.sample_rate
    print(
        f"{len(rows)} streams, {seconds:.2f} s of audio in {len(waits)} chunks; ms until a chunk was there: "
        f"p50 {np.percentile(waits, 50):.1f}, p95 {np.percentile(waits, 95):.1f}, p99 {np.percentile(waits, 99):.1f}"
    )
    for path in paths:
        print(path)
    return 0


def _server(url: str, model: str) -> tuple[Dimensions, int, Callable[[], Any]]:
    """What the server at `url` decodes, the rate of what it answers, and how to open a stream on it."""
    if url.startswith(WEBSOCKET):
        from .websocket_client import WebSocketStream, greeting

        found = greeting(url)
        dims = Dimensions(**{name: found[name] for name in Dimensions.__annotations__})
        return dims, found["rate"], partial(WebSocketStream, url)
    from .triton_client import AsyncRemoteStream, dimensions

    dims = dimensions(url, model)
    return dims, dims.sample_rate, partial(AsyncRemoteStream, url, model)


async def _decode_all(
    open_stream: Callable[[], Any], rows: list[np.ndarray], schedule: list[int]
) -> tuple[list[np.ndarray], list[float]]:
    """The waveform of each row, and the seconds that each chunk of any took."""
    waits, parts = [], [[*chunks(row[None], schedule)] for row in rows]
    every = iter(progress()([None] * sum(map(len, parts)), unit="chunk"))

    async def decode(parts: list[np.ndarray]) -> np.ndarray:
        samples = []
        async with open_stream() as stream:
            for part in parts:
                start = time.perf_counter()
                samples.append(await stream.push(part, last=part is parts[-1]))
                waits.append(time.perf_counter() - start)
                next(every)
        return np.concatenate(samples, axis=1)

    waveforms = await asyncio.gather(*map(decode, parts))
    next(every, None)  # the bar ends
    return waveforms, waits


if __name__ == "__main__":
    sys.exit(run_module(sys.modules[__name__], "qwen3_codec.serving.client"))
