"""Tensors from safetensors files, checked one by one before anything is built on them. Nothing else is read."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from .config import CheckpointError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
# What else a folder may hold in their place.
NOT_READ = {
    "*.gguf": "GGUF, a format for other programs",
    "*.bin": "a pickle, which can run any code and is not read; save it again as safetensors",
    "*.pt": "a pickle, which can run any code and is not read; save it again as safetensors",
    "*.npz": "not read; save it again as safetensors",
}


def read_weights(folder: Path, prefix: str, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under `prefix` as float32, of one file or of the parts that an index names, without the prefix.

    Names and shapes must be those of `expected`, values finite. Raises CheckpointError naming the file and the tensor.
    """
    with ExitStack() as stack:
        places = {}
        for path in weight_files(folder):
            file = _opened(path, stack)
            places |= {name: (file, path) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
        where = folder / (WEIGHTS_FILE if (folder / WEIGHTS_FILE).is_file() else INDEX_FILE)
        _check_names(places, {prefix + name for name in expected}, where)
        return {name: _tensor(*places[prefix + name], prefix + name, expected[name]) for name in sorted(expected)}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: one, or those that its index names."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return [folder / name for name in part_names(folder / INDEX_FILE)]
    for pattern, what in NOT_READ.items():
        if other := next(folder.glob(pattern), None):
            raise CheckpointError(f"{folder / WEIGHTS_FILE}: no such file; {other.name} there is {what}")
    raise CheckpointError(f"{folder / WEIGHTS_FILE}: no such file")


def part_names(index: Path) -> list[str]:
    """The files that an index names, in order; CheckpointError where they would lie outside its folder."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of safetensors files ({error!r})") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: {name!r} is not the name of a safetensors file beside it")
    return names


def explain_file(path: Path) -> str:
    """What a file that is no safetensors file is, as far as its first bytes tell."""
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the file; `git lfs pull` fetches it"
    if start.startswith(b"GGUF"):
        return "GGUF, a format for other programs; take the safetensors files as Qwen publishes them"
    if start.startswith((b"PK", b"\x80")):
        return "a pickle, not a safetensors file; pickles can run any code and are not read"
    return "truncated, or not a safetensors file"


def _opened(path: Path, stack: ExitStack):
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return stack.enter_context(safe_open(path, framework="pt"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {explain_file(path)} ({error})") from error


def _check_names(found, expected: set[str], where: Path) -> None:
    if not found:
        prefix = min(expected).partition(".")[0]
        raise CheckpointError(f"{where}: has no {prefix}, no tensor's name begins with {prefix + '.'!r}")
    missing, unexpected = sorted(expected - set(found)), sorted(set(found) - expected)
    if len(missing) > len(expected) / 2:
        others = f"it has {unexpected[0]}" if unexpected else "it has nothing of that kind"
        raise CheckpointError(
            f"{where}: the weights have other names: {missing[0]} is one of {len(missing)} that are missing, {others}. "
            "A conversion for another program? Take the files as Qwen publishes them"
        )
    # Before all others: a quantised file has more tensors too, and what they are called does not matter.
    for name, (file, path) in found.items():
        if (dtype := file.get_slice(name).get_dtype()) not in FLOATS:
            raise CheckpointError(f"{path}: {name} is {dtype}; quantised weights are not read, give them as floats")
    if missing:
        raise CheckpointError(f"{where}: {len(missing)} tensors are missing, the first is {missing[0]}")
    if unexpected:
        raise CheckpointError(f"{where}: {len(unexpected)} tensors are not expected, the first is {unexpected[0]}")


def _tensor(file, path: Path, name: str, expected: torch.Tensor) -> torch.Tensor:
    shape, wanted = list(file.get_slice(name).get_shape()), list(expected.shape)
    if shape != wanted:
        swapped = len(shape) == 3 and sorted(shape) == sorted(wanted)
        hint = "; the same axes in another order, as MLX keeps convolutions" if swapped else ""
        raise CheckpointError(f"{path}: {name} has the shape {shape}, the config makes it {wanted}{hint}")
    tensor = file.get_tensor(name).float()
    if bad := int((~torch.isfinite(tensor)).sum()):
        raise CheckpointError(f"{path}: {name} has {bad} values that are not finite")
    return tensor
