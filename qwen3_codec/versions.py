"""What is installed, for bug reports and for tables of numbers."""

import json
import sys
from importlib import metadata

from . import __version__


def versions() -> str:
    """For bug reports: this package's version, those of the packages that make a graph, and of what runs it.

    ONNX Runtime comes as several distributions (-gpu, -directml, ...), of which the last installed is what runs.
    """
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    names = metadata.packages_distributions().get("onnxruntime", [])
    for name in sorted({*names} - {"onnxruntime"}):
        found[name] = metadata.version(name)
    if names:
        import onnxruntime

        found["providers"] = onnxruntime.get_available_providers()
    return f"qwen3_codec {__version__} " + json.dumps(found)
