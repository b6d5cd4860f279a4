"""From a wrapper to an ONNX file that describes itself, checked before it appears under its name."""

import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, signature
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import torch

from .. import __version__
from ..files import written_whole
from ..model.checkpoint import Checkpoint, OtherModel
from ..runtime import CodecSession, GraphError
from ..runtime import self_test as selftest
from ..runtime.measured_snr import FLOAT32
from ..runtime.metrics import MAX_ERROR, scaled_error
from ..runtime.progress import no_progress
from ..spec import BATCH, FORMAT_VERSION, FRAMES, SAMPLES, StateSpec
from ..streaming.session import TorchSession, differing
from .causes import complex_numbers, frozen_axes, warned
from .diagnostics import Diagnostic, captured, is_advice
from .frozen_axes import why_it_stopped
from .wording import described, gist, tells_of_a_loss, where_it_stopped

# What each exporter is, and the opsets that it was tested to write.
OPSETS = {"torchscript": range(14, 24), "dynamo": range(18, 25)}
EXPORTERS = tuple(OPSETS)
OPSET = 18
# Lengths at which the finished graph is run: one frame, fewer and more than the example, a long chunk.
VALIDATION_FRAMES = (1, 2, 5, 12)
# The graph and the wrapper do the same float32 operations in another order. Half-precision states need more: they are
# rounded to 11 bits.
TOLERANCE = MAX_ERROR


class ExportError(RuntimeError):
    """A graph that could not be made, or is not right; no file is written."""


@dataclass(frozen=True)
class Exported:
    """What `export` wrote: where, how large, how many nodes of each kind, and the largest error of the validation runs.

    `warnings` is what the exporter, or the wrapper's own code, said meanwhile that it does not say of every graph: the
    place in the code, and in words what became of it.
    """

    path: Path
    bytes: int
    nodes: dict[str, int]
    validation_runs: int
    validation_error: float
    warnings: tuple[str, ...] = ()


def export(
    checkpoint: Checkpoint | OtherModel,
    wrapper: torch.nn.Module,
    path: str | os.PathLike,
    exporter: str = "torchscript",
    progress=no_progress,
    opset: int = OPSET,
    tolerance: float = TOLERANCE,
    precision: str = FLOAT32,
    finish: Callable[[Path], None] | None = None,
    strict: bool = True,
) -> Exported:
    """Write `wrapper` (made from `checkpoint.decoder`, or any with a `spec`) to `path` as one ONNX file.

    `exporter` is `torchscript` (`dynamo=False`: traces one run) or `dynamo` (`torch.export`: follows the code with
    symbolic sizes). The graph is checked, then run against the wrapper at other lengths, where no output may differ by
    more than `tolerance` (over its largest value where that is above 1), and only then renamed to `path`; until then,
    and after any error, `path` is as it was. `finish` may still change the file, or refuse it, before it is renamed;
    what it makes of it is of `precision`.

    A graph that passes all this is refused all the same where the exporter warned that it lost something (a Python
    number or branch in place of a tensor, see `wording.LOSSES`): it may go wrong where no validation run looks. With
    `strict=False` it is written, and the warning is in the result. Other warnings never refuse a graph.

    Raises ExportError naming what is wrong, and ValueError for a wrapper that cannot be exported: in training mode,
    with random numbers, or one that does not give what its spec declares.
    """
    if exporter not in EXPORTERS:
        raise ValueError(f"exporter is {exporter!r}, must be one of {', '.join(EXPORTERS)}")
    if opset not in (known := OPSETS[exporter]):
        raise ValueError(f"opset is {opset}, the exporter {exporter} was tested with {known[0]} to {known[-1]}")
    path = Path(path)
    with written_whole(path) as draft:
        said = _run_and_trace(checkpoint, wrapper, draft, exporter, opset)
        try:
            nodes = _finished(checkpoint, wrapper, draft, exporter, precision)
            errors = validate_graph(wrapper, _loaded(draft, path), tolerance, progress)
        except ExportError as error:
            example = example_inputs(wrapper.spec)
            causes = [*complex_numbers(wrapper, example), *warned(said)]
            causes += frozen_axes(wrapper, draft, example, VALIDATION_FRAMES)
            raise ExportError("; ".join([str(error), *causes])) from error.__cause__
        if strict and (losses := described([each for each in said if tells_of_a_loss(each)])):
            raise ExportError(
                f"the exporter warns that the graph lost something: {'; '.join(losses)}; "
                "where that is right for every input, strict=False (--no-strict) writes the file"
            )
        _add_metadata(draft, {selftest.KEY: selftest.record(TorchSession(wrapper), tolerance)})
        if finish:
            finish(draft)
    return Exported(path, path.stat().st_size, nodes, len(errors), max(errors), described(said))


def write_draft(
    checkpoint: Checkpoint | OtherModel,
    wrapper: torch.nn.Module,
    path: str | os.PathLike,
    exporter: str = "torchscript",
    opset: int = OPSET,
    precision: str = FLOAT32,
) -> dict[str, int]:
    """Trace, check the graph's form and describe it, straight to `path` and without a run; returns its node counts."""
    _run_and_trace(checkpoint, wrapper, path, exporter, opset)
    return _finished(checkpoint, wrapper, path, exporter, precision)


def _run_and_trace(checkpoint, wrapper, path, exporter: str, opset: int) -> list[Diagnostic]:
    """What cannot be exported stops here, in words, before it is traced; returns all that was said but advice."""
    checkpoint.check_unchanged(wrapper.spec.part)
    check_limits(wrapper.spec)
    session, feeds = TorchSession(wrapper), example_inputs(wrapper.spec)
    with captured() as said:
        first, again = session.run(feeds), session.run(feeds)
    if changed := [n for n in differing(first, again) if not scaled_error(first[n], again[n]) <= TOLERANCE]:
        raise ValueError(
            f"the same input gives two results in {', '.join(changed)}: the wrapper keeps something from call to call "
            "that its spec does not declare, or draws random numbers outside torch"
        )
    return said + trace(wrapper, path, exporter, opset)


def _finished(checkpoint, wrapper, path, exporter: str, precision: str) -> dict[str, int]:
    """Check the form of the graph at `path` and describe it; returns its node counts."""
    model = onnx.load(path)
    check_graph(model, wrapper.spec)
    # TorchScript's exporter leaves the path of every line of code in the nodes' texts.
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    onnx.helper.set_model_props(model, metadata(checkpoint, wrapper.spec, exporter, precision))
    onnx.save(model, path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the graph is not valid: {gist(error)}") from error
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


def _loaded(draft: Path, path: Path) -> CodecSession:
    try:
        with captured():  # ONNX Runtime logs what it raises
            return CodecSession(draft)
    except GraphError as error:  # ONNX Runtime infers shapes on its own, and finds what was frozen further back
        raise ExportError(str(error).replace(os.fspath(draft), os.fspath(path))) from error


def exported(checkpoint: Checkpoint | OtherModel, wrapper: torch.nn.Module, path: str | os.PathLike, **options) -> Path:
    """`export`, unless `path` already holds a graph that does what `wrapper` does, from these weights and versions.

    What it does is asked of the graph itself: it is run against the wrapper as it is after an export. So it is made
    anew after a change anywhere in the code that shows in an output, and after no other.
    """
    checkpoint.check_unchanged(wrapper.spec.part)
    exporter, precision = options.get("exporter", EXPORTERS[0]), options.get("precision", FLOAT32)
    made_so = metadata(checkpoint, wrapper.spec, exporter, precision)
    try:
        session = CodecSession(path)
        if made_so.items() <= session.metadata.items():
            validate_graph(wrapper, session, options.get("tolerance", TOLERANCE))
            return Path(path)
    except (GraphError, ExportError):
        pass
    return export(checkpoint, wrapper, path, **options).path


def validate_graph(
    wrapper: torch.nn.Module,
    session: CodecSession,
    tolerance: float = TOLERANCE,
    progress=no_progress,
) -> list[float]:
    """Run graph and wrapper side by side at each of `validation_cases`; the largest error of each, or ExportError."""
    return [
        compare_once(wrapper, session, case, tolerance) for case in progress(validation_cases(wrapper.spec), unit="run")
    ]


def trace(wrapper: torch.nn.Module, path: str | os.PathLike, exporter: str, opset: int = OPSET) -> list[Diagnostic]:
    """`torch.onnx.export` with every input, output and dynamic axis named from `wrapper.spec`; no checks.

    The example has at least 2 on every dynamic axis, each with a length of its own: `torch.export` takes a length of 0
    or 1 for a constant, and two equal lengths for one. Returns what the exporter says and does not say of every graph.
    Where it gives up, raises ExportError with the gist; the whole report is that error's `__context__`.
    """
    spec = wrapper.spec
    inputs, outputs, example = spec.all_inputs, spec.all_outputs, example_inputs(spec)
    names = {"input_names": [t.name for t in inputs], "output_names": [t.name for t in outputs]}
    if exporter == "torchscript":
        axes = {tensor.name: tensor.dynamic_axes for tensor in [*inputs, *outputs] if tensor.dynamic_axes}
        options = {"dynamo": False, "dynamic_axes": axes}
    else:
        own = {"custom_translation_table": getattr(wrapper, "translations", None)}
        shapes = {"dynamic_shapes": _nested_shapes(wrapper)}
        options = {"dynamo": True, **shapes, **own, "external_data": False, "verbose": False}
    try:
        with torch.no_grad(), _modes_kept(wrapper), captured() as said:
            arrays = tuple(map(torch.from_numpy, example.values()))
            torch.onnx.export(wrapper, arrays, path, opset_version=opset, **options, **names)
    except Exception as error:  # of many kinds, with a report of up to thousands of lines
        place = where_it_stopped(error, said)
        cause = complex_numbers(wrapper, example) or [f"{place}: {gist(error)}" if place else gist(error)]
        causes = [*cause, *warned(said)]
        raise ExportError(f"the exporter {exporter} gives up: {'; '.join(causes)}") from None
    return [each for each in said if not is_advice(each)]


@contextmanager
def _modes_kept(wrapper: torch.nn.Module) -> Iterator[None]:
    """A trace leaves all that is inside in the mode of the outermost module, which is training mode in a new one."""
    modes = [(module, module.training) for module in wrapper.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def example_inputs(spec: StateSpec) -> dict[str, np.ndarray]:
    """Inputs to trace with, {name: array}."""
    axes = dict.fromkeys(axis for tensor in spec.all_inputs for axis in tensor.dynamic_axes.values())
    past = [axis for axis in axes if axis.startswith("past_seq")]
    lengths = {axis: 2 + i for i, axis in enumerate(axis for axis in axes if axis not in past)}
    lengths |= {axis: lengths[axis] * spec.samples_per_frame for axis in lengths if axis == SAMPLES}
    lengths |= dict.fromkeys(past, 2 + len(lengths))
    return random_inputs(spec, lengths)


def random_inputs(spec: StateSpec, lengths: dict[str, int], is_last: bool = False, seed: int = 0):
    """Codes and a state of normal values with `lengths` on the dynamic axes, {name: array}."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for tensor in spec.all_inputs:
        shape = tensor.with_lengths(lengths)
        if tensor.name == "audio_codes":
            arrays[tensor.name] = rng.integers(spec.codebook_size, size=shape)
        elif tensor.name == "is_last":
            arrays[tensor.name] = np.full(shape, is_last, tensor.dtype)
        elif tensor.dtype == "int64":
            arrays[tensor.name] = rng.integers(spec.limits[tensor.name] + 1, size=shape)
        else:
            arrays[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype)
    return arrays


def check_limits(spec: StateSpec) -> None:
    """Raises ValueError for a state that grows, or counts, and has no limit: nobody knows how long or large it gets."""
    for tensor, _ in spec.states:
        for index, axis in tensor.dynamic_axes.items():
            if axis != BATCH and axis not in spec.limits:
                raise ValueError(f"{tensor.name}: axis {index} ({axis}) grows, so the spec's limits must say how far")
        if tensor.dtype == "int64" and tensor.name not in spec.limits:
            raise ValueError(f"{tensor.name} holds whole numbers, so the spec's limits must say the largest one")


def _nested_shapes(wrapper: torch.nn.Module):
    """`dynamic_shapes` for `forward(self, a, b, ..., *past)`: an entry an argument, one tuple for all of `*past`."""
    shapes = [tensor.dynamic_axes for tensor in wrapper.spec.all_inputs]
    kinds = [parameter.kind for parameter in signature(wrapper.forward).parameters.values()]
    if Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    fixed = kinds.index(Parameter.VAR_POSITIONAL)
    return (*shapes[:fixed], tuple(shapes[fixed:]))


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


def _name_axes(value: onnx.ValueInfoProto, tensor, role: str) -> None:
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


def _add_metadata(path: Path, entries: dict[str, str]) -> None:
    """More `metadata_props`, without reading the file again: what is appended to a protobuf message is added to it."""
    more = onnx.ModelProto()
    onnx.helper.set_model_props(more, entries)
    with open(path, "ab") as file:
        file.write(more.SerializeToString())


def validation_cases(spec: StateSpec) -> list[dict]:
    """The validation runs: every chunk length with two fillings of the state, empty, partly filled and full in turn.

    (States of fixed shapes have nothing to fill: they are random each time.)

    `is_last` is off and on in turn, and one row or two: lengths that are frozen show at any of them.
    """
    fills = [0, 5, max(spec.limits.values())] if spec.limits else [0]
    cases = []
    lengths = [spec.fixed_frames] if spec.fixed_frames else VALIDATION_FRAMES
    for index, (frames, is_last) in enumerate(product(lengths, (False, True))):
        fill, batch = fills[-index % len(fills)], spec.fixed_batch or 2 - (index + index // 2) % 2
        cases.append({"frames": frames, "fill": fill, "is_last": is_last, "batch": batch})
    return cases


def compare_once(wrapper: torch.nn.Module, session: CodecSession, case: dict, tolerance: float = TOLERANCE) -> float:
    """Run graph and wrapper on the same random state at other lengths; returns the largest error of any output.

    Raises ExportError where the graph fails, gives another shape, or differs by more than `tolerance`, and ValueError
    where the wrapper does not give what its spec declares.
    """
    spec = wrapper.spec
    lengths = {axis: min(case["fill"], limit) for axis, limit in spec.limits.items()}
    # An encoder's last call may end anywhere.
    samples = case["frames"] * spec.samples_per_frame - case["is_last"] * (spec.samples_per_frame // 3)
    lengths |= {BATCH: case["batch"], FRAMES: case["frames"], SAMPLES: samples}
    feeds = random_inputs(spec, lengths, case["is_last"])
    for tensor in spec.all_inputs[len(spec.inputs) :]:
        if tensor.dtype == "int64":  # one row as old as the case says, the others of a random age
            feeds[tensor.name][0] = lengths[tensor.name]
    expected, own = TorchSession(wrapper).run(feeds), getattr(wrapper, "output_error", None)
    try:
        with captured():  # ONNX Runtime logs what it raises
            outputs = session.run(feeds)
    except Exception as error:
        raise ExportError(f"the graph fails at {case}, a length was frozen: it {why_it_stopped(error)}") from error
    largest = 0.0
    for name, wanted in expected.items():
        array = outputs[name]
        if array.shape != wanted.shape:
            raise ExportError(f"at {case} {name} has the shape {array.shape}, the wrapper gives {wanted.shape}")
        error = own(feeds, name, wanted, array) if own else scaled_error(wanted, array)
        if not error <= tolerance:
            raise ExportError(
                f"at {case} {name} differs from the wrapper by {error:.1e}, more than the tolerance of {tolerance:.0e}"
            )
        largest = max(largest, error)
    return largest


def metadata(
    checkpoint: Checkpoint | OtherModel, spec: StateSpec, exporter: str, precision: str = FLOAT32
) -> dict[str, str]:
    """`metadata_props` of the file: all that a client needs to run it, and where it came from."""
    versions = {
        "qwen3_codec": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "python": platform.python_version(),
    }
    return {
        "format_version": FORMAT_VERSION,
        "state_kind": spec.design,
        "state_spec": spec.to_json(),
        "sample_rate": str(spec.sample_rate),
        "samples_per_frame": str(spec.samples_per_frame),
        "config": json.dumps(checkpoint.config),
        "part": spec.part,
        "weights_sha256": checkpoint.fingerprint(spec.part),
        "source": Path(checkpoint.source).name,
        "exporter": exporter,
        "precision": precision,
        "versions": json.dumps(versions),
    }
