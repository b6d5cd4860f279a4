"""The convolutional decoder's parts with their state: what each needs of the past goes in and comes out as a tensor.

A convolution needs the last samples of *its own* input, a transposed convolution one sample; everything else works on
each step alone. `to_streaming(module)` gives the streaming counterpart of a part of the one-shot decoder.
`StreamingConv1d` and `StreamingConvTranspose1d` take torch's own convolutions, of any model.
"""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from math import ceil
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.mimi.modeling_mimi import MimiConv1d, MimiConvTranspose1d, MimiResnetBlock
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
    Qwen3OmniMoeCode2WavDecoderBlock,
    Qwen3OmniMoeCode2WavDecoderResidualUnit,
    Qwen3OmniMoeConvNeXtBlock,
    Qwen3OmniMoeSnakeBeta,
)

from ..model.decoder import CausalConv, CausalTransConv
from ..model.snake import Snake
from ..model.weight_norm import folded
from .recurrent import StreamingGRU, StreamingLSTM
from .states import ConvStates

# {class: what makes the streaming counterpart of a module of that class}
Counterparts = Mapping[type[nn.Module], Callable[[Any], nn.Module]]


class StreamingConv(nn.Module):
    """What both kinds of convolution carry: `left_context` samples of their own input, [B, channels, left_context]."""

    channels: int
    left_context: int

    @property
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """{kind: shape without the rows} of its states: one, or none."""
        return {"conv": (self.channels, self.left_context)} if self.left_context else {}


class StreamingConv1d(StreamingConv):
    """Any causal convolution of stride s: it finds its past in the state, where the one-shot model pads with zeros.

    The left context is what the kernel reaches back (dilation counted in) less s - 1: each output stands at the first
    of its s new inputs. An input that does not fill its last step (in a stream, that of the last call) is completed
    with s - 1 samples, which do nothing where it does; so no length is computed. The state has real samples only.
    `pad_mode` says with what: `constant`, zeros, or `replicate`, the last sample over and over. Groups, dilation and a
    missing bias are the convolution's own affair. Raises ValueError for one that pads by itself, or skips samples.
    """

    def __init__(self, conv: nn.Conv1d, pad_mode: str = "constant"):
        super().__init__()
        self.conv, self.pad_mode = folded(conv), pad_mode
        self.channels, stride = conv.in_channels, conv.stride[0]
        self.left_context, self.completion = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1 - stride, stride - 1
        if conv.padding not in ((0,), "valid"):
            raise ValueError(
                f"a convolution with padding={conv.padding} cannot tell the start of a stream from a chunk's"
            )
        if self.left_context < 0:
            raise ValueError(f"a convolution of kernel {conv.kernel_size[0]} and stride {stride} skips samples")

    def forward(self, x: torch.Tensor, states: ConvStates) -> torch.Tensor:
        x = states.extend(x, self.left_context)
        x = F.pad(x, (0, self.completion), self.pad_mode) if self.completion else x
        conv = self.conv  # not its `forward`: a subclass's own may pad
        # In two dimensions, one of them 1: there ONNX Runtime has a layout (NCHWc) in which 7 taps are 15 % quicker.
        stride, dilation = (1, *conv.stride), (1, *conv.dilation)
        weight = conv.weight.unsqueeze(2)
        return F.conv2d(x.unsqueeze(2), weight, conv.bias, stride, 0, dilation, conv.groups).squeeze(2)


class StreamingConvTranspose1d(StreamingConv):
    """A transposed convolution of stride s, trimmed on the right, as an ordinary one with s times the channels.

    Output sample t * s + j sums the taps j, j + s, ... over the inputs t, t - 1, ...: ceil(k / s) inputs, two with
    kernel k = 2s, so that one previous input is the whole state. (To carry the overlapping *output* over instead would
    add the bias twice.) The s results of one step are s neighbouring channels first, and are then laid out in time.
    Raises ValueError for one that is dilated or cuts its output itself.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, conv: nn.ConvTranspose1d):
        super().__init__()
        if (conv.padding, conv.output_padding, conv.dilation) != ((0,), (0,), (1,)):
            raise ValueError(f"a transposed convolution with padding or dilation: {conv}")
        conv = folded(conv)
        self.stride, self.out_channels, self.groups = conv.stride[0], conv.out_channels, conv.groups
        taps = ceil(conv.kernel_size[0] / self.stride)
        self.channels, self.left_context = conv.in_channels, taps - 1
        weight = F.pad(conv.weight.detach(), (0, taps * self.stride - conv.kernel_size[0]))
        weight = weight.unflatten(2, (taps, self.stride)).unflatten(0, (self.groups, -1))
        weight = weight.flip(3).permute(0, 2, 4, 1, 3).flatten(0, 2)  # [groups * out * s, in of a group, taps]
        self.register_buffer("weight", weight.contiguous(), persistent=False)
        bias = None if conv.bias is None else conv.bias.detach().repeat_interleave(self.stride)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: torch.Tensor, states: ConvStates) -> torch.Tensor:
        # A step of the input gives `stride` samples at once, as so many channels; then they are laid out in time.
        y = F.conv1d(states.extend(x, self.left_context), self.weight, self.bias, groups=self.groups)
        # `reshape`, not `unflatten` and `flatten`: after those, TorchScript's trace takes the lengths for constants.
        y = y.reshape(y.size(0), self.out_channels, self.stride, -1).transpose(2, 3)
        return y.reshape(y.size(0), self.out_channels, -1)


class Stateless(nn.Module):
    """A part that works on each step alone."""

    def __init__(self, part: nn.Module):
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor, states: ConvStates) -> torch.Tensor:
        return self.part(x)


class StreamingConvNeXt(nn.Module):
    """ConvNeXt block (arXiv:2201.03545): a depthwise convolution with state, the rest works on each step alone."""

    def __init__(self, block: Qwen3OmniMoeConvNeXtBlock):
        super().__init__()
        self.dwconv = StreamingConv1d(block.dwconv.conv)
        self.block = block

    def forward(self, x: torch.Tensor, states: ConvStates) -> torch.Tensor:
        block = self.block
        y = block.norm(self.dwconv(x, states).transpose(1, 2))
        y = block.gamma * block.pwconv2(block.act(block.pwconv1(y)))
        return x + y.transpose(1, 2)


class StreamingSequence(nn.Module):
    """Parts one after the other, each as `to_streaming` gives it; with `shortcut`, what that makes of the input is
    added.
    """

    def __init__(
        self, parts: Iterable[nn.Module], shortcut: nn.Module | None = None, counterparts: Counterparts | None = None
    ):
        super().__init__()
        self.parts = nn.ModuleList(to_streaming(part, counterparts) for part in parts)
        self.shortcut = shortcut and to_streaming(shortcut, counterparts)

    def forward(self, x: torch.Tensor, states: ConvStates) -> torch.Tensor:
        y = x
        for part in self.parts:
            y = part(y, states)
        return y + self.shortcut(x, states) if self.shortcut else y


def eval_own(wrapper: nn.Module, shared: nn.Module) -> None:
    """`wrapper.eval()` for all but the modules of `shared`: it belongs to who gave it, and may be training it."""
    theirs = {*shared.modules()}
    for module in wrapper.modules():
        if module not in theirs:
            module.training = False


def to_streaming(module: nn.Module, counterparts: Counterparts | None = None) -> nn.Module:
    """The streaming counterpart of one part of a decoder: `forward(x, states)` in place of `forward(x)`.

    A part that takes `states` already stays as it is. `counterparts` has those of classes that are not known here, and
    comes first. Raises TypeError for a part of any other class.
    """
    for kind, counterpart in (counterparts or {}).items():
        if isinstance(module, kind):
            return counterpart(module)
    if "states" in signature(module.forward).parameters:
        return module
    match module:
        case CausalConv() | MimiConv1d():
            return StreamingConv1d(module.conv)
        case CausalTransConv() | MimiConvTranspose1d(padding_left=0):
            return StreamingConvTranspose1d(module.conv)
        case Qwen3OmniMoeSnakeBeta():
            return Stateless(Snake(module))
        case Qwen3OmniMoeConvNeXtBlock():
            return StreamingConvNeXt(module)
        case Qwen3OmniMoeCode2WavDecoderResidualUnit():
            return StreamingSequence([module.act1, module.conv1, module.act2, module.conv2], shortcut=nn.Identity())
        case Qwen3OmniMoeCode2WavDecoderBlock():
            return StreamingSequence(module.block)
        case MimiResnetBlock():
            return StreamingSequence(module.block, module.shortcut)
        case nn.LSTM():
            return StreamingLSTM(module)
        case nn.GRU():
            return StreamingGRU(module)
        case nn.ELU() | nn.Identity():
            return Stateless(module)
    raise TypeError(f"no streaming counterpart for {type(module).__name__}")
