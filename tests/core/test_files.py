"""Files appear whole or not at all, and what was there is treated as its owner meant it."""

import argparse
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from qwen3_codec.files import written_whole
from qwen3_codec.runtime import console

posix = pytest.mark.skipif(os.name == "nt", reason="links, modes, pipes and signals are those of POSIX")


def write(path, text="new"):
    with written_whole(path) as draft:
        draft.write_text(text)


def test_a_new_file_in_a_new_folder(tmp_path):
    write(tmp_path / "a" / "b.txt")
    assert (tmp_path / "a" / "b.txt").read_text() == "new" and len([*(tmp_path / "a").iterdir()]) == 1


def test_what_fails_leaves_what_was_there(tmp_path):
    write(tmp_path / "x", "old")
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "x") as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "x").read_text() == "old" and len([*tmp_path.iterdir()]) == 1


@posix
def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    write(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"
    (tmp_path / "dangling").symlink_to("not yet")
    write(tmp_path / "dangling")
    assert (tmp_path / "not yet").read_text() == "new"


@posix
def test_permissions_are_kept_and_a_read_only_file_is_refused(tmp_path):
    path = tmp_path / "x"
    write(path, "old")
    path.chmod(0o640)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and path.read_text() == "new"
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="read-only"):
        write(path, "never")
    assert path.read_text() == "new" and len([*tmp_path.iterdir()]) == 1


@posix
def test_a_device_and_a_pipe_are_written_to(tmp_path):
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write(tmp_path / "pipe")
    reader.join(timeout=10)
    assert read == ["new"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@posix
def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(IsADirectoryError):
        write(tmp_path)


def test_an_error_names_the_file_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, written_whole(tmp_path / "x") as draft:
        draft.read_text()
    assert raised.value.filename == os.fspath(tmp_path / "x")


@posix
def test_a_terminated_command_leaves_nothing(tmp_path):
    """SIGTERM, as a server's supervisor sends it, in the middle of writing."""
    code = (
        "import sys, time\nfrom qwen3_codec import files\nfrom qwen3_codec.cli import inspect, main as cli\n"
        "def run(args):\n    with files.written_whole(sys.argv[1]) as draft:\n        draft.write_text('half')\n"
        "        print('writing', flush=True)\n        time.sleep(60)\n"
        "inspect.run = run\nsys.exit(cli.main(['inspect']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "x"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n" and len([*tmp_path.iterdir()]) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143 and not [*tmp_path.iterdir()]
    process.stdout.close()


@pytest.fixture
def interrupts():
    """Ctrl-C as Python has it, also where the tests were started in the background, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_falls_into_a_destructor_is_not_lost(number, interrupts, capsys):
    """Python reports what is raised there and goes on; gRPC's client has one that takes a while."""

    class Dies:
        def __del__(self):
            signal.raise_signal(number)

    def run(_):
        Dies()
        for _ in range(1000):
            time.sleep(0.01)
        return 0

    settings = (sys.unraisablehook, signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    if number == signal.SIGTERM:
        with pytest.raises(SystemExit) as ended:
            console.run_command(run, argparse.Namespace(), "command")
        assert ended.value.code == 128 + signal.SIGTERM
    else:
        assert console.run_command(run, argparse.Namespace(), "command") == 130
    assert settings == (sys.unraisablehook, signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


def test_a_signal_waits_for_what_must_not_be_left_in_the_middle(interrupts):
    steps = []
    with pytest.raises(KeyboardInterrupt), console.signals_deferred():
        signal.raise_signal(signal.SIGINT)
        steps.append("done")
    assert steps == ["done"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
