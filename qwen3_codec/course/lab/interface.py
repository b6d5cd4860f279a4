"""A streaming step's interface as a table: tensors that differ in their number alone share a row."""

from collections.abc import Sequence
from itertools import groupby

from ...spec import StateSpec, TensorSpec


def interface(spec: StateSpec) -> list[tuple[int, str, str, str]]:
    """(how many, input, shape, comes out as) of all inputs, then of the outputs that are no states."""
    pairs = [(tensor, None) for tensor in spec.inputs] + list(spec.states)
    rows = []
    for _, group in groupby(pairs, lambda pair: _kind(pair[0])):
        inputs, outputs = zip(*group, strict=True)
        after = _names([output for output in outputs if output])
        rows.append((len(inputs), _names(inputs), _shape(inputs, spec), after))
    return rows + [(1, "", _shape([output], spec), output.name) for output in spec.outputs]


def _kind(tensor: TensorSpec) -> str:
    return tensor.name.rstrip("0123456789")


def _names(tensors: Sequence[TensorSpec]) -> str:
    """The first and the last name."""
    return " … ".join(dict.fromkeys(tensor.name for tensor in (*tensors[:1], *tensors[-1:])))


def _shape(tensors: Sequence[TensorSpec], spec: StateSpec) -> str:
    """Axis by axis what the shapes have in common, or from the smallest to the largest length."""
    return f"[{', '.join(_axis(lengths, spec) for lengths in zip(*(t.shape for t in tensors), strict=True))}]"


def _axis(lengths: Sequence[int | str], spec: StateSpec) -> str:
    if lengths[0] in spec.limits:  # it grows
        return f"0–{spec.limits[str(lengths[0])]}"
    numbers = sorted(length for length in lengths if isinstance(length, int))
    return f"{numbers[0]}–{numbers[-1]}" if len({*numbers}) > 1 else str(lengths[0])
