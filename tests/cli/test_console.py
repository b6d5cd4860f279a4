"""Consoles that lack a letter: what is printed never turns a success into a failure, nor an error into a traceback."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import mostly_slow, random_codes

from qwen3_codec.cli import main as cli
from qwen3_codec.course.exercises import check
from qwen3_codec.course.exercises.exercise import Verdict
from qwen3_codec.course.pitfalls import TRAPS
from qwen3_codec.course.pitfalls.__main__ import main as pitfalls
from qwen3_codec.exporting.export import export
from qwen3_codec.model import checkpoint
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.console import run_module
from qwen3_codec.streaming.exact import ExactStreamingWrapper

# None has all of these letters.
NAME = "你好 é ł"
ENCODINGS = ("ascii", "cp1252", "gbk")


@pytest.fixture(params=ENCODINGS)
def encoding(request):
    return request.param


@pytest.fixture
def console(monkeypatch):
    """Standard output and error as a strict console has them; `console(encoding)` gives what was printed there."""

    def of(encoding):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict", newline="\n") for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])

        def printed():
            for stream in streams:
                assert stream.errors == "strict", "the stream is left as it was"
                stream.flush()
            return [stream.buffer.getvalue().decode(encoding) for stream in streams]

        return printed

    return of


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory):
    """A folder of that name with weights, a graph, codes and sound, all of that name too."""
    folder = tmp_path_factory.mktemp("letters") / NAME
    checkpoint.save(tiny, folder / NAME)
    graph = export(checkpoint.load(folder / NAME), ExactStreamingWrapper(tiny.decoder), folder / f"{NAME}.onnx").path
    codes = random_codes(tiny.decoder, 6)
    np.save(folder / f"{NAME}.npy", codes)
    np.save(folder / f"{NAME} wave.npy", CodecSession(graph, threads=1).decode(codes))
    return folder


GRAPH, CODES, WAVE, WEIGHTS = f"{NAME}.onnx", f"{NAME}.npy", f"{NAME} wave.npy", NAME
COMMANDS = {
    "inspect": ["--checkpoint", WEIGHTS],
    "export": ["--checkpoint", WEIGHTS, "--output", f"{NAME} 2.onnx"],
    "describe": [GRAPH],
    "selftest": [GRAPH, "--threads", "1"],
    "verify": [GRAPH, "--checkpoint", WEIGHTS, "--codes", CODES, "--chunks", "3"],
    "decode": [GRAPH, "--codes", CODES, CODES, "--output", f"{NAME}.wav"],
    "compare": [WAVE, WAVE, "--graph", GRAPH],
    "triton": [GRAPH, "--output", f"models {NAME}"],
}


def placed(files, arguments):
    return [str(files / a) if NAME in a else a for a in arguments]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_succeeds(files, console, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = console("ascii")
    assert cli.main([command, *placed(files, COMMANDS[command])]) == 0, printed()
    out, err = printed()
    assert "\\u4f60\\u597d" in out + err or command in ("describe", "selftest", "compare"), "no name is printed"
    assert "UnicodeEncodeError" not in out + err


def test_what_takes_longer_succeeds_too(files, console, monkeypatch, tmp_path):
    """`bench`, `card`, `encode` and `page` with their work taken out: what they print is left."""
    from qwen3_codec.course.page import site
    from qwen3_codec.measure import bench, card

    monkeypatch.setattr(bench, "benchmark", lambda loaded, *_, **__: loaded.weights)
    monkeypatch.setattr(card, "make", lambda *_: ((), type("Cost", (), {"rows": ()})))
    monkeypatch.setattr(card, "markdown", lambda *_: "# ✓\n")
    monkeypatch.setattr(site, "build", lambda folder, _: [files / GRAPH])
    dims = SimpleNamespace(num_quantizers=3, codebook_size=1)
    encoder = type("Session", (), {"spec": dims, "encode": lambda *_: np.zeros((1, 2, 3), np.int64)})
    monkeypatch.setattr("qwen3_codec.cli.options.session", lambda _: encoder())
    monkeypatch.setattr("qwen3_codec.cli.options.read_audio", lambda *_: np.zeros(10, np.float32))
    lines = [
        ["bench", "--checkpoint", str(files / WEIGHTS)],
        ["card", "--checkpoint", str(files / WEIGHTS), "--output", str(tmp_path / f"{NAME}.md")],
        ["page", "--output", str(tmp_path / NAME)],
        ["encode", GRAPH, "--audio", WAVE, "--output", str(tmp_path / f"{NAME}.npy")],
    ]
    printed = console("ascii")
    assert [cli.main(line) for line in lines] == [0, 0, 0, 0], printed()
    assert sum(part.count("\\u4f60") for part in printed()) >= 4


def test_a_success_and_an_error_on_each_console(files, console, encoding, tmp_path):
    printed = console(encoding)
    line = ["decode", *placed(files, COMMANDS["decode"][:4]), "--output", str(tmp_path / f"{NAME}.wav")]
    assert cli.main(line) == 0, printed()
    assert cli.main([*line[:3], str(tmp_path / f"{NAME} nowhere"), *line[4:]]) == 2
    out, err = printed()
    assert ".wav: 1 x" in out and "100%" in err and "Traceback" not in err
    letters = {"gbk": "你好", "cp1252": " é "}.get(encoding, "\\u4f60")
    assert letters in out and letters in err.splitlines()[-1], "the letters that it has are printed as they are"


def test_modules_that_are_commands_of_their_own(files, console, monkeypatch, tmp_path):
    gone = replace(
        TRAPS["head_dim by the formula"],
        demonstrate=lambda _: (_ for _ in ()).throw(RuntimeError(NAME)),
    )
    monkeypatch.setitem(TRAPS, gone.name, gone)
    printed = console("ascii")
    assert pitfalls(["head_dim"]) == 1
    assert pitfalls([NAME]) == 2
    out, err = printed()
    assert "RuntimeError: \\u4f60\\u597d" in out and "CHANGED: " in out and "no trap has '\\u4f60" in err
    pytest.importorskip("tritonclient.grpc", reason="needs the extra [serve]")
    from qwen3_codec.course import given
    from qwen3_codec.measure import load
    from qwen3_codec.serving import client, server, triton_client

    nowhere = str(tmp_path / NAME)
    monkeypatch.setattr(triton_client, "dimensions", lambda *_: client.Dimensions(24000, 1920, 3, 64))
    for module, line in {
        client: ["--codes", nowhere],
        load: [nowhere],
        server: [nowhere],
        given: ["--checkpoint", nowhere],
    }.items():
        assert run_module(module, module.__name__, line) == 2
        assert "\\u4f60" in printed()[1].splitlines()[-1], module


def test_a_verdict_prints_on_each_console(console, encoding):
    printed = console(encoding)
    for verdict in (
        check("nothing of that name ⌈✗⌉", None),
        Verdict("✓", True, 3),
        Verdict("x", False, off=f"{NAME} \udcff"),
    ):
        print(verdict)
        assert "⌈" not in verdict.name or "⌈" in verdict._repr_markdown_(), "a page has all letters"
    assert printed()[0].count("right in all 3 cases") == 1


@pytest.mark.skipif(os.name == "nt", reason="such names are made otherwise there")
@pytest.mark.parametrize("encoding", mostly_slow(ENCODINGS, ["ascii"]))
def test_from_outside(files, encoding, tmp_path):
    """The interpreter's own streams, and a file name that is not in its letters."""
    line = ["decode", *placed(files, COMMANDS["decode"][:4]), "--output", str(tmp_path / f"{NAME}.wav")]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    run = subprocess.run(
        [sys.executable, "-m", "qwen3_codec", *line], env=environment, capture_output=True, check=False
    )
    assert run.returncode == 0 and b".wav: 1 x" in run.stdout and b"Error" not in run.stderr, run.stderr
    assert len([*tmp_path.iterdir()]) == 2
