"""A stream in a file: .npz, without pickle, and tied to the weights and the interface that it belongs to."""

import json
import os
import zipfile
import zlib

import numpy as np

from .files import written_whole


def write(stream, path: str | os.PathLike) -> None:
    """Write a `Stream`, whole or not at all. It fits each graph of the same weights and the same spec, and no other."""
    header = identity(stream.session) | {"finished": stream.finished, "unheard": stream._unheard}
    arrays = {f"state.{name}": array for name, array in stream.state.items()}
    arrays |= {"header": np.array(json.dumps(header)), "frames": stream.frames, "held_back": stream._held_back}
    with written_whole(path) as draft, open(draft, "wb") as file:
        np.savez(file, **arrays)


def read_into(stream, path: str | os.PathLike) -> None:
    """Make a `Stream` what `write` wrote.

    Raises ValueError, and changes nothing, for a file that is truncated, of another graph or of other weights.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        frames, held_back = arrays.pop("frames"), arrays.pop("held_back")
        finished, unheard = bool(header["finished"]), int(header["unheard"])
    except (ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a saved stream, or truncated ({error})") from error
    for key, mine in identity(stream.session).items():
        if header.get(key) != mine:
            raise ValueError(f"{path}: was saved from a graph with another {key.replace('_', ' ')}")
    state = {name.removeprefix("state."): array for name, array in arrays.items()}
    if problem := stream.session.spec.state_problem(state, len(frames)):
        raise ValueError(f"{path}: {problem}")
    stream.state, stream.frames, stream._held_back = state, frames, held_back
    stream.finished, stream._unheard = finished, unheard


def identity(session) -> dict[str, str]:
    """What two graphs must have in common to go on with each other's streams."""
    weights = getattr(session, "metadata", {}).get("weights_sha256", "")
    return {"state_spec": session.spec.to_json(), "weights_sha256": weights}
