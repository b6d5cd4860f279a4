"""A stream in a file: .npz, without pickle, and tied to the weights and the interface that it belongs to."""

import json
import os
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import written_whole
from ..spec import BATCH, ENCODER, SAMPLES, StateSpec, TensorSpec
from .protocols import Session

if TYPE_CHECKING:
    from .rows import Rows


def write(stream: "Rows", path: str | os.PathLike) -> None:
    """Write a `Stream`, whole or not at all. It fits each session of the same weights and the same spec, and no other:
    a graph in reduced precision, or the wrapper in PyTorch, too.
    """
    session = stream.session
    header: dict[str, object] = {"state_spec": session.spec.to_json(), "weights_sha256": weights_of(session)}
    header |= {"finished": stream.finished, "unheard": stream._suppressed}
    arrays: dict[str, Any] = {f"state.{name}": array for name, array in stream.state.items()}
    arrays |= {"header": np.array(json.dumps(header)), "frames": stream.frames, "held_back": stream._pending}
    with written_whole(path) as draft, open(draft, "wb") as file:
        np.savez(file, **arrays)


def read_into(stream: "Rows", path: str | os.PathLike) -> None:
    """Make a `Stream` what `write` wrote.

    Raises ValueError, and changes nothing, for a file that is truncated, of another interface or of other weights, or
    that holds what no stream has; the message names the field.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        frames, held_back = arrays.pop("frames"), arrays.pop("held_back")
        spec, weights = StateSpec.from_json(header["state_spec"]), header["weights_sha256"]
        finished, unheard = header["finished"], header["unheard"]
    except _UNREADABLE as error:
        raise ValueError(f"{path}: not a saved stream, or truncated ({error})") from error
    if odd := differences(stream.session, spec, weights):
        raise ValueError(f"{path}: was saved from a graph with another {odd[0]}")
    state = {name.removeprefix("state."): array for name, array in arrays.items()}
    if problem := _problem(spec, state, frames, held_back, finished, unheard):
        raise ValueError(f"{path}: {problem}")
    stream.state, stream.frames, stream._pending = state, frames, held_back
    stream.finished, stream._suppressed = finished, unheard


# What numpy, zipfile and json raise for a file that is cut, is something else, or was made to harm.
_UNREADABLE = (
    ValueError,
    LookupError,
    EOFError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
)


def _problem(
    spec: StateSpec,
    state: dict[str, np.ndarray],
    frames: np.ndarray,
    held_back: np.ndarray,
    finished: object,
    unheard: object,
) -> str | None:
    """What is wrong with the first field that no stream of `spec` has, or None."""
    if problem := TensorSpec("frames", (BATCH,), "int64").problem(frames, {}):
        return problem
    if not len(frames) or (frames < 0).any():
        return f"frames are {frames.tolist()}, must be at least one number from 0 on"
    if problem := _state_problem(spec, state, len(frames)):
        return problem
    # A decoder buffers the frames that it looks ahead, an encoder what does not fill a frame.
    frame, encoder = spec.samples_per_frame, spec.part == ENCODER
    most = frame - 1 if encoder else spec.lookahead_frames * frame
    if problem := TensorSpec("held_back", (BATCH, SAMPLES)).problem(held_back, {SAMPLES: most}):
        return problem
    if len(held_back) != len(frames):
        return f"held_back has {len(held_back)} rows, must have {len(frames)}"
    for name, array in (state | {"held_back": held_back}).items():
        if not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            return f"{name} holds {array[tuple(place)]} at {place}"
    if type(finished) is not bool:
        return f"finished is {finished!r}, must be true or false"
    if finished and held_back.size:
        return f"the stream is finished and buffers {held_back.shape[1]} samples"
    most = 0 if encoder else most - held_back.shape[1]
    if type(unheard) is not int or not 0 <= unheard <= most:
        return f"unheard is {unheard!r}, must be a number of samples in 0..{most}"
    return None


def _state_problem(spec: StateSpec, state: dict[str, np.ndarray], batch: int) -> str | None:
    """What is wrong with `state` as that of `batch` rows of `spec` (a name, shape, dtype or count), or None."""
    wanted = {before.name: before for before, _ in spec.states}
    if odd := sorted(set(state) ^ set(wanted)):
        return f"its states are not those of the graph; they differ in {', '.join(odd)}"
    lengths = {BATCH: batch}  # of each axis, where it was seen first
    for name, tensor in wanted.items():
        if problem := tensor.problem(state[name], spec.limits):
            return problem
        if len(state[name]) != batch:
            return f"{name} has {len(state[name])} rows, must have {batch}"
        for index, axis in tensor.dynamic_axes.items():
            if (length := state[name].shape[index]) != lengths.setdefault(axis, length):
                return f"{name}: axis {index} ({axis}) is {length} long, in another state {lengths[axis]}"
        if tensor.dtype == "int64" and ((state[name] < 0) | (state[name] > spec.limits.get(name, np.inf))).any():
            return f"{name} is outside 0..{spec.limits.get(name, '')}"
    return None


def weights_of(session: Session) -> str:
    """SHA-256 of the weights behind a session, or nothing where it does not know them."""
    return str(getattr(session, "weights_sha256", ""))


def differences(session: Session, spec: StateSpec, weights: str) -> list[str]:
    """What keeps `session` from going on with a stream of `spec` and `weights`."""
    same = {"state spec": session.spec == spec, "weights sha256": weights_of(session) == weights}
    return [what for what, equal in same.items() if not equal]
