"""An object whose methods do all or nothing, and that one thread at a time may change."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class Atomic:
    """A call that fails leaves the object as it was, and until a call returns no attribute has changed.

    Copying and pickling see it whole too. A second thread gets a RuntimeError, and the object goes on for the first.
    """

    finished: bool

    def __init__(self) -> None:
        self._busy = threading.Lock()

    def _fields(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_busy"}

    def __getstate__(self) -> dict:
        with self._alone():
            return self._fields()

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._busy = threading.Lock()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("another thread is in a call of this stream; fork() gives each its own")
        try:
            yield
        finally:
            self._busy.release()

    @contextmanager
    def _changed(self, going: bool = False) -> Iterator[Self]:
        """A copy to work on, which the stream becomes when the block ends, and does not after an error.

        If it must be `going`, a finished one raises RuntimeError.
        """
        with self._alone():
            if going and self.finished:
                raise RuntimeError("the stream is finished; reset() starts a new one")
            work = object.__new__(type(self))
            work.__setstate__(self._fields())
            yield work
            vars(self).update(work._fields())
