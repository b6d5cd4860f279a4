"""How far back the decoder looks: the receptive field, measured."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from .decoder import CodecDecoder


@dataclass(frozen=True)
class ReceptiveField:
    """Which part of the output one frame's codes reach, in samples and frames (a part of a frame counts as one).

    `conv_frames`: earlier frames that the convolutional decoder needs to have the samples of a frame right.
    `attention_frames`: earlier frames that the transformer and `pre_conv` reach, through all layers.
    `first_sample`: the first sample that moves when a frame's codes change, relative to that frame's start: 0 says that
    the decoder is causal and starts at once.
    """

    conv_frames: int
    conv_samples: int
    attention_frames: int
    first_sample: int


def conv_influence(decoder: CodecDecoder, frames: int = 24, at: int = 2, seed: int = 0) -> np.ndarray:
    """|change| of each sample, [frames * samples_per_frame], when the latent of frame `at` alone is changed."""
    return _conv_influence(_in_double(decoder), frames, at, seed)


def _conv_influence(decoder: CodecDecoder, frames: int, at: int, seed: int = 0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(1, decoder.config.latent_dim, frames, generator=generator, dtype=torch.float64)
    changed = latent.clone()
    changed[..., at] = torch.randn(decoder.config.latent_dim, generator=generator, dtype=torch.float64)
    with torch.no_grad(), _NoFloat32():
        return (decoder.decode_latent(changed) - decoder.decode_latent(latent))[0].abs().numpy()


def attention_influence(decoder: CodecDecoder, frames: int, at: int = 0, seed: int = 0) -> np.ndarray:
    """Largest |change| of the latent of each frame, [frames], when the codes of frame `at` alone are changed."""
    generator = torch.Generator().manual_seed(seed)
    config = decoder.config
    codes = torch.randint(config.codebook_size, (1, frames, config.num_quantizers), generator=generator)
    changed = codes.clone()
    changed[:, at] = (codes[:, at] + 1) % config.codebook_size

    decoder = _in_double(decoder)
    with torch.no_grad(), _NoFloat32():
        return (decoder.latents(changed) - decoder.latents(codes))[0].abs().amax(dim=-1).numpy()


def attention_receptive_field(config, pre_conv_left_context: int) -> int:
    """Earlier frames that a latent can depend on: a window less one for each layer, and `pre_conv`'s left context."""
    return config.num_hidden_layers * (config.sliding_window - 1) + pre_conv_left_context


def receptive_field(decoder: CodecDecoder) -> ReceptiveField:
    """Measure it: change one frame, see which samples move. Computed in float64, so that rounding moves nothing.

    The convolutional decoder and the transformer are measured apart: the one reaches some frames, the other
    (sliding_window - 1) frames for each layer. The edge of a field through all layers is faint where weights are small;
    what is reported is the farthest frame that moves at all.
    """
    conv = _samples_that_move(decoder)
    frames = attention_receptive_field(decoder.config, decoder.pre_conv.left_context) + 8
    attention = np.flatnonzero(attention_influence(decoder, frames))
    return ReceptiveField(
        conv_frames=int(conv[-1]) // decoder.samples_per_frame,
        conv_samples=int(conv[-1]) + 1,
        attention_frames=int(attention[-1]),
        first_sample=int(conv[0]),
    )


def conv_receptive_field(decoder: CodecDecoder) -> int:
    """`receptive_field(decoder).conv_frames` alone: the quick half, and what the windowed design has to recompute."""
    return int(_samples_that_move(decoder)[-1]) // decoder.samples_per_frame


def _samples_that_move(decoder: CodecDecoder, at: int = 2) -> np.ndarray:
    """Places of the samples that one latent frame moves, relative to that frame's start.

    Measured over enough frames that the last of them is silent.
    """
    decoder, frames = _in_double(decoder), 16
    while (influence := _conv_influence(decoder, frames, at))[-decoder.samples_per_frame :].any():
        frames *= 2
    return np.flatnonzero(influence) - at * decoder.samples_per_frame


def _in_double(decoder: CodecDecoder) -> CodecDecoder:
    """A copy in float64: others may use the decoder while it is measured."""
    return copy.deepcopy(decoder).double()


class _NoFloat32(TorchFunctionMode):
    """Who asks for float32 gets float64: softmax and RMSNorm in transformers do, whatever comes in."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def widened(value):
            return torch.float64 if value is torch.float32 else value

        return function(*map(widened, args), **{name: widened(value) for name, value in (kwargs or {}).items()})
