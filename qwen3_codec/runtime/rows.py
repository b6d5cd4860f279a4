"""The rows of a stream: copied, put together with others', handed to another session, saved."""

import copy
import os
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from . import stream_file as saved
from .atomic import Atomic
from .protocols import Session


class Rows(Atomic):
    """What a stream carries; every array has the rows first.

    `frames` holds the number of frames that each row has seen, int64 [batch]. `_pending` is what is buffered, of which
    nobody is to hear the first `_suppressed` samples: they are the end of what `prime` was given.
    """

    session: Session
    state: dict[str, np.ndarray]
    frames: np.ndarray
    finished: bool
    _pending: np.ndarray
    _suppressed: int

    def _check_batch(self) -> None:
        if (fixed := self.session.spec.fixed_batch) not in (None, self.batch):
            raise ValueError(f"this graph takes {fixed} rows in a call, not {self.batch}")

    @property
    def batch(self) -> int:
        """Rows of the stream."""
        return len(self.frames)

    def fork(self, rows: Sequence[int] | None = None) -> Self:
        """An independent copy, of all rows or of `rows` in that order (a row may be named twice, or left out).

        What either does later, the other does not see: states are never written in place.
        """
        rows = list(range(self.batch) if rows is None else rows)
        if not rows:
            raise ValueError("a stream needs at least one row")
        stream = copy.copy(self)
        return stream._with(lambda get: get(stream)[rows])

    def move_to(self, session: Session) -> Self:
        """An independent copy that goes on with `session`: another graph of the same weights and states.

        So a stream goes from float32 to 8 bits in mid-sentence, or back. Raises ValueError where the two do not fit.
        """
        if odd := saved.differences(self.session, session.spec, saved.weights_of(session)):
            raise ValueError(f"this stream cannot go on with that graph, which has another {' and another '.join(odd)}")
        moved = self.fork()
        moved.session = session
        return moved

    def join(self, *others: Self) -> Self:
        """A new stream with the rows of this one and of `others`, to be decoded in one call from here on.

        With an exact graph the rows may be at any offset. A windowed graph's states grow, so there the rows must
        have states of the same lengths; raises ValueError where they do not, where a stream is finished, or where one
        is of other weights or another interface.
        """
        streams: list[Self] = [copy.copy(self), *map(copy.copy, others)]
        for session in {stream.session for stream in others} - {self.session}:
            if odd := saved.differences(self.session, session.spec, saved.weights_of(session)):
                raise ValueError(f"the streams cannot share a call: a graph has another {' and another '.join(odd)}")
        if any(stream.finished for stream in streams):
            raise ValueError("a finished stream cannot be joined; reset() starts a new one")
        for name in self.state:
            if len({stream.state[name].shape[1:] for stream in streams}) > 1:
                shapes = ", ".join(str(list(stream.state[name].shape)) for stream in streams)
                raise ValueError(
                    f"the streams' {name} have the shapes {shapes}: streams of this graph join when their states are "
                    "equally long, as they are at one offset, and from where all of them are full"
                )
        if len({stream._suppressed for stream in streams}) > 1:
            raise ValueError("a stream that was just primed cannot be joined with one that was not: this graph buffers")
        if len({stream._pending.shape[1] for stream in streams}) > 1:
            raise ValueError("the streams buffer different numbers of samples, so they cannot share a call")
        return self._with(lambda get: np.concatenate([get(stream) for stream in streams]))

    def _with(self, rows: Callable[[Callable[[Self], np.ndarray]], np.ndarray]) -> Self:
        """A copy whose arrays are what `rows` makes of a getter: every array of a stream has the rows first."""

        def of_state(name: str) -> np.ndarray:
            return rows(lambda stream: stream.state[name])

        other = copy.copy(self)
        other.state = {name: of_state(name) for name in self.state}
        other.frames = rows(lambda stream: stream.frames)
        other._pending = rows(lambda stream: stream._pending)
        other._check_batch()
        return other

    def save(self, path: str | os.PathLike) -> None:
        """Write the stream to a .npz file; `session.load_stream(path)` goes on from it. See `saved`."""
        saved.write(copy.copy(self), path)
