"""The core's tests where what they need of one system, or of the course, is missing: as on Windows and macOS."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
# A few that are quick, of each part: spec and runtime, model, streaming, verification. All files are collected.
SOME = "test_metrics or test_layers or (test_parity and not projects_own)"

# `pytest`, where the project cannot import these, there is no `os.fork`, and no file is found below /proc.
HIDDEN = """
import builtins, errno, os, sys

def imported(name, among=None, *rest, any=builtins.__import__, project=os.getcwd(), **more):
    hidden = {"resource", "fcntl", "termios", "grp", "pwd", "scipy", "soundfile", "soxr", "pystoi", "matplotlib",
              "IPython", "ipywidgets", "jupytext", "nbformat", "tritonclient", "selenium"}
    by = (among or {}).get("__file__") or ""
    if name.split(".")[0] in hidden and by.startswith(project) and "site-packages" not in by:
        raise ModuleNotFoundError(f"{name} is hidden")
    return any(name, among, *rest, **more)

builtins.__import__ = imported
for name in ("fork", "forkpty", "sched_getaffinity"):
    if hasattr(os, name):
        delattr(os, name)

def found(path, *rest, real=os.stat, **more):
    if str(path).startswith("/proc"):
        raise FileNotFoundError(errno.ENOENT, "hidden", path)
    return real(path, *rest, **more)

os.stat = found

import pytest

sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.slow  # ten seconds; the workflow runs them on the systems themselves
def test_the_cores_tests_need_nothing_of_one_system_and_nothing_of_the_course():
    command = [sys.executable, "-c", HIDDEN, "-p", "no:cacheprovider", "-m", "not slow", "-k", SOME, str(FOLDER)]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    alone["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # those of notebooks need what is hidden here
    run = subprocess.run(command, cwd=FOLDER.parents[1], env=alone, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) > 30
