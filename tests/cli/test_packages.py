"""Packages that are missing, broken or of another version: one line that names the package and the reason."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

DLL = "ImportError('DLL load failed while importing onnxruntime_pybind11_state: The specified module ...')"
WINERROR = "OSError('[WinError 126] The specified module could not be found. Error loading \"c10.dll\".')"
SNDFILE = "OSError('cannot load library \"libsndfile.so\"')"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package of some version before all others; `code` is what its import runs."""
    path = [str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))

    def put(name, code, version="9.9"):
        place = tmp_path / "site"
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text(code)
        about = place / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (about / "top_level.txt").write_text(name)
        (about / "RECORD").write_text(f"{name}/__init__.py,,\n")

    return put


def python(*arguments, cwd):
    run = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert "Traceback" not in run.stderr, run.stderr
    return run


# Each command in turn, in one process; what it prints ends with its exit code.
EVERY = """
import sys
from qwen3_codec.cli import main as cli
for line in {lines!r}:
    print(cli.main(line.split()), file=sys.stderr)
"""


def test_no_command_shows_a_traceback_where_a_package_cannot_be_loaded(install, tmp_path):
    install("onnxruntime", f"raise {DLL}", "1.32.0")
    install("torch", f"raise {WINERROR}", "2.13.0")
    install("tritonclient", "import half_of_grpc", "2.73.0")
    np.save(tmp_path / "a.npy", np.zeros(100, np.float32))
    graph, torch = ("onnxruntime 1.32.0 cannot be used (DLL load failed", "torch 2.13.0 cannot be used ([WinError 126]")
    client = "tritonclient 2.73.0 cannot be used (No module named 'half_of_grpc')"
    lines = {
        "describe x.onnx": graph,
        "selftest x.onnx": graph,
        "decode x.onnx --codes a.npy --output y.wav": graph,
        "encode x.onnx --audio a.npy --output y.npy": graph,
        "compare a.npy a.npy --graph x.onnx": "x.onnx: no such file",  # whose rates are read without a runtime
        "triton x.onnx --output models": client,
        "inspect": torch,
        "export --output y.onnx": torch,
        "verify x.onnx": torch,
        "bench": torch,
        "card --output y.md": torch,
        "page": torch,
    }
    run = python("-c", EVERY.format(lines=[*lines]), cwd=tmp_path)
    printed = run.stderr.splitlines()
    assert len(printed) == 2 * len(lines) and set(printed[1::2]) == {"2"}, run.stderr
    for (line, words), said in zip(lines.items(), printed[::2], strict=True):
        assert said.startswith(f"qwen3_codec {line.split()[0]}: {words}"), said
    assert "needs the Microsoft Visual C++ Redistributable; this needs onnxruntime>=1.20" in printed[0]
    assert "the extra [serve] brings" in printed[10] and sorted(os.listdir(tmp_path)) == ["a.npy", "site"]

    version = python("-m", "qwen3_codec", "--version", cwd=tmp_path)
    found = json.loads(version.stdout.split(maxsplit=2)[2])
    assert not version.returncode and found["providers"].startswith("cannot be loaded (DLL load failed")
    commands = ("course.pitfalls x", "serving.client --codes x", "measure.load x", "serving.server x")
    for module, *arguments in map(str.split, commands):  # commands of their own
        (said,) = (run := python("-m", f"qwen3_codec.{module}", *arguments, cwd=tmp_path)).stderr.splitlines()
        assert run.returncode == 2 and said.startswith(f"qwen3_codec.{module}: {graph if 'pit' in module else client}")


def test_a_broken_numpy_is_one_line_too(install, tmp_path):
    install("numpy", "raise RuntimeError('''\n\nNumPy was built with baseline optimizations\n(X86_V2)''')", "2.4.6")
    run = python("-m", "qwen3_codec", "inspect", cwd=tmp_path)
    words = "numpy 2.4.6 cannot be used (NumPy was built with baseline optimizations (X86_V2)); this needs numpy>=2"
    assert run.returncode == 2 and run.stderr.startswith(f"qwen3_codec: {words}") and run.stderr.count("\n") == 1


# Commands that do what `lines` say, one after the other.
RUN = """
import sys
from argparse import Namespace
from qwen3_codec.runtime.console import run_command
for line in {lines!r}:
    print(run_command(lambda args: exec(line, {{"__name__": "__main__"}}), Namespace(), "it"), file=sys.stderr)
"""


def told(lines, cwd):
    """What each of `lines` made a command say, each with exit code 2."""
    said = python("-c", RUN.format(lines=lines), cwd=cwd).stderr.splitlines()
    assert said[1::2] == ["2"] * len(lines), said
    return said[::2]


def test_whatever_breaks_is_named_with_its_reason(install, tmp_path):
    names = ["matplotlib", "soundfile", "huggingface_hub", "transformers", "tqdm", "safetensors", "ipywidgets"]
    for name in names:
        install(name, "raise AttributeError('_ARRAY_API not found')", "99.0")
    for name, said in zip(names, told([f"import {name}" for name in names], tmp_path), strict=True):
        assert said.startswith(f"it: {name} 99.0 cannot be used (_ARRAY_API not found); this needs {name}"), said
        assert "the extra [" in said


def test_upstreams_version_of_transformers(install, tmp_path):
    """Which upstream's own package pins; a graph that is exported runs beside it."""
    install("transformers", "", "4.57.3")
    reasons = {
        "from transformers.models.mimi.modeling_mimi import MimiEncoderModel": "No module named 'transformers.models'",
        "from transformers import MimiModel": "cannot import name 'MimiModel' from 'transformers'",
        "import transformers; transformers.activations": "module 'transformers' has no attribute 'activations'",
        "import transformers; raise RuntimeError('no such operator')": "no such operator",
    }
    for reason, said in zip(reasons.values(), told([*reasons], tmp_path), strict=True):
        assert said.startswith(f"it: transformers 4.57.3 cannot be used ({reason}"), said
        assert "; this needs transformers<6,>=5.24, which the extra [export] brings" in said
        assert said.endswith("; running an exported graph needs none of it")
    (said,) = told(["import transformers; raise ValueError('frames is -3')"], tmp_path)
    assert said == "it: frames is -3", "a user's mistake is not the package's"


@pytest.mark.parametrize("name", ["torch", "onnx", "onnxscript"])
def test_a_version_that_loads_and_fails_later_is_named(install, tmp_path, name):
    install(name, "", "0.1")
    (said,) = told([f"import {name}; {name}.export()"], tmp_path)
    assert said.startswith(
        f"it: {name} 0.1 cannot be used (module '{name}' has no attribute 'export'); this needs {name}"
    )


def test_a_bug_keeps_its_traceback_beside_the_right_versions(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", RUN.format(lines=["import json; json.no_such_thing"])], capture_output=True, text=True
    )
    assert run.returncode == 1 and "Traceback" in run.stderr and "no_such_thing" in run.stderr


def test_sound_without_its_library(install, tmp_path):
    """libsndfile is not there: 16-bit WAV is read all the same, and .flac says what to install. A bar is a comfort."""
    install("tqdm", "raise OSError('broken')")
    install("soundfile", f"raise {SNDFILE}")
    code = """
import numpy as np
from pathlib import Path
from qwen3_codec.runtime.progress import progress
from qwen3_codec.runtime.audio import read_waveform, row_paths, write_waveforms
write_waveforms([Path("a.wav")], [np.float32([[0.5, -0.25]])], 24000)
print(*read_waveform(Path("a.wav")), *progress("bar")([1, 2]))
for act in (lambda: read_waveform(Path("b.flac")), lambda: row_paths(Path("c.flac"), 1)):
    try:
        act()
    except ValueError as error:
        print(error)
"""
    (tmp_path / "b.flac").write_bytes(b"fLaC" + bytes(100))
    waveform, read, written = python("-c", code, cwd=tmp_path).stdout.splitlines()
    assert waveform == "[ 0.5  -0.25] 24000 1 2"
    how = 'cannot be loaded (cannot load library "libsndfile.so"): install libsndfile, in Debian apt-get install'
    assert read.startswith("b.flac: ") and how in read
    assert written.startswith("c.flac: needs the package soundfile (it is installed and ") and how in written
