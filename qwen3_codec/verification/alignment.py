"""Two waveforms of the same sound laid side by side: at which lag, whole and frame by frame.

At a lag, `theirs[t]` stands beside `mine[t + lag]`. All waveforms are float64 [samples].
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ..runtime.progress import Progress

# A frame's lag is clear where it leaves less than this share of the frame's energy; a change of lag must save as much
# as the second.
CLEAR, CHANGE = 0.05, 0.25


def best_lag(mine: np.ndarray, theirs: np.ndarray) -> int:
    """The lag at which `theirs[t]` fits `mine[t + lag]` best, whatever the loudness and sign.

    Cross-correlation by FFT, its square over the energy of theirs that overlaps: a loud place does not win by being
    loud, nor a short overlap by being short.
    """
    size = 1 << (len(mine) + len(theirs) - 2).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(mine, size) * np.fft.rfft(theirs, size).conj(), size)
    lags = np.arange(size)
    lags[len(mine) :] -= size
    energy = np.concatenate([[0.0], np.cumsum(theirs**2)])
    beside = energy[np.clip(len(mine) - lags, 0, len(theirs))] - energy[np.clip(-lags, 0, len(theirs))]
    floor = 1e-9 * energy[-1]
    return int(lags[np.argmax(correlation**2 / np.maximum(beside, floor))]) if floor else 0


def overlap(mine: np.ndarray, theirs: np.ndarray, lag: int, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """`mine[start:end]` as far as `theirs` reaches at this lag, and what stands beside it: two equally long arrays."""
    start, end = max(start, lag), min(end, len(theirs) + lag)
    return mine[start : max(start, end)], theirs[start - lag : max(start, end) - lag]


def explained(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Share of the energy of `mine` that a multiple of `theirs`, as long, accounts for; 0 where either is silent."""
    energy = float(mine @ mine) * float(theirs @ theirs)
    return float(mine @ theirs) ** 2 / energy if energy else 0.0


def frame_lags(
    mine: np.ndarray, theirs: np.ndarray, starts: range, lag: int, expected: Sequence[int], progress: Progress
) -> list[int]:
    """Each frame's own lag: of all ways through the candidates the one that explains most with the fewest changes.

    Candidates are `lag`, those that are `expected`, and what explains some frame all but fully. A cut lies between
    frames, so that no frame has two lags, however the stream was cut into pieces.
    """
    candidates = sorted({lag, *expected, *_clear_lags(mine, theirs, starts, lag, progress)})
    missed = np.stack([_missed(mine, theirs, each, starts.step) for each in candidates], axis=1)
    total, before = missed[0], []
    for frame in missed[1:]:
        best = int(np.argmin(total))
        stays = total <= total[best] + CHANGE
        before.append(np.where(stays, np.arange(len(candidates)), best))
        total = frame + np.where(stays, total, total[best] + CHANGE)
    way = [int(np.argmin(total))]
    for origin in reversed(before):
        way.append(int(origin[way[-1]]))
    return [candidates[index] for index in reversed(way)]


def _clear_lags(mine: np.ndarray, theirs: np.ndarray, starts: range, lag: int, progress: Progress) -> Iterator[int]:
    """The best lag of each frame that it explains all but fully, looked for wherever pieces may have gone to."""
    ends = (lag, 0, len(mine) - len(theirs))
    low, high = min(ends) - starts.step, max(ends) + starts.step
    for start in progress(starts, unit="frame"):
        first = max(0, start - high)
        window = theirs[first : max(first, start + starts.step - low)]
        if window.size:
            frame = mine[start : start + starts.step]
            own = best_lag(frame, window)
            if _missed(frame, window, own, len(frame))[0] < CLEAR:
                yield start - first + own


def _missed(mine: np.ndarray, theirs: np.ndarray, lag: int, per_frame: int) -> np.ndarray:
    """Share of each frame's energy that a multiple of theirs does not account for at this lag; 1 for a silent one."""
    beside = np.zeros_like(mine)
    start = min(max(lag, 0), len(mine))
    _, there = overlap(mine, theirs, lag, 0, len(mine))
    beside[start : start + len(there)] = there
    starts = range(0, len(mine), per_frame)
    products, mine_energy, energy = (np.add.reduceat(x, starts) for x in (mine * beside, mine**2, beside**2))
    energy *= mine_energy
    return 1 - np.divide(products**2, energy, out=np.zeros_like(energy), where=energy > 0)
