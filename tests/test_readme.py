"""The README's commands as they are written, in order, in a clone; and what the Makefile promises."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GIT = shutil.which("git")

pytestmark = [
    pytest.mark.skipif(not GIT or not (ROOT / ".git").exists(), reason="not a git checkout"),
    pytest.mark.skipif(os.name == "nt", reason="the commands are written for a POSIX shell"),
]


def blocks(heading):
    """The indented blocks of the README's section, each as one text."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = [[]]
    for line in section.splitlines():
        if line.startswith("    "):
            found[-1].append(line[4:])
        elif line.strip():  # blank lines may stand inside a block
            found.append([])
    return ["\n".join(block).strip() for block in found if block]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What git would hand out, with a `.venv` as `make` leaves it: here the running environment under that name."""
    folder = tmp_path_factory.mktemp("clone")
    names = subprocess.run([GIT, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "all"],
    ):
        subprocess.run([GIT, *command], cwd=folder, check=True)
    return folder


def shell(clone, script, **options):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        ["bash", "-euc", script], cwd=clone, env=environment, capture_output=True, text=True, **options
    )
    assert run.returncode == 0, f"{script}\n{run.stdout}\n{run.stderr}"
    return run.stdout


# Each line as `python -m` would run it, one after the other in one process: torch is imported once, and not each time.
IN_TURN = """
import runpy, shlex, sys
for line in {lines!r}:
    _, _, module, *sys.argv[1:] = shlex.split(line, comments=True)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, line
"""


def test_the_commands_work_in_order_and_leave_no_trace(clone):
    (block,) = blocks("The command line")
    commands = block.splitlines()
    assert len(commands) >= 6 and all(command.startswith("python -m qwen3_codec") for command in commands)
    printed = shell(clone, commands[0])
    printed += shell(clone, f"python - <<'END'\n{IN_TURN.format(lines=commands[1:])}\nEND")
    assert (
        "passed" in printed and "build/speech.wav: 1 x" in printed and "by the formula (fix): as described" in printed
    )

    client, _ = blocks("The runtime")  # the second one is JavaScript; tests/page/replay.mjs runs that client
    assert "CodecSession" in client
    assert shell(clone, f"python - <<'END'\n{client}\nprint(stream.frames)\nEND") == "[32]\n"
    assert shell(clone, "git status --porcelain") == "", "the commands leave files that git shows"


def make(clone, *arguments, **environment):
    command = ["make", "--no-print-directory", *arguments]
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))
    } | environment
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
class TestMake:
    def variable(self, clone, **environment):
        (clone / "print.mk").write_text('include Makefile\nprint: ; @echo "$(QWEN3_CODEC_CHECKPOINT)"\n')
        run = make(clone, "-f", "print.mk", "print", *(f"{key}={value}" for key, value in environment.items()))
        (clone / "print.mk").unlink()
        return run.stdout.strip()

    def test_a_folder_is_seen_from_where_make_was_called(self, clone):
        (clone / "my models" / "a").mkdir(parents=True)
        assert self.variable(clone, CHECKPOINT="my models/a") == str(clone / "my models" / "a")
        assert self.variable(clone, CHECKPOINT=str(clone / "tests")) == str(clone / "tests")
        assert self.variable(clone, CHECKPOINT="Qwen/Some-Tokenizer") == "Qwen/Some-Tokenizer"

    def python_of(self, clone, version):
        """Stands in for another Python: answers with its version, does nothing else."""
        path = clone / "build" / f"python{version}"
        path.parent.mkdir(exist_ok=True)
        major, minor = version.split(".")
        code = f"import sys; sys.version_info = ({major}, {minor}, 0); exec(sys.argv[1])"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$2"\n')
        path.chmod(0o755)
        return path

    @pytest.mark.parametrize("version", ["3.10", "3.14", "2.7"])
    def test_another_python_is_refused_in_words_before_anything(self, clone, version):
        run = make(clone, "setup", f"PYTHON={self.python_of(clone, version)}")
        assert run.returncode and f"is {version}" in run.stderr and "needs Python 3.11 to 3.13" in run.stderr
        assert "pip" not in run.stdout and (clone / ".venv" / "bin" / "python").is_symlink(), "nothing was touched"

    def test_a_broken_environment_is_made_anew(self, clone):
        """The rule of the environment runs although its stamp is new, when the interpreter in it does not run."""
        (clone / ".venv" / ".installed").touch()
        assert "venv --clear" not in make(clone, "-n", "setup").stdout
        python = clone / ".venv" / "bin" / "python"
        python.rename(clone / "kept")
        python.symlink_to("/no/such/python")
        try:
            assert "-m venv --clear .venv" in make(clone, "-n", "setup").stdout
        finally:
            python.unlink()
            (clone / "kept").rename(python)
            (clone / ".venv" / ".installed").unlink()

    def test_the_lab_starts_for_root_too(self, clone):
        (clone / ".venv" / ".installed").touch()
        line = make(clone, "-n", "lab").stdout
        assert "jupyter lab" in line and ("--allow-root" in line) == (os.getuid() == 0)
        (clone / ".venv" / ".installed").unlink()
