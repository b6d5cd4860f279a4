"""Matrix products in 8 bits: what they compute, and the operators of ONNX Runtime that compute it.

Each of the four operators below is a PyTorch function that gives ONNX Runtime's numbers, and a translation for either
exporter. So a wrapper that is made of them runs in PyTorch too, and can be held against its own graph.
"""

from collections.abc import Iterable

import torch
from onnx.defs import OpSchema
from onnxscript import opset18 as standard
from onnxscript.values import Op, Opset
from torch import nn
from torch.nn import functional as F
from torch.onnx import register_custom_op_symbolic
from torch.onnx.symbolic_helper import parse_args

DOMAIN, DOMAIN_VERSION = "com.microsoft", 1  # of ONNX Runtime's own operators
# MatMulNBits has had 8 bits since this version.
NEEDS_ONNXRUNTIME = "1.22"
ZERO = 128  # what stands for 0 in a uint8
LARGEST = 127  # of a signed 8-bit number; with it both signs have as many steps
BLOCK = 128  # values that share a scale in `BlockProduct`
ACCURACY_INT8 = 4  # MatMulNBits' `accuracy_level`: activations in 8 bits
FINE = 0.5 / LARGEST  # steps of the second term, in those of the first
TINY = torch.finfo(torch.float32).tiny


@torch.library.custom_op("qwen3_codec::quantize", mutates_args=())
def quantize(x: torch.Tensor, step: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """round(x / step) + zero as uint8, cut off at its ends; `step` and `zero` (uint8) are [B], one for each row."""
    rows = (-1, *(1,) * (x.ndim - 1))
    return ((x / step.view(rows)).round() + zero.view(rows)).clamp(0, 255).to(torch.uint8)


@torch.library.custom_op("qwen3_codec::dequantize", mutates_args=())
def dequantize(x: torch.Tensor, step: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """The way back: (x - zero) * step as float32."""
    rows = (-1, *(1,) * (x.ndim - 1))
    return (x.float() - zero.view(rows)) * step.view(rows)


@torch.library.custom_op("qwen3_codec::integer_product", mutates_args=())
def integer_product(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """uint8 [..., K] around ZERO times int8 [K, M], times float32 `scale` [M]; here the sums are float32's."""
    return ((x.float() - ZERO) @ weight.float()) * scale


@torch.library.custom_op("qwen3_codec::block_product", mutates_args=())
def block_product(x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, width: int) -> torch.Tensor:
    """float32 [..., K] times uint8 [M, blocks, BLOCK] around ZERO; `scales` [M * blocks], `width` is K.

    Each block of BLOCK neighbouring values of `x` is rounded to 8 bits with a scale of its own.
    """
    padding = weight.shape[1] * BLOCK - width
    blocks = F.pad(x, (0, padding)).unflatten(-1, (-1, BLOCK))
    step = (blocks.abs().amax(-1, keepdim=True) / LARGEST).clamp(min=TINY)
    rows = (weight.float() - ZERO) * scales.view(len(weight), -1, 1)
    return ((blocks / step).round() * step).flatten(-2) @ rows.flatten(1).T


@quantize.register_fake
def _(x, step, zero):
    return x.new_empty(x.shape, dtype=torch.uint8)


@dequantize.register_fake
def _(x, step, zero):
    return step.new_empty(x.shape)


@integer_product.register_fake
def _(x, weight, scale):
    return scale.new_empty((*x.shape[:-1], weight.shape[1]))


@block_product.register_fake
def _(x, weight, scales, width):
    return x.new_empty((*x.shape[:-1], len(weight)))


# --- For the exporter that follows the code (dynamo)


def _quantize(x, step, zero):
    return standard.QuantizeLinear(x, step, zero, axis=0)


def _dequantize(x, step, zero):
    return standard.DequantizeLinear(x, step, zero, axis=0)


def _integer_product(x, weight, scale):
    operator = _operator("MatMulIntegerToFloat", ["uint8", "int8", "float", "float", "uint8"])
    return operator(x, weight, standard.Constant(value_float=1.0), scale, _zero())


def _block_product(x, weight, scales, width: int):
    attributes = _block_attributes(weight.shape[0], width)
    return _operator("MatMulNBits", ["float", "uint8", "float"], attributes)(x, weight, scales, **attributes)


def _operator(name: str, inputs: list[str], attributes: Iterable[str] = ()) -> Op:
    """An operator of ONNX Runtime's own; `inputs` are its dtypes. The exporter wants a schema, and onnx has none."""
    schema = OpSchema(
        name,
        DOMAIN,
        DOMAIN_VERSION,
        inputs=[OpSchema.FormalParameter(f"input_{i}", f"tensor({dtype})") for i, dtype in enumerate(inputs)],
        outputs=[OpSchema.FormalParameter("output", "tensor(float)")],
        attributes=[OpSchema.Attribute(each, OpSchema.AttrType.INT) for each in attributes],
    )
    return Op(Opset(DOMAIN, DOMAIN_VERSION), name, schema)


def _zero():
    return standard.Cast(standard.Constant(value_int=ZERO), to=2)  # 2: ONNX's number for uint8


def _block_attributes(rows: int, width: int) -> dict[str, int]:
    return {"K": width, "N": rows, "bits": 8, "block_size": BLOCK, "accuracy_level": ACCURACY_INT8}


# What `torch.onnx.export(dynamo=True)` takes as `custom_translation_table`.
TRANSLATIONS = {
    torch.ops.qwen3_codec.quantize.default: _quantize,
    torch.ops.qwen3_codec.dequantize.default: _dequantize,
    torch.ops.qwen3_codec.integer_product.default: _integer_product,
    torch.ops.qwen3_codec.block_product.default: _block_product,
}


# --- For the exporter that records a run (TorchScript)


@parse_args("v", "v", "v")
def _traced_quantize(graph, x, step, zero):
    return graph.op("QuantizeLinear", x, step, zero, axis_i=0).setType(x.type().with_dtype(torch.uint8))


@parse_args("v", "v", "v")
def _traced_dequantize(graph, x, step, zero):
    return graph.op("DequantizeLinear", x, step, zero, axis_i=0).setType(x.type().with_dtype(torch.float32))


@parse_args("v", "v", "v")
def _traced_integer_product(graph, x, weight, scale):
    one = graph.op("Constant", value_t=torch.tensor(1.0))
    product = graph.op(f"{DOMAIN}::MatMulIntegerToFloat", x, weight, one, scale, _traced_zero(graph))
    return product.setType(_product_type(scale, x, weight.type().sizes()[1]))


@parse_args("v", "v", "v", "i")
def _traced_block_product(graph, x, weight, scales, width):
    rows = weight.type().sizes()[0]
    attributes = {f"{name}_i": value for name, value in _block_attributes(rows, width).items()}
    product = graph.op(f"{DOMAIN}::MatMulNBits", x, weight, scales, **attributes)
    return product.setType(_product_type(x, x, rows))


def _traced_zero(graph):
    return graph.op("Constant", value_t=torch.tensor(ZERO, dtype=torch.uint8))


def _product_type(of, x, width: int):
    """Any lengths, then `width`; of the dtype of `of`."""
    return of.type().with_sizes([None] * (x.type().dim() - 1) + [width])


for _name, _symbolic in (
    ("quantize", _traced_quantize),
    ("dequantize", _traced_dequantize),
    ("integer_product", _traced_integer_product),
    ("block_product", _traced_block_product),
):
    register_custom_op_symbolic(f"qwen3_codec::{_name}", _symbolic, 14)


# --- Products of an activation with fixed weights


class BlockProduct(nn.Module):
    """[..., K] times `weight` [M, K] plus `bias` [M] or None, with a scale for each BLOCK weights, and activations.

    No step's rounding depends on another's. One node of the graph, quickest where a call has a step or a few.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        super().__init__()
        self.width = weight.shape[1]
        blocks = F.pad(weight, (0, -self.width % BLOCK)).unflatten(1, (-1, BLOCK))
        scales = (blocks.abs().amax(-1) / LARGEST).clamp(min=TINY)
        self.register_buffer("weight", ((blocks / scales[..., None]).round() + ZERO).to(torch.uint8), persistent=False)
        self.register_buffer("scales", scales.flatten(), persistent=False)
        self.register_buffer("bias", bias if bias is None else bias.detach(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.ops.qwen3_codec.block_product(x, self.weight, self.scales, self.width)
        return y if self.bias is None else y + self.bias


class IntegerProduct(nn.Module):
    """[B, T, K] times `weight` [M, K] plus `bias` [M] or None, with a scale for each of the M outputs.

    Activations are rounded row by row of the batch: a row that is loud, or not finite, does nothing to the others. One
    term has the range of each row, from its lowest value to its highest. With two, what rounding left over is rounded
    once more: 16 bits, at twice the work but with the same weights read. `neighbours` joins the taps of a convolution,
    which it does in 8 bits.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, terms: int = 1):
        super().__init__()
        self.terms, self.outputs = terms, len(weight)
        scale = (weight.abs().amax(1) / LARGEST).clamp(min=TINY)
        rounded = (weight / scale[:, None]).round()
        self.register_buffer("weight", rounded.to(torch.int8).T.contiguous(), persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        # What an activation that is 1 everywhere would give: a row's zero comes back with it.
        self.register_buffer("ones", (rounded * scale[:, None]).sum(1), persistent=False)
        bias = torch.zeros(len(weight)) if bias is None else bias.detach()
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: torch.Tensor, neighbours=lambda x: x) -> torch.Tensor:
        return self._two_terms(x, neighbours) if self.terms == 2 else self._one_term(x, neighbours)

    def _one_term(self, x, neighbours):
        low, high = x.amin((1, 2)).clamp(max=0), x.amax((1, 2)).clamp(min=0)
        step = ((high - low) / 255).clamp(min=TINY)
        zero = (-low / step).round()
        x = neighbours(torch.ops.qwen3_codec.quantize(x, step, zero.to(torch.uint8)))
        y = torch.ops.qwen3_codec.integer_product(x, self.weight, self.scale)
        step, zero = step.reshape(-1, 1, 1), zero.reshape(-1, 1, 1)
        return y * step + (step * (ZERO - zero) * self.ones + self.bias)

    def _two_terms(self, x, neighbours):
        step = (x.abs().amax((1, 2)) / LARGEST).clamp(min=TINY)
        zero = torch.full_like(step, ZERO, dtype=torch.uint8)
        coarse = torch.ops.qwen3_codec.quantize(x, step, zero)
        rest = x - torch.ops.qwen3_codec.dequantize(coarse, step, zero)
        terms = coarse, torch.ops.qwen3_codec.quantize(rest, step * FINE, zero)
        terms = torch.stack([neighbours(term) for term in terms], 1)
        y = torch.ops.qwen3_codec.integer_product(terms, self.weight, self.scale)
        # The two, each in its own step, are added by a product: one operation on large tensors in place of five.
        steps = torch.stack([step, step * FINE], 1)[:, None]
        return (steps @ y.flatten(2)).reshape(x.size(0), -1, self.outputs) + self.bias
