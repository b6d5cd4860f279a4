"""The exact graph in 16 bits, for providers that are quicker with them; the converter is ONNX Runtime's own."""

import warnings

import onnx

# What overflows float16 (65504), or loses what the next operation needs: sums of the codebooks' vectors, squares and
# their means (RMS norm), softmax, and rotary angles.
FLOAT32 = ("Gather", "ReduceSum", "Pow", "ReduceMean", "Reciprocal", "LayerNormalization", "Softmax", "Sin", "Cos")
# This too, with what feeds it and what reads it.
FLOAT32_AROUND = "Sqrt"
# The sine of the activation takes its argument less the nearest integer. All that is computed of the argument alone is
# float32, coefficients too: rounded to float16 they alone cost 5 dB on the demo.
FLOAT32_FROM = "Round"


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and operations in float16, inputs, outputs and states in float32 as they were."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers below the smallest float16; what they do to the sound is measured
        half = convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=list(FLOAT32),
            node_block_list=_around(model) + _of_the_argument(model),
        )
    return _without_detours(half)


def _around(model: onnx.ModelProto) -> list[str]:
    nodes = model.graph.node
    middle = [node for node in nodes if node.op_type == FLOAT32_AROUND]
    read = {name for node in middle for name in node.input}
    written = {name for node in middle for name in node.output}
    return [node.name for node in nodes if node in middle or read & {*node.output} or written & {*node.input}]


def _of_the_argument(model: onnx.ModelProto) -> list[str]:
    """What depends on the argument of FLOAT32_FROM and on constants, with the constants that it reads."""
    nodes = model.graph.node
    constant = {tensor.name for tensor in model.graph.initializer}
    inside = {node.input[0] for node in nodes if node.op_type == FLOAT32_FROM}
    for node in nodes:  # each stands behind those that feed it
        if constant.issuperset(node.input):
            constant.update(node.output)
        elif (constant | inside).issuperset(node.input):
            inside.update(node.output)
    inside.update(name for node in nodes if inside & {*node.output} for name in node.input if name in constant)
    return [node.name for node in nodes if inside & {*node.output}]


def _without_detours(model: onnx.ModelProto) -> onnx.ModelProto:
    """Between two operations in float32 the converter rounds to float16 and back; the second takes the value itself."""
    graph = model.graph
    rounding = [node for node in graph.node if node.name.endswith("_cast_to_fp16_node")]
    value = {f"{node.output[0]}_cast_to_fp32": node.input[0] for node in rounding}
    nodes = [node for node in graph.node if node.output[0] not in value]
    for node in nodes:
        node.input[:] = [value.get(name, name) for name in node.input]
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    del graph.node[:]
    graph.node.extend(node for node in nodes if read & {*node.output})
    return model
