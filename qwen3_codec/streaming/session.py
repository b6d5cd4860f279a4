"""A wrapper run in PyTorch by the client code that runs a graph, and held to its own declaration."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..model.checkpoint import fingerprint
from ..model.inspection.operations import Operations
from ..model.inspection.training import parts_in_training
from ..runtime.stream import Stream, load_stream, stream_of
from ..spec import StateSpec

# Calls that are looked at: a dropout may leave the few values of a short one as they are.
LOOKS = 8


class StreamingModule(Protocol):
    """What can be streamed, exported and verified: an `nn.Module` that declares its interface.

    `forward` takes `spec.all_inputs` and returns `spec.all_outputs`, in order. What a design has that others have not,
    its module brings: `translations` (operators of its own, for the dynamo exporter), `output_error` (how far an output
    of a graph is from its own), `oracle` (what it must give, where that is not the one-shot waveform).
    """

    @property
    def spec(self) -> StateSpec: ...

    @property
    def forward(self) -> Callable[..., Any]: ...

    def __call__(self, *inputs: torch.Tensor) -> Any: ...

    def modules(self) -> Iterator[torch.nn.Module]: ...

    def named_modules(self) -> Iterator[tuple[str, torch.nn.Module]]: ...


class TorchSession:
    """A wrapper behind the interface of `CodecSession`, so that the same streams run it: numpy in, numpy out.

    Raises ValueError for a wrapper with a part in training mode that computes something else there, and in one of the
    first calls where random numbers change a result: such a wrapper can be compared with nothing.
    """

    def __init__(self, wrapper: StreamingModule):
        if parts := parts_in_training(wrapper):
            more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
            raise ValueError(f"the wrapper is in training mode: {', '.join(parts[:3])}{more}; call its eval() before")
        self.wrapper = wrapper
        self.spec = wrapper.spec
        self._looks = LOOKS

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One step; raises ValueError where the wrapper does not give what its spec declares."""
        if not self._looks:
            return self._run(feeds)
        with Operations() as operations:
            outputs = self._run(feeds)
            if (random := operations.random) and (changed := differing(outputs, self._run(feeds))):
                raise ValueError(f"the same input gives two results in {', '.join(changed)}: {random} is random")
        self._looks = self._looks - 1 if random else 0
        return outputs

    def _run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = self.wrapper(*(torch.from_numpy(feeds[tensor.name]) for tensor in self.spec.all_inputs))
        return _named_outputs(self.spec, outputs)

    def stream(self, batch: int | None = None) -> Stream:
        return stream_of(self, batch)

    def load_stream(self, path: str | os.PathLike) -> Stream:
        """As `CodecSession.load_stream`. A stream of a graph of the same weights and design goes on here, and back."""
        return load_stream(self, path)

    @property
    def weights_sha256(self) -> str:
        """What a graph exported from the wrapper carries under this name.

        That is of the wrapper's `decoder` or `encoder`; of a wrapper that has none, it is of its own weights. All
        weights are read for it, each time: where a stream is saved, loaded, or goes from one session to another.
        """
        weights: Any = getattr(self.wrapper, self.spec.part, self.wrapper)
        return fingerprint(weights)


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Names of the outputs that are not the same to the bit."""
    return [name for name, array in one.items() if array.tobytes() != other[name].tobytes()]


def _named_outputs(spec: StateSpec, outputs: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
    """What a wrapper returned, by name; raises ValueError where number, dtype, a fixed length or a count is not
    `spec`'s.
    """
    declared = spec.all_outputs
    if len(outputs) != len(declared):
        raise ValueError(f"the wrapper returns {len(outputs)} tensors, its spec declares {len(declared)} outputs")
    arrays = {tensor.name: output.numpy() for tensor, output in zip(declared, outputs, strict=True)}
    problems = (tensor.problem(arrays[tensor.name], spec.limits) for tensor in declared)
    if problem := next(filter(None, problems), None):
        raise ValueError(f"the wrapper's output {problem}, as its spec declares")
    for before, after in spec.states:
        limit = spec.limits.get(before.name, np.inf)
        if after.dtype == "int64" and (most := arrays[after.name].max(initial=0)) > limit:
            raise ValueError(f"the wrapper's output {after.name} is {most}, its spec's limit is {limit}")
    return arrays
