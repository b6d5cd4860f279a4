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
from torch.nn import functional as F

from ..model.code_gap import code_gap
from ..model.encoder import CodecEncoder
from ..runtime.metrics import scaled_error
from ..spec import ENCODER, StateSpec, exact_spec
from .kv_stack import split_states, stream_layers
from .layers import ConvStates, StreamingConv1d, StreamingSequence, eval_own, layers_with_state, states_of


class NearestVector(nn.Module):
    """One codebook: |x - e|^2 is smallest where e . x - |e|^2 / 2 is largest, so one matrix product finds the entry."""

    table: Tensor
    half_norms: Tensor

    def __init__(self, table: Tensor):
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("half_norms", table.square().sum(dim=1, keepdim=True) / 2, persistent=False)

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """[B, codebook_dim, N] -> the codes [B, N], and what they leave over, [B, codebook_dim, N]."""
        codes = (torch.matmul(self.table, residual) - self.half_norms).argmax(dim=1)
        return codes, residual - F.embedding(codes, self.table).transpose(1, 2)


class StreamQuantizer(nn.Module):
    """Residual quantisation in two groups of codebooks, each behind a projection of its own (RVQ: arXiv:2107.03312)."""

    def __init__(self, encoder: CodecEncoder):
        super().__init__()
        self.projections = nn.ModuleList(part.input_proj or nn.Identity() for part, _ in encoder.groups())
        self.groups = nn.ModuleList(nn.ModuleList(map(NearestVector, tables)) for _, tables in encoder.groups())

    def forward(self, latents: Tensor) -> Tensor:
        """[B, hidden_size, N] -> int64 [B, N, Q]."""
        codes = []
        groups: Any = self.groups
        for projection, codebooks in zip(self.projections, groups, strict=True):
            residual = projection(latents)
            for codebook in codebooks:
                chosen, residual = codebook(residual)
                codes.append(chosen)
        return torch.stack(codes, dim=-1)


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
        self.quantizer = StreamQuantizer(encoder)
        eval_own(self, encoder)

    @property
    def conv_layers(self) -> list[tuple[str, StreamingConv1d]]:
        """(upstream's module name, streaming module) of every convolution with a state, in the order of the data."""
        names = {module: name for name, module in self.encoder.model.named_modules()}
        return [(names[layer.conv].removesuffix(".conv"), layer) for layer in layers_with_state(self)]

    @cached_property
    def spec(self) -> StateSpec:
        encoder = self.encoder
        return exact_spec(
            encoder.config,
            encoder.samples_per_frame,
            states_of(self),
            attention=encoder.config,
            part=ENCODER,
            steps_per_frame=encoder.steps_per_frame,
            sample_rate=encoder.config.sampling_rate,
            num_quantizers=encoder.num_quantizers,
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
