"""The self-test that an exported file carries: a few codes, and samples of what the exporter's wrapper made of them.

Published builds of ONNX Runtime have computed convolutions wrongly on some processors. With this a client finds out
where it runs, with nothing but the file: `python -m qwen3_codec selftest FILE.onnx`.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from ..spec import ENCODER
from . import CodecSession
from .codes import random_codes
from .engines import F32
from .measured_snr import INT8, LEAST_SNR_DB
from .metrics import max_error, snr_db
from .protocols import Session
from .stream import CodecStream, Stream, stream_of

KEY = "self_test"  # in the file's metadata
FRAMES = 6
FLIPS = 0.02  # share of an encoder's codes that rounding may choose otherwise
SAMPLES = 256  # kept of each run: 1 KB


@dataclass(frozen=True)
class Outcome:
    """The largest error of each run against what the file says, {chunk lengths: error}, and how large it may be.

    Of a runtime that computes in reduced precision, `snrs` has each run's SNR in dB, which is judged in the place of
    the error and must be at least `least_snr_db`.
    """

    errors: dict[str, float]
    limit: float
    snrs: dict[str, float] | None = None
    least_snr_db: float = LEAST_SNR_DB[INT8]

    @property
    def passed(self) -> bool:
        if self.snrs:
            return all(snr >= self.least_snr_db for snr in self.snrs.values())
        return all(error <= self.limit for error in self.errors.values())  # NaN is not

    def __str__(self) -> str:
        lines = [f"chunks of {lengths:>4}: largest error {error:.1e}" for lengths, error in self.errors.items()]
        limit = f"limit {self.limit:.0e}"
        if self.snrs:
            lines = [f"{line}, {snr:.1f} dB" for line, snr in zip(lines, self.snrs.values(), strict=True)]
            limit = f"at least {self.least_snr_db:g} dB"
        says = "passed: this machine's runtime computes what the exporter did"
        return "\n".join([*lines, f"{says if self.passed else 'FAILED'} ({limit})"])


def record(session: Session, limit: float) -> str:
    """The self-test of a graph as JSON; `session` runs its wrapper (a `TorchSession`).

    Codes are random, one row for all; each schedule has samples of its own, since a design may differ by it. Of an
    encoder the file has the codes of a noise that any machine makes to the bit.
    """
    spec = session.spec
    if spec.part == ENCODER:
        return json.dumps({"codes": _encoded(session, [FRAMES])[0].tolist(), "limit": FLIPS})
    frames = 2 * spec.fixed_frames + 1 if spec.fixed_frames else FRAMES  # the last chunk is a short one
    codes = random_codes(spec, frames)
    runs = []
    for schedule in [[spec.fixed_frames]] if spec.fixed_frames else [[1], [2], [frames]]:
        samples = _streamed(CodecStream(session), codes, schedule)[0]
        runs.append({"schedule": schedule, "samples": base64.b64encode(_kept(samples).tobytes()).decode()})
    return json.dumps({"codes": codes[0].tolist(), "limit": limit, "runs": runs})


def replay(session: CodecSession, text: str = "", least_snr_db: float = LEAST_SNR_DB[INT8]) -> Outcome:
    """Stream the codes of the file's own self-test through it, or those of `text`, which `record` gave.

    A decoder that the session runs below float32 is held to `least_snr_db`, since the file's limit is for float32.

    Raises ValueError where the file carries none, or none that can be read.
    """
    if not text and KEY not in session.metadata:
        raise ValueError(f"{session.path}: carries no self-test; export it again")
    try:
        test = json.loads(text or session.metadata[KEY])
        codes, limit = np.asarray(test["codes"], np.int64)[None], float(test["limit"])
        if session.spec.part == ENCODER:
            return Outcome({str(n): _share(_encoded(session, [n]), codes) for n in (1, 2, FRAMES)}, limit)
        expected = {
            tuple(run["schedule"]): np.frombuffer(base64.b64decode(run["samples"], validate=True), "<f4")
            for run in test["runs"]
        }
        if not expected:
            raise ValueError("it has no runs")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{session.path}: its self-test cannot be read ({error!r})") from error
    errors, snrs = {}, {}
    for schedule, wanted in expected.items():
        rows = [_kept(row) for row in _streamed(session.stream(), codes, schedule)]
        fits = all(row.shape == wanted.shape for row in rows)
        lengths = ",".join(map(str, schedule))
        errors[lengths] = max(max_error(wanted, row) for row in rows) if fits else float("inf")
        snrs[lengths] = min(snr_db(wanted, row) for row in rows) if fits else float("-inf")
    return Outcome(errors, limit, None if session.precision == F32 else snrs, least_snr_db)


def _streamed(stream: Stream, codes: np.ndarray, schedule: Sequence[int]) -> np.ndarray:
    return stream.run(np.repeat(codes, stream.batch, axis=0), schedule)


def _encoded(session: Session, schedule: Sequence[int]) -> np.ndarray:
    """Codes of the noise, for all rows; the last frame is not full."""
    stream, spec = stream_of(session), session.spec
    noise = _noise(FRAMES * spec.samples_per_frame - spec.samples_per_frame // 3)
    return stream.run(np.repeat(noise[None], stream.batch, axis=0), schedule)


def _noise(samples: int, value: int = 1) -> np.ndarray:
    """Noise in [-0.5, 0.5) in integer arithmetic (the generator of Park and Miller, CACM 31, 1988)."""
    values = []
    for _ in range(samples):
        value = 16807 * value % (2**31 - 1)
        values.append(value >> 15)
    return np.array(values, np.float32) / 2**16 - np.float32(0.5)


def _share(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of codes that differ; infinite where there are more or fewer."""
    return float((found != wanted).mean()) if found.shape[1:] == wanted.shape[1:] else float("inf")


def _kept(samples: np.ndarray) -> np.ndarray:
    """Every k-th sample of the whole, at most SAMPLES; k shares no factor with the length, so that all phases come."""
    step = max(1, -(-samples.size // SAMPLES))
    while gcd(step, samples.size) > 1:
        step += 1
    return samples[::step].astype("<f4")
