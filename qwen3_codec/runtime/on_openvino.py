"""A file in OpenVINO, on the CPU."""

from pathlib import Path

import numpy as np

try:
    import openvino
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this runtime is OpenVINO: pip install openvino", name="openvino") from error

from ..spec import StateSpec
from .engines import OPENVINO, TITLES
from .graph_file import GraphError
from .providers import CPU


class OpenVino:
    """An `Engine`. A request runs one call at a time, so each thread that calls gets one that is idle, or a new one."""

    def __init__(self, model: openvino.CompiledModel, spec: StateSpec):
        self._model = model
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
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        # `view`: 64 bits have two names in numpy, of which ONNX Runtime's states have the one that OpenVINO lacks.
        arrays = {self._inputs[n]: np.ascontiguousarray(array).view(array.dtype.str) for n, array in feeds.items()}
        request.infer(arrays, share_inputs=True, share_outputs=True)
        # The request writes over its outputs at its next call, hence the copies. To let it write into new arrays
        # instead took as long or up to 5 % longer. To feed it from another request's tensors, so that no state is
        # copied, saved 2 % or less at official dimensions (8 % on the demo at N = 1, 2 % at 4 and 12): not worth states
        # that a stream could not keep.
        outputs = [request.get_output_tensor(index).data.copy() for index in range(len(self._model.outputs))]
        self._idle.append(request)
        return outputs


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
        compiled = openvino.Core().compile_model(path, "CPU", settings)
    except Exception as error:  # OpenVINO raises RuntimeError for whatever it is
        raise GraphError(f"{path}: OpenVINO cannot load it ({error})") from error
    return OpenVino(compiled, spec)
