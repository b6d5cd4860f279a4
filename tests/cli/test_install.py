"""A bare install: the wheel, numpy and a runtime, in a virtual environment of their own. And what an sdist holds."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from conftest import UPSTREAM, drafted
from documents import README, blocks

from qwen3_codec.model import checkpoint
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime.metrics import MAX_ERROR, max_error
from qwen3_codec.streaming.exact import ExactStreamingWrapper

ROOT = Path(__file__).parents[2]
ALONE = ("numpy", "onnxruntime")

build_meta = pytest.importorskip("setuptools.build_meta", reason="needs setuptools to build the package")


def built(kind, folder):
    """Build in a copy, so that the tree stays clean. Returns the wheel's or the sdist's path."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout: what belongs to the project is not known")
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "tree" / name).write_bytes((ROOT / name).read_bytes())
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=folder / "tree", capture_output=True, text=True, check=True)
    return folder / run.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built("wheel", tmp_path_factory.mktemp("wheel"))


def with_packages(folder, wheel, packages):
    """The interpreter of an environment that has these packages (linked from here) and the wheel."""
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    (site,) = folder.rglob("site-packages")
    for name in packages:
        for file in metadata.files(name):
            top = file.parts[0]
            if top != ".." and not (site / top).exists():
                (site / top).symlink_to(metadata.distribution(name).locate_file(top))
    zipfile.ZipFile(wheel).extractall(site)
    (python,) = folder.glob("*/python*[!0-9w.]*") if os.name == "nt" else [folder / "bin" / "python"]
    return python


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    return with_packages(tmp_path_factory.mktemp("bare") / "venv", wheel, ALONE)


def cli(python, *arguments, cwd):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [python, "-m", "qwen3_codec", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, check=False)


def test_decode_needs_nothing_more(bare, graph, tmp_path):
    np.save(tmp_path / "codes.npy", np.zeros((4, 16), np.int64))
    for name, kind in (("speech.wav", b"RIFF"), ("speech.npy", b"\x93NUMPY")):
        run = cli(bare, "decode", graph, "--codes", "codes.npy", "--output", name, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert (tmp_path / name).read_bytes().startswith(kind)
    for arguments in (["--help"], ["--version"], ["compare", "speech.npy", "speech.wav"]):
        run = cli(bare, *arguments, cwd=tmp_path)
        assert run.returncode == 0 and run.stdout, run.stderr
    run = cli(bare, "decode", graph, "--codes", "codes.npy", "--output", "speech.flac", cwd=tmp_path)
    assert run.returncode == 2 and b"soundfile" in run.stderr and run.stderr.count(b"\n") == 1


def test_numpy_and_openvino_alone_decode_what_the_readme_shows(wheel, demo_graphs, tmp_path):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    python = with_packages(tmp_path / "venv", wheel, ("numpy", "openvino", "openvino-telemetry"))
    demo = checkpoint.load("demo")
    exact = drafted(demo, ExactStreamingWrapper(demo.decoder), demo_graphs / "exact.onnx")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "decoder.onnx").symlink_to(exact)
    (tmp_path / "qwen3_codec" / "demo").mkdir(parents=True)
    (tmp_path / "qwen3_codec" / "demo" / "codes").symlink_to(ROOT / "qwen3_codec" / "demo" / "codes")

    (line,) = [
        line for kind, text in blocks(README) if kind == "sh" for line in text.splitlines() if " decode " in line
    ]
    run = cli(python, *line.split()[3:], "--runtime", "openvino", cwd=tmp_path)
    assert run.returncode == 0 and (tmp_path / "build" / "speech.wav").read_bytes().startswith(b"RIFF"), run.stderr

    (code,) = [text for kind, text in blocks(README) if kind == "python"]
    shown = 'CodecSession("build/decoder.onnx")'
    assert shown in code and '`runtime="openvino"`' in README.read_text("utf-8")
    code = code.replace(shown, f'{shown[:-1]}, runtime="openvino")').replace("# float32,", "; heard.append(samples)  #")
    code = f"import sys\nheard = []\n{code}\nnp.save('heard.npy', np.concatenate(heard))\nprint(*sys.modules)"
    run = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and not {*run.stdout.split()} & {"onnxruntime", "torch", "onnx"}, run.stderr
    codes = np.load(ROOT / "qwen3_codec" / "demo" / "codes" / "en_small.npy")
    assert max_error(one_shot(demo.decoder, codes[None]), np.load(tmp_path / "heard.npy")[None]) < MAX_ERROR


@pytest.mark.parametrize("command", ["inspect", "export", "verify", "bench"])
def test_every_other_command_says_which_extra_it_needs(bare, graph, tmp_path, command):
    required = {"export": ["--output", "x.onnx"], "verify": [graph]}
    run = cli(bare, command, *required.get(command, []), cwd=tmp_path)
    (line,) = run.stderr.decode().splitlines()
    assert run.returncode == 2 and line.startswith(f"qwen3_codec {command}: this needs the package ")
    assert line.endswith("the extra [export] brings: in a checkout of the project, pip install '.[export]'")
    assert not [*tmp_path.iterdir()]


def test_the_script_ends_with_the_commands_exit_code(bare, tmp_path):
    """What pip writes as `qwen3-codec`: it leaves the process with what its function returns."""
    find = "from importlib.metadata import entry_points; (found,) = entry_points(name='qwen3-codec')"
    for arguments, code in ((["--version"], 0), (["describe", "no.onnx"], 2), (["nonsense"], 2)):
        command = [bare, "-c", f"import sys; {find}; sys.exit(found.load()())", *arguments]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == code and "Traceback" not in run.stderr, run.stderr


def test_a_model_repository_needs_the_servers_client(bare, graph, tmp_path):
    run = cli(bare, "triton", graph, "--output", "models", cwd=tmp_path)
    (line,) = run.stderr.decode().splitlines()
    assert run.returncode == 2 and "needs the package tritonclient, which the extra [serve] brings" in line
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("course.pitfalls", "export"),
        ("course.given", "export"),
        ("measure.load", "serve"),
        ("serving.server", "serve"),
        ("serving.client --codes x.npy", "serve"),
        ("serving.client --codes x.npy --url ws://127.0.0.1:9", "websocket"),
        ("serving.websocket", "websocket"),
    ],
)
def test_a_module_that_is_a_command_says_which_extra_it_needs(bare, tmp_path, line, extra):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    module, *arguments = line.split()
    command = [bare, "-m", f"qwen3_codec.{module}", *arguments]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    (said,) = run.stderr.splitlines()
    assert run.returncode == 2 and said.startswith(f"qwen3_codec.{module}: this needs the package ")
    assert f"[{extra}]" in said


def test_the_sdist_is_whole(tmp_path):
    with tarfile.open(built("sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in tracked if (ROOT / name).is_file()} <= names
    assert str((UPSTREAM / "codes.npy").relative_to(ROOT)) in names


def test_one_range_of_python_everywhere():
    """The runtime has no upper end; what make installs has one, and the README says the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert "(3, 11) <= sys.version_info[:2] <= (3, 14)" in (ROOT / "Makefile").read_text()
    assert "Python 3.11 to 3.14" in (ROOT / "README.md").read_text()


def test_the_oldest_packages_are_the_ranges_lower_ends():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = [
        *project["dependencies"],
        *project["optional-dependencies"]["cpu"],
        *project["optional-dependencies"]["export"],
    ]
    oldest = dict(line.split("==") for line in (ROOT / "requirements-oldest.txt").read_text().split() if "==" in line)
    for name, _, least in (entry.partition(">=") for entry in ranges if ">=" in entry):
        if name != "torch":  # no older CPU wheel was at hand
            assert oldest[name].startswith(least.split(",")[0]), name


def test_the_wheel_carries_the_pages_sources_and_nothing_of_npm_or_training(tmp_path):
    names = zipfile.ZipFile(built("wheel", tmp_path)).namelist()
    assert "qwen3_codec/serving/listen.html" in names
    page = [name.partition("course/page/static/")[2] for name in names if "course/page/static/" in name]
    assert {"index.html", "codec.js", "worker.js", "package-lock.json", "texts/zh.js"} <= set(page)
    assert "qwen3_codec/demo/model.safetensors" in names
    assert not [name for name in names if "node_modules" in name or name.endswith(".wasm") or "/training/" in name]


CLIENT = """
import importlib, pkgutil, sys
import qwen3_codec
from qwen3_codec import cli, files, runtime, spec
from qwen3_codec.runtime import engines
from qwen3_codec.verification import alignment, compare
for package in (runtime, cli):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.rpartition(".")[2] not in runtime.engines.RUNTIMES.values():
            importlib.import_module(module.name)
for name in runtime.__all__:
    getattr(runtime, name)
assert qwen3_codec.CodecSession is runtime.CodecSession and "find_states" in dir(qwen3_codec)
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_a_client_imports_without_anything_more(bare, tmp_path):
    """All of the runtime and the commands; what needs more says at its use which package that is."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    run = subprocess.run(
        [bare, "-c", CLIENT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    code = "import qwen3_codec; qwen3_codec.find_states"
    run = subprocess.run([bare, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'torch'"


def test_a_client_loads_nothing_of_the_course_or_the_export():
    """Where they are installed, as here."""
    run = subprocess.run([sys.executable, "-c", CLIENT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {*run.stdout.split()} & {"torch", "transformers", "onnx", "matplotlib", "ipywidgets", "IPython", "soxr"}
    assert not {*run.stdout.split()} & {"onnxruntime", "openvino"}, "a runtime is loaded with a file"


def test_the_wheels_runtime_needs_two_packages(wheel):
    packed = zipfile.ZipFile(wheel)
    (file,) = (name for name in packed.namelist() if name.endswith("METADATA"))
    lines = [line for line in packed.read(file).decode().splitlines() if line.startswith("Requires-Dist: ")]
    needed = [line for line in lines if "extra ==" not in line or 'extra == "cpu"' in line]
    assert [re.match(r"Requires-Dist: (\w+)", line)[1] for line in needed] == ["numpy", "onnxruntime"]
