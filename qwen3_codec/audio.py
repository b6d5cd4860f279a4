"""Waveforms in files."""

from pathlib import Path

import numpy as np

from .files import written_whole


def write_waveform(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """A .npy file keeps float32, a .wav file holds 16 bits; the file appears whole or not at all."""
    with written_whole(path) as draft, open(draft, "wb") as file:
        if path.suffix == ".npy":
            np.save(file, waveform)
        else:
            import soundfile

            soundfile.write(file, waveform[0], sample_rate, format="WAV", subtype="PCM_16")
