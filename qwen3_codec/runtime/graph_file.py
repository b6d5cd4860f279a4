"""What an exported file says of itself, read without a runtime: its metadata, its inputs and outputs, its `StateSpec`.

An ONNX file is a protobuf: fields, each a number and a value, which for a message are fields again. Of the few that are
wanted the numbers are below (onnx.proto). The weights are stepped over, not read.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..spec import FORMAT_VERSION, StateSpec, TensorSpec

_GRAPH, _METADATA, _INPUT, _OUTPUT = 7, 14, 11, 12  # of a model, a model, a graph, a graph
_VARINT_BYTES = 10  # those of 64 bits
_DTYPES = {1: "float32", 7: "int64", 10: "float16"}  # TensorProto.DataType


class GraphError(ValueError):
    """A file that cannot be run as a codec graph; the message says what does not match."""


@dataclass(frozen=True)
class GraphFile:
    """`inputs` and `outputs` are what the file declares; of an axis that has no number, the name ("" for none)."""

    metadata: dict[str, str]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


def read_graph(path: Path) -> tuple[dict[str, str], StateSpec]:
    """The metadata and the spec of a graph that is what its metadata declare; GraphError where it is not."""
    if not path.is_file():
        raise GraphError(f"{path}: no such file")
    try:
        found = _graph_file(path)
    except (ValueError, IndexError) as error:
        raise GraphError(f"{path}: truncated or not an ONNX graph? ({error})") from error
    version = found.metadata.get("format_version")
    if version is None:
        raise GraphError(f"{path}: not written by qwen3_codec (its metadata has no format_version)")
    if version != FORMAT_VERSION:
        raise GraphError(f"{path}: has format version {version}, this package reads {FORMAT_VERSION}")
    try:
        spec = StateSpec.from_json(found.metadata.get("state_spec", ""))
    except ValueError as error:
        raise GraphError(f"{path}: its state_spec cannot be read ({error})") from error
    check_tensors(path, "input", found.inputs, spec.all_inputs)
    check_tensors(path, "output", found.outputs, spec.all_outputs)
    return found.metadata, spec


def check_tensors(path: Path, role: str, found: list[TensorSpec], declared: list[TensorSpec]) -> None:
    """GraphError where what a graph has is not what its metadata declare."""
    names, wanted = [tensor.name for tensor in found], [spec.name for spec in declared]
    if names != wanted:
        odd = sorted(set(names) ^ set(wanted)) or names
        raise GraphError(f"{path}: its {role}s are not those of its metadata; they differ in {', '.join(odd)}")
    for tensor, spec in zip(found, declared, strict=True):
        for index, (axis, wanted_axis) in enumerate(zip(tensor.shape, spec.shape, strict=False)):
            if isinstance(axis, int) and isinstance(wanted_axis, str):
                raise GraphError(f"{path}: {role} {spec.name}: axis {index} ({wanted_axis}) was frozen at {axis}")
        shape, expected = ([axis if isinstance(axis, int) else "*" for axis in each.shape] for each in (tensor, spec))
        if shape != expected or tensor.dtype != spec.dtype:
            raise GraphError(
                f"{path}: {role} {spec.name} is {tensor.dtype} {list(tensor.shape)}, "
                f"its metadata declares {spec.dtype} {list(spec.shape)}"
            )


def _graph_file(path: Path) -> GraphFile:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        metadata, tensors = {}, []
        for number, start, end in _fields(data, 0, len(data)):
            if number == _METADATA:
                key, value = (data[a:b].decode() for _, a, b in _fields(data, start, end))
                metadata[key] = value
            elif number == _GRAPH:
                tensors += [field for field in _fields(data, start, end) if field[0] in (_INPUT, _OUTPUT)]
        inputs, outputs = (
            [_tensor(data[start:end]) for number, start, end in tensors if number == role] for role in (_INPUT, _OUTPUT)
        )
    return GraphFile(metadata, inputs, outputs)


def _tensor(data: bytes) -> TensorSpec:
    """A ValueInfoProto: its name, and in its type the tensor's element type and shape."""
    name, shape = data[slice(*_one(data, 1))].decode(), []
    tensor_type = _one(data, 1, *_one(data, 2))
    dtype, _ = _one(data, 1, *tensor_type)
    for _, start, end in _fields(data, *_one(data, 2, *tensor_type)):
        number, a, b = next(_fields(data, start, end), (2, 0, 0))  # 1: a length; 2: a name, which may be missing
        shape.append(a if number == 1 else data[a:b].decode())
    return TensorSpec(name, tuple(shape), _DTYPES.get(dtype, f"of type {dtype}"))


def _one(data: bytes, wanted: int, start: int = 0, end: int | None = None) -> tuple[int, int]:
    """The last field of that number, as protobuf has it; an empty message where there is none."""
    found = [(a, b) for number, a, b in _fields(data, start, len(data) if end is None else end) if number == wanted]
    return found[-1] if found else (0, 0)


def _fields(data: bytes | mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each field in a message; of an integer (number, its value, 0)."""
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value, 0
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"a field of the kind {kind}")
        length, at = _varint(data, at) if kind == 2 else (8 if kind == 1 else 4, at)
        if at + length > end:
            raise ValueError(f"a field of {length} bytes goes over the end")
        yield number, at, at + length
        at += length


def _varint(data: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """An integer in groups of 7 bits, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError(f"an integer of more than {_VARINT_BYTES} bytes")
