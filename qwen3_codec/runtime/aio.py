"""A stream for asyncio: its calls run in a thread, so that the loop goes on. Needs numpy alone."""

import asyncio
import contextvars
import copy
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np

from .stream import Stream


class AsyncStream:
    """`stream` for coroutines: `await voice.push(codes)` gives what `stream.push(codes)` would, to the bit.

    Each call runs on a copy (states are never written in place, so that copies nothing), and what the copy has become
    is kept only where the call came back. So after one that was cancelled, timed out or failed the stream is as it was
    before it; the thread runs to its end all the same, and nobody hears its result. A second call before the one before
    it has come back gets a RuntimeError, and the first goes on.

    `stream` is the stream after the last call that came back, which no call in progress changes: to read its `frames`,
    to save it, to fork it (`AsyncStream(voice.stream.fork())`). The stream that was given stays as it is.

    `executor` is where the calls run, as in `loop.run_in_executor`: many streams that share one of a single thread take
    turns, call by call.
    """

    def __init__(self, stream: Stream, executor: Executor | None = None):
        self.stream = copy.copy(stream)
        self._executor = executor
        self._busy = False

    async def push(self, chunk: np.ndarray, last: bool = False) -> np.ndarray:
        """As `CodecStream.push` and `EncoderStream.push`."""
        return await self._call("push", chunk, last)

    async def prime(self, codes: np.ndarray) -> None:
        """As `CodecStream.prime`."""
        await self._call("prime", codes)

    async def finish(self) -> np.ndarray:
        """As `Stream.finish`."""
        return await self._call("finish")

    async def reset(self) -> None:
        """As `Stream.reset`."""
        await self._call("reset")

    async def pushes(self, data: np.ndarray, schedule: Sequence[int] | None = None) -> AsyncIterator[np.ndarray]:
        """As `Stream.pushes`: `async for samples in voice.pushes(codes, [3])`."""
        for part, last in self.stream.parts(data, schedule):
            yield await self.push(part, last)

    async def _call(self, method: str, *arguments: Any) -> Any:
        if self._busy:
            raise RuntimeError("another call of this stream has not come back; await it, or fork() the stream")
        self._busy = True
        try:
            work = copy.copy(self.stream)
            call = partial(contextvars.copy_context().run, getattr(work, method), *arguments)
            result = await asyncio.get_running_loop().run_in_executor(self._executor, call)
        finally:
            self._busy = False
        self.stream = work
        return result
