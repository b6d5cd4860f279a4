"""Codes as a user has them: read from a file, and checked before a graph sees them."""

from pathlib import Path

import numpy as np

from .states import StateSpec


class CodesError(ValueError):
    """Codes that the graph cannot take; the message names the value and its place."""


def read_codes(path: Path) -> np.ndarray:
    """Codes from a .npy file, as they lie there; ValueError where it holds none."""
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a .npy file with numbers, or truncated ({error})") from error


def check_codes(codes: np.ndarray, spec: StateSpec, batch: int | None = None) -> np.ndarray:
    """Codes [N, Q] or [B, N, Q] as int64 [B, N, Q]; CodesError names the first value that is wrong and its place."""
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu":
        raise CodesError(f"codes are {codes.dtype}, must be integers{_first_nan(codes)}")
    if codes.ndim not in (2, 3) or codes.shape[-1] != spec.num_quantizers:
        raise CodesError(
            f"codes have the shape {list(codes.shape)}, must be [N, {spec.num_quantizers}] or [B, N, same]"
        )
    codes = codes[None] if codes.ndim == 2 else codes
    if codes.shape[1] == 0:
        raise CodesError("codes hold no frame (N is 0); a chunk has at least one")
    if batch is not None and codes.shape[0] != batch:
        raise CodesError(f"codes have {codes.shape[0]} rows, the stream has {batch}")
    wrong = (codes < 0) | (codes >= spec.codebook_size)
    if wrong.any():
        row, frame, codebook = map(int, np.argwhere(wrong)[0])
        raise CodesError(
            f"code {codes[row, frame, codebook]} at row {row}, frame {frame}, codebook {codebook} "
            f"is outside 0..{spec.codebook_size - 1}"
        )
    return codes.astype(np.int64)


def _first_nan(codes: np.ndarray) -> str:
    if codes.dtype.kind != "f" or not np.isnan(codes).any():
        return ""
    return f"; the first NaN is at {np.argwhere(np.isnan(codes))[0].tolist()}"
