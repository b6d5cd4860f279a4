"""Half precision and 8-bit weights: where they break, and what one can expect of them.

The converters are ONNX Runtime's own: `onnxruntime.transformers.float16` and `onnxruntime.quantization`.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch

from ...exporting.diagnostics.baked_in_axes import raw_session
from ...exporting.export import write_draft
from ...model import checkpoint
from ...model.decoder import Codebook
from ...model.one_shot import one_shot
from ...runtime import CodecSession
from ...runtime.metrics import MAX_ERROR, max_error, snr_db
from ...streaming.exact import ExactStreamingWrapper
from ...streaming.windowed import StatefulCodecONNXWrapper
from .trap import Outcome, Trap, caught_by

# Takes the demo's running sums beyond 65504, the largest number of float16.
SCALE = 1e5


@cache
def demo() -> checkpoint.Checkpoint:
    """The bundled speech model, loaded once; not to be changed."""
    return checkpoint.load("demo")


@cache
def _folder() -> tempfile.TemporaryDirectory:
    """Removed when Python ends."""
    return tempfile.TemporaryDirectory()


def scratch(name: str) -> Path:
    """Where this module's graph of that name lies."""
    return Path(_folder().name) / f"{name}.onnx"


@cache
def demo_graph() -> Path:
    """The demo's exact graph in float32, exported once."""
    return _graph(demo(), ExactStreamingWrapper(demo().decoder), "exact")


def _graph(loaded: checkpoint.Checkpoint, wrapper: torch.nn.Module, name: str) -> Path:
    """A graph without validation runs: each is measured against the one-shot decoder below."""
    write_draft(loaded, wrapper, scratch(name))
    return scratch(name)


def to_half(source: Path, name: str, keep_io_types: bool = True) -> Path:
    """Weights and operations in float16; with `keep_io_types` the states, like all inputs and outputs, stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=keep_io_types), scratch(name))
    return scratch(name)


@contextmanager
def _no_new_handlers() -> Iterator[None]:
    """The root logger as it was: ONNX Runtime's quantizer logs by `logging.info`, which gives it a handler."""
    before = [*logging.root.handlers]
    try:
        yield
    finally:
        logging.root.handlers[:] = before


@_no_new_handlers()
def to_int8(source: Path, name: str, operators: list[str], prepare: bool = True) -> Path:
    """Weights of `operators` in 8 bits, activations measured at run time ("dynamic" quantization)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    target = scratch(name)
    if prepare:
        quant_pre_process(source, target, skip_symbolic_shape=True)
    quantize_dynamic(
        target if prepare else source, target, op_types_to_quantize=operators, weight_type=QuantType.QUInt8
    )
    return target


def heard(wanted: np.ndarray, found: np.ndarray) -> Outcome:
    """A waveform beside the right one; the error is that of the loudest sample."""
    error = max_error(wanted, found)
    text = f"SNR {snr_db(wanted, found):.1f} dB, largest error {error:.1e}"
    wrong = np.flatnonzero(~(np.abs(wanted - found).max(axis=0) <= MAX_ERROR))  # so written, NaN is wrong
    return Outcome(error, text, f"frame {wrong[0] // demo().decoder.samples_per_frame}" if wrong.size else "")


def against_one_shot(path: Path, frames: int = 36) -> Outcome:
    """Decode the demo's codes with the graph at `path`, in chunks of 3."""
    codes = checkpoint.example_codes(demo(), frames)
    return heard(one_shot(demo().decoder, codes), CodecSession(path).decode(codes, [3]))


# --- Half precision


def states_in_half():
    return to_half(demo_graph(), "half_states", keep_io_types=False)  # trap


def states_in_float():
    return to_half(demo_graph(), "float_states", keep_io_types=True)


def float32_lowest(scores, blocked):
    return scores.masked_fill(blocked, torch.finfo(torch.float32).min)  # trap


def its_own_lowest(scores, blocked):
    return scores.masked_fill(blocked, torch.finfo(scores.dtype).min)


@caught_by("the first call")
def mask_in_half(fill: Callable) -> Outcome:
    """Attention scores of half precision with every second place blocked; the error is what attention gives those."""
    blocked = torch.arange(8) % 2 == 1
    weights = torch.softmax(fill(torch.zeros(8, dtype=torch.float16), blocked), 0)
    error = float(weights[blocked].max())
    return Outcome(error, f"the blocked places get the weight {error:g}, the others {float(weights[0]):g}")


def with_large_sums() -> checkpoint.Checkpoint:
    """The demo with all running sums and counts 100,000 times as large, so that every vector stays as it is."""
    loaded = checkpoint.load("demo")
    for codebook in _codebooks(loaded):
        codebook.cluster_usage.mul_(SCALE)
        codebook.embedding_sum.mul_(SCALE)
    return loaded


def divided_in_the_graph():
    loaded = with_large_sums()  # trap
    graph = _graph(loaded, StatefulCodecONNXWrapper(loaded.decoder, 10, 0), "sums")
    return to_half(graph, "half_sums")


def divided_before():
    loaded = with_large_sums()
    for codebook in _codebooks(loaded):
        codebook.embedding_sum.copy_(codebook.table())
        codebook.cluster_usage.fill_(1)
    graph = _graph(loaded, StatefulCodecONNXWrapper(loaded.decoder, 10, 0), "vectors")
    return to_half(graph, "half_vectors")


def _codebooks(loaded: checkpoint.Checkpoint) -> list[Codebook]:
    return [module for module in loaded.decoder.modules() if isinstance(module, Codebook)]


@caught_by("parity of the converted file with the full-sequence decode")
def measured(make: Callable[[], Path]) -> Outcome:
    """A demonstration: convert, then decode."""
    return against_one_shot(make())


def in_float32(feeds: dict[str, np.ndarray], inputs: dict[str, str]) -> dict[str, np.ndarray]:
    """`feeds` as they are; `inputs` are the graph's, {name: type}."""
    return feeds  # trap


def in_the_graphs_types(feeds: dict[str, np.ndarray], inputs: dict[str, str]) -> dict[str, np.ndarray]:
    """`feeds` in the types of the graph's `inputs`, {name: type}."""
    numpy = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
    return {name: array.astype(numpy[inputs[name]]) for name, array in feeds.items()}


@caught_by("the first call")
def a_graph_in_half(cast: Callable) -> Outcome:
    """The demo's exact graph, states in half precision too, in ONNX Runtime itself: the first 12 frames."""
    session, spec = raw_session(to_half(demo_graph(), "all_half", keep_io_types=False)), CodecSession(demo_graph()).spec
    codes = checkpoint.example_codes(demo(), 12)
    feeds = {spec.inputs[0].name: codes} | spec.zero_state(batch=1)
    samples = session.run([spec.outputs[0].name], cast(feeds, {each.name: each.type for each in session.get_inputs()}))
    return heard(one_shot(demo().decoder, codes), samples[0].astype(np.float32))


# --- 8 bits


def quantized_at_once():
    return to_int8(demo_graph(), "at_once", ["Conv"], prepare=False)  # trap


def quantized_after_preparation():
    return to_int8(demo_graph(), "prepared", ["Conv"])


TRAPS = (
    Trap(
        name="states in half precision",
        naive=states_in_half,
        fix=states_in_float,
        demonstrate=measured,
        symptoms=("export",),
        why="The converter changes the dtype of the states, and the file's own description still says float32: "
        "`CodecSession` refuses it. `keep_io_types=True` leaves inputs and outputs as they were declared.",
        within=2e-3,
    ),
    Trap(
        name="float32 for a graph in half precision",
        naive=in_float32,
        fix=in_the_graphs_types,
        demonstrate=a_graph_in_half,
        symptoms=("export",),
        why="ONNX Runtime converts no input: an array must have the type that the graph declares, and after a "
        "conversion without `keep_io_types=True` that is float16, also of the states. Read it from `get_inputs()`. "
        "(With the types changed round, a float16 array for a float32 graph, the message is the same but for its "
        "order.)",
        sources=("hsysfan/YOLOv5-Seg-OnnxRuntime#4", "microsoft/onnxruntime#12152"),
        within=2e-3,
    ),
    Trap(
        name="a mask with float32's lowest number",
        naive=float32_lowest,
        fix=its_own_lowest,
        demonstrate=mask_in_half,
        symptoms=("export", "nan"),
        why="Each dtype has a lowest number of its own. (`-inf` would pass, but a row that sees nothing then becomes "
        "NaN.)",
        sources=("unit8co/darts#3081", "InternLM/lmdeploy#3152"),
        within=0.0,
    ),
    Trap(
        name="running sums in half precision",
        naive=divided_in_the_graph,
        fix=divided_before,
        demonstrate=measured,
        symptoms=("quality",),
        why="A codebook is stored as running sums and counts (their quotient is the vector). The converter cuts what "
        "is above 65504 to 65504. Divide before the export, in float32. (Here sums and counts are "
        "the demo's times 100,000, with the same quotients. How large the official checkpoint's are was not measured.)",
        within=2e-3,
    ),
    Trap(
        name="8-bit convolutions straight from the exporter",
        naive=quantized_at_once,
        fix=quantized_after_preparation,
        demonstrate=measured,
        symptoms=("export",),
        why="The older exporter writes some weights as `Constant` nodes; the quantizer wants initializers. "
        "`quant_pre_process` makes them so.",
        elsewhere={
            "NotImplemented: [ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for "
            "ConvInteger(10) node with name 'Conv_0_quant'": "An ONNX Runtime without a kernel for unsigned activations"
            " and signed weights meets convolutions that were quantized with `QuantType.QInt8`, `quantize_dynamic`'s "
            "default. Quantize with `weight_type=QuantType.QUInt8`, or leave `Conv` out of `op_types_to_quantize`. "
            "(The one used here runs both.)"
        },
        sources=(
            "microsoft/onnxruntime#13358",
            "microsoft/onnxruntime#12558",
            "microsoft/onnxruntime#15888",
            "microsoft/onnxruntime#6430",
        ),
        within=0.05,
    ),
)
