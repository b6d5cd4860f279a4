"""The one-shot decoder: all codes in, the whole waveform out.

Upstream's class (`Qwen3TTSTokenizerV2Decoder` in `modeling_qwen3_tts_tokenizer_v2.py` of qwen-tts 0.1.1) is put
together here from the same blocks as transformers has them: the Code2Wav half of Qwen3-Omni. Parameter names are
upstream's, so a checkpoint loads strictly. Three things differ from Omni and are made here: the quantizer,
the projections around the transformer, and convolutions that are causal without reading a length.
"""

from math import ceil, prod

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
    Qwen3OmniMoeCausalConvNet,
    Qwen3OmniMoeCausalTransConvNet,
    Qwen3OmniMoeCode2WavDecoderBlock,
    Qwen3OmniMoeCode2WavTransformerModel,
    Qwen3OmniMoeConvNeXtBlock,
    Qwen3OmniMoeSnakeBeta,
)

# Upstream writes these in its class, not in the config.
PRE_CONV_KERNEL = 3
DECODER_KERNEL = 7
NUM_SEMANTIC_QUANTIZERS = 1
CLUSTER_USAGE_FLOOR = 1e-5


class CausalConv(nn.Module):
    """A convolution of stride 1 that sees the past only: `left_context` zeros before the first sample, none after
    the last.

    Upstream's class adds `math.ceil(...)` samples on the right. With stride 1 that is always 0, and the `ceil` turns
    a length into a constant when the module is traced, so it is left out here.
    """

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        self.conv = conv
        self.left_context = conv.dilation[0] * (conv.kernel_size[0] - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, T] -> [B, C', T]."""
        return self.conv(F.pad(x, (self.left_context, 0)))


class CausalTransConv(nn.Module):
    """A transposed convolution trimmed on the right alone, by kernel - stride samples; Omni's trims both sides."""

    def __init__(self, conv: nn.ConvTranspose1d):
        super().__init__()
        self.conv = conv
        self.left_context = ceil(conv.kernel_size[0] / conv.stride[0]) - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, T] -> [B, C', T * stride]."""
        return self.conv(x)[..., : x.shape[-1] * self.conv.stride[0]]


def make_causal(module: nn.Module) -> nn.Module:
    """Swap Omni's convolutions inside `module` for the two classes above, keeping weights and parameter names."""
    swaps = {Qwen3OmniMoeCausalConvNet: CausalConv, Qwen3OmniMoeCausalTransConvNet: CausalTransConv}
    for name, child in module.named_children():
        swap = swaps.get(type(child))
        setattr(module, name, swap(child.conv) if swap else make_causal(child))
    return module


class Codebook(nn.Module):
    """One table of vectors, stored as running sums and counts (the k-means by moving average of arXiv:1711.00937)."""

    def __init__(self, codebook_size: int, dim: int):
        super().__init__()
        self.cluster_usage = nn.Parameter(torch.ones(codebook_size))
        self.embedding_sum = nn.Parameter(torch.zeros(codebook_size, dim))

    def table(self) -> torch.Tensor:
        """The vectors themselves, [codebook_size, dim]."""
        return self.embedding_sum / self.cluster_usage.clamp(min=CLUSTER_USAGE_FLOOR)[:, None]


class ResidualVectorQuantizer(nn.Module):
    """`num_quantizers` codebooks whose vectors add up, then one bias-free 1x1 projection (RVQ: arXiv:2107.03312)."""

    def __init__(self, num_quantizers: int, codebook_size: int, dim: int, output_dim: int):
        super().__init__()
        self.vq = nn.Module()
        self.vq.layers = nn.ModuleList(nn.Module() for _ in range(num_quantizers))
        for layer in self.vq.layers:
            layer._codebook = Codebook(codebook_size, dim)
        # The encoder's half of the pair: in every checkpoint, never used to decode.
        self.input_proj = nn.Conv1d(output_dim, dim, 1, bias=False)
        self.output_proj = nn.Conv1d(dim, output_dim, 1, bias=False)

    def tables(self) -> list[torch.Tensor]:
        return [layer._codebook.table() for layer in self.vq.layers]

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """[B, N, num_quantizers] -> [B, output_dim, N]."""
        quantized = sum(F.embedding(codes[..., i], table) for i, table in enumerate(self.tables()))
        return self.output_proj(quantized.transpose(1, 2))


class SplitResidualVectorQuantizer(nn.Module):
    """The first codebook carries meaning, the rest carry sound; each group has a projection of its own."""

    def __init__(self, config):
        super().__init__()
        args = config.codebook_size, config.codebook_dim // 2, config.codebook_dim
        self.rvq_first = ResidualVectorQuantizer(NUM_SEMANTIC_QUANTIZERS, *args)
        self.rvq_rest = ResidualVectorQuantizer(config.num_quantizers - NUM_SEMANTIC_QUANTIZERS, *args)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """[B, N, Q] -> [B, codebook_dim, N]."""
        first, rest = codes[..., :NUM_SEMANTIC_QUANTIZERS], codes[..., NUM_SEMANTIC_QUANTIZERS:]
        return self.rvq_first.decode(first) + self.rvq_rest.decode(rest)


class PreTransformer(Qwen3OmniMoeCode2WavTransformerModel):
    """Omni's sliding-window transformer between two projections, `latent_dim` -> `hidden_size` -> `latent_dim`."""

    def __init__(self, config):
        super().__init__(config)
        self.input_proj = nn.Linear(config.latent_dim, config.hidden_size)
        self.output_proj = nn.Linear(config.hidden_size, config.latent_dim)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """[B, N, latent_dim] -> [B, N, latent_dim]."""
        hidden = super().forward(inputs_embeds=self.input_proj(latent), use_cache=False).last_hidden_state
        return self.output_proj(hidden)


class CodecDecoder(nn.Module):
    """The whole decoder, [B, N, Q] codes -> [B, N * samples_per_frame] samples in [-1, 1].

    `config` is what `code2wav_config` returns. `stages()` yields the parts in the order of the data.
    """

    @torch.random.fork_rng(devices=[])  # the layers draw initial values; who seeds PyTorch must not notice
    def __init__(self, config):
        super().__init__()
        self.config = config
        latent, width = config.latent_dim, config.decoder_dim
        self.quantizer = SplitResidualVectorQuantizer(config)
        self.pre_conv = CausalConv(nn.Conv1d(config.codebook_dim, latent, PRE_CONV_KERNEL))
        self.pre_transformer = PreTransformer(config)
        self.upsample = nn.ModuleList(
            nn.ModuleList(
                [
                    CausalTransConv(nn.ConvTranspose1d(latent, latent, ratio, ratio)),
                    make_causal(Qwen3OmniMoeConvNeXtBlock(latent)),
                ]
            )
            for ratio in config.upsampling_ratios
        )
        blocks = [make_causal(Qwen3OmniMoeCode2WavDecoderBlock(config, i)) for i in range(len(config.upsample_rates))]
        last = width // 2 ** len(blocks)
        self.decoder = nn.ModuleList(
            [
                CausalConv(nn.Conv1d(latent, width, DECODER_KERNEL)),
                *blocks,
                Qwen3OmniMoeSnakeBeta(last),
                CausalConv(nn.Conv1d(last, 1, DECODER_KERNEL)),
            ]
        )
        self.requires_grad_(False).eval()

    @property
    def samples_per_frame(self) -> int:
        """Samples of waveform for one frame of codes."""
        return prod(self.config.upsampling_ratios) * prod(self.config.upsample_rates)

    @property
    def attention_names(self) -> list[str]:
        """The module names of the attention layers, in the order of the data."""
        return [f"pre_transformer.layers.{i}.self_attn" for i in range(self.config.num_hidden_layers)]

    def stages(self):
        """(name, module) of the convolutional decoder, in the order of the data: each maps [B, C, T] to [B, C', T']."""
        for i, (trans_conv, block) in enumerate(self.upsample):
            yield f"upsample.{i}.0", trans_conv
            yield f"upsample.{i}.1", block
        for i, block in enumerate(self.decoder):
            yield f"decoder.{i}", block

    def latents(self, codes: torch.Tensor) -> torch.Tensor:
        """What the convolutional decoder takes: int64 codes [B, N, Q] -> [B, N, latent_dim]."""
        hidden = self.pre_conv(self.quantizer.decode(codes))
        return self.pre_transformer(hidden.transpose(1, 2))

    def decode_latent(self, latent: torch.Tensor) -> torch.Tensor:
        """The convolutional decoder: [B, latent_dim, N] -> waveform [B, N * samples_per_frame]."""
        for _, stage in self.stages():
            latent = stage(latent)
        return latent.squeeze(1).clamp(-1, 1)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Decode int64 codes [B, N, Q] in one shot; raises IndexError for a code outside [0, codebook_size)."""
        return self.decode_latent(self.latents(codes).transpose(1, 2))
