"""The house: imports run downwards only, and a reader needs few of them."""

import ast
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import qwen3_codec

PACKAGE = Path(qwen3_codec.__file__).parent
# From the ground up, as the package's docstring has it.
FLOORS = [
    "__init__",
    "files",
    "spec",
    "runtime",
    "model",
    "streaming",
    "exporting",
    "verification",
    "serving",
    "demo",
    "course",
    "measure",
    "cli",
    "__main__",
]


def imports(path):
    """The modules of the package that a file imports anywhere in it, as paths below the package's folder."""
    here = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "qwen3_codec" for alias in node.names), f"{path}: be relative"
        if isinstance(node, ast.ImportFrom) and node.level:
            base = PACKAGE.joinpath(*here[: len(here) + 1 - node.level], *filter(None, (node.module or "").split(".")))
            for alias in node.names:
                places = [base / f"{alias.name}.py", base / alias.name / "__init__.py", base.with_suffix(".py")]
                yield next((file for file in places if file.is_file()), base / "__init__.py")


def floor(path):
    return FLOORS.index(path.relative_to(PACKAGE).with_suffix("").parts[0])


FILES = sorted(PACKAGE.rglob("*.py"))


def test_imports_run_downwards():
    upwards = [(str(path), str(other)) for path in FILES for other in imports(path) if floor(other) > floor(path)]
    assert not upwards


def test_no_file_imports_itself_by_a_detour():
    graph = {path: {file for file in imports(path) if file.name != "__init__.py"} - {path} for path in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the files of the circle


@pytest.mark.parametrize("path", sorted(PACKAGE.parent.glob("notebooks/*.py")), ids=lambda path: path.stem)
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
