"""The demo model's files, read with numpy, json and soundfile alone: sentences, their codes, their recordings.

The folder is a checkpoint like any other (`checkpoint.load(demo.FOLDER)`); README.md in it is the model card.
How the files are made: `training/`, `prepare` (speech and codes), `train` (the decoder), `evaluate` (the measurement).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Utterance:
    """One recorded text. `codes` is int64 [N, Q]; the FLAC file at `path` has N * samples_per_frame samples."""

    name: str
    language: str  # BCP 47: "en" or "zh"
    text: str
    voice: str
    codes: np.ndarray
    path: Path


def utterances(folder: Path = FOLDER) -> list[Utterance]:
    """Every utterance of the demo, the short ones first, the long passage last."""
    records = json.loads((folder / "utterances.json").read_text(encoding="utf-8"))
    return [
        Utterance(**record, codes=codes(record["name"], folder), path=folder / "recordings" / f"{record['name']}.flac")
        for record in records
    ]


def codes(name: str, folder: Path = FOLDER) -> np.ndarray:
    """The code sequence of one utterance, int64 [N, Q]."""
    return np.load(codes_file(name, folder), allow_pickle=False)


def codes_file(name: str, folder: Path = FOLDER) -> Path:
    return folder / "codes" / f"{name}.npy"


def recording(name: str, folder: Path = FOLDER) -> tuple[np.ndarray, int]:
    """The sound that the codes stand for: float32 samples [T] in [-1, 1], and their rate in Hz."""
    import soundfile

    return soundfile.read(folder / "recordings" / f"{name}.flac", dtype="float32")
