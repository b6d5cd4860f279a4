"""What a notebook shows beside its figures: tables, progress bars and audio players. Needs no matplotlib."""

import sys
from collections.abc import Sequence

import numpy as np


def table(headers: Sequence[str], rows: Sequence[Sequence], most: int = 12):
    """A table that Jupyter shows as one (Markdown).

    Of more than `most` rows, the first ones; a click unfolds them all.
    """
    from IPython.display import Markdown

    def lines(some):
        return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [headers, ["---"] * len(headers), *some])

    rows = list(rows)
    if len(rows) <= most:
        return Markdown(lines(rows))
    summary = f"<details><summary>All {len(rows)} rows</summary>"
    return Markdown(f"{lines(rows[: most // 2])}\n\n{summary}\n\n{lines(rows)}\n\n</details>")


def progress(iterable, **options):
    """A progress bar (tqdm) that goes when it is done, and that no page shows as an error: it is not on stderr."""
    from tqdm import tqdm

    return tqdm(iterable, file=sys.stdout, leave=False, **options)


def player(waveform: np.ndarray, sample_rate: int, seconds: float = 3.0, start: float = 0.0):
    """An audio player of at most 5 s of a waveform [samples] or [1, samples], at its own loudness."""
    from IPython.display import Audio

    first = int(start * sample_rate)
    return Audio(
        waveform.reshape(-1)[first : first + int(min(seconds, 5.0) * sample_rate)], rate=sample_rate, normalize=False
    )
