"""The house: imports run downwards only."""

import ast
from graphlib import TopologicalSorter
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    for imported in imports(path):
        assert floor(imported) <= floor(path), f"{path} imports {imported}, which stands above it"


def test_no_file_imports_itself_by_a_detour():
    graph = {path: {file for file in imports(path) if file.name != "__init__.py"} - {path} for path in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the files of the circle
