"""What a stream must give: whole waveforms, decoded with no state and no wrapper."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..runtime.metrics import chunk_lengths
from .receptive_field import attention_receptive_field, conv_receptive_field

# A longer reference is decoded in pieces of so many frames, each with all the frames that it depends on. That keeps its
# memory bounded; and since each piece counts positions from its own start, its float32 angles do not lose digits.
PIECE_FRAMES = 512


def one_shot(decoder, codes: np.ndarray) -> np.ndarray:
    """Reference waveform [B, N * samples_per_frame] of codes [B, N, Q], with no state and no wrapper.

    More than PIECE_FRAMES frames are decoded in pieces: the latents with all the frames that attention reaches, the
    waveform with all the latents that the convolutions reach.
    """
    codes = torch.from_numpy(codes)
    with torch.no_grad():
        if codes.shape[1] <= PIECE_FRAMES:
            return decoder(codes).numpy()
        latents = _latents(decoder, codes)
        waveform = _in_pieces(
            lambda part: decoder.decode_latent(part.transpose(1, 2)), latents, conv_receptive_field(decoder)
        )
    return waveform.numpy()


def windowed_oracle(
    decoder, codes: np.ndarray, schedule: Sequence[int], left_context_frames: int, lookahead_frames: int
) -> np.ndarray:
    """What the windowed design must give for codes [B, N, Q] in calls of `schedule`: [B, N * samples_per_frame].

    No state is carried. Which frames a call finishes follows from the schedule and the look-ahead; it decodes them from
    the one-shot latents, with the `left_context_frames` before them and nothing before those.
    """
    pieces, seen, done = [], 0, 0
    with torch.no_grad():
        latents = _latents(decoder, torch.from_numpy(codes))
        for length in chunk_lengths(codes.shape[1], schedule):
            seen += length
            until = seen if seen == codes.shape[1] else max(done, seen - lookahead_frames)
            start = max(0, done - left_context_frames)
            if until > done:
                waveform = decoder.decode_latent(latents[:, start:until].transpose(1, 2))
                pieces.append(waveform[:, (done - start) * decoder.samples_per_frame :])
            done = until
    return torch.cat(pieces, dim=1).numpy()


def _latents(decoder, codes: torch.Tensor) -> torch.Tensor:
    return _in_pieces(decoder.latents, codes, attention_receptive_field(decoder.config, decoder.pre_conv.left_context))


def _in_pieces(step: Callable, x: torch.Tensor, left_context: int) -> torch.Tensor:
    """A causal `step` over frames `x` [B, N, ...] -> [B, N * r, ...], in pieces; it sees `left_context` frames back."""
    pieces = []
    for start in range(0, x.shape[1], PIECE_FRAMES):
        first = max(0, start - left_context)
        given = x[:, first : start + PIECE_FRAMES]
        made = step(given)
        pieces.append(made[:, (start - first) * (made.shape[1] // given.shape[1]) :])
    return torch.cat(pieces, dim=1)
