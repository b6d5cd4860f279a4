"""What is inside, as tables: dimensions off config and weights, shapes along the way, what each layer remembers."""

from dataclasses import dataclass

import numpy as np
import torch

from ..spec import BATCH, DECODER, StateSpec
from .decoder import CodecDecoder
from .encoder import CodecEncoder


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


def encoder_dimensions(encoder: CodecEncoder) -> list[Dimension]:
    """The same of an encoder."""
    config, model = encoder.config, encoder.model
    layer = model.encoder_transformer.layers[0]
    first = model.encoder_seanet.layers[0].conv.weight
    tables = [table for _, part in encoder.groups() for table in part]
    queries, keys = layer.self_attn.q_proj.weight.shape[0], layer.self_attn.k_proj.weight.shape[0]
    by_formula = config.hidden_size // config.num_attention_heads
    formula = by_formula, "hidden_size / num_attention_heads"
    return [
        Dimension("num_filters", config.num_filters, first.shape[0]),
        Dimension("hidden_size", config.hidden_size, model.downsample.conv.weight.shape[0]),
        Dimension("num_hidden_layers", config.num_hidden_layers, len(model.encoder_transformer.layers)),
        Dimension("head_dim", config.head_dim, queries // config.num_attention_heads, *formula),
        Dimension("num_attention_heads", config.num_attention_heads, queries // config.head_dim),
        Dimension("num_key_value_heads", config.num_key_value_heads, keys // config.head_dim),
        Dimension("intermediate_size", config.intermediate_size, layer.mlp.fc1.weight.shape[0]),
        Dimension("codebook_dim", config.codebook_dim, tables[0].shape[1]),
        Dimension("codebook_size", config.codebook_size, tables[0].shape[0]),
        Dimension(
            "num_quantizers, used", encoder.num_quantizers, len(tables), config.num_quantizers, "all in the file"
        ),
    ]


def stages(decoder: CodecDecoder) -> list[Stage]:
    """Shapes and rates along the way, read off a run with hooks: codes, latents, convolutions, waveform."""
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


@dataclass(frozen=True)
class StageMemory:
    """What a stream carries for one stage: the names of its states, the left context that they hold, their bytes."""

    name: str
    rate: float  # of what the stage puts out, in Hz
    states: tuple[str, ...]
    left_context_ms: float
    bytes: int


def memory_stages(wrapper) -> list[StageMemory]:
    """Each stage of an `ExactStreamingWrapper`, in the order of the data. The counter belongs to the KV cache."""
    decoder, spec = wrapper.decoder, wrapper.spec
    sizes = {name: size for name, _, size in state_table(spec)}
    convs = dict(zip((name for name in sizes if name.startswith("conv_")), conv_memory(wrapper), strict=True))
    cache = tuple(name for name in sizes if name not in convs)
    cache_ms = 1000 * (decoder.config.sliding_window - 1) * spec.samples_per_frame / spec.sample_rate
    found = []
    for stage in stages(decoder)[1:]:
        own = {name: conv for name, conv in convs.items() if f"{conv[0]}.".startswith(f"{stage.name}.")}
        states, reach = tuple(own), sum(1000 * context / rate for _, context, rate in own.values())
        if stage.name == "pre_transformer":
            states, reach = cache, cache_ms
        found.append(StageMemory(stage.name, stage.rate, states, reach, sum(sizes[name] for name in states)))
    return found


def conv_memory(wrapper) -> list[tuple[str, int, float]]:
    """(module name, left context in samples of its input, rate of its input in Hz) of each convolution with a state.

    `wrapper` is an `ExactStreamingWrapper` or a `StreamEncoderWrapper`; rates are read off a run with hooks.
    """
    frames, lengths, spec = 2, {}, wrapper.spec
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: lengths.update({name: args[0].shape[-1]}))
        for name, layer in wrapper.conv_layers
    ]
    state = [torch.from_numpy(array) for array in spec.zero_state().values()]
    codes = torch.zeros(1, frames, spec.num_quantizers, dtype=torch.int64)
    try:
        with torch.no_grad():
            wrapper(codes if spec.part == DECODER else torch.zeros(1, frames * spec.samples_per_frame), *state)
    finally:
        for hook in hooks:
            hook.remove()
    frame_rate = spec.sample_rate / spec.samples_per_frame
    return [(name, layer.left_context, frame_rate * lengths[name] / frames) for name, layer in wrapper.conv_layers]
