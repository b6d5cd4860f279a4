"""The exact graph in 16 bits, for providers that are quicker with them; the converter is ONNX Runtime's own."""

import warnings

import onnx

# What overflows float16 (65504), or loses what the next operation needs: sums of the codebooks' vectors, squares and
# their means (RMS norm), softmax, rotary angles, and the argument of the sine with its nearest integer.
FLOAT32 = ("Gather", "ReduceSum", "Pow", "ReduceMean", "Reciprocal", "LayerNormalization", "Softmax", "Sin", "Cos")
# These too, with what feeds them and what reads them.
FLOAT32_AROUND = ("Round", "Sqrt")


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and operations in float16, inputs, outputs and states in float32 as they were."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers below the smallest float16; what they do to the sound is measured
        return convert_float_to_float16(
            model, keep_io_types=True, op_block_list=list(FLOAT32), node_block_list=_around(model)
        )


def _around(model: onnx.ModelProto) -> list[str]:
    nodes = model.graph.node
    middle = [node for node in nodes if node.op_type in FLOAT32_AROUND]
    read = {name for node in middle for name in node.input}
    written = {name for node in middle for name in node.output}
    return [node.name for node in nodes if node in middle or read & {*node.output} or written & {*node.input}]
