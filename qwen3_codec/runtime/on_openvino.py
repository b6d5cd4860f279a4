"""A file in OpenVINO, on the CPU."""

import os
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np

try:
    import openvino
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this runtime is OpenVINO: pip install openvino", name="openvino") from error

from ..spec import StateSpec
from .engines import OPENVINO, TITLES
from .graph_file import GraphError
from .measured_snr import INT8
from .providers import CPU


class OpenVino:
    """An `Engine`. A request runs one call at a time, so each thread that calls gets one that is idle, or a new one.

    `row_by_row` is for a graph that OpenVINO gets right in single rows alone.
    """

    def __init__(self, model: openvino.CompiledModel, spec: StateSpec, row_by_row: bool = False):
        self._model, self._row_by_row = model, row_by_row
        wanted = {tensor.name for tensor in spec.all_inputs}  # OpenVINO's optimizer gives an input more names
        self._inputs = {name: index for index, port in enumerate(model.inputs) for name in port.names & wanted}
        self._idle: list[openvino.InferRequest] = []
        self.precision = model.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.title = f"{TITLES[OPENVINO]}, {self.precision}"

    @property
    def providers(self) -> list[str]:
        return list(self._model.get_property("EXECUTION_DEVICES"))

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if odd := feeds.keys() ^ self._inputs.keys():  # a request would go on with what it was given before
            raise ValueError(f"the inputs differ in {', '.join(sorted(odd))}")
        rows = max(map(len, feeds.values()))
        if self._row_by_row and rows > 1:
            parts = [self._call({name: array[row : row + 1] for name, array in feeds.items()}) for row in range(rows)]
            return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
        return self._call(feeds)

    def _call(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        # `view`: 64 bits have two names in numpy, of which ONNX Runtime's states have the one that OpenVINO lacks.
        arrays = {self._inputs[n]: np.ascontiguousarray(array).view(array.dtype.str) for n, array in feeds.items()}
        # Not `infer`, which says nothing of a call that fails, and leaves what the one before it gave (2026.4.1).
        request.start_async(arrays, share_inputs=True)
        request.wait()
        # The request writes over its outputs at its next call, hence the copies. To let it write into new arrays
        # instead took as long or up to 5 % longer. To feed it from another request's tensors, so that no state is
        # copied, saved 2 % or less at official dimensions (8 % on the demo at N = 1, 2 % at 4 and 12): not worth states
        # that a stream could not keep.
        outputs = [request.get_output_tensor(index).data.copy() for index in range(len(self._model.outputs))]
        self._idle.append(request)
        return outputs


_MAKES_CORE = Lock()  # of two threads that ask for the first Core at once, `cache` would let each make one


@cache
def _core(process: int) -> openvino.Core:
    """One for each process (a fork needs its own), which stays.

    A Core gives the thread that makes it another stack for signals, and at its end the one from before back. Of two
    Cores, where the first ends first, the second gives back a stack that is gone: the next Ctrl-C or SIGTERM would end
    the process with a segmentation fault (2026.4.1).
    """
    return openvino.Core()


def start(
    path: Path,
    metadata: dict[str, str],
    spec: StateSpec,
    threads: int,
    precision: str,
    providers: tuple,
    options: list | None,
) -> OpenVino:
    if providers not in ((CPU,), ("cpu",)) or options:
        raise ValueError("providers are ONNX Runtime's; OpenVINO runs on the CPU here")
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        with _MAKES_CORE:
            core = _core(os.getpid())
        compiled = core.compile_model(path, "CPU", settings)
    except Exception as error:  # OpenVINO raises RuntimeError for whatever it is
        raise GraphError(f"{path}: OpenVINO cannot load it ({error})") from error
    # QuantizeLinear's translation holds a scale for each row of [B, n, C] against C, unless B is fixed (2026.4.1).
    return OpenVino(compiled, spec, row_by_row=metadata.get("precision") == INT8 and not spec.fixed_batch)
