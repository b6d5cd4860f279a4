"""A Triton model repository from an exported graph: `python -m qwen3_codec triton`.

Two kinds of model. The *Python* one (`model.py`) keeps a stream for each sequence and joins all that wait with the same
number of frames. The *ONNX Runtime* one has no code of ours: the server keeps the states itself ("implicit state"), and
`config.pbtxt` tells it their names, types, shapes and that they begin as zeros. Both say the same to a client.

Triton's documents: model_configuration.md, batcher.md (sequence batcher), implicit_state_management.md, all in
https://github.com/triton-inference-server/server/tree/main/docs/user_guide.
"""

import re
import shutil
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb  # comes first: where it is missing, its name leads to the extra

# isort: split
from google.protobuf import text_format

from ..files import folder_written_whole
from ..runtime import CodecSession, GraphError
from ..runtime.engines import F32, ONNX_RUNTIME
from ..runtime.providers import CPU
from ..spec import DECODER, StateSpec, TensorSpec
from . import MODEL

GRAPH, SOURCE, CONFIG = "model.onnx", "model.py", "config.pbtxt"  # the server looks for these names
VERSION = "1"
PYTHON, ONNXRUNTIME = BACKENDS = ("python", "onnxruntime")
GPU = "cuda"
_TYPES = {"float32": pb.TYPE_FP32, "float16": pb.TYPE_FP16, "int64": pb.TYPE_INT64}


def mispaired(spec: StateSpec) -> list[tuple[str, str, str]]:
    """(input, what the graph means to go in there, what the server would put there) for each state that goes wrong.

    The server pairs states by the rank of their sorted names, whatever config.pbtxt says of each pair: Triton core,
    src/sequence_state.cc, `SequenceStates::OutputState`.
    """
    meant = {before.name: after.name for before, after in spec.states}
    ranked = zip(sorted(meant), sorted(meant.values()), strict=True)
    return [(before, meant[before], after) for before, after in ranked if meant[before] != after]


def check_servable(session: CodecSession) -> None:
    """Raise GraphError, with every reason, for a graph that a server cannot stream."""
    spec, reasons = session.spec, []
    if spec.part != DECODER:
        reasons.append("it is an encoder; the model and the client here take codes")
    if not spec.states:
        reasons.append("it has no state: each request would be decoded as a beginning")
    if wrong := mispaired(spec):
        before, meant, found = wrong[0]
        reasons.append(
            f"{len(wrong)} of its {len(spec.states)} states would be paired wrongly, as the server sorts their names "
            f"({before} would get {found}, not {meant})"
        )
    if odd := [tensor.name for tensor in spec.inputs if tensor.name != "audio_codes"]:
        reasons.append(f"its input {', '.join(odd)} has no row for each stream")
    if growing := [before.name for before, _ in spec.states if len(before.dynamic_axes) > 1]:
        reasons.append(
            f"the first states {growing[0]}, ... are empty, which no configuration can say, and rows at different "
            "offsets have states of different lengths"
        )
    if spec.fixed_batch or spec.fixed_frames:
        reasons.append("its number of rows or frames is fixed: export it without --frames and --batch")
    if reasons:
        raise GraphError(f"{session.path}: Triton cannot serve this {spec.design} {spec.part}: {'; '.join(reasons)}")


def config(
    spec: StateSpec,
    backend: str = PYTHON,
    name: str = MODEL,
    max_batch: int = 64,
    max_sequences: int = 1024,
    idle_seconds: float = 60.0,
    wait_ms: float = 0.0,
    instances: int = 1,
    threads: int = 0,
    gpu: bool = False,
    runtime: str = ONNX_RUNTIME,
    precision: str = F32,
) -> pb.ModelConfig:
    """The model's configuration; `text_format.MessageToString` makes config.pbtxt of it.

    `max_batch` rows at most share a call; `max_sequences` at most are alive in each of `instances` (others wait).
    A sequence that is idle for `idle_seconds` is ended. A call waits `wait_ms` for others to join it. `threads` are
    a call's in each instance (0: all cores). `runtime` and `precision` are a `CodecSession`'s. Raises ValueError for a
    number that is too small, and for OpenVINO where it cannot be.
    """
    if runtime != ONNX_RUNTIME and (gpu or backend != PYTHON):
        raise ValueError(f"{runtime} runs on the CPU, and with the backend {PYTHON} alone")
    for what, value, least in (
        ("max_batch", max_batch, 1),
        ("max_sequences", max_sequences, 1),
        ("idle_seconds", idle_seconds, 0.001),
        ("wait_ms", wait_ms, 0),
        ("instances", instances, 1),
        ("threads", threads, 0),
    ):
        if not value >= least:
            raise ValueError(f"{what} is {value}, must be at least {least}")
    model = pb.ModelConfig(name=name, backend=backend, max_batch_size=max_batch)
    (codes,), (waveform,) = spec.inputs, spec.outputs
    if backend == PYTHON:
        # Rows of any length wait together, and a wrong number of codebooks is refused in the library's words.
        model.input.add(name=codes.name, data_type=_TYPES[codes.dtype], dims=[-1, -1], allow_ragged_batch=True)
    else:
        model.input.add(name=codes.name, data_type=_TYPES[codes.dtype], dims=_dims(codes))
    model.output.add(name=waveform.name, data_type=_TYPES[waveform.dtype], dims=_dims(waveform))
    batching = model.sequence_batching
    batching.max_sequence_idle_microseconds = round(1e6 * idle_seconds)
    batching.oldest.max_candidate_sequences = max_sequences
    batching.oldest.max_queue_delay_microseconds = round(1e3 * wait_ms)
    if backend == ONNXRUNTIME:
        for before, after in spec.states:
            tensor = {"data_type": _TYPES[before.dtype], "dims": _dims(before)}
            state = batching.state.add(input_name=before.name, output_name=after.name, **tensor)
            # Without this line the memory of a new sequence is whatever lay there.
            state.initial_state.add(name=f"{before.name}_zeros", zero_data=True, **tensor)
    model.instance_group.add(
        count=instances, kind=pb.ModelInstanceGroup.KIND_GPU if gpu else pb.ModelInstanceGroup.KIND_CPU
    )
    parameters = {  # what a client wants to know
        "sample_rate": spec.sample_rate,
        "samples_per_frame": spec.samples_per_frame,
        "num_quantizers": spec.num_quantizers,
        "codebook_size": spec.codebook_size,
    }
    if backend == PYTHON:
        parameters |= {"threads": threads, "provider": GPU if gpu else CPU, "runtime": runtime, "precision": precision}
    elif threads:
        parameters["intra_op_thread_count"] = threads
    for key, value in parameters.items():
        model.parameters[key].string_value = str(value)
    return model


def write(graph: Path, output: Path, backend: str = PYTHON, name: str = MODEL, **options) -> Path:
    """Write the model `name` into the repository `output`, whole or not at all; returns its folder.

    Other models there stay. `options` are those of `config`. Raises GraphError for a graph that cannot be served,
    ValueError for a name that is no folder's, and where another kind of folder has that name.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"the name {name!r} must be letters, digits, _, - and . alone: it is a folder's")
    session = CodecSession(graph)
    check_servable(session)
    made = config(session.spec, backend, name, **options)
    folder = output / name
    if folder.exists() and not (folder / CONFIG).is_file():
        raise ValueError(f"{folder}: is there and is no model (it has no {CONFIG}); it is left as it is")
    with folder_written_whole(folder) as draft:
        (draft / CONFIG).write_text(text_format.MessageToString(made), encoding="utf-8")
        (draft / VERSION).mkdir()
        shutil.copyfile(graph, draft / VERSION / GRAPH)
        if backend == PYTHON:
            shutil.copyfile(Path(__file__).with_name(SOURCE), draft / VERSION / SOURCE)
    return folder


def read_config(folder: Path) -> pb.ModelConfig:
    """A model folder's config.pbtxt; ValueError where the server could not read it."""
    try:
        return text_format.Parse((folder / CONFIG).read_text("utf-8"), pb.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error


def _dims(tensor: TensorSpec) -> list[int]:
    """The shape as the server wants it: without the rows, -1 for a length that may vary."""
    return [axis if isinstance(axis, int) else -1 for axis in tensor.shape[1:]]
