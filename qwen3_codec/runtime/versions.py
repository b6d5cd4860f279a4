"""What is installed: for bug reports, for tables of numbers, and for an error that comes of a package."""

import json
import re
import sys
import textwrap
import traceback
from importlib import metadata

from .. import __version__
from .cpu import processor

PROJECT = "qwen3-codec"


def versions() -> str:
    """For bug reports: this package's version, those of the packages that make a graph, and of what runs it.

    ONNX Runtime comes as several distributions (-gpu, -directml, ...), of which the last installed is what runs.
    """
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "transformers", "onnx", "onnxruntime", "openvino", "onnxscript", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    names = metadata.packages_distributions().get("onnxruntime", [])
    for name in sorted({*names} - {"onnxruntime"}):
        found[name] = metadata.version(name)
    if names:
        try:
            import onnxruntime

            found["providers"] = onnxruntime.get_available_providers()
        except Exception as error:  # a library that it needs is not there, or not of this machine
            found["providers"] = f"cannot be loaded ({brief(error)})"
    found["processor"] = processor()
    return f"qwen3_codec {__version__} " + json.dumps(found)


def brief(error: BaseException) -> str:
    """An error's text as one line; some packages write a page."""
    return textwrap.shorten(str(error) or type(error).__name__, 400, placeholder=" ...")


def package_trouble(error: BaseException) -> str | None:
    """In words, the package that an error comes of: one that is missing, cannot be loaded, or is of another version.

    None where it comes of no package. What is wanted is read off this project's own metadata.
    """
    missing = _top(error.name) if isinstance(error, ImportError) else ""
    if isinstance(error, ModuleNotFoundError) and not _installed(missing) and (how := _how_to_get(missing)):
        return f"this needs the package {missing}, {how}"
    while isinstance(error, ImportError) and isinstance(error.__cause__, ImportError):  # said again in other words
        error = error.__cause__
    broken = _failed_to_load(error)
    # Another version may load, and fail anywhere later; a ValueError or OSError there is a user's mistake, most likely.
    if (broken or not isinstance(error, (ValueError, OSError))) and (other := _another_version()):
        return _unusable(other, error)
    if package := broken or (missing if _how_to_get(missing) else ""):
        return _unusable(package, error)
    return None


def _unusable(package: str, error: BaseException) -> str:
    how = _how_to_get(package)
    text = f"{_installed(package) or package} cannot be used ({brief(error)})"
    if "DLL" in str(error):
        text += "; on Windows it needs the Microsoft Visual C++ Redistributable"
    if how:
        text += f"; this needs {_requirement(package)[0]}, {how}"
    return text + ("; running an exported graph needs none of it" if "[export]" in how else "")


def _failed_to_load(error: BaseException) -> str:
    """The package during whose import `error` came up, or ""."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = _top(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "<module>" and package not in (_top(__name__), "__main__"):
            return package
    return ""


def _another_version() -> str:
    """A loaded package whose version is not one that the project's metadata allow, or ""."""
    try:
        from packaging.requirements import Requirement  # comes with transformers
    except ImportError:
        return ""
    for text in _requirements():
        wanted = Requirement(text)
        module = wanted.name.replace("-", "_")
        found = _installed(module).split() if module in sys.modules else []
        if found and not wanted.specifier.contains(found[-1], prereleases=True):
            return module
    return ""


def _top(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _installed(module: str) -> str:
    """Distribution and version that a module is of, "" where there is none."""
    try:
        return f"{module} {metadata.version(module)}" if module else ""
    except metadata.PackageNotFoundError:  # onnxruntime may be onnxruntime-gpu
        names = metadata.packages_distributions().get(module, [])
        return f"{names[0]} {metadata.version(names[0])}" if names else ""


def _requirements() -> list[str]:
    try:
        return metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        return []


def _requirement(module: str) -> tuple[str, str]:
    """What the project wants of a module's package, and the extra that brings it ("": none); ("", "") for another."""
    for text in reversed(_requirements()):
        wanted, _, marker = text.partition(";")
        if (name := re.match(r"[\w.-]+", wanted)) and name[0].replace("-", "_") == module:
            extra = re.search(r"extra == .([\w-]+)", marker)
            return wanted.strip(), extra[1] if extra else ""
    return "", ""


def _how_to_get(module: str) -> str:
    """How to come by a package that the project names, as the end of a sentence; "" for another."""
    wanted, extra = _requirement(module)
    if extra:
        return f"which the extra [{extra}] brings: in a checkout of the project, pip install '.[{extra}]'"
    return f"which the project itself brings: pip install '{wanted}'" if wanted else ""
