"""How far codes are from the nearest ones: where two entries of a codebook are equally near, either choice is right."""

import torch
from torch import Tensor

from .encoder import CodecEncoder


def code_gap(encoder: CodecEncoder, latents: Tensor, wanted: Tensor, found: Tensor) -> float:
    """How much farther than the wanted entries the found ones are, at most: 0 where all codes [B, N, Q] are equal.

    In each frame and group, at the first codebook that differs: (d_found - d_wanted) / d_wanted, of the squared
    distances to what the codebooks before it leave over of `latents` [B, hidden_size, N]. The codes after it have
    another residual, and are not comparable. Rounding flips near ties: gaps of about 1e-6.
    """
    largest, first = 0.0, 0
    for part, tables in encoder.groups():
        residual = part.input_proj(latents).transpose(1, 2)
        open_frames = torch.ones(wanted.shape[:2], dtype=torch.bool)
        for index, table in enumerate(tables, first):
            differs = open_frames & (wanted[..., index] != found[..., index])
            near, far = ((residual - table[codes[..., index]])[differs].square().sum(-1) for codes in (wanted, found))
            if differs.any():
                largest = max(largest, ((far - near) / near.clamp(min=1e-12)).abs().max().item())
            open_frames &= ~differs
            residual = residual - table[wanted[..., index]]
        first += len(tables)
    return largest
