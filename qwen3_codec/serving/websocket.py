"""A server of streams over WebSocket, in one process: one stream a connection, all of one session.

It decodes in threads, so that the loop goes on answering; streams that wait share a call, and each gets its turn.
`messages` says what is sent; `Limits` what a client may take. A browser finds a page at the same address.

python -m qwen3_codec.serving.websocket build/decoder.onnx
"""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..runtime.codes import KINDS, read_rows
from ..runtime.console import importing, run_module
from ..runtime.engines import runtime_options
from ..runtime.protocols import Session
from ..runtime.stream import Stream, stream_of
from ..runtime.versions import brief
from ..spec import ENCODER
from .connection import Connection, Limits
from .joining import JoiningSession
from .messages import Close, Refused, largest_message, read_options

with importing(__name__):
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.datastructures import Headers
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response

HOST, PORT = "127.0.0.1", 8765
PAGE = Path(__file__).with_name("listen.html")
CLOSES_WITHIN = 2.0  # seconds that a client has to answer the end of its stream
# What clients do wrong before there is a stream, the library logs here; who wants to read it gives it a handler.
LOG = logging.getLogger(__name__)
LOG.addHandler(logging.NullHandler())

ABOUT = f"serve a decoder's graph over WebSocket, on {HOST} unless told otherwise, until it is interrupted"
EXAMPLE = "build/decoder.onnx --port 8765"


class Server:
    """Streams of `session` for clients. `live` counts those that are open now.

    `names` holds saved streams that a client can begin with: given here, or saved by a client for as long as it stays.
    `example` is codes [N, Q] that the page plays. `origins` are sites whose pages may talk to this server, beside its
    own; at most `rows` streams share a call of the graph. Raises ValueError for a graph that is not of single rows.
    """

    def __init__(
        self,
        session: Session,
        limits: Limits | None = None,
        names: dict[str, Stream] | None = None,
        example: Any = None,
        origins: Sequence[str] = (),
        rows: int = 64,
    ):
        if session.spec.part == ENCODER:
            raise ValueError("this graph is an encoder's; what is served decodes")
        stream_of(session, 1)
        self.session, self.limits = JoiningSession(session, rows), limits or Limits()
        self.names = {name: stream.move_to(self.session) for name, stream in (names or {}).items()}
        self.example, self.origins = example, origins
        self.live = 0

    @asynccontextmanager
    async def listening(self, host: str = HOST, port: int = PORT) -> AsyncIterator[str]:
        """While it is entered, clients are served at the address that it gives; in the end they are told (1001)."""
        self._executor = ThreadPoolExecutor(min(self.session.rows, self.limits.streams), "decode")
        listener = serve(
            self._serve,
            host,
            port,
            process_request=self._page,
            max_size=largest_message(self.session.spec, self.limits.frames),
            compression=None,  # noise to deflate, and time
            close_timeout=CLOSES_WITHIN,
            logger=LOG,
        )
        try:
            async with listener as server:
                name = f"[{host}]" if ":" in host else host
                yield f"ws://{name}:{server.sockets[0].getsockname()[1]}"
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, socket: ServerConnection) -> None:
        """One client, from its first message to its last. Whatever it does ends here."""
        try:
            await self._stream(socket)
            await socket.close(Close.FINISHED)
        except ConnectionClosed:
            pass  # it has gone
        except Refused as refused:
            await _close(socket, refused)
        except Exception as error:
            print(f"a stream failed: {brief(error)}", file=sys.stderr, flush=True)
            await _close(socket, Refused(Close.FAILED, "the server cannot decode this; its own output says why"))

    async def _stream(self, socket: ServerConnection) -> None:
        if self.live >= self.limits.streams:
            raise Refused(Close.FULL, f"{self.live} streams are open, and no more are taken; try again later")
        self.live += 1
        try:
            options = read_options(socket.request.path, self.session.spec.sample_rate)
            await Connection(socket, self.session, options, self.names, self.limits, self._executor).hold()
        finally:
            self.live -= 1

    def _page(self, connection: ServerConnection, request: Request) -> Response | None:
        """What is no WebSocket gets the page. A page of another site gets nothing: it would talk in its user's name."""
        if "Upgrade" in request.headers:
            origin = request.headers.get("Origin")
            own = origin is None or urlsplit(origin).netloc == request.headers.get("Host")
            if own or origin in self.origins:
                return None
            return connection.respond(HTTPStatus.FORBIDDEN, f"pages of {origin} are not served; --origin allows it\n")
        match urlsplit(request.path).path:
            case "/":
                return _found("text/html; charset=utf-8", PAGE.read_bytes())
            case "/example" if self.example is not None:
                return _found("application/json", json.dumps(self.example.tolist()).encode())
        return connection.respond(HTTPStatus.NOT_FOUND, "there is a page at /, and WebSocket anywhere\n")


def _found(kind: str, body: bytes) -> Response:
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(HTTPStatus.OK, "OK", headers, body)


async def _close(socket: ServerConnection, refused: Refused) -> None:
    """Say why in full, then close; a client that takes neither is cut off."""
    with suppress(ConnectionClosed, TimeoutError):
        async with asyncio.timeout(CLOSES_WITHIN):
            await socket.send(json.dumps({"error": refused.why, "code": int(refused.code)}))
    await socket.close(refused.code, refused.reason)


def add_options(parser) -> None:
    parser.add_argument("graph", type=Path, metavar="FILE", help="an exported decoder, an .onnx file")
    parser.add_argument("--host", default=HOST, help="the address to listen on; 0.0.0.0: all of this machine's")
    parser.add_argument("--port", type=int, default=PORT, help="0: a free one")
    origin = "a site whose pages may connect too; as often as there are such"
    parser.add_argument("--origin", action="append", default=[], metavar="URL", help=origin)
    voice = f"begin streams with ?fork=NAME as if they had said these codes ({KINDS})"
    parser.add_argument("--voice", action="append", default=[], metavar="NAME=FILE", help=voice)
    parser.add_argument("--example", type=Path, metavar="FILE", help="codes that the page plays")
    limits = Limits()
    parser.add_argument("--max-streams", type=int, default=limits.streams, metavar="N", help="more are turned away")
    waiting = "frames of one stream that may wait to be decoded; who sends more is closed"
    parser.add_argument("--max-frames", type=int, default=limits.frames, metavar="N", help=waiting)
    idle = "a client that sends nothing, or takes nothing, for so long is closed"
    parser.add_argument("--idle", type=float, default=limits.idle, metavar="SECONDS", help=idle)
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="threads of a call; 0: all cores")
    runtime_options(parser)
    rows = "streams that share a call at most; 1: each has its own"
    parser.add_argument("--max-batch", type=int, default=64, metavar="ROWS", help=rows)


def run(args) -> int:
    from ..runtime.session import CodecSession

    if not 0 <= args.port < 2**16:
        raise ValueError(f"--port is {args.port}, must be in 0..{2**16 - 1}")
    session = CodecSession(args.graph, args.threads, runtime=args.runtime, precision=args.precision)
    if session.note:
        print(session.note, file=sys.stderr, flush=True)
    example = read_rows(args.example, session.spec)[0] if args.example else None
    limits = Limits(args.max_streams, args.max_frames, args.idle)
    server = Server(session, limits, _voices(args.voice, session), example, args.origin, args.max_batch)
    asyncio.run(_run(server, args.host, args.port))
    return 128 + signal.SIGTERM


async def _run(server: Server, host: str, port: int) -> None:
    ended = asyncio.Event()
    # Ctrl-C cancels what runs here, and the clients are told; SIGTERM is made to do the same.
    with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows has no such handlers, nor other threads
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with server.listening(host, port) as url:
        print(f"ready: {url}; a page that plays: {url.replace('ws', 'http', 1)}; Ctrl-C ends it", flush=True)
        print(f"try: python -m qwen3_codec.serving.client --codes FILE.npy --url {url}", flush=True)
        await ended.wait()


def _voices(given: Sequence[str], session: Session) -> dict[str, Stream]:
    voices = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ValueError(f"--voice {text}: must be NAME=FILE")
        voices[name] = stream_of(session, 1)
        voices[name].prime(read_rows(Path(path), session.spec)[0])
    return voices


if __name__ == "__main__":
    sys.exit(run_module(sys.modules[__name__], "qwen3_codec.serving.websocket"))
