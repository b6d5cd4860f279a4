"""What every client of a server shares. Needs numpy alone."""

from dataclasses import dataclass

import numpy as np

from ..runtime.codes import CodesError

TIMEOUT = 60.0  # seconds


class ServerError(RuntimeError):
    """What a server answered in place of samples, or that it did not. After the former a Triton stream goes on."""


@dataclass(frozen=True)
class Dimensions:
    """What a server says of its graph."""

    sample_rate: int
    samples_per_frame: int
    num_quantizers: int
    codebook_size: int


def one_row(codes) -> np.ndarray:
    """Codes [N, Q] or [1, N, Q] as int64 [1, N, Q]; CodesError for others. Their range is the server's to check."""
    codes = np.asarray(codes)
    rows = codes[None] if codes.ndim == 2 else codes
    if rows.dtype.kind not in "iu" or rows.ndim != 3 or len(rows) != 1:
        raise CodesError(f"codes are {codes.dtype} {list(codes.shape)}, must be integers [N, Q] or [1, N, Q]")
    return rows.astype(np.int64)
