"""How far two waveforms are apart, whole and chunk by chunk, and how a stream is cut into chunks."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, pairwise

import numpy as np

# How far apart two float32 computations of one thing may be that add in another order. On the demo 100 times the
# rounding of a right wrapper (4e-7), and below what two frames of left context too few make (3e-4 in chunks of 3). At
# the official dimensions, on random weights, some forty layers in another order round by 8e-6.
MAX_ERROR = 5e-5


def mse(reference: np.ndarray, test: np.ndarray) -> float:
    """Mean squared error over all samples, in float64; 0 for empty arrays."""
    difference = _difference(reference, test)
    return float(np.mean(difference**2)) if difference.size else 0.0


def max_error(reference: np.ndarray, test: np.ndarray) -> float:
    """Largest absolute difference; 0 for empty arrays, NaN where either holds one."""
    difference = _difference(reference, test)
    return float(np.max(np.abs(difference))) if difference.size else 0.0


def scaled_error(reference: np.ndarray, test: np.ndarray) -> float:
    """`max_error` over the largest value of `reference` where that is above 1; inf where the shapes differ.

    For states: a key or a feature map is not bounded as audio is, and float32 rounding grows with the value.
    """
    if np.shape(reference) != np.shape(test):
        return float("inf")
    return max_error(reference, test) / max(1.0, float(np.max(np.abs(reference), initial=0.0)))


def snr_db(reference: np.ndarray, test: np.ndarray) -> float:
    """Signal-to-noise ratio in dB: the power of `reference` over that of the difference (inf where they are equal)."""
    noise, signal = mse(reference, test), float(np.mean(np.square(reference, dtype=np.float64)))
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")


def per_chunk(
    metric: Callable[[np.ndarray, np.ndarray], float], reference: np.ndarray, test: np.ndarray, lengths: Sequence[int]
) -> list[float]:
    """`metric` over consecutive chunks of the last axis, of `lengths` samples each."""
    edges = np.cumsum([0, *lengths])
    return [metric(reference[..., a:b], test[..., a:b]) for a, b in pairwise(edges)]


def chunk_lengths(total: int, schedule: Sequence[int]) -> Iterator[int]:
    """Cut `total` frames by `schedule`, which repeats to the end; the last chunk is what is left.

    Raises ValueError for a schedule that is empty or holds a length below 1.
    """
    schedule = list(schedule)
    if not schedule or min(schedule) < 1:
        raise ValueError(f"a chunk schedule needs lengths of at least 1, got {schedule}")
    for length in cycle(schedule):
        if total <= 0:
            return
        yield min(length, total)
        total -= length


def chunks(codes: np.ndarray, schedule: Sequence[int]) -> Iterator[np.ndarray]:
    """Codes [B, N, Q] cut along N by `chunk_lengths`."""
    start = 0
    for length in chunk_lengths(codes.shape[1], schedule):
        yield codes[:, start : start + length]
        start += length


def parse_schedule(text: str) -> list[int]:
    """'3,1,7' -> [3, 1, 7]; raises ValueError naming what is not a length."""
    lengths = []
    for part in text.split(","):
        if not part.strip().isdecimal() or int(part) < 1:
            raise ValueError(f"{part.strip()!r} in the chunk schedule {text!r} is not an integer of at least 1")
        lengths.append(int(part))
    return lengths


def _difference(reference: np.ndarray, test: np.ndarray) -> np.ndarray:
    reference, test = np.asarray(reference), np.asarray(test)
    if reference.shape != test.shape:
        raise ValueError(f"cannot compare the shapes {reference.shape} and {test.shape}")
    return reference.astype(np.float64) - test
