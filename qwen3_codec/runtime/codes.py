"""Codes as a user has them: read from a file and written to one, and checked before a graph sees them."""

import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..files import written_whole
from ..spec import StateSpec
from .packed import pack, unpack

PACKED = ".rvq"
KINDS = f".npy, .npz, .json or {PACKED}"  # of files that are read
WRITTEN = (".npy", PACKED)
NAMES = ("audio_codes", "codes")  # what files with names call them
PADDING = -1  # upstream fills up a row so, behind its last frame


class CodesError(ValueError):
    """Codes that the graph cannot take; the message names the value and its place."""


def read_codes(path: Path, dims: Any = None) -> np.ndarray | list[np.ndarray]:
    """Codes from a file, as they lie there: an array, or nested lists; ValueError for no codes.

    A .npz holds one array, or one that is named audio_codes or codes; a .json nested lists, or an object of such names.
    Where `lengths` lies beside the codes, each row is cut to its own. A .rvq holds one row [N, Q] and does not say
    what Q and the codebook's size are: `dims` does (a spec, or a decoder's config).
    """
    if path.suffix == PACKED and dims is None:
        raise ValueError(
            f"{path}: does not say how many codebooks it is of, nor their size; read_codes(path, spec) does"
        )
    try:
        if path.suffix == PACKED:
            return unpack(path.read_bytes(), dims)
        as_json = path.suffix == ".json"
        found = json.loads(path.read_text("utf-8-sig")) if as_json else np.load(path, allow_pickle=False)
        return _named(found) if isinstance(found, Mapping) else found
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a {KINDS} file of codes, or truncated ({error})") from error


def read_rows(path: Path, dims: Any) -> list[np.ndarray]:
    """The rows of a file, checked for `dims` (a spec, or a decoder's config); CodesError names the file."""
    try:
        return check_rows(read_codes(path, dims), dims)
    except CodesError as error:
        raise CodesError(f"{path}: {error}") from error


def write_rows(paths: Sequence[Path], rows: Iterable[np.ndarray], dims: Any) -> None:
    """Each row [N, Q] into a file of its own, .npy or .rvq; all files appear, or none. CodesError as `check_codes`."""
    with ExitStack() as until_all_are_written:
        for path, row in zip(paths, rows, strict=True):
            codes = check_codes(row, dims)[0]
            draft = until_all_are_written.enter_context(written_whole(path))
            with open(draft, "wb") as file:
                if path.suffix == PACKED:
                    file.write(pack(codes, dims))
                else:
                    np.save(file, codes)


def check_codes(codes: np.ndarray, spec: StateSpec, batch: int | None = None) -> np.ndarray:
    """Codes [N, Q] or [B, N, Q] as int64 [B, N, Q]; CodesError names the first value that is wrong and its place."""
    codes = _batch(codes, spec)
    if batch is not None and codes.shape[0] != batch:
        raise CodesError(f"codes have {codes.shape[0]} rows, the stream has {batch}")
    return _in_range(codes, spec)


def check_rows(codes: Any, spec: StateSpec, lengths: Sequence[int] | None = None) -> list[np.ndarray]:
    """The rows of `codes`, each int64 [N_i, Q] and without padding; CodesError as from `check_codes`.

    `codes` are one row [N, Q], a batch [B, N, Q], or a list of rows of any lengths. In a batch the shorter rows are
    filled up behind their end: with frames of -1, or with anything at all where `lengths` counts each row's frames.
    """
    rows = _rows(codes, spec)
    rows = [row[: _end(row)] for row in rows] if lengths is None else cut_rows(rows, lengths)
    if not rows:
        raise CodesError("codes hold no row (B is 0)")
    return [_in_range(row[None], spec, index)[0] for index, row in enumerate(rows)]


def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows [N_i, Q] as one batch [B, N, Q], filled up with code 0: a graph looks up every code that it is given."""
    longest = max(map(len, rows))
    return np.stack([np.pad(row, ((0, longest - len(row)), (0, 0))) for row in rows])


def _named(arrays: Mapping[str, np.ndarray]) -> np.ndarray | list[np.ndarray]:
    names = [name for name in NAMES if name in arrays] or [*arrays]
    if len(names) != 1:
        raise ValueError(f"it holds {', '.join(arrays) or 'nothing'}, must hold one array or {' or '.join(NAMES)}")
    codes = arrays[names[0]]
    return cut_rows([*_array(codes)], arrays["lengths"]) if "lengths" in arrays else codes


def _rows(codes: Any, spec: StateSpec) -> list[np.ndarray]:
    if isinstance(codes, list | tuple):
        parts = [_array(part, f"row {index}: ") for index, part in enumerate(codes)]
        if any(part.ndim > 1 for part in parts):
            return [row for index, part in enumerate(parts) for row in _batch(part, spec, f"row {index}: ")]
    return [*_batch(codes, spec)]


def _batch(codes: Any, spec: StateSpec, where: str = "") -> np.ndarray:
    """Integers [B, N, Q], whatever their values."""
    codes, quantizers = _array(codes, where), spec.num_quantizers
    if codes.dtype.kind not in "iu":
        raise CodesError(f"{where}codes are {codes.dtype}, must be integers{_first_nan(codes)}")
    if codes.ndim not in (2, 3) or codes.shape[-1] != quantizers:
        transposed = codes.ndim in (2, 3) and codes.shape[-2] == quantizers
        raise CodesError(
            f"{where}codes have the shape {list(codes.shape)}, must be [N, {quantizers}] or [B, N, same]"
            + ("; transposed? np.swapaxes(codes, -1, -2) has that shape" if transposed else "")
        )
    return codes[None] if codes.ndim == 2 else codes


def _array(codes: Any, where: str = "") -> np.ndarray:
    try:
        return np.asarray(codes)
    except (ValueError, TypeError) as error:
        sizes = [len(part) if isinstance(part, Sized) else 1 for part in codes]
        odd = next((index for index, size in enumerate(sizes) if size != sizes[0]), None)
        why = error if odd is None else f"entry {odd} has the length {sizes[odd]}, entry 0 {sizes[0]}"
        raise CodesError(f"{where}codes are not an array: {why}") from error


def _end(row: np.ndarray) -> int:
    """Frames up to the last one that is not padding."""
    return int(np.flatnonzero((row != PADDING).any(axis=1)).max(initial=-1)) + 1


def cut_rows(
    rows: list[np.ndarray], lengths: Sequence[int] | np.ndarray, error: type[ValueError] = CodesError
) -> list[np.ndarray]:
    """The first `lengths[i]` entries of each row; `error` where there is not one length for each, in its row."""
    given = np.asarray(lengths)
    if given.shape != (len(rows),) or given.dtype.kind not in "iu":
        raise error(f"lengths are {given.tolist()}, must be {len(rows)} integers, one for each row")
    for index, (row, length) in enumerate(zip(rows, given, strict=True)):
        if not 1 <= length <= len(row):
            raise error(f"the length of row {index} is {length}, must be in 1..{len(row)}")
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def _in_range(codes: np.ndarray, spec: StateSpec, first_row: int = 0) -> np.ndarray:
    """`codes` as int64, if every one of them can be looked up."""
    if codes.shape[1] == 0:
        raise CodesError(f"row {first_row} of the codes holds no frame (N is 0); a chunk has at least one")
    wrong = (codes < 0) | (codes >= spec.codebook_size)
    if wrong.any():
        row, frame, codebook = map(int, np.argwhere(wrong)[0])
        code = codes[row, frame, codebook]
        hint = f"padding is {PADDING} in all codebooks of a frame, behind a row's last frame, and for `decode` alone"
        if code > 0:
            hint = "up there are the language model's control codes (2150 ends an utterance): drop such a frame"
        raise CodesError(
            f"code {code} at row {row + first_row}, frame {frame}, codebook {codebook} "
            f"is outside 0..{spec.codebook_size - 1}; {hint}"
        )
    return codes.astype(np.int64)


def _first_nan(codes: np.ndarray) -> str:
    if codes.dtype.kind != "f" or not np.isnan(codes).any():
        return ""
    return f"; the first NaN is at {np.argwhere(np.isnan(codes))[0].tolist()}"


def random_codes(dims: Any, frames: int, batch: int = 1, seed: int = 0) -> np.ndarray:
    """Seeded int64 codes [batch, frames, Q] for `dims`: a spec, or a decoder's config."""
    return np.random.default_rng(seed).integers(dims.codebook_size, size=(batch, frames, dims.num_quantizers))
