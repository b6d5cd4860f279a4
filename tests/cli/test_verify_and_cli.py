"""Reports that can fail, and the command line from outside."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import UPSTREAM, random_codes

from qwen3_codec.cli import main as cli
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.metrics import MAX_ERROR
from qwen3_codec.verification.decoder import TorchSession, verify


class StateChanger:
    """A session whose outputs are changed on the way out."""

    def __init__(self, session, change):
        self.spec, self._session, self._change = session.spec, session, change

    def run(self, feeds):
        return self._change(self._session.run(feeds))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda out: out | {"final_wav": out["final_wav"] + 1e-3}, "largest error 1.0e-03"),
        (lambda out: out | {"final_wav": out["final_wav"] * np.nan}, "not finite"),
        (lambda out: out | {"next_value_2": out["next_value_2"] * 1.01}, "in past_value_2"),
        (lambda out: out | {"valid_samples": out["valid_samples"] - 1}, "samples came out"),
    ],
)
def test_a_report_fails_where_something_is_wrong(small, exact_window, change, words):
    wrong = StateChanger(TorchSession(exact_window), change)
    report = verify(small, exact_window, random_codes(small.decoder, 20), [[5]], wrong)
    assert not report.passed and any(words in failure for failure in report.failures), report.failures
    assert "FAILED" in str(report) and json.loads(report.to_json())["passed"] is False


def test_a_report_holds_every_chunk(small, exact_window, session):
    report = verify(small, exact_window, random_codes(small.decoder, 20), [[7, 1]], session)
    entries = json.loads(report.to_json())
    assert entries["passed"] and [r["path"] for r in entries["results"]] == ["PyTorch wrapper", "ONNX Runtime"]
    rows = entries["results"][1]["chunks"]
    assert [row["frames"] for row in rows] == [7, 1, 7, 1, 4] and sum(row["samples"] for row in rows) == 20 * 1920
    assert [row["samples"] // 1920 for row in rows] == [3, 1, 7, 1, 8] and all(row["seconds"] > 0 for row in rows)


@pytest.fixture(scope="module")
def upstream_graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "decoder.onnx"
    options = [
        "--state",
        "windowed",
        "--checkpoint",
        str(UPSTREAM),
        "--conv-history",
        "10",
        "--lookahead",
        "2",
        "--output",
        str(path),
    ]
    assert cli.main(["export", *options]) == 0
    return path


def test_inspect(capsys):
    assert cli.main(["inspect", "--checkpoint", str(UPSTREAM), "--state", "windowed"]) == 0
    out = capsys.readouterr().out
    assert "head_dim" in out and "<- not hidden_size / num_attention_heads" in out
    assert "convolutional decoder 10 earlier frames" in out and "past_value_2" in out


def test_verify(upstream_graph, capsys):
    arguments = ["verify", str(upstream_graph), "--checkpoint", str(UPSTREAM), "--codes", str(UPSTREAM / "codes.npy")]
    assert cli.main([*arguments, "--chunks", "3,1,7", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["judged"] and report["results"][1]["max_error"] < MAX_ERROR


def test_decode_gives_upstreams_waveform(upstream_graph, tmp_path):
    arguments = ["decode", str(upstream_graph), "--codes", str(UPSTREAM / "codes.npy"), "--chunks", "3,1,7"]
    assert cli.main([*arguments, "--output", str(tmp_path / "out.npy")]) == 0
    waveform = np.load(tmp_path / "out.npy")
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, np.load(UPSTREAM / "waveform.npy"), atol=MAX_ERROR)
    assert cli.main([*arguments, "--output", str(tmp_path / "out.wav")]) == 0
    import soundfile

    samples, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == 24000 and np.abs(samples - waveform[0]).max() < 1e-4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.npy", "out.wav"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "--checkpoint", "/no/such"], "/no/such: no such folder"),
        (
            ["export", "--checkpoint", "random-small", "--state", "windowed", "--conv-history", "-1", "--output", "X"],
            "conv_history_frames is -1",
        ),
        (
            ["export", "--checkpoint", "random-small", "--conv-history", "7", "--output", "X"],
            "--state exact has no --conv-history: that is the windowed design's",
        ),
        (
            ["inspect", "--checkpoint", "random-small", "--state", "exact", "--conv-history", "0", "--lookahead", "4"],
            "--state exact has no --conv-history and no --lookahead",
        ),
        (["bench", "--checkpoint", "random-small", "--frames", "-3"], "frames is -3, must be at least 1"),
        (["verify", "/no/such.onnx"], "no such file"),
        (["verify", "GRAPH", "--checkpoint", "random-small"], "interface is not that"),
        (
            ["decode", "GRAPH", "--codes", "/no/such.npy", "--output", "X.npy"],
            ": /no/such.npy: No such file",
        ),
        (["decode", "GRAPH", "--codes", "GRAPH", "--output", "X.npy"], "not a .npy, .npz, .json or .rvq file"),
        (["decode", "GRAPH", "--codes", "CODES", "--chunks", "3,0", "--output", "X.npy"], "'0' in the chunk schedule"),
        (["decode", "GRAPH", "--codes", "CODES", "--output", "X.mp3"], "must end in .npy, .wav or .flac"),
        (["decode", "GRAPH", "--codes", "WIDE", "--output", "X.npy"], "code 64 at row 0, frame 3, codebook 1"),
    ],
)
def test_errors_are_one_line_and_exit_2(upstream_graph, tmp_path, capsys, arguments, words):
    wide = np.zeros((5, 16), np.int64)
    wide[3, 1] = 64
    np.save(tmp_path / "wide.npy", wide)
    places = {"GRAPH": upstream_graph, "CODES": UPSTREAM / "codes.npy", "WIDE": tmp_path / "wide.npy"}
    arguments = [str(places.get(a, tmp_path / a if a.startswith("X") else a)) for a in arguments]
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert words in lines[-1] and "Traceback" not in "".join(lines)
    assert [file.name for file in tmp_path.iterdir()] == ["wide.npy"]


def test_help_shows_an_example_and_the_module_runs(capsys):
    def printed(*arguments):
        with pytest.raises(SystemExit, match="0"):
            cli.main([*arguments])
        return capsys.readouterr().out

    assert "example:" in printed("--help")
    for command in cli.COMMANDS:
        assert f"example:\n  python -m qwen3_codec {command}" in printed(command, "--help")
    helped = " ".join(printed("bench", "--help").split())
    assert "(default: 48)" in helped and "(default: build/bench)" in helped and "(default: False)" not in helped
    assert "(default: torchscript)" in printed("export", "--help") and "None" not in printed("export", "--help")
    assert '"onnxruntime"' in printed("--version")
    command = [sys.executable, "-m", "qwen3_codec", "describe", "nothing.onnx"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 2 and failed.stderr == "qwen3_codec describe: nothing.onnx: no such file\n"


def test_a_loaded_graph_decodes_like_the_reference(upstream, upstream_graph):
    codes = random_codes(upstream.decoder, 15, batch=2)
    waveform = CodecSession(upstream_graph, threads=1).decode(codes, [4])
    np.testing.assert_allclose(waveform, one_shot(upstream.decoder, codes), atol=MAX_ERROR)


def test_an_error_is_printed_below_the_progress_bar(upstream_graph, tmp_path, capsys, monkeypatch):
    """The bar that was open ends its line; what comes after stands alone on the next one."""
    calls = iter(range(100))

    def run(session, feeds, _run=CodecSession.run):
        if next(calls) == 2:
            raise RuntimeError("the runtime gave up")
        return _run(session, feeds)

    monkeypatch.setattr(CodecSession, "run", run)
    arguments = [
        "decode",
        str(upstream_graph),
        "--codes",
        str(UPSTREAM / "codes.npy"),
        "--output",
        str(tmp_path / "x.npy"),
    ]
    assert cli.main([*arguments, "--chunks", "3"]) == 2
    err = capsys.readouterr().err
    assert "%|" in err and err.endswith("\nqwen3_codec decode: the runtime gave up\n")
    assert not [*tmp_path.iterdir()]


def test_a_module_that_no_extra_brings_is_a_bug_and_keeps_its_traceback(monkeypatch):
    def run(args):
        import no_such_module_of_ours  # noqa: F401

    monkeypatch.setattr("qwen3_codec.cli.inspect.run", run)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_of_ours"):
        cli.main(["inspect"])
