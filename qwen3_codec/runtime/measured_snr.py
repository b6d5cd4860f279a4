"""A file in reduced precision: its precision, and the SNR against float32 that was measured when it was written."""

import hashlib
from dataclasses import dataclass
from math import isfinite

import numpy as np

FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
# Below these, in dB against the one-shot decoder in float32, no file is written unless one asks for it.
LEAST_SNR_DB = {INT8: 30.0, FLOAT16: 50.0}
# Chunk lengths that the SNR is measured at: the shortest one, and two that servers use.
CHUNKS = (1, 3, 12)
# Another machine adds in another order. Where that moves a value over the edge between two numbers of 8 bits, the noise
# is another one of the same size: on the demo, by up to 0.2 dB between exporters, threads and PyTorch.
SLACK_DB = 0.5


@dataclass(frozen=True)
class MeasuredSnr:
    """`snr_db` is the worst over CHUNKS, of the codes of that hash; `least_snr_db` what the file was held to."""

    precision: str
    snr_db: float
    least_snr_db: float
    codes_sha256: str

    def entries(self) -> dict[str, str]:
        """As a file's metadata."""
        return {
            "precision": self.precision,
            "snr_db": f"{self.snr_db:.2f}",
            "least_snr_db": f"{self.least_snr_db:g}",
            "codes_sha256": self.codes_sha256,
        }

    def least(self, codes: np.ndarray) -> float:
        """The bound for `codes`: for those of the measurement, its SNR less SLACK_DB; for others, the least."""
        return self.snr_db - SLACK_DB if fingerprint(codes) == self.codes_sha256 else self.least_snr_db

    def __str__(self) -> str:
        held = f"at least {self.least_snr_db:g}" if isfinite(self.least_snr_db) else "nothing"
        return f"{self.precision}, {self.snr_db:.1f} dB against float32, held to {held}"


def measured_snr_of(metadata: dict[str, str]) -> MeasuredSnr | None:
    """The measured SNR in a file's metadata, or None: float32 has none. ValueError where it cannot be read."""
    if metadata.get("precision", FLOAT32) == FLOAT32:
        return None
    try:
        numbers = float(metadata["snr_db"]), float(metadata["least_snr_db"])
        return MeasuredSnr(metadata["precision"], *numbers, metadata["codes_sha256"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"its precision is {metadata['precision']}, and its measured SNR cannot be read ({error!r})"
        ) from error


def fingerprint(codes: np.ndarray) -> str:
    """SHA-256 of codes [..., N, Q], the first 16 digits: the shape without the batch, and the numbers."""
    codes = np.ascontiguousarray(codes.reshape(-1, codes.shape[-1]), "<i8")
    return hashlib.sha256(str(codes.shape).encode() + codes.tobytes()).hexdigest()[:16]
