"""What runs a file: ONNX Runtime or OpenVINO, each in a file of its own that is loaded when it is asked for."""

from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from ..spec import StateSpec

ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
TITLES = {ONNX_RUNTIME: "ONNX Runtime", OPENVINO: "OpenVINO"}
RUNTIMES = {ONNX_RUNTIME: "on_onnxruntime", OPENVINO: "on_openvino"}
F32, BF16, F16 = "f32", "bf16", "f16"
PRECISIONS = (F32, BF16, F16)


class Engine(Protocol):
    """A loaded graph. Any number of threads may run it at the same time.

    `precision` is what its products run in, as the runtime says it, whatever was asked for. `title` names both.
    """

    title: str
    precision: str

    @property
    def providers(self) -> list[str]:
        """ONNX Runtime's execution providers, or OpenVINO's devices."""
        ...

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """{input name: array} -> the outputs, in their order; arrays that nobody writes to again."""
        ...


class Start(Protocol):
    """Loads a file, whose metadata and spec are known, with so many threads and in that precision."""

    def __call__(
        self,
        path: Path,
        metadata: dict[str, str],
        spec: StateSpec,
        threads: int,
        precision: str,
        providers: tuple,
        options: list | None,
    ) -> Engine: ...


def runtime_options(parser: ArgumentParser) -> None:
    """The flags of a command that loads a file; `CodecSession` takes their values under the same names."""
    parser.add_argument("--runtime", choices=[*RUNTIMES], default=ONNX_RUNTIME, help="what runs the file")
    asked = "what OpenVINO is asked to compute in; a processor without it runs another"
    parser.add_argument("--precision", choices=PRECISIONS, default=F32, help=asked)


def starter(runtime: str, precision: str) -> Start:
    """Loads the runtime; ModuleNotFoundError where it is not installed, ValueError for a name that there is not."""
    if runtime not in RUNTIMES:
        raise ValueError(f"there is no runtime {runtime!r}; there are {', '.join(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if runtime == ONNX_RUNTIME and precision != F32:
        raise ValueError(f"ONNX Runtime computes in the file's own precision; {precision} is for OpenVINO")
    start: Start = import_module(f".{RUNTIMES[runtime]}", __package__).start
    return start
