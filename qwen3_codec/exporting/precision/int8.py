"""The exact wrapper in 8 bits: the same states, and each layer's product as the table says.

Behind the transformer everything is laid out [B, T, C] here, each step's channels side by side: any convolution is then
one matrix product over neighbouring steps, and what a transposed one gives needs no transpose.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...model.decoder import CodecDecoder
from ...model.snake import COARSE, Snake, sine_squared
from ...runtime.measured_snr import INT8
from ...spec import DECODER, EXACT
from ...streaming.designs import WRAPPERS
from ...streaming.exact import ExactStreamingWrapper
from ...streaming.kv_stack import Streamed, stream_transformer
from ...streaming.layers import (
    StreamingConv1d,
    StreamingConvNeXt,
    StreamingConvTranspose1d,
    eval_own,
)
from ...streaming.states import ConvStates
from .integers import TRANSLATIONS, BlockProduct, IntegerProduct

FLOAT, BLOCKS, ONE_TERM, TWO_TERMS = "float32", "block-wise int8", "int8", "two-term int8"
PRODUCTS: dict[str, Callable[..., nn.Module]] = {
    BLOCKS: BlockProduct,
    ONE_TERM: IntegerProduct,
    TWO_TERMS: partial(IntegerProduct, terms=2),
}
# The table: which kind of layer gets which product. It comes from the demo, where each kind alone was given one term
# (`precision.sensitivity`, page 8): transposed convolutions leave 37 to 43 dB, what comes before them 40 to 45, the
# residual ones 39 to 46, the more the later their block; the weights alone, all of them, 37. At the official widths
# seven tenths of the work are in residual convolutions of several taps: these get one term as soon as steps are short.
# What is small and hurts stays float32: the quantizer's and the transformer's projections, the last convolution.
PRODUCT_OF_KIND = {
    "pre_conv": TWO_TERMS,
    "transformer": BLOCKS,
    "upsampling": TWO_TERMS,
    "ConvNeXt": TWO_TERMS,
    "first": TWO_TERMS,
    "transposed": TWO_TERMS,
    "residual": TWO_TERMS,
    "pointwise": TWO_TERMS,
    "last": FLOAT,
}
# In the decoder's blocks from this one on (counted from 0), one term is enough.
ONE_TERM_FROM_BLOCK = {"residual": 1, "pointwise": 2}


def treatment(kind: str, block: int | None = None) -> str:
    """The product of a layer of `kind`, in the decoder's block of that number if it is in one."""
    if block is not None and block >= ONE_TERM_FROM_BLOCK.get(kind, block + 1):
        return ONE_TERM
    return PRODUCT_OF_KIND[kind]


class Int8StreamingWrapper(ExactStreamingWrapper):
    """`ExactStreamingWrapper` with its products in 8 bits, on the same states: a stream can go from one to the other.

    `choose(kind, block)` gives each layer's product, FLOAT or one of PRODUCTS; for those who try another table.
    """

    translations = TRANSLATIONS  # for the dynamo exporter

    @torch.no_grad()
    def __init__(self, decoder: CodecDecoder, choose: Callable[[str, int | None], str] = treatment):
        super().__init__(decoder)
        self.pre_conv = Transposed(_in_bits(StepConv, self.pre_conv, choose("pre_conv", None)))
        self.transformer = deepcopy(decoder.pre_transformer).requires_grad_(False)
        _swap(self.transformer.layers, partial(_linear, product=choose("transformer", None)))
        names = [name for name, _ in decoder.stages()]
        for index, name in enumerate(names):
            form = partial(_integer_form, choose=choose, stage=name, last=name == names[-1])
            self.stages[index] = form(self.stages[index]) or _swap(self.stages[index], form)
        eval_own(self, decoder)

    def transform(
        self, hidden: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], past_frames: Tensor, **parts: Any
    ) -> Streamed:
        keep = self.decoder.config.sliding_window - 1
        return stream_transformer(self.transformer, hidden, keys, values, keep, past_frames, **parts)

    def decode_latents(self, latents: Tensor, convs: ConvStates) -> Tensor:
        for stage in self.stages:
            latents = stage(latents, convs)
        return latents.squeeze(2).clamp(-1, 1)


WRAPPERS[DECODER, EXACT, INT8] = Int8StreamingWrapper


class Transposed(nn.Module):
    """A part that works on [B, T, C], between parts that do not."""

    def __init__(self, part: nn.Module):
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, states: ConvStates) -> Tensor:
        return self.part(x.transpose(1, 2), states).transpose(1, 2)


class StepConv(nn.Module):
    """`StreamingConv1d` of stride 1 on [B, T, C]: a product of each step with those that its kernel reaches.

    `layer` is what it stands for: its left context and channels are the state's.
    """

    def __init__(self, layer: StreamingConv1d, product: Callable):
        super().__init__()
        conv, self.layer = layer.conv, layer
        self.reach = torch.arange(conv.kernel_size[0]) * conv.dilation[0]
        self.product = product(conv.weight.transpose(1, 2).flatten(1), conv.bias)

    def forward(self, x: Tensor, states: ConvStates) -> Tensor:
        return _over_steps(self, x, states)


class StepTransConv(nn.Module):
    """`StreamingConvTranspose1d` on [B, T, C]: the stride's results of a step are already in the order of time."""

    def __init__(self, layer: StreamingConvTranspose1d, product: Callable):
        super().__init__()
        self.layer = layer
        self.reach = torch.arange(layer.left_context + 1)
        # The layer's outputs are channel by channel, each with its strides; these are stride by stride.
        order = torch.arange(len(layer.weight)).view(-1, layer.stride).T.flatten()
        self.product = product(
            layer.weight.transpose(1, 2).flatten(1)[order], None if layer.bias is None else layer.bias[order]
        )

    def forward(self, x: Tensor, states: ConvStates) -> Tensor:
        y = _over_steps(self, x, states)
        return y.reshape(y.size(0), -1, self.layer.out_channels)


def _over_steps(conv: StepConv | StepTransConv, x: Tensor, states: ConvStates) -> Tensor:
    """The product of `conv` at each step of `x`, its past in front; `conv.reach` says how far a step's taps lie."""
    if not conv.layer.left_context:
        return conv.product(x)
    steps = (torch.arange(x.size(1))[:, None] + conv.reach).flatten()
    x = states.extend(x, conv.layer.left_context, channels_last=True)
    width = conv.reach.numel() * conv.layer.channels
    return conv.product(x, lambda each: each.index_select(1, steps).reshape(each.size(0), -1, width))


class StepSnake(nn.Module):
    """`Snake` on [B, T, C]. Its sine has fewer terms: what it leaves is far below the rounding of 8 bits."""

    form = COARSE
    frequency: Tensor
    scale: Tensor

    def __init__(self, layer: Snake):
        super().__init__()
        self.register_buffer("frequency", layer.frequency[:, 0].contiguous(), persistent=False)
        self.register_buffer("scale", layer.scale[:, 0].contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + sine_squared(x * self.frequency, self.form, self.scale)


class StepConvNeXt(nn.Module):
    """`StreamingConvNeXt` on [B, T, C], its two products in 8 bits; the depthwise convolution has hardly any work."""

    def __init__(self, layer: StreamingConvNeXt, product: Callable):
        super().__init__()
        block = layer.block
        self.dwconv, self.norm, self.act = Transposed(layer.dwconv), block.norm, block.act
        self.pwconv1 = product(block.pwconv1.weight, block.pwconv1.bias)
        self.pwconv2 = product(block.gamma[:, None] * block.pwconv2.weight, block.gamma * block.pwconv2.bias)

    def forward(self, x: Tensor, states: ConvStates) -> Tensor:
        return x + self.pwconv2(self.act(self.pwconv1(self.norm(self.dwconv(x, states)))))


def _integer_form(module: nn.Module, choose: Callable, stage: str, last: bool) -> nn.Module | None:
    """What stands for one of the exact wrapper's stages, or None where its own parts are to be replaced."""
    part, place, *_ = stage.split(".")
    block = int(place) - 1 if part == "decoder" else None  # a convolution comes before the first block

    match module:
        case Snake():
            return StepSnake(module)
        case StreamingConvNeXt():
            return _in_bits(StepConvNeXt, module, choose("ConvNeXt", None))
        case StreamingConvTranspose1d() if block is None:
            return _in_bits(StepTransConv, module, choose("upsampling", None))
        case StreamingConvTranspose1d():
            return _in_bits(StepTransConv, module, choose("transposed", block))
        case StreamingConv1d() if last or block == -1:
            return _in_bits(StepConv, module, choose("last" if last else "first", None))
        case StreamingConv1d():
            return _in_bits(StepConv, module, choose("residual" if module.left_context else "pointwise", block))
    return None


def _in_bits(form: Callable, layer: nn.Module, product: str) -> nn.Module:
    """`layer` in its `form` for [B, T, C], or as it is where nothing is rounded."""
    return Transposed(layer) if product == FLOAT else form(layer, PRODUCTS[product])


def _swap(module: nn.Module, form: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Replace, in `module` and everything in it, each part that has another `form`."""
    for name, child in module.named_children():
        setattr(module, name, form(child) or _swap(child, form))
    return module


def _linear(part: nn.Module, product: str) -> nn.Module | None:
    rounded = isinstance(part, nn.Linear) and product != FLOAT
    return PRODUCTS[product](part.weight, part.bias) if rounded else None
