"""A waveform against one from elsewhere: where they part, by how much, and which known cause it looks like.

`compare` lines the two up, measures what is left chunk by chunk, and tries what is known to go wrong on the way to a
reference: samples cut at the borders, another rate, chunks resampled on their own, 16 bits, another loudness.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from math import isfinite, log10

import numpy as np

from ..runtime.metrics import MAX_ERROR, chunk_lengths, max_error, snr_db
from ..runtime.progress import Progress, no_progress
from ..runtime.resampling import resample
from .alignment import best_lag, explained, frame_lags, overlap
from .borders import COMMON_RATES, SHOWN, clicks, there_and_back

# A cause counts where taking it out leaves a quarter of the squared error or less (6 dB).
CLEARLY = 0.25
# Two waveforms are the same sound where one explains half of the other's energy.
ALIKE = 0.5


@dataclass(frozen=True)
class ChunkDifference:
    """One chunk, each of its frames at its own lag; `lag` is the first one's."""

    start_frame: int
    frames: int
    lag: int
    max_error: float
    snr_db: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` measured. Lengths and lags are in samples at `sample_rate`, theirs brought to that rate.

    At a lag, `theirs[t]` stands beside `mine[t + lag]`. `lag` is the one that fits best as a whole; errors are measured
    with every frame at its own. A chunk that theirs does not reach is left out of `chunks`.
    `findings` says in words what was found; it is empty where nothing differs.
    """

    sample_rate: int
    samples: int
    their_samples: int
    lag: int
    max_error: float
    snr_db: float
    chunks: list[ChunkDifference]
    findings: list[str]

    @property
    def worst(self) -> ChunkDifference:
        return max(self.chunks, key=lambda chunk: chunk.max_error)

    @property
    def first(self) -> ChunkDifference | None:
        """The first chunk that differs by more than rounding."""
        return next((chunk for chunk in self.chunks if chunk.max_error > MAX_ERROR), None)

    def to_json(self) -> str:
        """JSON knows no infinity: the SNR of what is equal is null."""
        entries = asdict(self)
        for entry in (entries, *entries["chunks"]):
            entry["snr_db"] = entry["snr_db"] if isfinite(entry["snr_db"]) else None
        return json.dumps(entries, indent=2, allow_nan=False)

    def __str__(self) -> str:
        difference = self.their_samples - self.samples
        words = f"{abs(difference)} {'more' if difference > 0 else 'fewer'}" if difference else "as many"
        ends = self.chunks[0].lag, self.chunks[-1].lag
        drift = "; {} at the start, {} in the last chunk".format(*ends) if ends[0] != ends[1] else ""
        lines = [
            f"length: {self.samples} samples at {self.sample_rate} Hz, theirs {self.their_samples} ({words})",
            f"best lag: {self.lag} samples (their sample t is sample t + lag of mine){drift}",
            f"after alignment of each frame: max error {self.max_error:.1e}, SNR {self.snr_db:.1f} dB",
            f"worst chunk: {self._place(self.worst)}",
        ]
        if self.first:
            lines.append(f"differs by more than {MAX_ERROR:.0e} from the chunk at frame {self.first.start_frame} on")
        else:
            lines.append(f"agrees: no chunk differs by more than {MAX_ERROR:.0e}")
        return "\n".join(lines + [f"found: {finding}" for finding in self.findings])

    def _place(self, chunk: ChunkDifference) -> str:
        return (
            f"frames {chunk.start_frame} to {chunk.start_frame + chunk.frames - 1}: "
            f"max error {chunk.max_error:.1e}, SNR {chunk.snr_db:.1f} dB at lag {chunk.lag}"
        )


def compare(
    mine: np.ndarray,
    theirs: np.ndarray,
    config: dict,
    schedule: Sequence[int] = (12,),
    their_rate: int | None = None,
    progress: Progress = no_progress,
) -> Comparison:
    """Compare float waveforms [samples]; `config` is the `config.json` of the checkpoint that `mine` is from.

    `schedule` is the chunk lengths in frames, `their_rate` what the header of theirs says (None: there is none);
    `progress` wraps the loop over the frames (tqdm does).
    """
    rate, per_frame = config["output_sample_rate"], config["decode_upsample_rate"]
    rounded = _sixteen_bits(mine, theirs)
    mine, theirs = mine.astype(np.float64), theirs.astype(np.float64)
    mine, theirs, theirs_was, findings = _at_rate(mine, theirs, rate, their_rate, per_frame)

    lag = best_lag(mine, theirs)
    starts = range(0, len(mine), per_frame)
    missing, lost = len(mine) - len(theirs), both_sides_cut(config["decoder_config"]["upsample_rates"])
    pieces = missing // lost if lost and missing % lost == 0 and 0 < missing // lost <= len(starts) else 0
    lags = frame_lags(mine, theirs, starts, lag, range(lost, lost * pieces + 1, lost or 1), progress)
    frames = [overlap(mine, theirs, own, a, a + per_frame) for a, own in zip(starts, lags, strict=True)]
    together = _joined(frames)
    if explained(*together) < ALIKE and max_error(*together) > MAX_ERROR:
        silent = "theirs is silent" if not theirs.any() else "no lag makes half of mine out of theirs"
        findings.append(f"not the same sound: {silent}")
        findings += [f"but {_cut(pieces, lost)}"] if pieces else []
    else:
        findings += _borders(lags, missing, pieces, lost)
        findings += _loudness(*together)
        if lags == [lag] * len(lags) and max_error(*together) > MAX_ERROR:
            findings += clicks(mine, theirs, lag, per_frame, rate, theirs_was)
    chunks = []
    for a, b in pairwise(accumulate(chunk_lengths(len(starts), schedule), initial=0)):
        pair = _joined(frames[a:b])
        if pair[0].size:
            chunks.append(ChunkDifference(a, b - a, lags[a], max_error(*pair), snr_db(*pair)))
    if not findings and max_error(*together) > MAX_ERROR:
        findings.append("no known cause explains the difference")
    findings = rounded + findings
    return Comparison(rate, len(mine), len(theirs), lag, max_error(*together), snr_db(*together), chunks, findings)


def both_sides_cut(upsample_rates: Sequence[int]) -> int:
    """Samples that a decode loses where every transposed convolution is cut on both sides: 555 at the official rates.

    Kernel 2s and stride s make T * s + s samples of T. The causal cut takes s of them, on the right. Cut on both sides,
    s more are gone from the front, and each later stage multiplies what is missing by its own rate.
    """
    missing = 0
    for rate in upsample_rates:
        missing = (missing + 1) * rate
    return missing


def _joined(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    mine, theirs = zip(*pairs, strict=True)
    return np.concatenate(mine), np.concatenate(theirs)


def _at_rate(
    mine: np.ndarray, theirs: np.ndarray, rate: int, their_rate: int | None, per_frame: int
) -> tuple[np.ndarray, np.ndarray, int, list[str]]:
    """(mine, theirs, the rate that theirs was at, findings): both as the other rate can hold them, at the rate of mine.

    The header's word is taken, then the lengths' proportion where the sound agrees.
    """

    def likeness(sound: np.ndarray) -> float:
        return explained(*overlap(mine, sound, best_lag(mine, sound), 0, len(mine)))

    def brought_from(other: int, why: str) -> tuple:
        found = _resampled(f"theirs is at {other} Hz {why}", other, rate)
        sound = resample(theirs, other, rate).astype(np.float64)
        # A sample or two at a high rate may become none.
        return there_and_back(mine, rate, other), sound if sound.size else np.zeros(1), other, [found]

    if their_rate is not None and their_rate != rate:
        return brought_from(their_rate, "by its header")
    alike, without_soxr = likeness(theirs), list[str]()
    tries = [(max(alike, ALIKE), (mine, theirs, rate, without_soxr))]
    for other in COMMON_RATES:
        if other != rate and abs(len(theirs) * rate / other - len(mine)) < per_frame:
            try:
                tried = brought_from(other, "by its length and its sound, though nothing in it says so")
                tries.append((likeness(tried[1]), tried))
            except ValueError as missing:
                without_soxr += [f"theirs may be at {other} Hz by its length: {missing}"] if alike < ALIKE else []
    return max(tries, key=lambda tried: tried[0])[1]


def _resampled(why: str, their_rate: int, rate: int) -> str:
    empty = f", where nothing is left above {their_rate // 2} Hz" if their_rate < rate else ""
    return f"{why}: compared at {rate} Hz, mine brought to theirs and back{empty}"


def _borders(lags: list[int], missing: int, pieces: int, lost: int) -> list[str]:
    """Samples of theirs that are gone, or came in, between frames: there the lag changes."""
    steps = [(after - before, frame) for frame, (before, after) in enumerate(pairwise([0, *lags])) if after != before]
    if pieces and steps and all(step > 0 and step % lost == 0 for step, _ in steps):
        places = ", ".join(str(frame) for _, frame in steps[:SHOWN]) + (", ..." if steps[SHOWN:] else "")
        return [f"{_cut(pieces, lost)}. Pieces begin near frame {places}"]
    found = [
        f"theirs has {abs(step)} samples too {'few' if step > 0 else 'many'} from frame {frame} on"
        for step, frame in steps[:SHOWN]
    ]
    if steps[SHOWN:]:
        found.append(f"and so on, {len(steps)} times in all")
    tail = missing - lags[-1]
    if tail:
        found.append(f"theirs has {abs(tail)} samples too {'few' if tail > 0 else 'many'} at its end")
    return found


def _cut(pieces: int, lost: int) -> str:
    return (
        f"{pieces * lost} samples are missing, {pieces} x {lost}: each piece that is decoded with its transposed "
        f"convolutions cut on both sides loses {lost} (qwen-tts before 2026-02-05 and Qwen3-Omni's class do that); cut "
        "them on the right alone"
    )


def _sixteen_bits(mine: np.ndarray, theirs: np.ndarray) -> list[str]:
    """Is every value of one a value that 16 bits have, and not so in the other?"""
    return [
        f"{name} has 16 bits, multiples of 1/{scale}: to round to them moves a sample by up to {0.5 / scale:.1e}"
        for name, samples, other in (("theirs", theirs, mine), ("mine", mine, theirs))
        for scale in (2**15, 2**15 - 1)
        if samples.any() and _on_grid(samples, scale) and not _on_grid(other, scale)
    ]


def _on_grid(samples: np.ndarray, scale: int) -> bool:
    steps = samples.astype(np.float64) * scale
    # A float32 that is no power of two away from its number of steps misses it by its own rounding.
    return bool(np.all(np.abs(steps - np.rint(steps)) < 4e-3))


def _loudness(mine: np.ndarray, theirs: np.ndarray) -> list[str]:
    """Is theirs mine times a number, or mine with its peaks cut?"""
    if not mine.any() or not theirs.any():
        return []
    loud = np.abs(mine) > np.sqrt(np.mean(mine**2)) / 2
    # The middle one of the ratios: cut peaks do not move it as they would a least squares fit.
    gain = float(np.median(theirs[loud] / mine[loud]))
    peak = float(np.max(np.abs(theirs)))
    expected = gain * mine
    over = np.abs(expected) > peak * 1.001
    left = np.sum((np.clip(expected, -peak, peak) - theirs) ** 2)
    if left >= CLEARLY * min(np.sum((mine - theirs) ** 2), np.sum(theirs**2)):
        return []
    found = []
    if abs(gain - 1) > 1e-3:
        turned = ", upside down" if gain < 0 else ""
        found.append(f"mine times {gain:.4g} ({20 * log10(abs(gain)):+.1f} dB{turned})")
    if np.sum(over) > 1 and np.all(np.abs(theirs[over]) > peak * 0.999):
        found.append(f"clipped at {peak:.3g} ({np.sum(over)} samples)")
    noise = max_error(np.clip(expected, -peak, peak), theirs)
    return [f"theirs is {' and '.join(found)}; with that taken out the max error is {noise:.1e}"] if found else []
