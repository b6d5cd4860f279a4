"""A waveform at another sample rate, whole or chunk by chunk. Needs the package soxr, and nothing else here does.

A resampler is a filter. What it remembers of one chunk belongs into the next: a chunk that is resampled on its own ends
against zeros that were never there, and clicks.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

# libsoxr runs out of memory, and Python with it, at ratios that no sound has (1 Hz to 24,000 Hz).
LARGEST_RATIO = 256


def resampled(chunks: Iterable[np.ndarray], rate: int, to: int) -> Iterator[np.ndarray]:
    """One stream of float32 chunks [n] from `rate` to `to` Hz: what each one completes, and at the end the rest.

    However the stream is cut, the pieces joined are the same samples, to the bit: round(total * to / rate) of them.
    Raises ValueError for rates that are too far apart, and where soxr is missing.
    """
    stream = resampler(rate, to)
    for chunk in chunks:
        yield stream.resample_chunk(chunk)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def resample(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """A whole waveform [samples] from `rate` to `to` Hz, float32; errors as in `resampled`."""
    return np.concatenate([*resampled([samples.astype(np.float32)], rate, to)])


def check_rates(rate: int, to: int) -> None:
    """Raise what `resampled` would, before there is a waveform."""
    resampler(rate, to)


def resampler(rate: int, to: int) -> Any:
    """The filter of one stream: `resample_chunk(samples, last)`. Raises ValueError as `resampled` does."""
    if not 0 < max(rate, to) <= LARGEST_RATIO * min(rate, to):
        raise ValueError(f"{rate} Hz cannot become {to} Hz: one may be up to {LARGEST_RATIO} times the other")
    try:
        import soxr
    except ImportError as error:
        raise ValueError(f"{rate} Hz to {to} Hz needs the package soxr (pip install soxr)") from error
    return soxr.ResampleStream(rate, to, num_channels=1, dtype="float32")
