"""The form of a graph, and of what it is declared to be: tensors, axes, limits, no control flow."""

import onnx

from ..spec import BATCH, StateSpec, TensorSpec
from .tracing import ExportError


def check_limits(spec: StateSpec) -> None:
    """Raises ValueError for a state that grows, or counts, and has no limit: nobody knows how long or large it gets."""
    for tensor, _ in spec.states:
        for index, axis in tensor.dynamic_axes.items():
            if axis != BATCH and axis not in spec.limits:
                raise ValueError(f"{tensor.name}: axis {index} ({axis}) grows, so the spec's limits must say how far")
        if tensor.dtype == "int64" and tensor.name not in spec.limits:
            raise ValueError(f"{tensor.name} holds integers, so the spec's limits must say the largest one")


def check_graph(model: onnx.ModelProto, spec: StateSpec) -> None:
    """Inputs and outputs as declared, no control flow, no axis of the interface frozen; raises ExportError."""
    for role, found, declared in (
        ("input", model.graph.input, spec.all_inputs),
        ("output", model.graph.output, spec.all_outputs),
    ):
        names, wanted = [value.name for value in found], [tensor.name for tensor in declared]
        if lost := [name for name in wanted if name not in names]:
            raise ExportError(
                f"the graph lost the {role} {', '.join(lost)}: nothing in it depends on a tensor of that name"
            )
        if names != wanted:
            raise ExportError(f"the graph's {role}s are {names}, the declaration has {wanted}")
        for value, tensor in zip(found, declared, strict=True):
            _name_axes(value, tensor, role)
    used = {name for node in model.graph.node for name in node.input}
    if unused := [tensor.name for tensor in spec.all_inputs if tensor.name not in used]:
        raise ExportError(f"no node of the graph reads {', '.join(unused)}")
    if control := sorted({node.op_type for node in model.graph.node} & {"If", "Loop", "Scan"}):
        raise ExportError(f"the graph holds {', '.join(control)}: a Python branch or loop on a tensor was recorded")


def _name_axes(value: onnx.ValueInfoProto, tensor: TensorSpec, role: str) -> None:
    """Give each axis its declared name or length; an axis that the exporter made constant is an error."""
    axes = value.type.tensor_type.shape.dim
    if len(axes) != len(tensor.shape):
        raise ExportError(f"{role} {tensor.name} has {len(axes)} axes, must have {len(tensor.shape)}")
    for index, (axis, declared) in enumerate(zip(axes, tensor.shape, strict=True)):
        if isinstance(declared, int):
            if axis.HasField("dim_value") and axis.dim_value != declared:
                raise ExportError(f"{role} {tensor.name}: axis {index} is {axis.dim_value}, must be {declared}")
            axis.dim_value = declared
        elif axis.HasField("dim_value"):
            raise ExportError(f"{role} {tensor.name}: axis {index} ({declared}) was frozen at {axis.dim_value}")
        else:
            axis.dim_param = declared
