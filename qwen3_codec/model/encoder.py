"""The one-shot encoder: a whole waveform in, all codes out.

Upstream's encoder (`Qwen3TTSTokenizerV2Encoder` in `modeling_qwen3_tts_tokenizer_v2.py` of qwen-tts 0.1.1) is Mimi's
without its decoder (arXiv:2410.00037), so the classes here are transformers' own; this file gives them upstream's
parameter names, and codes in the decoder's order of axes.

The attention of transformers 5.24 keeps to `sliding_window`. Under the version that upstream pins (4.57.3), eager and
sdpa attention look at everything, so upstream's codes are the same only until the window is full (250 positions at
25 Hz: 10 s).
"""

from math import prod
from typing import Any

import torch
from torch import nn
from transformers.models.mimi.configuration_mimi import MimiEncoderConfig
from transformers.models.mimi.modeling_mimi import MimiEncoderModel, MimiSplitResidualVectorQuantizer


class CodecEncoder(nn.Module):
    """The whole encoder, waveform [B, M] -> int64 codes [B, ceil(M / samples_per_frame), Q].

    `config` is what `mimi_config` returns; `num_quantizers` is how many of its codebooks are used, the first ones
    (`encoder_valid_num_quantizers` of config.json).
    """

    @torch.random.fork_rng(devices=[])  # the layers draw initial values; who seeds PyTorch must not notice
    def __init__(self, config: MimiEncoderConfig, num_quantizers: int):
        super().__init__()
        self.config, self.num_quantizers = config, num_quantizers
        self.model = MimiEncoderModel(config)
        self.quantizer = MimiSplitResidualVectorQuantizer(config)
        self.requires_grad_(False).eval()

    @property
    def steps_per_frame(self) -> int:
        """Positions of the transformer for one frame of codes."""
        return self.model.downsample.conv.stride[0]

    @property
    def samples_per_frame(self) -> int:
        """Samples of waveform for one frame of codes."""
        return prod(self.config.upsampling_ratios) * self.steps_per_frame

    def groups(self) -> list[tuple[Any, list[torch.Tensor]]]:
        """(part of the quantizer, the vectors of each of its codebooks that is used, [codebook_size, codebook_dim]).

        In the order of the codes: the codebooks that carry meaning, then those that carry sound.
        """
        semantic = self.quantizer.semantic_residual_vector_quantizer
        acoustic = self.quantizer.acoustic_residual_vector_quantizer
        used = self.num_quantizers - len(semantic.layers)
        return [
            (part, [layer.codebook.embed for layer in layers])
            for part, layers in ((semantic, semantic.layers), (acoustic, acoustic.layers[:used]))
        ]

    def latents(self, audio: torch.Tensor) -> torch.Tensor:
        """What is quantised: [B, M] -> [B, hidden_size, N]."""
        return self.model(audio[:, None]).latents

    def codes(self, latents: torch.Tensor) -> torch.Tensor:
        """[B, hidden_size, N] -> int64 codes [B, N, Q]."""
        return self.quantizer.encode(latents, self.num_quantizers).permute(1, 2, 0)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Encode float32 samples [B, M] in one shot."""
        return self.codes(self.latents(audio))
