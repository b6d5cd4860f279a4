"""A wrapper run in PyTorch by the client code that runs a graph, and held to its own declaration."""

import os
from collections.abc import Sequence

import numpy as np
import torch

from ..model.checkpoint import fingerprint
from ..states import StateSpec
from ..stream import Stream, load_stream, stream_of


class TorchSession:
    """A wrapper behind the interface of `CodecSession`, so that `CodecStream` runs it: numpy in, numpy out."""

    def __init__(self, wrapper: torch.nn.Module):
        self.wrapper = wrapper
        self.spec: StateSpec = wrapper.spec

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One step; raises ValueError where the wrapper does not give what its spec declares."""
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
        wrapper = getattr(self.wrapper, "wrapper", self.wrapper)  # within `FixedAxes`
        return fingerprint(getattr(wrapper, self.spec.part, wrapper))


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
        if after.dtype == "int64" and (most := arrays[after.name].max(initial=0)) > spec.limits[before.name]:
            raise ValueError(
                f"the wrapper's output {after.name} is {most}, its spec's limit is {spec.limits[before.name]}"
            )
    return arrays
