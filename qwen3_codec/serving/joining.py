"""Dynamic batching: streams that wait at the same time share a call of the graph, whatever their offsets."""

import threading
from collections.abc import Sequence

import numpy as np

from ..runtime.protocols import Session

Arrays = dict[str, np.ndarray]


class _Call:
    """What one stream wants of the graph. Calls of one `shape` can be joined row by row."""

    def __init__(self, feeds: Arrays):
        self.feeds, self.shape = feeds, tuple(array.shape[1:] for array in feeds.values())
        self.outputs: Arrays | None = None
        self.error: Exception | None = None

    @property
    def answered(self) -> bool:
        return self.outputs is not None or self.error is not None


class JoiningSession:
    """`session` for the threads of many streams of one row each; the thread that gets the graph decodes for all.

    At most `rows` share a call. A graph whose rows cannot be at offsets of their own (a windowed one), or whose number
    of rows is fixed, gets each call by itself.
    """

    def __init__(self, session: Session, rows: int = 64):
        if rows < 1:
            raise ValueError(f"rows in a call are {rows}, must be at least 1")
        self.session, self.spec = session, session.spec
        self.weights_sha256 = getattr(session, "weights_sha256", "")
        self.rows = rows if self.spec.cut_is_exact and self.spec.fixed_batch is None else 1
        self._waiting: list[_Call] = []
        self._list, self._graph = threading.Lock(), threading.Lock()

    def run(self, feeds: Arrays) -> Arrays:
        """As `session.run`, of one row."""
        call = _Call(feeds)
        with self._list:
            self._waiting.append(call)
        with self._graph:
            if not call.answered:
                self._answer(self._take(call))
        if call.error is not None:
            raise call.error
        assert call.outputs is not None
        return call.outputs

    def _take(self, first: _Call) -> list[_Call]:
        """`first`, and those behind which can join it, as many as fit."""
        with self._list:
            self._waiting.remove(first)
            joined = [first, *[call for call in self._waiting if call.shape == first.shape][: self.rows - 1]]
            self._waiting = [call for call in self._waiting if call not in joined]
        return joined

    def _answer(self, calls: Sequence[_Call]) -> None:
        try:
            if len(calls) == 1:
                calls[0].outputs = self.session.run(calls[0].feeds)
                return
            outputs = self.session.run(
                {name: np.concatenate([c.feeds[name] for c in calls]) for name in calls[0].feeds}
            )
            for row, call in enumerate(calls):
                # Copies: a view would keep the memory of all the rows for as long as one of them lasts.
                call.outputs = {name: array[row : row + 1].copy() for name, array in outputs.items()}
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base class
            for call in calls:
                call.error = error
