"""One stream and the WebSocket that it is on: requests are read as they come, and answered one after the other."""

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.aio import AsyncStream
from ..runtime.metrics import chunks
from ..runtime.protocols import Session
from ..runtime.resampling import resampler
from ..runtime.stream import Stream, stream_of
from .messages import FINISH, PCM, PRIME, PUSH, SAVE, Close, Options, Refused, Request, read_request

# Of a longer request so many frames are decoded at a time, so that the other streams take their turns.
TURN_FRAMES = 12


@dataclass(frozen=True)
class Limits:
    """How many streams at once, how many frames of one may wait, and the seconds that a client may do nothing."""

    streams: int = 64
    frames: int = 1000
    idle: float = 60.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"the limit on {name} is {value}, must be above 0")


class Connection:
    """A stream of `session`, decoded by `executor`. `names` are the server's: what any client saved, to be forked."""

    def __init__(
        self,
        socket: Any,
        session: Session,
        options: Options,
        names: dict[str, Stream],
        limits: Limits,
        executor: Executor | None = None,
    ):
        if options.fork is not None and options.fork not in names:
            raise Refused(Close.UNKNOWN_NAME, f"nothing is saved as {options.fork!r}")
        self.socket, self.spec, self.options, self.names, self.limits = socket, session.spec, options, names, limits
        # A stream that is saved is not changed by who goes on from it: an AsyncStream works on copies.
        start = stream_of(session, 1) if options.fork is None else names[options.fork]
        self.stream = AsyncStream(start, executor)
        changes = options.rate != self.spec.sample_rate
        self.resampler = resampler(self.spec.sample_rate, options.rate) if changes else None
        self.saved: str | None = None
        self.waiting: deque[Request | Exception] = deque()
        self.frames_waiting = 0
        self.come = asyncio.Event()
        self.lost: Exception | None = None  # why nobody is there to hear an answer

    async def hold(self) -> None:
        """Greet, answer until the stream is finished; Refused or the library's ConnectionClosed ends it before."""
        reader = asyncio.create_task(self._read())
        try:
            await self._send(json.dumps(self._greeting()))
            while (request := await self._next()).verb != FINISH:
                await self._send(await self._answer(request))
                self.frames_waiting -= request.frames
            await self._send(self._pcm(await self.stream.finish(), last=True))
        finally:
            reader.cancel()
            if self.saved is not None:
                del self.names[self.saved]

    def _greeting(self) -> dict[str, Any]:
        spec, options = self.spec, self.options
        dims = {"sample_rate", "samples_per_frame", "num_quantizers", "codebook_size"}
        says = {name: getattr(spec, name) for name in sorted(dims)}
        return says | {"pcm": options.pcm, "rate": options.rate, "most_frames_waiting": self.limits.frames}

    async def _read(self) -> None:
        """Put each request where `_next` finds it, and behind the last one what ended the reading."""
        try:
            while True:
                request = read_request(await self.socket.recv(), self.spec)
                self.frames_waiting += request.frames
                if self.frames_waiting > self.limits.frames:
                    self.waiting.clear()
                    raise Refused(Close.TOO_MANY_FRAMES, f"more than {self.limits.frames} frames wait; await answers")
                self.waiting.append(request)
                self.come.set()
        except Exception as error:  # ours, the library's, or one that nobody thought of: the stream ends with it
            self.lost = None if isinstance(error, Refused) else error
            self.waiting.append(error)
            self.come.set()

    async def _next(self) -> Request:
        try:
            # Who has saved a stream for others may wait for them; the library's pings find out who has gone.
            async with asyncio.timeout(self.limits.idle if self.saved is None else None):
                await self.come.wait()
        except TimeoutError:
            raise Refused(Close.IDLE, f"nothing came for {self.limits.idle:g} s") from None
        found = self.waiting.popleft()
        if not self.waiting:
            self.come.clear()
        if isinstance(found, Exception):
            raise found
        return found

    async def _answer(self, request: Request) -> bytes | str:
        if request.verb == PUSH:
            return self._pcm(np.concatenate([await self.stream.push(part) for part in self._turns(request)], axis=1))
        if request.verb == PRIME:
            for part in self._turns(request):
                await self.stream.prime(part)
        elif request.verb == SAVE:
            self._save(request.name)
        return json.dumps({"done": request.verb, "frames": int(self.stream.stream.frames[0])})

    def _turns(self, request: Request) -> Iterator[np.ndarray]:
        """A request's codes, for as long as somebody is there; of an exact graph in pieces, which sound the same."""
        assert request.codes is not None
        whole = self.spec.fixed_frames or not self.spec.cut_is_exact
        for part in [request.codes] if whole else chunks(request.codes, [TURN_FRAMES]):
            if self.lost is not None:
                raise self.lost
            yield part

    def _save(self, name: str) -> None:
        """A connection has one name, for as long as it lasts: what a client holds here goes with it."""
        if name in self.names and name != self.saved:
            raise Refused(Close.NAME_TAKEN, f"{name!r} is saved already")
        if self.saved is not None:
            del self.names[self.saved]
        self.names[name], self.saved = self.stream.stream, name

    def _pcm(self, samples: np.ndarray, last: bool = False) -> bytes:
        """One row of samples as the client wants them."""
        row = samples[0]
        if self.resampler is not None:
            row = self.resampler.resample_chunk(row, last=last)
        dtype, numbers, _ = PCM[self.options.pcm]
        return numbers(row).astype(dtype).tobytes()

    async def _send(self, answer: bytes | str) -> None:
        try:
            async with asyncio.timeout(self.limits.idle):
                await self.socket.send(answer)
        except TimeoutError:
            raise Refused(Close.IDLE, f"no answer was taken for {self.limits.idle:g} s") from None
