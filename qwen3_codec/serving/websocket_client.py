"""A stream on a server of `serving.websocket`: codes in, samples out as they come. Needs numpy and `websockets`.

async with WebSocketStream("ws://127.0.0.1:8765", fork="anna") as stream:
    for codes in chunks:                       # int64 [N, Q], any N of at least 1
        play((await stream.push(codes))[0])    # float32 [1, samples]
    play((await stream.finish())[0])           # what a resampler or a graph with look-ahead still held
"""

import asyncio
import json
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import numpy as np

from ..runtime.codes import CodesError
from .messages import CODES, FINISH, PCM, PRIME, SAVE
from .remote import TIMEOUT, ServerError, one_row

try:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "a client of ws:// needs the extra [websocket]: pip install websockets", name="websockets"
    ) from error

URL = "ws://127.0.0.1:8765"


class WebSocketStream:
    """One stream at `url`, with `await`; `options` are the server's: `rate`, `pcm` (float32 or int16), `fork`.

    `greeting` is what the server says of its graph and of this stream, `rate` the rate of the samples. One exchange at
    a time: a second gets a RuntimeError. One that gets no answer (a timeout, a cancelled push, an error of the server)
    ends the stream: each later call raises ServerError and says so. Left as a context it is closed.
    """

    def __init__(self, url: str = URL, timeout: float = TIMEOUT, **options: str | int):
        joint = "&" if urlsplit(url).query else "?"
        self.url, self.timeout = url, timeout
        self._target = url + (joint + urlencode(options) if options else "")
        self._busy, self._over, self._finished = False, "", False

    async def __aenter__(self) -> Self:
        try:
            self._socket = await connect(
                self._target, max_size=None, compression=None, open_timeout=self.timeout, proxy=None
            )
        except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
            raise ServerError(f"{self.url}: no connection to the server: {error or 'no answer'}") from error
        try:
            self.greeting: dict[str, Any] = json.loads(await self._ask(None))
            self.rate: int = self.greeting["rate"]
            self._dtype, _, self._floats = PCM[self.greeting["pcm"]]
        except BaseException:
            await self._socket.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()

    async def push(self, codes: Any, last: bool = False) -> np.ndarray:
        """Decode codes [N, Q] or [1, N, Q]; returns float32 [1, samples], with `last` all that was still held."""
        row = one_row(codes)[0]
        limits = np.iinfo(CODES)
        if row.size and not (limits.min <= row.min() and row.max() <= limits.max):
            raise CodesError(f"codes reach from {row.min()} to {row.max()}, 16 bits hold {limits.min}..{limits.max}")
        samples = self._samples(await self._ask(row.astype(CODES).tobytes()))
        return np.concatenate([samples, await self.finish()], axis=1) if last else samples

    async def prime(self, codes: Any) -> None:
        """As `CodecStream.prime`: `codes` come first, and nobody hears them."""
        await self._ask(json.dumps({PRIME: one_row(codes)[0].tolist()}))

    async def save(self, name: str) -> None:
        """Let others begin with this stream as it is, with `fork=name`, for as long as this one is open."""
        await self._ask(json.dumps({SAVE: name}))

    async def finish(self) -> np.ndarray:
        """End the stream; returns the samples still held, float32 [1, n]."""
        if self._finished:
            return np.zeros((1, 0), np.float32)
        samples = self._samples(await self._ask(json.dumps({FINISH: True})))
        self._finished = True
        await self._socket.close()
        return samples

    def _samples(self, answer: bytes | str) -> np.ndarray:
        return self._floats(np.frombuffer(answer, self._dtype)).astype(np.float32)[None]

    async def _ask(self, message: bytes | str | None) -> bytes | str:
        """The answer to a message; to none, what comes by itself."""
        if self._busy:
            raise RuntimeError("another call of this stream waits for its answer; one at a time")
        if self._over:
            raise ServerError(f"this stream is over, begin a new one; what became of an earlier call: {self._over}")
        if self._finished:
            raise RuntimeError("the stream is finished")
        self._busy = True
        try:
            async with asyncio.timeout(self.timeout):
                answer = await self._exchange(message)
        except BaseException as error:
            self._over = f"interrupted ({type(error).__name__})"
            if isinstance(error, ServerError):
                self._over = str(error)
            elif isinstance(error, TimeoutError):
                self._over = f"{self.url}: no answer within {self.timeout:g} s"
                raise ServerError(self._over) from None
            raise
        finally:
            self._busy = False
        return answer

    async def _exchange(self, message: bytes | str | None) -> bytes | str:
        try:
            if message is not None:
                await self._socket.send(message)
        except ConnectionClosed:
            pass  # what the server said before it closed is there to be read
        try:
            answer = await self._socket.recv()
        except ConnectionClosed as closed:
            said = f"{closed.rcvd.reason} ({closed.rcvd.code})" if closed.rcvd else closed
            raise ServerError(f"{self.url}: the connection was closed: {said}") from closed
        if isinstance(answer, str) and "error" in (found := json.loads(answer)):
            raise ServerError(f"{self.url}: {found['error']} ({found['code']})")
        return answer


def greeting(url: str = URL, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Ask a server for its graph's dimensions and what a stream would be; ServerError where it is not there."""

    async def ask() -> dict[str, Any]:
        async with WebSocketStream(url, timeout) as stream:
            return stream.greeting

    return asyncio.run(ask())
