"""A graph beside the wrapper that it was made from, at other lengths than the example's."""

from typing import Any

from ..runtime import CodecSession
from ..runtime.metrics import MAX_ERROR, scaled_error
from ..runtime.progress import Progress, no_progress
from ..spec import BATCH, FRAMES, SAMPLES, StateSpec
from ..streaming.session import StreamingModule, TorchSession
from .diagnostics.baked_in_axes import why_it_stopped
from .diagnostics.capture import captured
from .tracing import ExportError, random_inputs

# The graph and the wrapper do the same float32 operations in another order. Half-precision states need more: they are
# rounded to 11 bits.
TOLERANCE = MAX_ERROR
FULL = -1
# Each chunk length (one frame, fewer and more than the example, a long chunk) with two fillings of the states that
# grow, and `is_last` off and on; one row or two. A length that was frozen shows at any of them.
VALIDATION_RUNS = (
    # frames, frames in the state, is_last, rows
    (1, 0, False, 2),
    (1, FULL, True, 1),
    (2, 5, False, 1),
    (2, 0, True, 2),
    (5, FULL, False, 2),
    (5, 5, True, 1),
    (12, 0, False, 1),
    (12, FULL, True, 2),
)
VALIDATION_FRAMES = tuple(dict.fromkeys(frames for frames, *_ in VALIDATION_RUNS))


def validation_cases(spec: StateSpec) -> list[dict[str, Any]]:
    """VALIDATION_RUNS as far as `spec` has its lengths free. (States of one shape are random each time.)"""
    full = spec.frames_to_fill
    return [
        {
            "frames": spec.fixed_frames or frames,
            "fill": full if fill == FULL else min(fill, full),
            "is_last": is_last,
            "batch": spec.fixed_batch or batch,
        }
        for frames, fill, is_last, batch in VALIDATION_RUNS[: 2 if spec.fixed_frames else None]
    ]


def validate_graph(
    wrapper: StreamingModule,
    session: CodecSession,
    tolerance: float = TOLERANCE,
    progress: Progress = no_progress,
) -> list[float]:
    """Run graph and wrapper side by side at each of `validation_cases`; the largest error of each, or ExportError."""
    cases = progress(validation_cases(wrapper.spec), unit="run")
    return [compare_once(wrapper, session, case, tolerance) for case in cases]


def compare_once(
    wrapper: StreamingModule, session: CodecSession, case: dict[str, Any], tolerance: float = TOLERANCE
) -> float:
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
        if tensor.dtype == "int64":  # one row as full as the case says, the others at random
            feeds[tensor.name][0] = lengths[tensor.name]
    expected, own = TorchSession(wrapper).run(feeds), getattr(wrapper, "output_error", None)
    try:
        with captured():  # ONNX Runtime logs what it raises
            outputs = session.run(feeds)
    except Exception as stop:
        raise ExportError(f"the graph fails at {case}, a length was frozen: {why_it_stopped(stop)}") from stop
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
