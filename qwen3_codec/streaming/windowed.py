"""The windowed design: a few frames of left context are recomputed with each chunk, and a few frames are buffered.

This is the design that the project's notes describe (21 inputs and 23 outputs at 8 layers). The transformer's state is
exact; the convolutions' is a window of its input, exact only where `conv_history_frames` reaches the receptive field.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..model.decoder import CodecDecoder
from ..model.one_shot import windowed_oracle
from ..model.receptive_field import conv_receptive_field
from ..spec import WINDOWED_FRAMES, StateSpec, windowed_spec
from .kv_stack import Streamed, drop_last, keep_last, split_states, stream_transformer
from .layers import eval_own


class StatefulCodecONNXWrapper(nn.Module):
    """One streaming step of `decoder`, with all state passed in and out. `spec` declares the tensors.

    `conv_history_frames`: finished frames that are recomputed, so that its convolutions have their left
    context.
    `lookahead_frames`: frames buffered until later ones have come. The decoder is causal, so buffering changes no
    sample; the setting is here because the design that users know has it.

    To trace, the code below never makes a Python number of a size: a bare `size()` in a slice, an `arange` or a sum of
    integers stays symbolic in both exporters, `int()`, `min()`, `if` and `range()` on one do not. One exception is
    known: after `unflatten(...)` and `flatten(...)`, TorchScript takes the next `size()` and the shape of the next
    `view()` for constants; `reshape` does not have that effect.
    """

    def __init__(
        self,
        decoder: CodecDecoder,
        conv_history_frames: int = WINDOWED_FRAMES,
        lookahead_frames: int = WINDOWED_FRAMES,
    ):
        super().__init__()
        for name, frames in (("conv_history_frames", conv_history_frames), ("lookahead_frames", lookahead_frames)):
            if frames < 0:
                raise ValueError(f"{name} is {frames}, must not be negative")
        self.decoder = decoder
        self.conv_history_frames = conv_history_frames
        self.lookahead_frames = lookahead_frames
        eval_own(self, decoder)

    @cached_property
    def spec(self) -> StateSpec:
        decoder, frames = self.decoder, (self.conv_history_frames, self.lookahead_frames)
        spec = windowed_spec(decoder.config, decoder.samples_per_frame, decoder.pre_conv.left_context, *frames)
        first_stage, _ = next(decoder.stages())
        attention = decoder.attention_names
        return spec.with_modules(["pre_conv", "pre_transformer", first_stage, *attention, *attention])

    def forward(
        self,
        audio_codes: Tensor,
        is_last: Tensor,
        pre_conv_h: Tensor,
        latent_buf: Tensor,
        conv_h: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        """Decode N new frames. Shapes, names and order of everything: `spec`.

        `is_last` above 0.5 finishes the stream: nothing stays buffered. The states that come out are then of no use.
        `final_wav` has the samples of every frame not yet finished; the first `valid_samples` of them are finished in
        this call. Its length depends on the inputs' shapes alone, so that a runtime can plan its buffers.
        """
        # `pre_conv` pads its start with zeros; so the last frames of the call before go in again, and what is computed
        # at their places is dropped.
        quantized = torch.cat([pre_conv_h, self.decoder.quantizer.decode(audio_codes)], dim=2)
        pre_conv = self.decoder.pre_conv(quantized)[..., pre_conv_h.size(2) :]
        latent, keys, values = self._transform(pre_conv.transpose(1, 2), past)

        # Frames not yet emitted: the buffered ones come first. `conv_h` is the left context of the convolutions behind
        # them; its samples were emitted before, and are computed again to be cut off.
        pending = torch.cat([latent_buf, latent.transpose(1, 2)], dim=2)
        window = torch.cat([conv_h, pending], dim=2)
        start = conv_h.size(2) * self.decoder.samples_per_frame
        final_wav = self.decoder.decode_latent(window)[:, start:]

        # A zero tensor plus a size is a tensor in both exporters, and in PyTorch too.
        zero = torch.zeros(1, dtype=torch.int64)
        total = zero + pending.size(2)
        num_finalize = torch.where(is_last > 0.5, total, (total - self.lookahead_frames).clamp(min=0))

        return (
            final_wav,
            num_finalize * self.decoder.samples_per_frame,
            zero + start,
            num_finalize,
            keep_last(quantized, self.decoder.pre_conv.left_context),
            keep_last(pending, self.lookahead_frames),
            # Left context is what comes before the buffered frames.
            keep_last(drop_last(window, self.lookahead_frames), self.conv_history_frames),
            *keys,
            *values,
        )

    def _transform(self, hidden: Tensor, past: Sequence[Tensor], **parts: Any) -> Streamed:
        """The transformer, [B, N, latent_dim] -> the same, and the next keys and values."""
        transformer = self.decoder.pre_transformer
        _, keys, values = split_states(past, len(transformer.layers))
        return stream_transformer(transformer, hidden, keys, values, keep=transformer.config.sliding_window, **parts)

    def oracle(self, decoder: CodecDecoder, codes: np.ndarray, calls: Sequence[int]) -> np.ndarray | None:
        """What the design must give for codes [B, N, Q] in `calls`, where that is not the one-shot waveform of
        `decoder`: where the receptive field goes beyond what is recomputed.
        """
        if self.conv_history_frames >= conv_receptive_field(decoder):
            return None
        return windowed_oracle(decoder, codes, calls, self.conv_history_frames, self.lookahead_frames)
