"""The encoder in the exact design: every layer keeps its own state, so each chunk of sound becomes its codes at once.

The encoder is causal as the decoder is: a chunk of whole frames continues the stream as if it had never been cut. Only
the last call may end inside a frame; each strided convolution then completes *its own* input. (Zeros behind the
waveform would not be the same: on their way they meet biases and become something else.)
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..model.code_gap import code_gap
from ..model.encoder import CodecEncoder
from ..model.quantizers import Quantizer
from ..runtime.metrics import scaled_error
from ..spec import ENCODER, StateSpec, exact_spec
from .kv_stack import split_states, stream_layers
from .layers import StreamingConv1d, StreamingSequence, eval_own
from .states import ConvStates, layers_with_state, states_of


class StreamEncoderWrapper(nn.Module):
    """One exact streaming step of `encoder`, with all state passed in and out. `spec` declares the tensors.

    As in `ExactStreamingWrapper`, states have fixed shapes and start as zeros; rows at different offsets share a call.
    """

    @torch.no_grad()
    def __init__(self, encoder: CodecEncoder):
        super().__init__()
        self.encoder = encoder
        self.seanet = StreamingSequence(encoder.model.encoder_seanet.layers)
        downsample: Any = encoder.model.downsample
        # Upstream pads this one with copies of the edge, all others with zeros.
        self.downsample = StreamingConv1d(downsample.conv, pad_mode="replicate")
        self.quantizer = Quantizer(encoder)
        eval_own(self, encoder)

    @property
    def conv_layers(self) -> list[tuple[str, StreamingConv1d]]:
        """(upstream's module name, streaming module) of every convolution with a state, in the order of the data."""
        names = {module: name for name, module in self.encoder.model.named_modules()}
        return [(names[layer.conv].removesuffix(".conv"), layer) for layer in layers_with_state(self)]

    @cached_property
    def spec(self) -> StateSpec:
        encoder = self.encoder
        spec = exact_spec(
            encoder.config,
            encoder.samples_per_frame,
            states_of(self),
            attention=encoder.config,
            part=ENCODER,
            steps_per_frame=encoder.steps_per_frame,
            sample_rate=encoder.config.sampling_rate,
            num_quantizers=encoder.num_quantizers,
        )
        attention = [f"encoder_transformer.layers.{i}.self_attn" for i in range(encoder.config.num_hidden_layers)]
        return spec.with_modules(
            ["encoder_transformer", *(name for name, _ in self.conv_layers), *attention, *attention]
        )

    def forward(self, audio: Tensor, past_frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Encode M samples to ceil(M / samples_per_frame) frames. Shapes, names and order of everything: `spec`."""
        latents, *next_states = self.latents(audio, past_frames, *states)
        return self.quantizer(latents), *next_states

    def latents(self, audio: Tensor, past_frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """What is quantised, [B, hidden_size, N], and the next states."""
        transformer = self.encoder.model.encoder_transformer
        layers, keep = len(transformer.layers), transformer.config.sliding_window - 1
        (*past_convs, past_edge), keys, values = split_states(states, layers)
        convs = ConvStates(past_convs)
        hidden = self.seanet(audio[:, None], convs).transpose(1, 2)
        past_steps = (past_frames * self.encoder.steps_per_frame).clamp(max=keep)
        hidden, keys, values = stream_layers(transformer, hidden, keys, values, keep, past_steps)
        hidden = hidden.transpose(1, 2)
        edge = ConvStates([self.edge(hidden, past_frames, past_edge)])
        latents = self.downsample(hidden, edge)
        next_past_frames = (past_frames + latents.size(2)).clamp(max=self.spec.limits["past_frames"])
        return latents, next_past_frames, *convs.after, *edge.after, *keys, *values

    def output_error(self, feeds: dict[str, np.ndarray], name: str, wanted: np.ndarray, found: np.ndarray) -> float:
        """How far an output of a graph is from this wrapper's. Codes are names, not numbers: theirs is `code_gap`."""
        if name != "audio_codes":
            return scaled_error(wanted, found)
        with torch.no_grad():
            latents, *_ = self.latents(*map(torch.from_numpy, feeds.values()))
            return code_gap(self.encoder, latents, torch.from_numpy(wanted), torch.from_numpy(found))

    def edge(self, hidden: Tensor, past_frames: Tensor, past_edge: Tensor) -> Tensor:
        """What stands before the downsampling convolution's input [B, hidden_size, T].

        A row that begins with this call has no edge to copy yet: its own first step is the edge.
        """
        return torch.where(past_frames[..., None] == 0, hidden[..., :1], past_edge)
