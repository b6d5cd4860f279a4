"""Packed codes, `.rvq`, as qwentts.cpp keeps a voice's: the bits of the codes and nothing else.

There is no header. A code has as many bits as its codebook needs (11 for 2048 entries), the least significant first;
all frames of the first codebook come first, then those of the second. The number of frames follows from the size.
"""

from typing import Any

import numpy as np

BYTE = 8  # bits


def pack(codes: np.ndarray, dims: Any) -> bytes:
    """Codes [N, Q] in the range of `dims` (a spec, or a decoder's config)."""
    bits, _ = _bits(dims)
    of_each = np.ascontiguousarray(codes.T)[..., None] >> np.arange(bits) & 1  # [Q, N, bits]
    return np.packbits(of_each.astype(np.uint8), bitorder="little").tobytes()


def unpack(data: bytes, dims: Any) -> np.ndarray:
    """What `pack` made, int64 [N, Q]; ValueError for a size that no number of frames has, and for bits behind the last.

    A codebook whose size is no power of two leaves bits for codes that it has not: the range is for the caller to see.
    """
    bits, frame_bits = _bits(dims)
    found = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    frames = len(found) // frame_bits
    end = frames * frame_bits
    if not frames or len(found) - end >= BYTE:
        raise ValueError(
            f"{len(data)} bytes are no whole number of frames, each of {dims.num_quantizers} codes of {bits} bits"
        )
    if found[end:].any():
        raise ValueError(f"the {len(found) - end} bits behind the last of {frames} frames are not zero")
    of_each = found[:end].reshape(dims.num_quantizers, frames, bits).astype(np.int64)
    return (of_each << np.arange(bits)).sum(axis=2).T


def _bits(dims: Any) -> tuple[int, int]:
    """Bits of a code, and of a frame."""
    bits = max(1, (dims.codebook_size - 1).bit_length())
    if (frame := bits * dims.num_quantizers) < BYTE:
        raise ValueError(f"a frame of {frame} bits is shorter than a byte, so a file's size does not give their number")
    return bits, frame
