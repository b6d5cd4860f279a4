"""From a wrapper to an ONNX file that describes itself, in three steps: trace, convert, publish after checks."""

import json
import os
import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from .. import __version__
from ..files import written_whole
from ..model.checkpoint import Checkpoint, OtherModel
from ..runtime import CodecSession, GraphError
from ..runtime import self_test as selftest
from ..runtime.measured_snr import FLOAT32
from ..runtime.metrics import scaled_error
from ..runtime.progress import Progress, no_progress
from ..spec import FORMAT_VERSION, StateSpec
from ..streaming.session import StreamingModule, TorchSession, differing
from .check import check_graph, check_limits
from .diagnostics.capture import Diagnostic, captured
from .diagnostics.causes import baked_in_axes, complex_numbers, warned
from .diagnostics.wording import described, gist, tells_of_a_loss
from .tracing import EXPORTERS, OPSET, OPSETS, ExportError, example_inputs, trace
from .validate import TOLERANCE, VALIDATION_FRAMES, validate_graph


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
    wrapper: StreamingModule,
    path: str | os.PathLike,
    exporter: str = "torchscript",
    progress: Progress = no_progress,
    opset: int = OPSET,
    tolerance: float = TOLERANCE,
    precision: str = FLOAT32,
    convert: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None,
    measure: Callable[[CodecSession], dict[str, str]] = lambda session: {},
    strict: bool = True,
) -> Exported:
    """Write `wrapper` (made from `checkpoint.decoder`, or any with a `spec`) to `path` as one ONNX file.

    1. Trace. `exporter` is `torchscript` (`dynamo=False`: traces one run) or `dynamo` (`torch.export`: follows the code
    with symbolic sizes). 2. Convert, where another `precision` asks for it: `convert` makes another model of the traced
    one, once that was found right. 3. Publish: the graph is checked, run against the wrapper at other lengths, where no
    output may differ by more than `tolerance` (over its largest value where that is above 1, or as the wrapper's own
    `output_error` has it), and `measure` says what else is to be in the file, or refuses it; only then it is renamed to
    `path`. Until then, and after any error, `path` is as it was.

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
            nodes = _describe(draft, wrapper.spec, metadata(checkpoint, wrapper.spec, exporter, precision))
            if convert:
                validate_graph(wrapper, _loaded(draft, path))
                nodes = _save(convert(onnx.load(draft)), draft)
            session = _loaded(draft, path)
            errors = validate_graph(wrapper, session, tolerance, progress)
        except ExportError as error:
            example = example_inputs(wrapper.spec)
            causes = [*complex_numbers(wrapper, example), *warned(said)]
            causes += baked_in_axes(wrapper, draft, example, VALIDATION_FRAMES)
            raise ExportError("; ".join([str(error), *causes])) from error.__cause__
        if strict and (losses := described([each for each in said if tells_of_a_loss(each)])):
            raise ExportError(
                f"the exporter warns that the graph lost something: {'; '.join(losses)}; "
                "where that is right for every input, strict=False (--no-strict) writes the file"
            )
        _add_metadata(draft, {selftest.KEY: selftest.record(TorchSession(wrapper), tolerance)} | measure(session))
    return Exported(path, path.stat().st_size, nodes, len(errors), max(errors), described(said))


def write_draft(
    checkpoint: Checkpoint | OtherModel, wrapper: StreamingModule, path: str | os.PathLike, exporter: str = EXPORTERS[0]
) -> list[Diagnostic]:
    """Trace, check the graph's form and describe it, straight to `path` and without a run; what was said but advice."""
    said = _run_and_trace(checkpoint, wrapper, path, exporter, OPSET)
    _describe(path, wrapper.spec, metadata(checkpoint, wrapper.spec, exporter))
    return said


def _run_and_trace(
    checkpoint: Checkpoint | OtherModel, wrapper: StreamingModule, path: str | os.PathLike, exporter: str, opset: int
) -> list[Diagnostic]:
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


def _describe(path: str | os.PathLike, spec: StateSpec, entries: dict[str, str]) -> dict[str, int]:
    """Check the form of the graph at `path`, and write what it is into the file; returns its node counts."""
    model = onnx.load(path)
    check_graph(model, spec)
    # TorchScript's exporter leaves the path of every line of code in the nodes' texts.
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    onnx.helper.set_model_props(model, entries)
    nodes = _save(model, path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the graph is not valid: {gist(error)}") from error
    return nodes


def _save(model: onnx.ModelProto, path: str | os.PathLike) -> dict[str, int]:
    onnx.save(model, path)
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


def _loaded(draft: Path, path: Path) -> CodecSession:
    try:
        with captured():  # ONNX Runtime logs what it raises
            return CodecSession(draft)
    except GraphError as error:  # ONNX Runtime infers shapes on its own, and finds what was frozen further back
        raise ExportError(str(error).replace(os.fspath(draft), os.fspath(path))) from error


def _add_metadata(path: Path, entries: dict[str, str]) -> None:
    """More `metadata_props`, without reading the file again: what is appended to a protobuf message is added to it."""
    more = onnx.ModelProto()
    onnx.helper.set_model_props(more, entries)
    with open(path, "ab") as file:
        file.write(more.SerializeToString())


def exported(
    checkpoint: Checkpoint | OtherModel, wrapper: StreamingModule, path: str | os.PathLike, **options: Any
) -> Path:
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
