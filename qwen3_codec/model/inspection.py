"""Dimensions read off the config and the weights, shapes along the way, and the receptive field, measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ..states import BATCH, StateSpec
from .decoder import CodecDecoder


@dataclass(frozen=True)
class Dimension:
    """One dimension as the config says it, as the weights imply it, and as a usual formula has it (or None)."""

    name: str
    config: int
    weights: int
    formula: int | None = None
    formula_text: str = ""

    @property
    def trap(self) -> bool:
        """The usual formula gives another number than the config."""
        return self.formula is not None and self.formula != self.config


@dataclass(frozen=True)
class Stage:
    """What one part of the decoder puts out for one frame: name, channels, samples per frame, rate in Hz."""

    name: str
    channels: int
    samples_per_frame: int
    rate: float


@dataclass(frozen=True)
class ReceptiveField:
    """Which part of the output one frame's codes reach, in samples and frames (a part of a frame counts as one).

    `conv_frames`: earlier frames that the conv stack needs to have the samples of a frame right.
    `attention_frames`: earlier frames that the transformer and `pre_conv` reach, through all layers.
    `first_sample`: the first sample that moves when a frame's codes change, relative to that frame's start: 0 says that
    the decoder is causal and starts at once.
    """

    conv_frames: int
    conv_samples: int
    attention_frames: int
    first_sample: int


def dimensions(decoder: CodecDecoder) -> list[Dimension]:
    """Every dimension that an export needs, from both sources. A weight's shape cannot be wrong; a formula can."""
    config = decoder.config
    layer = decoder.pre_transformer.layers[0]
    attention, quantizer = layer.self_attn, decoder.quantizer
    by_formula = config.hidden_size // config.num_attention_heads
    # A projection's output is heads x head_dim; weights alone cannot split it, so one factor comes from the config.
    return [
        Dimension("hidden_size", config.hidden_size, decoder.pre_transformer.norm.weight.shape[0]),
        Dimension("num_hidden_layers", config.num_hidden_layers, len(decoder.pre_transformer.layers)),
        Dimension(
            "head_dim",
            config.head_dim,
            attention.q_proj.weight.shape[0] // config.num_attention_heads,
            by_formula,
            "hidden_size / num_attention_heads",
        ),
        Dimension(
            "num_attention_heads", config.num_attention_heads, attention.q_proj.weight.shape[0] // config.head_dim
        ),
        Dimension(
            "num_key_value_heads", config.num_key_value_heads, attention.k_proj.weight.shape[0] // config.head_dim
        ),
        Dimension("intermediate_size", config.intermediate_size, layer.mlp.gate_proj.weight.shape[0]),
        Dimension(
            "latent_dim",
            config.latent_dim,
            decoder.pre_conv.conv.weight.shape[0],
            config.hidden_size,
            "hidden_size (as in Qwen3-Omni)",
        ),
        Dimension("codebook_dim", config.codebook_dim, decoder.pre_conv.conv.weight.shape[1]),
        Dimension(
            "codebook_size",
            config.codebook_size,
            quantizer.rvq_rest.tables()[0].shape[0],
            getattr(config, "semantic_codebook_size", None),
            "semantic_codebook_size",
        ),
        Dimension(
            "num_quantizers",
            config.num_quantizers,
            len(quantizer.rvq_first.vq.layers) + len(quantizer.rvq_rest.vq.layers),
        ),
        Dimension("decoder_dim", config.decoder_dim, decoder.decoder[0].conv.weight.shape[0]),
    ]


def stages(decoder: CodecDecoder) -> list[Stage]:
    """Shapes and rates along the way, read off a run with hooks on the parts: codes, latents, conv stack, waveform."""
    frames = 2
    frame_rate = decoder.config.output_sample_rate / decoder.samples_per_frame
    codes = torch.zeros(1, frames, decoder.config.num_quantizers, dtype=torch.int64)
    found = [Stage("audio_codes", decoder.config.num_quantizers, 1, frame_rate)]

    def record(name, output, time_axis=-1):
        length, channels = output.shape[time_axis], output.shape[1 if time_axis == -1 else -1]
        found.append(Stage(name, channels, length // frames, frame_rate * length / frames))

    with torch.no_grad():
        hidden = decoder.quantizer.decode(codes)
        record("quantizer", hidden)
        hidden = decoder.pre_conv(hidden)
        record("pre_conv", hidden)
        hidden = decoder.pre_transformer(hidden.transpose(1, 2)).transpose(1, 2)
        record("pre_transformer", hidden)
        for name, stage in decoder.stages():
            hidden = stage(hidden)
            record(name, hidden)
    return found


def state_table(spec: StateSpec) -> list[tuple[str, str, int]]:
    """(name, shape with axis names and limits, bytes at full length for one stream) of every state of a graph."""
    rows = []
    for tensor, _ in spec.states:
        shape = ", ".join(f"0..{spec.limits[axis]}" if axis in spec.limits else str(axis) for axis in tensor.shape)
        lengths = {**spec.limits, BATCH: 1}
        size = int(np.prod(tensor.with_lengths(lengths))) * np.dtype(tensor.dtype).itemsize
        rows.append((tensor.name, f"[{shape}]", size))
    return rows


def conv_memory(wrapper) -> list[tuple[str, int, float]]:
    """(module name, history in samples of its input, rate of its input in Hz) of each convolution with a state.

    `wrapper` is an `exact.ExactStreamingWrapper`; the rates are read off a run with hooks on its layers.
    """
    frames, lengths = 2, {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: lengths.update({name: args[0].shape[-1]}))
        for name, layer in wrapper.conv_layers
    ]
    config = wrapper.decoder.config
    state = [torch.from_numpy(array) for array in wrapper.spec.zero_state().values()]
    with torch.no_grad():
        wrapper(torch.zeros(1, frames, config.num_quantizers, dtype=torch.int64), *state)
    for hook in hooks:
        hook.remove()
    frame_rate = config.output_sample_rate / wrapper.decoder.samples_per_frame
    return [(name, layer.history, frame_rate * lengths[name] / frames) for name, layer in wrapper.conv_layers]


def conv_influence(decoder: CodecDecoder, frames: int = 24, at: int = 2, seed: int = 0) -> np.ndarray:
    """|change| of each sample, [frames * samples_per_frame], when the latent of frame `at` alone is changed."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(1, decoder.config.latent_dim, frames, generator=generator, dtype=torch.float64)
    changed = latent.clone()
    changed[..., at] = torch.randn(decoder.config.latent_dim, generator=generator, dtype=torch.float64)
    with torch.no_grad(), _in_double(decoder):
        return (decoder.decode_latent(changed) - decoder.decode_latent(latent))[0].abs().numpy()


def attention_influence(decoder: CodecDecoder, frames: int, at: int = 0, seed: int = 0) -> np.ndarray:
    """Largest |change| of the latent of each frame, [frames], when the codes of frame `at` alone are changed."""
    generator = torch.Generator().manual_seed(seed)
    config = decoder.config
    codes = torch.randint(config.codebook_size, (1, frames, config.num_quantizers), generator=generator)
    changed = codes.clone()
    changed[:, at] = (codes[:, at] + 1) % config.codebook_size

    with torch.no_grad(), _in_double(decoder):
        return (decoder.latents(changed) - decoder.latents(codes))[0].abs().amax(dim=-1).numpy()


def attention_reach(config, pre_conv_history: int) -> int:
    """Earlier frames that a latent can depend on: a window less one for each layer, and what `pre_conv` looks back."""
    return config.num_hidden_layers * (config.sliding_window - 1) + pre_conv_history


def receptive_field(decoder: CodecDecoder) -> ReceptiveField:
    """Measure it: change one frame, see which samples move. Computed in float64, so that rounding moves nothing.

    The conv stack and the transformer are measured apart, since the stack's reach is frames and the transformer's is
    (sliding_window - 1) frames for each layer. A reach through all layers is faint where weights are small; what is
    reported is the farthest frame that moves at all.
    """
    conv = _samples_that_move(decoder)
    frames = attention_reach(decoder.config, decoder.pre_conv.history) + 8
    attention = np.flatnonzero(attention_influence(decoder, frames))
    return ReceptiveField(
        conv_frames=int(conv[-1]) // decoder.samples_per_frame,
        conv_samples=int(conv[-1]) + 1,
        attention_frames=int(attention[-1]),
        first_sample=int(conv[0]),
    )


def conv_reach(decoder: CodecDecoder) -> int:
    """`receptive_field(decoder).conv_frames` alone: the quick half of it, and what a window of history has to hold."""
    return int(_samples_that_move(decoder)[-1]) // decoder.samples_per_frame


def _samples_that_move(decoder: CodecDecoder, at: int = 2) -> np.ndarray:
    """Places of the samples that one latent frame moves, relative to that frame's start.

    Measured over enough frames that the last of them is silent.
    """
    frames = 16
    while (influence := conv_influence(decoder, frames, at))[-decoder.samples_per_frame :].any():
        frames *= 2
    return np.flatnonzero(influence) - at * decoder.samples_per_frame


@contextmanager
def _in_double(decoder: CodecDecoder) -> Iterator[None]:
    """The decoder in float64 for the time of the block."""
    decoder.double()
    try:
        yield
    finally:
        decoder.float()
