"""Where a process of the tests dies, the others go on, and the run ends."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("xdist", reason="needs pytest-xdist")

TESTS = Path(__file__).parents[1]
DIES = """
import os, signal, pathlib
def test_before(): pass
def test_dies_once():
    if not (mark := pathlib.Path(__file__).with_suffix(".mark")).exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
def test_after(): pass
"""
EXITS = "import os\ndef test_before(): pass\ndef test_exits(): os._exit(7)\ndef test_after(): pass\n"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="what ended a process is asked of POSIX")
def test_a_dead_process_costs_one_test_and_ends_no_run(tmp_path):
    for i in range(9):  # many finished files, and a last one of one test: what pytest-xdist 3.8 waits for
        (tmp_path / f"test_{i}.py").write_text("def test_one(): pass\n" * (1 + i % 2))
    (tmp_path / "test_3_dies.py").write_text(DIES)
    (tmp_path / "test_5_exits.py").write_text(EXITS)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-rf"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    run = subprocess.run(
        [*command, "-p", "xdist", "-p", "scheduling", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env=environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 1
    assert re.search(r"1 failed, 14 passed, 2 crashed", run.stdout), run.stdout
    assert (
        "CRASHED, and ran again: test_3_dies.py::test_dies_once: the process" in run.stdout and "SIGKILL" in run.stdout
    )
    assert "FAILED test_5_exits.py::test_exits - the process" in run.stdout and "exit code 7" in run.stdout
