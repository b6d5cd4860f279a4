"""The exact design: every layer keeps its own state, so each chunk costs its own frames and sounds at once.

The decoder is causal. A convolution needs the last samples of *its own* input, a transposed convolution one sample,
attention the keys and values of its window. With those carried over, a chunk of any length continues the stream as if
it had never been cut: nothing is decoded twice or held back, and the result is the one-shot decoder's to rounding.
(The idea of explicit state for each layer is that of moshi's `modules/streaming.py`.)
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
    Qwen3OmniMoeCode2WavDecoderBlock,
    Qwen3OmniMoeCode2WavDecoderResidualUnit,
    Qwen3OmniMoeConvNeXtBlock,
    Qwen3OmniMoeSnakeBeta,
)

from .kv_stack import keep_last, stream_transformer
from .reference import NUM_SEMANTIC_QUANTIZERS, CausalConv, CausalTransConv, CodecDecoder
from .states import StateSpec, exact_spec, one_shot_spec


class ConvStates:
    """Hands out the convolutions' states in the order of the data and collects what they become."""

    def __init__(self, before: Iterable[torch.Tensor]):
        self._before = iter(before)
        self.after: list[torch.Tensor] = []

    def extend(self, x: torch.Tensor, history: int) -> torch.Tensor:
        """`x` [B, C, T] with its past in front, [B, C, history + T]; its last `history` samples are the next state."""
        joined = torch.cat([next(self._before), x], dim=-1)
        self.after.append(keep_last(joined, history))
        return joined


class StreamConv(nn.Module):
    """A causal convolution that finds its past in the state, where the one-shot decoder pads with zeros."""

    def __init__(self, causal: CausalConv):
        super().__init__()
        self.conv = causal.conv
        self.channels, self.history = self.conv.in_channels, causal.history

    def forward(self, x: torch.Tensor, states: ConvStates) -> torch.Tensor:
        return self.conv(states.extend(x, self.history) if self.history else x)


class StreamTransConv(nn.Module):
    """A transposed convolution of stride s, written as an ordinary one with s times the channels.

    Output sample t * s + j sums the taps j, j + s, ... over the inputs t, t - 1, ...: two inputs with kernel 2s, so one
    previous input is the whole state. (To carry the overlapping *output* over instead would add the bias twice.)
    The s results of one step are s neighbouring channels first, and are then laid out in time.
    """

    def __init__(self, causal: CausalTransConv):
        super().__init__()
        conv = causal.conv
        self.stride, self.out_channels = conv.stride[0], conv.out_channels
        taps, rest = divmod(conv.kernel_size[0], self.stride)
        if rest:
            raise ValueError(f"a transposed convolution of kernel {conv.kernel_size[0]} and stride {self.stride}")
        self.channels, self.history = conv.in_channels, taps - 1
        weight = conv.weight.unflatten(2, (taps, self.stride)).flip(2).permute(1, 3, 0, 2)
        self.register_buffer("weight", weight.flatten(0, 1).contiguous(), persistent=False)
        self.register_buffer("bias", conv.bias.repeat_interleave(self.stride), persistent=False)

    def forward(self, x: torch.Tensor, states: ConvStates) -> torch.Tensor:
        x = states.extend(x, self.history) if self.history else x
        y = F.conv1d(x, self.weight, self.bias)
        return y.unflatten(1, (self.out_channels, self.stride)).transpose(2, 3).flatten(2)


class Snake(nn.Module):
    """SnakeBeta, x + sin(a x)^2 / b (arXiv:2006.08195), with the exponentials of its parameters taken once."""

    def __init__(self, snake: Qwen3OmniMoeSnakeBeta):
        super().__init__()
        self.register_buffer("frequency", snake.alpha.exp()[:, None], persistent=False)
        self.register_buffer("scale", 1 / (snake.beta.exp()[:, None] + snake.no_div_by_zero), persistent=False)

    def forward(self, x: torch.Tensor, states: ConvStates) -> torch.Tensor:
        sine = torch.sin(x * self.frequency)
        return x + self.scale * (sine * sine)


class StreamConvNeXt(nn.Module):
    """ConvNeXt block (arXiv:2201.03545): a depthwise convolution with state, the rest works on each step alone."""

    def __init__(self, block: Qwen3OmniMoeConvNeXtBlock):
        super().__init__()
        self.dwconv = StreamConv(block.dwconv)
        self.block = block

    def forward(self, x: torch.Tensor, states: ConvStates) -> torch.Tensor:
        block = self.block
        y = block.norm(self.dwconv(x, states).transpose(1, 2))
        y = block.gamma * block.pwconv2(block.act(block.pwconv1(y)))
        return x + y.transpose(1, 2)


class StreamSequence(nn.Module):
    """Parts one after the other; with `residual`, the input is added to the result."""

    def __init__(self, parts: Iterable[nn.Module], residual: bool = False):
        super().__init__()
        self.parts = nn.ModuleList(map(streaming, parts))
        self.residual = residual

    def forward(self, x: torch.Tensor, states: ConvStates) -> torch.Tensor:
        y = x
        for part in self.parts:
            y = part(y, states)
        return x + y if self.residual else y


def streaming(module: nn.Module) -> nn.Module:
    """The streaming twin of one part of the conv stack: `forward(x, states)` in place of `forward(x)`."""
    match module:
        case CausalConv():
            return StreamConv(module)
        case CausalTransConv():
            return StreamTransConv(module)
        case Qwen3OmniMoeSnakeBeta():
            return Snake(module)
        case Qwen3OmniMoeConvNeXtBlock():
            return StreamConvNeXt(module)
        case Qwen3OmniMoeCode2WavDecoderResidualUnit():
            return StreamSequence([module.act1, module.conv1, module.act2, module.conv2], residual=True)
        case Qwen3OmniMoeCode2WavDecoderBlock():
            return StreamSequence(module.block)
    raise TypeError(f"no streaming twin for {type(module).__name__}")


class StreamQuantizer(nn.Module):
    """All codebooks as one table, looked up once: [B, N, Q] -> [B, codebook_dim, N].

    The division by the counts is done here, once. Each group's vectors add up; the two sums side by side go through
    the two projections as one matrix. (Projecting the tables themselves would double their size.)
    """

    def __init__(self, decoder: CodecDecoder):
        super().__init__()
        first, rest = decoder.quantizer.rvq_first, decoder.quantizer.rvq_rest
        tables = [*first.tables(), *rest.tables()]
        offsets = torch.arange(len(tables)) * decoder.config.codebook_size
        projection = torch.cat([first.output_proj.weight, rest.output_proj.weight], dim=1)[..., 0]
        self.register_buffer("table", torch.cat(tables), persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("projection", projection, persistent=False)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        vectors = F.embedding(codes + self.offsets, self.table)
        first, rest = vectors[:, :, :NUM_SEMANTIC_QUANTIZERS], vectors[:, :, NUM_SEMANTIC_QUANTIZERS:]
        sums = torch.cat([first.sum(dim=2), rest.sum(dim=2)], dim=-1)
        return F.linear(sums, self.projection).transpose(1, 2)


class ExactStreamingWrapper(nn.Module):
    """One exact streaming step of `decoder`, with all state passed in and out. `spec` declares the tensors.

    States have fixed shapes and start as zeros; only the batch and N vary. Keys and values hold `sliding_window - 1`
    frames, of which the last `past_frames` are real: the count is kept for each row, so that streams of different
    ages share a call. It stops growing at `sliding_window - 1`, and positions are relative to the window, so nothing
    grows with the length of the stream.
    """

    def __init__(self, decoder: CodecDecoder):
        super().__init__()
        self.decoder = decoder
        self.quantizer = StreamQuantizer(decoder)
        self.pre_conv = StreamConv(decoder.pre_conv)
        self.stages = nn.ModuleList(streaming(stage) for _, stage in decoder.stages())
        self.requires_grad_(False).eval()

    @property
    def conv_layers(self) -> list[tuple[str, nn.Module]]:
        """(upstream's module name, streaming module) of every convolution with a state, in the order of the data."""
        twins = [m for m in self.modules() if isinstance(m, StreamConv | StreamTransConv) and m.history]
        names = [
            name
            for name, module in self.decoder.named_modules()
            if (isinstance(module, CausalConv) and module.history)
            or (isinstance(module, CausalTransConv) and module.conv.kernel_size > module.conv.stride)
        ]
        return list(zip(names, twins, strict=True))

    @property
    def spec(self) -> StateSpec:
        convs = [(layer.channels, layer.history) for _, layer in self.conv_layers]
        return exact_spec(self.decoder.config, self.decoder.samples_per_frame, convs)

    def forward(self, audio_codes, past_frames, *states):
        """Decode N new frames to N * samples_per_frame samples. Shapes, names and order of everything: `spec`."""
        layers = self.decoder.config.num_hidden_layers
        convs = ConvStates(states[: -2 * layers])
        keys, values = states[-2 * layers : -layers], states[-layers:]
        past = self.decoder.config.sliding_window - 1

        hidden = self.pre_conv(self.quantizer(audio_codes), convs).transpose(1, 2)
        hidden, keys, values = stream_transformer(
            self.decoder.pre_transformer, hidden, keys, values, keep=past, past_frames=past_frames
        )
        hidden = hidden.transpose(1, 2)
        for stage in self.stages:
            hidden = stage(hidden, convs)
        next_past_frames = (past_frames + audio_codes.size(1)).clamp(max=past)
        return hidden.squeeze(1).clamp(-1, 1), next_past_frames, *convs.after, *keys, *values


class OneShotWrapper(ExactStreamingWrapper):
    """The same operations without a state: codes [B, N, Q] in, the whole waveform [B, N * samples_per_frame] out.

    For whoever decodes whole utterances, and as the benchmark's floor.
    """

    @property
    def spec(self) -> StateSpec:
        return one_shot_spec(super().spec)

    def forward(self, audio_codes):
        batch = audio_codes.size(0)
        states = [torch.zeros(batch, *before.shape[1:]) for before, _ in super().spec.states[1:]]
        past_frames = torch.zeros(batch, 1, dtype=torch.int64)
        return super().forward(audio_codes, past_frames, *states)[:1]
