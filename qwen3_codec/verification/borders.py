"""Does a difference lie at borders of frames, as where chunks of a waveform were resampled on their own?

A decoder is causal: a state that is lost is heard behind a border alone. What is wrong before it as well was done to
chunks of the waveform. A resampler is in the way of that: how it fades out below half the lower rate shows everywhere,
so it is filtered out; and a filter spreads a short error to both sides. One that is cut off rings at that edge, as a
lost state does not: most of its error must be in what was filtered out.
"""

from collections.abc import Iterator

import numpy as np

from ..runtime.resampling import resample
from .alignment import overlap

# Rates that sound files have.
COMMON_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# Borders that are named one by one.
SHOWN = 5
# A resampler's filter, cut off at a chunk's end, is wrong for so long on either side: 99.8 % of the energy, at 8 kHz.
CLICK_SECONDS = 0.004
# Resamplers differ in how they fade out below half the lower rate; what lies under this share of it, all of them keep.
KEPT_BY_ALL = 0.7
# Of a cut-off resampler's error at most 0.53 lies below that share (measured with five resamplers and five rates), of
# one wrong sample 0.7, of a lost state of the decoder's last convolutions 0.9 and more.
BELOW_THE_EDGE = 0.6
# A border's error counts where it is so many times that in the middle of its frames, and these hold half of all.
ABOVE_THE_MIDDLE, MOST = 5, 0.5
# It is on both sides where the lesser has this share of the greater.
ONE_SIDED = 0.1
TINY = np.finfo(float).tiny


def clicks(mine: np.ndarray, theirs: np.ndarray, lag: int, per_frame: int, rate: int, their_rate: int) -> list[str]:
    """The finding, or none. `theirs`, once at `their_rate`, is at `rate` like `mine`, at one lag throughout."""
    near = round(CLICK_SECONDS * rate)
    first = -(-max(lag, 0) // per_frame)
    mine, theirs = overlap(mine, theirs, lag, first * per_frame, len(mine))
    if per_frame < 4 * near or len(mine) // per_frame < 2:
        return []
    # Of all tries the one in which most of the difference lies at borders.
    _, borders = max(_tried(mine, theirs, per_frame, near, rate, their_rate), key=lambda tried: tried[0])
    if not borders.any():
        return []
    places = [str(first + 1 + border) for border in np.flatnonzero(borders)]
    shown = ", ".join(places[:SHOWN]) + (", ..." if places[SHOWN:] else "")
    return [
        f"the difference lies within {1000 * CLICK_SECONDS:g} ms on both sides of where a frame begins, at frame "
        f"{shown}: each chunk was resampled (or filtered, or faded) on its own; one resampler for the whole stream has "
        "no borders (`decode --resample`, soxr.ResampleStream)"
    ]


def _tried(
    mine: np.ndarray, theirs: np.ndarray, per_frame: int, near: int, rate: int, their_rate: int
) -> Iterator[tuple[float, np.ndarray]]:
    """(share of the difference, the borders that have it): as it is, then below the edge of each rate that theirs may
    have been at in between.
    """

    def at(borders: np.ndarray, squares: np.ndarray) -> list[float]:
        return [float(side[borders].sum()) for side in _around(squares, per_frame, near)]

    whole = _squares(mine, theirs)
    found = _at_borders(whole, per_frame, near) & (their_rate == rate)
    yield sum(at(found, whole)) / max(float(whole.sum()), TINY), found
    others = [their_rate] if their_rate != rate else [other for other in COMMON_RATES if other <= rate]
    for other in others:
        low = round(KEPT_BY_ALL * min(rate, other))
        try:
            kept = _squares(there_and_back(mine, rate, low), there_and_back(theirs, rate, low))
        except ValueError:  # without soxr theirs is at this rate, and is judged as it is
            return
        found = _at_borders(kept, per_frame, near)
        (before, behind), below = at(found, whole), sum(at(found, kept))
        # A filter spreads what is wrong on one side alone to both.
        if below <= BELOW_THE_EDGE * (before + behind) and _on_both_sides(before, behind):
            yield below / max(float(kept.sum()), TINY), found


def _at_borders(squares: np.ndarray, per_frame: int, near: int) -> np.ndarray:
    """bool [borders]; none of them unless most of the difference lies there, before them as well as behind."""
    by_frame = _by_frame(squares, per_frame)
    middle = by_frame[:, per_frame // 4 : -(per_frame // 4)].mean(axis=1) * near
    sides = _around(squares, per_frame, near)
    found = np.minimum(*sides) > ABOVE_THE_MIDDLE * (middle[1:] + middle[:-1])
    before, behind = (side[found].sum() for side in sides)
    return found & (before + behind > MOST * squares.sum()) & _on_both_sides(before, behind)


def _on_both_sides(before: float, behind: float) -> bool:
    return min(before, behind) >= ONE_SIDED * max(before, behind)


def _around(squares: np.ndarray, per_frame: int, near: int) -> tuple[np.ndarray, np.ndarray]:
    """The energy before and behind each border between two frames."""
    by_frame = _by_frame(squares, per_frame)
    return by_frame[:-1, -near:].sum(axis=1), by_frame[1:, :near].sum(axis=1)


def _by_frame(squares: np.ndarray, per_frame: int) -> np.ndarray:
    return squares[: len(squares) // per_frame * per_frame].reshape(-1, per_frame)


def _squares(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Squared differences, another loudness taken out."""
    return np.square(mine - theirs * (mine @ theirs) / max(theirs @ theirs, TINY))


def there_and_back(samples: np.ndarray, rate: int, other: int) -> np.ndarray:
    """As many samples, of what a waveform at the other rate can hold."""
    back = resample(resample(samples, rate, other), other, rate)[: len(samples)].astype(np.float64)
    return np.pad(back, (0, len(samples) - len(back)))
