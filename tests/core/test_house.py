"""The house: imports run downwards only, and a reader needs few of them."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import qwen3_codec

PACKAGE = Path(qwen3_codec.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", sorted(PACKAGE.parent.glob("notebooks/[0-9]*.py")), ids=lambda path: path.stem)
def test_a_notebook_imports_the_package_in_few_lines(path):
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    modules = [node.module for node in tree if isinstance(node, ast.ImportFrom)]
    assert len([module for module in modules if module.split(".")[0] == "qwen3_codec"]) <= 8


LAZY = [path for path in FILES if path.name == "__init__.py" and "loaded_when_asked(" in path.read_text()]


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_a_name_that_is_loaded_when_asked_for_is_there(path):
    package = import_module(".".join(path.parent.relative_to(PACKAGE.parent).parts))
    beside = {file.stem for file in path.parent.iterdir()} & {*package.__all__}
    assert not beside, "a module of that name would take its place as soon as it is imported"
    for name in package.__all__:
        found = getattr(package, name)
        assert getattr(found, "__name__", name).rpartition(".")[2] == name and name in dir(package)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


def test_the_contracts_on_imports_are_kept():
    """Imports run downwards, and no file imports itself by a detour: the contracts in pyproject.toml."""
    pytest.importorskip("importlinter")
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "2 kept, 0 broken" in run.stdout, run.stdout + run.stderr


# What one reads to know how it works, in the order of CONTRIBUTING: an evening's reading.
CORE = [
    "spec.py",
    "runtime/session.py",
    "runtime/stream.py",
    "model/decoder.py",
    "model/encoder.py",
    "streaming/*.py",
    "exporting/*.py",
    "verification/decoder.py",
]


def test_the_core_is_an_evenings_reading():
    files = [path for pattern in CORE for path in PACKAGE.glob(pattern)]
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert len(files) > len(CORE) and sum(lines.values()) <= 2600, lines
    assert max(lines.values()) <= 300 + 10, lines
