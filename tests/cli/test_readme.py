"""Commands and code of README and guide as they are written, in order, in a clone; and what the Makefile does."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from conftest import slow
from documents import GUIDE, README, blocks

from qwen3_codec.course import given
from qwen3_codec.runtime.console import run_module

ROOT = Path(__file__).parents[2]
GIT = shutil.which("git")

pytestmark = [
    pytest.mark.skipif(not GIT or not (ROOT / ".git").exists(), reason="not a git checkout"),
    pytest.mark.skipif(os.name == "nt", reason="the commands are written for a POSIX shell"),
]


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
    script(folder / ".venv" / "bin" / "pip", "echo pip $@")
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "all"],
    ):
        subprocess.run([GIT, *command], cwd=folder, check=True)
    return folder


def script(path, line, interpreter="/bin/sh"):
    path.write_text(f"#!{interpreter}\n{line}\n")
    path.chmod(0o755)
    return path


def shell(clone, script, **options):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        ["bash", "-euc", script], cwd=clone, env=environment, capture_output=True, text=True, **options
    )
    assert run.returncode == 0, f"{script}\n{run.stdout}\n{run.stderr}"
    return run.stdout


# What a reader would do in turn: each page goes on from the files of those before it.
PAGES = [README, *(GUIDE / f"{name}.md" for name in ("install", "checkpoints", "command-line", "runtime", "precision"))]
PAGES += [GUIDE / f"{name}.md" for name in ("serving", "in-your-program", "costs", "other-models", "glossary")]
# What is not run here, by the language of its block or by how it begins, and why.
OTHER_LANGUAGES = {
    "powershell": "Windows alone has it",
    "yaml": "wants NVIDIA's image",
    "js": "test_page_client.py runs that client",
}
NOT_RUN = {
    "pip install": "the network; what a wheel holds is seen by test_install.py",
    "python3 -m venv": "makes an environment, as make does",
    ".venv/bin/": "in that environment",
    "QWEN3_CODEC_SKIP_OFFICIAL=1 OMP_NUM_THREADS=1 .venv/bin/python -m pytest": "these tests",
    "papermill": "is not a package of ours; the cell of parameters is seen by test_notebooks.py",
    "python -m qwen3_codec bench": "test_bench.py runs it, on a smaller model",
    "python -m qwen3_codec check qwen3_codec/": "test_check.py runs it, on a smaller model",
    "python -m qwen3_codec card --checkpoint Qwen/": "weights that are not here",
    "python -m qwen3_codec decode build/decoder.onnx --play": "a sound device; test_audio.py has one that is made up",
    "python -m qwen3_codec.serving.client": "a server; test_triton.py has one",
    "python -m qwen3_codec.measure.load": "the same",
    "from qwen3_codec.serving.client import RemoteStream": "the same",
    "from qwen_tts import": "upstream's package; tests/upstream runs it",
    "from qwen3_codec import speak": "the same",
    "from qwen3_codec import codes_of": "the same",
    "python -m qwen3_codec.serving.websocket": "runs until it is interrupted; test_websocket.py has one",
    "from qwen3_codec.serving.client import WebSocketStream": "the same",
}
OPENVINO = " --runtime openvino"  # runs at night: it compiles the graph for each length of a chunk
PIPED = " | ffplay "  # to a player; what comes out of the pipe is seen by test_audio.py


def steps(*languages):
    """(page, language, a command or a block of code) for all that README and guide have of these, in order."""
    for page in PAGES:
        for language, text in blocks(page):
            if language in languages:
                yield from ((page.name, language, part) for part in (text.splitlines() if language == "sh" else [text]))


def is_left_out(text):
    return text.startswith(tuple(NOT_RUN)) or PIPED in text


def is_make(line):
    return bool(re.match(r"([A-Z_]+=\S+ )*make ", line))


# Each command as `python -m` would run it and each block of code, one after the other in one process: torch is
# imported once, and not each time. The blocks of a page share their names. What 8 bits cost is measured on one second.
IN_TURN = """
import runpy, shlex, sys
from qwen3_codec.exporting.precision import export
export.EXAMPLE_FRAMES = 12
names = {{}}
for page, language, text in {steps!r}:
    if language == "python":
        exec(compile(text, page, "exec"), names.setdefault(page, {{}}))
        continue
    _, _, module, *sys.argv[1:] = shlex.split(text, comments=True)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, text
stream, rest = (names["README.md"][name] for name in ("stream", "samples"))
assert list(stream.frames) == [32] and stream.finished and not rest.size
"""


def test_there_is_no_block_of_an_unknown_kind():
    assert {language for page in PAGES for language, _ in blocks(page)} <= {"sh", "python", *OTHER_LANGUAGES}
    assert sorted(PAGES[1:]) == sorted(GUIDE.glob("*.md")), "a page of the guide is not run"
    texts = [text for *_, text in steps("sh", "python")]
    for beginning in NOT_RUN:
        assert any(text.startswith(beginning) for text in texts), f"{beginning} is on the list and on no page"


@pytest.mark.parametrize("openvino", [False, slow(True)], ids=["", "with OpenVINO"])
def test_commands_and_code_work_in_order_and_leave_no_trace(clone, openvino):
    run = [step for step in steps("sh", "python") if not is_make(step[2]) and not is_left_out(step[2])]
    run = [step for step in run if openvino or OPENVINO not in step[2]]
    if openvino:
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
        assert any(OPENVINO in text for *_, text in run)
    commands = [text for _, language, text in run if language == "sh"]
    assert len(commands) >= 12 and len(run) - len(commands) >= 6
    assert all(command.startswith("python -m qwen3_codec") for command in commands)
    printed = shell(clone, f"python - <<'END'\n{IN_TURN.format(steps=run)}\nEND")
    assert "passed" in printed and "build/speech.wav: 1 x" in printed and "by the formula: as recorded" in printed
    assert shell(clone, "git status --porcelain") == "", "the commands leave files that git shows"


def make(clone, *arguments, **environment):
    command = ["make", "--no-print-directory", *arguments]
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))
    } | environment
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
class TestMake:
    def test_the_targets_that_the_pages_name_are_there(self, clone):
        (clone / ".venv" / ".installed").touch()
        lines = [text for *_, text in steps("sh") if is_make(text)]
        words = {line: [word for word in shlex.split(line, comments=True) if word != "make"] for line in lines}
        runs = {line: make(clone, "-n", *arguments) for line, arguments in words.items()}
        (clone / ".venv" / ".installed").unlink()
        assert len(runs) >= 10
        assert not {line: run.stderr for line, run in runs.items() if run.returncode}

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
        return script(path, f'exec {sys.executable} -c "{code}" "$2"')

    @pytest.mark.parametrize("version", ["3.10", "3.15", "2.7"])
    def test_another_python_is_refused_in_words_before_anything(self, clone, version):
        run = make(clone, "setup", f"PYTHON={self.python_of(clone, version)}")
        assert run.returncode and f"is {version}" in run.stderr and "needs Python 3.11 to 3.14" in run.stderr
        assert "ONNX Runtime 1.32 has no wheel for a newer one" in run.stderr
        assert "pip" not in run.stdout and (clone / ".venv" / "bin" / "python").is_symlink(), "nothing was touched"

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda bin: (bin / "pip").unlink(),  # as uv makes them
            lambda bin: [(bin / "pip").unlink(), (bin.parent / ".installed").unlink()],  # Debian without python3-venv
            lambda bin: script(bin / "pip", "", interpreter=bin / "moved" / "python"),
            lambda bin: (bin / "python").unlink(),
            lambda bin: [(bin / "python").unlink(), (bin / "python").symlink_to("/no/such/python")],
            lambda bin: shutil.rmtree(bin),
            lambda bin: shutil.rmtree(bin.parent),
        ],
        ids=["no pip", "half-made", "moved", "no python", "a broken link", "no bin", "nothing"],
    )
    def test_a_broken_environment_is_made_anew(self, tmp_path, spoil):
        """Also where its stamp is new: the rule runs, and what it makes stays."""
        for name in ("Makefile", "pyproject.toml", "requirements.txt"):
            shutil.copy(ROOT / name, tmp_path)
        whole = f"mkdir -p .venv/bin; ln -sf {sys.executable} .venv/bin/python; cp pip .venv/bin"
        script(tmp_path / "pip", "echo pip $@")
        subprocess.run(whole, shell=True, cwd=tmp_path, check=True)
        (tmp_path / ".venv" / ".installed").touch()
        spoil(tmp_path / ".venv" / "bin")
        make_one = (
            f'test "$*" != "-m venv --clear .venv" && exec {sys.executable} "$@"; rm -rf .venv; echo anew; {whole}'
        )
        python = script(tmp_path / "python", make_one)
        run = make(tmp_path, "setup", f"PYTHON={python}")
        assert run.returncode == 0 and "anew" in run.stdout, run.stderr
        assert "pip" in run.stdout and "-r requirements.txt" in run.stdout
        again = make(tmp_path, "setup", f"PYTHON={python}")
        assert again.returncode == 0 and "anew" not in again.stdout and "install" not in again.stdout

    @pytest.mark.parametrize(
        ("variable", "words"),
        [
            ("CHECKPOINT=no/such/folder", "no/such/folder: no such folder; a checkpoint is demo, random"),
            ("CHECKPOINT=tests", "no config.json in it or in its speech_tokenizer/"),
            ("AUDIO=README.md", "README.md: "),
            ("AUDIO=none.wav", "none.wav"),
        ],
    )
    def test_what_the_pages_are_given_is_looked_at_before_the_first(self, clone, variable, words):
        """The rule calls a module, which is run here without starting torch anew."""
        (clone / ".venv" / ".installed").touch()
        lines = make(clone, "-n", "walkthrough", variable).stdout.splitlines()
        looks = lines.index(".venv/bin/python -m qwen3_codec.course.given")
        assert looks < min(i for i, line in enumerate(lines) if line.startswith("mkdir") or "nbconvert" in line)
        assert not [line for line in make(clone, "-n", "walkthrough").stdout.splitlines() if "lab.given" in line]
        (clone / ".venv" / ".installed").unlink()

        name, _, value = variable.partition("=")
        said = io.StringIO()
        with redirect_stderr(said):
            assert run_module(given, "qwen3_codec.course.given", [f"--{name.lower()}", str(ROOT / value)]) == 2
        (line,) = said.getvalue().splitlines()
        assert words in line and line.startswith("qwen3_codec.course.given: ")

    def test_the_lab_starts_for_root_too(self, clone):
        (clone / ".venv" / ".installed").touch()
        line = make(clone, "-n", "lab").stdout
        assert "jupyter lab" in line and ("--allow-root" in line) == (os.getuid() == 0)
        (clone / ".venv" / ".installed").unlink()
