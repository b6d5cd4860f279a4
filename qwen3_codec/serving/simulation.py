"""What a Triton server does with a graph whose states it keeps itself, in a few lines: for tests and the notebook.

The ONNX Runtime backend is in NVIDIA's own images, not in the wheel that this project tests on. So its part is played
here, from config.pbtxt alone: which requests share a call (dynamic_batch_scheduler.cc: those of one shape), how rows
are stacked, which state goes where (sequence_state.cc: by the rank of the sorted names), and what a start, an end and
a lost start do (sequence_batch_scheduler.cc), all in https://github.com/triton-inference-server/core/tree/main/src.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from tritonclient.grpc import model_config_pb2 as pb

_DTYPES = {pb.TYPE_FP32: np.float32, pb.TYPE_FP16: np.float16, pb.TYPE_INT64: np.int64}


@dataclass(frozen=True)
class Request:
    """One request: `codes` int64 [1, N, Q] of the sequence `sequence`."""

    sequence: int
    codes: np.ndarray
    start: bool = False
    end: bool = False


class SimulatedServer:
    """A server of one model. `run` is the graph, {input name: array} -> {output name: array}.

    `states` holds what is kept, {sequence: {state's input name: array [1, ...]}}; `calls` the rows of each call so far.
    """

    def __init__(self, config: pb.ModelConfig, run: Callable[[dict], dict]):
        self.config, self.run = config, run
        self.states: dict[int, dict[str, np.ndarray]] = {}
        self.calls: list[int] = []
        declared = config.sequence_batching.state
        self._declared = {state.input_name: state for state in declared}
        # The pairs that config.pbtxt names are not the ones that count.
        self._after = dict(zip(sorted(self._declared), sorted(state.output_name for state in declared), strict=True))

    def execute(self, requests: Iterable[Request]) -> list[np.ndarray]:
        """The answers, in order, to requests that wait at the same time, one of each sequence.

        Raises ValueError for a request whose start was lost, for two of one sequence, and where a state is not what the
        configuration declares: a real server would hand it to the graph.
        """
        requests, together, seen = list(requests), defaultdict(list), set()
        for request in requests:
            if request.sequence in seen:
                raise ValueError(
                    f"sequence {request.sequence} has two requests at once; the second waits for the first"
                )
            if not request.start and request.sequence not in self.states:
                raise ValueError(f"sequence {request.sequence} must begin with a start")
            seen.add(request.sequence)
        for index, request in enumerate(requests):
            if request.start:
                self.states[request.sequence] = {name: self._zeros(name) for name in self._declared}
            together[request.codes.shape].append(index)
        answers = [np.empty(0)] * len(requests)
        for indices in together.values():
            for first in range(0, len(indices), self.config.max_batch_size):
                rows = indices[first : first + self.config.max_batch_size]
                for row, answer in zip(rows, self._call([requests[row] for row in rows]), strict=True):
                    answers[row] = answer
        for request in requests:
            if request.end:
                del self.states[request.sequence]
        return answers

    def _call(self, requests: list[Request]) -> list[np.ndarray]:
        kept = [self.states[request.sequence] for request in requests]
        stacked = {name: np.concatenate([state[name] for state in kept]) for name in self._declared}
        outputs = self.run({self.config.input[0].name: np.concatenate([r.codes for r in requests])} | stacked)
        self.calls.append(len(requests))
        for row, request in enumerate(requests):
            after = {before: outputs[name][row : row + 1] for before, name in self._after.items()}
            for name, array in after.items():
                self._check(name, array)
            self.states[request.sequence] = after
        waveform = outputs[self.config.output[0].name]
        return [waveform[row : row + 1] for row in range(len(requests))]

    def _zeros(self, name: str) -> np.ndarray:
        """A first state. An axis without a fixed length begins at 1: a server has no empty ones."""
        state = self._declared[name]
        return np.zeros([1, *(axis if axis > 0 else 1 for axis in state.dims)], _DTYPES[state.data_type])

    def _check(self, name: str, array: np.ndarray) -> None:
        state, wanted = self._declared[name], list(self._declared[name].dims)
        fits = all(axis in (-1, length) for axis, length in zip(wanted, array.shape[1:], strict=False))
        if len(wanted) != array.ndim - 1 or not fits or array.dtype != _DTYPES[state.data_type]:
            raise ValueError(
                f"{self._after[name]} goes into {name}: {array.dtype} {list(array.shape[1:])} for a state of {wanted}"
            )
