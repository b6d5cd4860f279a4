"""The exact design: every layer keeps its own state, so each chunk costs its own frames and sounds at once.

The decoder is causal. A convolution needs the last samples of *its own* input, a transposed convolution one sample,
attention the keys and values of its window. With those carried over, a chunk of any length continues the stream as if
it had never been cut: nothing is recomputed or buffered, and the result is the one-shot decoder's to rounding.
(The idea of explicit state for each layer is that of moshi's `modules/streaming.py`.)
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..model.decoder import CodecDecoder
from ..model.quantizers import Dequantizer
from ..spec import BATCH, StateSpec, exact_spec, one_shot_spec
from .kv_stack import Streamed, split_states, stream_transformer
from .layers import StreamingConv, eval_own, to_streaming
from .states import ConvStates, layers_with_state, states_of


class ExactStreamingWrapper(nn.Module):
    """One exact streaming step of `decoder`, with all state passed in and out. `spec` declares the tensors.

    States have fixed shapes and start as zeros; only the batch and N vary. Keys and values hold `sliding_window - 1`
    frames, of which the last `past_frames` are real: the count is kept for each row, so that rows at different offsets
    share a call. It stops growing at `sliding_window - 1`, and positions are relative to the window, so nothing grows
    with the length of the stream.
    """

    @torch.no_grad()
    def __init__(self, decoder: CodecDecoder):
        super().__init__()
        self.decoder = decoder
        self.quantizer = Dequantizer(decoder)
        self.pre_conv = to_streaming(decoder.pre_conv)
        self.stages = nn.ModuleList(to_streaming(stage) for _, stage in decoder.stages())
        eval_own(self, decoder)

    @property
    def conv_layers(self) -> list[tuple[str, StreamingConv]]:
        """(upstream's module name, streaming module) of every convolution with a state, in the order of the data."""
        names = [name for name, module in self.decoder.named_modules() if getattr(module, "left_context", 0)]
        return list(zip(names, layers_with_state(self), strict=True))

    @cached_property
    def spec(self) -> StateSpec:
        config, attention = self.decoder.config, self.decoder.attention_names
        spec = exact_spec(config, self.decoder.samples_per_frame, states_of(self), attention=config)
        return spec.with_modules(["pre_transformer", *(name for name, _ in self.conv_layers), *attention, *attention])

    def forward(self, audio_codes: Tensor, past_frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Decode N new frames to N * samples_per_frame samples. Shapes, names and order of everything: `spec`."""
        past_convs, keys, values = split_states(states, len(self.decoder.pre_transformer.layers))
        # Each convolution takes its own state out of `convs`, so states and layers have one order: that of the data.
        convs = ConvStates(past_convs)
        hidden = self.pre_conv(self.quantizer(audio_codes), convs).transpose(1, 2)
        latents, keys, values = self.transform(hidden, keys, values, past_frames)
        waveform = self.decode_latents(latents, convs)
        # The count stops where the cache is full: no number depends on how long the stream has been going.
        next_past_frames = (past_frames + audio_codes.size(1)).clamp(max=self.decoder.config.sliding_window - 1)
        return waveform, next_past_frames, *convs.after, *keys, *values

    def transform(
        self, hidden: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], past_frames: Tensor, **parts: Any
    ) -> Streamed:
        """The transformer, [B, N, latent_dim] -> the same, and the next keys and values.

        For a subclass that tries another mask or another store: `parts` are those of `stream_transformer`.
        """
        keep = self.decoder.config.sliding_window - 1
        return stream_transformer(
            self.decoder.pre_transformer, hidden, keys, values, keep=keep, past_frames=past_frames, **parts
        )

    def decode_latents(self, latents: Tensor, convs: ConvStates) -> Tensor:
        """The convolutions, [B, N, latent_dim] -> [B, N * samples_per_frame]; for a subclass that changes latents."""
        hidden = latents.transpose(1, 2)
        for stage in self.stages:
            hidden = stage(hidden, convs)
        return hidden.squeeze(1).clamp(-1, 1)


class OneShotWrapper(ExactStreamingWrapper):
    """The same operations without a state: codes [B, N, Q] in, the whole waveform [B, N * samples_per_frame] out.

    For those who decode whole utterances, and as the benchmark's floor.
    """

    def __init__(self, decoder: CodecDecoder):
        super().__init__(decoder)
        self.zeros, self.spec = self.spec.states[1:], one_shot_spec(self.spec)

    def forward(self, audio_codes: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        batch = audio_codes.size(0)
        states = [torch.zeros(before.with_lengths({BATCH: batch})) for before, _ in self.zeros]
        past_frames = torch.zeros(batch, 1, dtype=torch.int64)
        return super().forward(audio_codes, past_frames, *states)[:1]
