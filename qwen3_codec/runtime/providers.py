"""ONNX Runtime's execution providers, and why it may refuse a file."""

import re
from pathlib import Path

import onnxruntime

CPU = "CPUExecutionProvider"
_TAIL = 2**18  # bytes at a file's end that hold its metadata


def provider_name(name: str) -> str:
    """ONNX Runtime's name for a provider given as that or as `cuda`, `cpu`, ...; ValueError where it is not there."""
    there = onnxruntime.get_available_providers()
    for provider in there:
        if name.lower() in (provider.lower(), provider.removesuffix("ExecutionProvider").lower()):
            return provider
    raise ValueError(f"the provider {name!r} is not in this ONNX Runtime {onnxruntime.__version__}: {', '.join(there)}")


def why_not_loaded(path: Path) -> str:
    """Why a file does not load. A graph that asks for a newer ONNX Runtime says so at its end, in its metadata."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        found = re.search(rb"needs_onnxruntime\x12.([\d.]+)", file.read(), re.DOTALL)
    here = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    if found and here < tuple(map(int, found[1].split(b"."))):
        return f"it needs ONNX Runtime {found[1].decode()} or newer, this is {onnxruntime.__version__}"
    return "truncated or not an ONNX graph?"
