"""Graphs in reduced precision: the export, with the measured SNR in the file, and where the noise comes from."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...model.checkpoint import Checkpoint, example_codes
from ...model.one_shot import one_shot
from ...runtime import CodecSession
from ...runtime import self_test as selftest
from ...runtime.measured_snr import (
    CHUNKS,
    FLOAT16,
    FLOAT32,
    INT8,
    LEAST_SNR_DB,
    MeasuredSnr,
    fingerprint,
    measured_snr_of,
)
from ...runtime.metrics import snr_db
from ...runtime.progress import Progress, no_progress
from ...runtime.protocols import Session
from ...runtime.stream import CodecStream
from ...spec import DECODER, EXACT
from ...streaming.designs import wrapper_of
from ...streaming.session import StreamingModule, TorchSession
from ..export import Exported, export
from ..tracing import EXPORTERS, OPSET, ExportError
from . import int8
from .float16 import to_half
from .integers import NEEDS_ONNXRUNTIME

PRECISIONS = (FLOAT32, FLOAT16, INT8)
EXAMPLE_FRAMES = 125  # ten seconds at the official rate
# Graph and wrapper round at other places once an addition in another order has moved a value over an edge, and random
# states are the worst there is: on the demo 0.08 of the largest value in 8 bits, 0.03 in 16. What is wrong is off by
# about 1.
TOLERANCES = {FLOAT16: 0.1, INT8: 0.25}
# What the self-test allows, in the largest error that the graph has here: another machine's rounding is another one.
SELF_TEST_SLACK = 3.0


def wrapper_in(checkpoint: Checkpoint, precision: str) -> StreamingModule:
    """The exact design's wrapper that a graph of `precision` is traced from. float16 is made of float32's graph."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, must be one of {', '.join(PRECISIONS)}")
    return wrapper_of(checkpoint, precision=precision)


def export_in(
    precision: str,
    checkpoint: Checkpoint,
    wrapper: StreamingModule,
    path: str | os.PathLike,
    exporter: str = EXPORTERS[0],
    progress: Progress = no_progress,
    opset: int = OPSET,
    codes: np.ndarray | None = None,
    least_snr_db: float | None = None,
    write: Callable = export,
    strict: bool = True,
) -> Exported | Path:
    """`export` in reduced precision, of what `wrapper_in` gives (with fixed axes or without).

    The draft decodes `codes` [1, N, Q] (default: the checkpoint's example) in chunks of CHUNKS. The
    worst SNR against the one-shot decoder is written into the file, and is refused below `least_snr_db` (default:
    LEAST_SNR_DB). Raises ExportError, and ValueError for a design that is not the exact one. `write` may be `exported`,
    which takes a graph that is there, whatever it was held to, where it keeps `least_snr_db`.
    """
    if precision not in TOLERANCES:
        raise ValueError(f"{precision} is not reduced: `export` writes it")
    if ((spec := wrapper.spec).part, spec.design) != (DECODER, EXACT):
        raise ValueError(f"{precision} is there for the exact decoder, this is the {spec.design} {spec.part}")
    codes = example_codes(checkpoint, EXAMPLE_FRAMES) if codes is None else codes
    least = LEAST_SNR_DB[precision] if least_snr_db is None else least_snr_db

    def measure(session: CodecSession) -> dict[str, str]:
        found = measured(checkpoint, session, precision, codes, least)
        _check(found, least, checkpoint)
        test = selftest.record(TorchSession(wrapper), 0.0)
        limit = SELF_TEST_SLACK * max(selftest.replay(session, test).errors.values())
        entries = found.entries() | {selftest.KEY: json.dumps(json.loads(test) | {"limit": limit})}
        return entries | ({"needs_onnxruntime": NEEDS_ONNXRUNTIME} if precision == INT8 else {})

    done = write(
        checkpoint,
        wrapper,
        path,
        exporter=exporter,
        progress=progress,
        opset=opset,
        strict=strict,
        precision=precision,
        tolerance=TOLERANCES[precision],
        convert=to_half if precision == FLOAT16 else None,
        measure=measure,
    )
    _check(measured_snr_of(CodecSession(path).metadata), least, checkpoint)
    return done


def _check(found: MeasuredSnr | None, least: float, checkpoint: Checkpoint) -> None:
    assert found, "a file in reduced precision carries its measured SNR"
    if not found.snr_db >= least:
        raise ExportError(
            f"{found.precision} comes to {found.snr_db:.1f} dB against float32 on {checkpoint.weights}, the least "
            f"is {least:g}; a lower one is for you to name (--min-snr)"
        )


def measured(checkpoint: Checkpoint, session: Session, precision: str, codes: np.ndarray, least: float) -> MeasuredSnr:
    """The SNR that a file's metadata give: the worst over CHUNKS against the one-shot decoder."""
    spec = session.spec
    wanted = one_shot(checkpoint.decoder, codes)
    schedules = [[spec.fixed_frames]] if spec.fixed_frames else [[chunk] for chunk in CHUNKS]
    found = (_decoded(session, codes, schedule) for schedule in schedules)
    worst = min(snr_db(wanted, waveform) for waveform in found)
    return MeasuredSnr(precision, worst, least, fingerprint(codes))


def _decoded(session: Session, codes: np.ndarray, schedule: list[int]) -> np.ndarray:
    """[1, samples] of codes [1, N, Q], through a graph that may want more rows."""
    stream = CodecStream(session)
    return stream.run(np.repeat(codes, stream.batch, axis=0), schedule)[:1]


@dataclass(frozen=True)
class Sensitivity:
    """SNR in dB where the layers of one kind, in one of the decoder's blocks, have 8 bits alone."""

    kind: str
    block: int | None
    snr_db: float
    product: str

    @property
    def name(self) -> str:
        return self.kind if self.block is None else f"{self.kind}, block {self.block + 1}"


def sensitivity(
    checkpoint: Checkpoint, frames: int = 36, chunk: int = 12, progress: Progress = no_progress
) -> list[Sensitivity]:
    """Each kind of layer, in the order of the data, with 8 bits for weights and activations and all others in float32.

    This is what the table `int8.PRODUCT_OF_KIND` was decided by; `product` is what it gives them.
    """
    codes = example_codes(checkpoint, frames)
    wanted = one_shot(checkpoint.decoder, codes)
    places: dict[tuple[str, int | None], str] = {}
    int8.Int8StreamingWrapper(checkpoint.decoder, lambda *place: places.setdefault(place, int8.FLOAT))
    rows = []
    for place in progress(places, unit="kind"):
        one = int8.ONE_TERM if place[0] != "transformer" else int8.BLOCKS  # its layers' inputs have any rank
        wrapper = int8.Int8StreamingWrapper(
            checkpoint.decoder, lambda *each, place=place, one=one: one if each == place else int8.FLOAT
        )
        snr = snr_db(wanted, _decoded(TorchSession(wrapper), codes, [chunk]))
        rows.append(Sensitivity(*place, snr, int8.treatment(*place)))
    return rows
