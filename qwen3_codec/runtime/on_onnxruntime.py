"""A file in ONNX Runtime."""

import os
from pathlib import Path

import numpy as np

try:
    import onnxruntime
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "running a graph needs ONNX Runtime: pip install onnxruntime, or onnxruntime-gpu, -directml, ...",
        name="onnxruntime",
    ) from error

from ..spec import StateSpec, TensorSpec
from .cpu import sums_overflow
from .engines import F32, ONNX_RUNTIME, TITLES
from .graph_file import GraphError, check_tensors
from .providers import provider_name


class OnnxRuntime:
    """An `Engine`."""

    title, precision = TITLES[ONNX_RUNTIME], F32

    def __init__(self, session: onnxruntime.InferenceSession):
        self._session = session
        self._outputs = [tensor.name for tensor in session.get_outputs()]

    def check(self, path: Path, spec: StateSpec) -> None:
        """ONNX Runtime infers shapes, so it sees an axis that the file declares dynamic and the graph has frozen."""
        for role, tensors, declared in (
            ("input", self._session.get_inputs(), spec.all_inputs),
            ("output", self._session.get_outputs(), spec.all_outputs),
        ):
            pairs = zip(tensors, declared, strict=True)
            check_tensors(path, role, [TensorSpec(t.name, tuple(t.shape), d.dtype) for t, d in pairs], declared)

    @property
    def providers(self) -> list[str]:
        return list(self._session.get_providers())

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return list(self._session.run(self._outputs, feeds))


def start(
    path: Path,
    metadata: dict[str, str],
    spec: StateSpec,
    threads: int,
    precision: str,
    providers: tuple,
    options: list | None,
) -> OnnxRuntime:
    wanted = [provider_name(name) for name in providers]
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    # Between two chunks a stream waits. By default the threads then spin, which slows others that need the cores.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if sums_overflow():  # the slower products are exact; where there is no need for them, they cost half the time
        settings.add_session_config_entry("session.x64quantprecision", "1")
    try:
        engine = OnnxRuntime(onnxruntime.InferenceSession(os.fspath(path), settings, wanted, options))
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base class
        raise GraphError(f"{path}: ONNX Runtime cannot load it, {_why(metadata)} ({error})") from error
    engine.check(path, spec)
    if idle := [name for name in wanted if name not in engine.providers]:
        raise ValueError(
            f"ONNX Runtime did not start {', '.join(idle)}: {', '.join(engine.providers)} runs in its place"
        )
    return engine


def _why(metadata: dict[str, str]) -> str:
    """A graph that asks for a newer ONNX Runtime says so."""
    needed = metadata.get("needs_onnxruntime", "0")
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < tuple(map(int, needed.split("."))):
        return f"it needs ONNX Runtime {needed} or newer, this is {onnxruntime.__version__}"
    return "truncated or not an ONNX graph?"
