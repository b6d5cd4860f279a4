"""Style, types and the order of imports: as `make style` asks for them, beside the other tests and not before them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy", "lint-imports"])
def test_style(command):
    name, *arguments = command.split()
    tool = Path(sys.executable).parent / name
    if not tool.is_file():
        pytest.skip(f"{name} is not installed here")
    run = subprocess.run([tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
