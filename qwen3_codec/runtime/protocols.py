"""What a session is to a stream: whatever has this can take the place of ours."""

from typing import Protocol

import numpy as np

from ..spec import StateSpec


class Session(Protocol):
    """What runs one call of a graph, or of what the graph was made from: `CodecSession`, `TorchSession`."""

    spec: StateSpec

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """{input name: array} -> {output name: array}."""
        ...
