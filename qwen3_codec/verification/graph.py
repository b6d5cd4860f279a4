"""An exported graph, of either part, against the wrapper that it was made from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..exporting.precision import int8  # noqa: F401  its wrapper is one of `wrapper_of`'s
from ..exporting.precision.export import EXAMPLE_FRAMES
from ..model.checkpoint import Checkpoint, example_audio, example_codes
from ..runtime import CodecSession
from ..runtime.codes import random_codes
from ..runtime.engines import F32
from ..runtime.measured_snr import FLOAT32, INT8, LEAST_SNR_DB, measured_snr_of
from ..runtime.progress import Progress, no_progress
from ..spec import ENCODER
from ..streaming.designs import wrapper_of
from ..streaming.fixed import FixedAxes
from ..streaming.session import StreamingModule
from .decoder import verify
from .encoder import verify_encoder
from .report import ONNX, REDUCED_STATE_ERROR, Limits, Verdict

LEAST_FRAMES = 120


def verify_graph(
    checkpoint: Checkpoint,
    session: CodecSession,
    schedules: Sequence[Sequence[int]],
    data: np.ndarray | None = None,
    progress: Progress = no_progress,
    least_snr_db: float = LEAST_SNR_DB[INT8],
) -> Verdict:
    """`session`'s graph against the wrapper that it was exported from, over codes or audio (default: `example`).

    A decoder that a runtime computes below float32 is held to `least_snr_db`, and so is a file in reduced precision
    under another runtime than ONNX Runtime, in which its SNR was measured. An encoder's codes are choices, which
    reduced precision changes: it is held to what it is held to in float32.
    """
    data = example(checkpoint, session, schedules) if data is None else data
    wrapper: Any = wrapper_like(checkpoint, session)
    if session.spec.part == ENCODER:
        return verify_encoder(checkpoint, wrapper, data, schedules, session, progress)
    below = Limits(min_snr_db=least_snr_db, state_error=REDUCED_STATE_ERROR)
    elsewhere = session.title != ONNX and measured_snr_of(session.metadata)
    limits = below if elsewhere or session.precision != F32 else None
    return verify(checkpoint, wrapper, data, schedules, session, progress, limits=limits)


def example(checkpoint: Checkpoint, session: CodecSession, schedules: Sequence[Sequence[int]]) -> np.ndarray:
    """So long that the last call begins after all states are full: an encoder's audio; random codes, which find a fault
    anywhere; in reduced precision the checkpoint's example, on which a file's SNR was measured.
    """
    spec = session.spec
    frames = max(LEAST_FRAMES, spec.frames_to_fill + max(map(max, schedules)) + 1)
    if spec.part == ENCODER:
        return example_audio(checkpoint, frames)
    return example_codes(checkpoint, EXAMPLE_FRAMES) if is_reduced(session) else random_codes(spec, frames)


def is_reduced(session: CodecSession) -> bool:
    """Whether the file is in reduced precision, or the runtime computes in it."""
    return measured_snr_of(session.metadata) is not None or session.precision != F32


def wrapper_like(checkpoint: Checkpoint, session: CodecSession) -> StreamingModule:
    """The wrapper that `session`'s graph was exported from, on the weights of `checkpoint`.

    Raises ValueError where the graph was made from other weights or another config, CheckpointError where the config
    was changed after it was loaded.
    """
    spec, metadata = session.spec, session.metadata
    checkpoint.check_unchanged(spec.part)
    wrapper = wrapper_of(checkpoint, spec.design, spec.part, metadata.get("precision", FLOAT32), **spec.settings)
    if spec.fixed_frames or spec.fixed_batch:
        wrapper = FixedAxes(wrapper, spec.fixed_frames, spec.fixed_batch)
    if wrapper.spec != spec:
        raise ValueError(f"{session.path}: its interface is not that of the checkpoint {checkpoint.source}")
    if metadata.get("weights_sha256") != checkpoint.fingerprint(spec.part):
        raise ValueError(f"{session.path}: was exported from other weights than the checkpoint {checkpoint.source} has")
    return wrapper
