"""How near the demo model comes to its recordings: one-shot decode of every utterance, compared with the FLAC file.

    python -m qwen3_codec.demo.training.evaluate

Prints a table and ends with 1 where an utterance falls short of the limits below. Needs pystoi and soundfile.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pystoi import stoi

from ... import demo
from ...model import checkpoint
from ...model.checkpoint import Checkpoint
from ...model.decoder import CodecDecoder
from ...runtime import metrics

# Intelligibility against the recording, 1 is the recording itself. STOI: Taal et al. 2011, ESTOI: Jensen & Taal 2016.
STOI_LIMIT = 0.96
ESTOI_LIMIT = 0.93


@dataclass(frozen=True)
class Score:
    """One utterance, measured. `clipped` counts samples at full scale; `codes` is the share that the encoder finds."""

    name: str
    seconds: float
    stoi: float
    estoi: float
    snr_db: float
    clipped: int
    codes: float | None = None

    @property
    def good(self) -> bool:
        return self.stoi >= STOI_LIMIT and self.estoi >= ESTOI_LIMIT and self.clipped == 0


def scores(decoder: CodecDecoder, folder: Path = demo.FOLDER) -> list[Score]:
    """Decode every utterance of `folder` in one shot and measure it."""
    return [score(decoder, utterance.name, utterance.codes, folder) for utterance in demo.utterances(folder)]


@torch.no_grad()
def score(decoder: CodecDecoder, name: str, codes: np.ndarray, folder: Path) -> Score:
    """Decode int64 codes [N, Q] in one shot and measure the waveform against the recording of that name."""
    recording, rate = demo.recording(name, folder)
    output = decoder(torch.from_numpy(codes)[None])[0].numpy()
    return Score(
        name,
        seconds=len(recording) / rate,
        stoi=float(stoi(recording, output, rate)),
        estoi=float(stoi(recording, output, rate, extended=True)),
        snr_db=metrics.snr_db(recording, output),
        clipped=int(np.count_nonzero(np.abs(output) >= 1)),
    )


@torch.no_grad()
def round_trips(checkpoint: Checkpoint, folder: Path = demo.FOLDER) -> list[Score]:
    """Encode every recording of `folder` in one shot, decode its codes, and measure: recording -> codes -> sound."""
    rows = []
    for utterance in demo.utterances(folder):
        audio, _ = demo.recording(utterance.name, folder)
        codes = checkpoint.encoder(torch.from_numpy(audio)[None])[0].numpy()
        row = score(checkpoint.decoder, utterance.name, codes, folder)
        rows.append(replace(row, codes=float((codes == utterance.codes).mean())))
    return rows


def table(rows: list[Score]) -> str:
    """The scores as a Markdown table."""
    lines = ["| utterance | seconds | STOI | ESTOI | SNR, dB | clipped |", "|---|--:|--:|--:|--:|--:|"]
    lines += [
        f"| {row.name} | {row.seconds:.2f} | {row.stoi:.3f} | {row.estoi:.3f} | {row.snr_db:.1f} | {row.clipped} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m qwen3_codec.demo.training.evaluate", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--folder", type=Path, default=demo.FOLDER, help="what to measure (default: the shipped demo)")
    folder = parser.parse_args(arguments).folder
    loaded = checkpoint.load(folder)
    rows = scores(loaded.decoder, folder)
    print(table(rows))
    if "encoder_config" in loaded.config:
        trips = round_trips(loaded, folder)
        rows += trips
        print("\nFrom the recordings, through the encoder:\n")
        print(table(trips))
        print("shipped codes found: " + ", ".join(f"{row.name} {100 * row.codes:.1f} %" for row in trips))
    short = [row.name for row in rows if not row.good]
    print(
        f"Limits: STOI >= {STOI_LIMIT}, ESTOI >= {ESTOI_LIMIT}, nothing clipped: "
        + (f"not reached by {', '.join(short)}" if short else "reached by all")
    )
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
