"""The same files under OpenVINO: what a stream promises there is in test_stream.py, and here what is its own."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from conftest import drafted, random_codes, slow

from qwen3_codec.cli import main as cli
from qwen3_codec.exporting.export import export
from qwen3_codec.exporting.precision.export import export_in, wrapper_in
from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint.config import small_config
from qwen3_codec.model.checkpoint.encoder_config import ENCODER_DEFAULTS
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime import CodecSession, GraphError, snr_db
from qwen3_codec.runtime.metrics import MAX_ERROR
from qwen3_codec.runtime.self_test import replay
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.fixed import FixedAxes
from qwen3_codec.verification.encoder import MIN_AGREEMENT
from qwen3_codec.verification.graph import verify_graph

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
on_openvino = pytest.importorskip("qwen3_codec.runtime.on_openvino", reason="OpenVINO is not installed")


def opened(path, precision="f32"):
    return CodecSession(path, 1, runtime="openvino", precision=precision)


@pytest.fixture(scope="module")
def shallow_codes(shallow):
    return random_codes(shallow.decoder, 100, batch=3)


@pytest.fixture(scope="module")
def waveform(shallow, shallow_codes):
    return one_shot(shallow.decoder, shallow_codes)


def test_schedules_past_the_window_and_rows_at_other_offsets(exact, shallow_codes, waveform):
    session, rate = opened(exact.path), exact.spec.samples_per_frame
    for schedule in ([7, 1, 2], [100]):
        np.testing.assert_allclose(session.decode(shallow_codes, schedule), waveform, atol=MAX_ERROR)
    streams = [session.stream() for _ in range(3)]
    for stream, row, offset in zip(streams, shallow_codes, (0, 3, 90), strict=True):
        if offset:
            stream.push(row[:offset])
    together = streams[0].join(*streams[1:])
    part = np.stack([row[start : start + 5] for row, start in zip(shallow_codes, (0, 3, 90), strict=True)])
    for found, row, start in zip(together.push(part), waveform, (0, 3, 90), strict=True):
        np.testing.assert_allclose(found, row[start * rate : (start + 5) * rate], atol=MAX_ERROR)


def test_a_sentence_changes_its_runtime_three_times(exact, shallow_codes, waveform, tmp_path):
    """Twice as it moves, and once as it is saved under one and goes on under the other."""
    here, there = exact, opened(exact.path)
    stream = here.stream(3)
    heard = [stream.push(shallow_codes[:, :25])]
    for start, session in ((25, there), (50, here), (75, there)):
        if start == 75:
            stream.save(tmp_path / "x.npz")
            stream = session.load_stream(tmp_path / "x.npz")
        else:
            stream = stream.move_to(session)
        heard.append(stream.push(shallow_codes[:, start : start + 25]))
    np.testing.assert_allclose(np.concatenate(heard, axis=1), waveform, atol=MAX_ERROR)


def test_a_file_in_float16(tiny, tmp_path):
    """OpenVINO's optimizer renames what such a file casts at once."""
    path, codes = drafted(tiny, wrapper_in(tiny, "float16"), tmp_path / "x.onnx"), random_codes(tiny.decoder, 90, 2)
    found, wanted = opened(path).decode(codes, [7, 1]), CodecSession(path, 1).decode(codes, [7, 1])
    assert snr_db(one_shot(tiny.decoder, codes), found) > 40 < snr_db(wanted, found)


def test_rows_of_an_int8_file_and_the_least_that_it_is_held_to(tiny, tmp_path):
    """OpenVINO cannot take its rows together; `infer` would say nothing and give what the call before it gave."""
    path, codes = tmp_path / "x.onnx", random_codes(tiny.decoder, 12, batch=2)
    export_in("int8", tiny, wrapper_in(tiny, "int8"), path, least_snr_db=float("-inf"), codes=codes[:1])
    session = opened(path)
    assert snr_db(CodecSession(path, 1).decode(codes, [3]), session.decode(codes, [3])) > 20
    assert verify_graph(tiny, session, [[3]], codes[:1], least_snr_db=15).passed
    assert not verify_graph(tiny, session, [[3]], codes[:1], least_snr_db=60).passed
    together = on_openvino.OpenVino(openvino.Core().compile_model(path, "CPU"), session.spec)
    feeds = {"audio_codes": codes} | session.spec.zero_state(2)
    together.run({name: array[:1] for name, array in feeds.items()})
    with pytest.raises(RuntimeError, match="broadcast"):
        together.run(feeds)


@pytest.mark.skipif(os.name == "nt", reason="signals have no stack of their own there")
def test_an_interrupt_after_two_sessions_have_gone_is_one(exact):
    """In the order in which they came. `faulthandler` has a stack for signals, which a Core exchanges for another."""
    code = (
        "import faulthandler, signal, sys\nfaulthandler.enable()\nfrom qwen3_codec.runtime import CodecSession\n"
        "first, second = (CodecSession(sys.argv[1], 1, runtime='openvino') for _ in range(2))\n"
        "del first\ndel second\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    run = subprocess.run([sys.executable, "-c", code, exact.path], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "interrupted\n"), run.stderr


def test_six_threads_hear_what_each_would_alone(exact, shallow_codes):
    session = opened(exact.path)
    rows = [shallow_codes[number % 3, number:] for number in range(6)]
    alone = [session.decode(row, [5]) for row in rows]
    with ThreadPoolExecutor(6) as pool:
        for mine, wanted in zip(pool.map(lambda row: session.decode(row, [5]), rows), alone, strict=True):
            np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize("exporter", ["torchscript", slow("dynamo")])
def test_fixed_axes(tiny, tmp_path, exporter):
    codes = random_codes(tiny.decoder, 90, batch=2)
    path = export(tiny, FixedAxes(ExactStreamingWrapper(tiny.decoder), 4, 2), tmp_path / "x.onnx", exporter).path
    found = opened(path).decode(codes)
    np.testing.assert_allclose(found, one_shot(tiny.decoder, codes), atol=MAX_ERROR)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_another_config(everything, tmp_path, exporter):
    codes = random_codes(everything.decoder, 90, batch=2)
    session = opened(export(everything, ExactStreamingWrapper(everything.decoder), tmp_path / "x.onnx", exporter).path)
    np.testing.assert_allclose(session.decode(codes, [7, 1]), one_shot(everything.decoder, codes), atol=MAX_ERROR)


@pytest.mark.parametrize("exporter", ["torchscript", slow("dynamo")])
def test_an_encoder(tmp_path, exporter):
    """Past its window, chunk by chunk; and in mid-sentence from one runtime to the other, two rows."""
    few = {"num_hidden_layers": 1, "upsampling_ratios": [3, 2], "num_quantizers": 4}
    config = small_config(num_quantizers=4) | {"encoder_valid_num_quantizers": 4, "encode_downsample_rate": 12}
    config["encoder_config"] = {**ENCODER_DEFAULTS, **config["encoder_config"], **few}
    few = checkpoint.random_checkpoint(config, source="few")
    session = opened(export(few, StreamEncoderWrapper(few.encoder), tmp_path / "x.onnx", exporter).path)
    report = verify_graph(few, session, [[1], [7, 1, 2]])
    assert report.passed and report.results[-1].path == "OpenVINO, f32" and replay(session).passed, report
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 40 * session.spec.samples_per_frame)).astype(np.float32)
    whole, stream, half = CodecSession(session.path, 1).encode(audio), session.stream(2), audio.shape[1] // 2 + 5
    heard = [stream.push(audio[:, :half])]
    heard.append(stream.move_to(CodecSession(session.path, 1)).push(audio[:, half:], last=True))
    assert (np.concatenate(heard, axis=1) == whole).mean() > MIN_AGREEMENT


def test_below_f32_the_snr_judges(tiny, tiny_exact, capsys):
    """What ran is read back: a processor without the units for bf16 runs it in f32."""
    session, codes = opened(tiny_exact, "bf16"), random_codes(tiny.decoder, 90)
    report, outcome = verify_graph(tiny, session, [[3]], codes), replay(session)
    ran = session.precision
    assert session.title == f"OpenVINO, {ran}" == report.results[-1].path and report.passed, report
    if ran == "f32":
        pytest.skip("this processor runs bf16 in f32")
    found = snr_db(one_shot(tiny.decoder, codes), session.decode(codes, [3]))
    assert ran == "bf16" and 30 < found < 70 and report.limits.min_snr_db == 30 and outcome.snrs, found
    assert not verify_graph(tiny, session, [[3]], codes, least_snr_db=80).passed
    command = ["selftest", str(tiny_exact), "--runtime", "openvino", "--precision", "bf16"]
    assert cli.main([*command, "--min-snr", "10"]) == 0 and cli.main([*command, "--min-snr", "80"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("OpenVINO, bf16\n") and "FAILED (at least 80 dB)" in said


def test_what_ran_is_said_where_it_is_not_what_was_asked_for(tiny_exact, monkeypatch, capsys):
    start = on_openvino.start
    in_f32 = lambda *arguments: start(*arguments[:4], "f32", *arguments[5:])  # noqa: E731
    assert opened(tiny_exact).note == ""
    monkeypatch.setattr(on_openvino, "start", in_f32)  # as a processor does that has no units for bf16
    assert cli.main(["selftest", str(tiny_exact), "--runtime", "openvino", "--precision", "bf16"]) == 0
    said = capsys.readouterr()
    assert said.err == "bf16 was asked for; on this processor it runs as OpenVINO, f32\n"
    assert said.out.startswith("OpenVINO, f32\n") and "limit" in said.out


def test_what_it_cannot_take(exact, tmp_path):
    codes = np.zeros((1, 1, exact.spec.num_quantizers), np.int64)
    with pytest.raises(ValueError, match=r"the inputs differ in .*past_frames"):
        opened(exact.path).run({"audio_codes": codes})
    with pytest.raises(ValueError, match="providers are ONNX Runtime's"):
        CodecSession(exact.path, providers=["cuda"], runtime="openvino")
    with pytest.raises(ValueError, match="no runtime 'tvm'; there are onnxruntime, openvino"):
        CodecSession(exact.path, runtime="tvm")
    with pytest.raises(ValueError, match="no precision 'f8'; there are f32, bf16, f16"):
        opened(exact.path, "f8")
    with pytest.raises(ValueError, match="computes in the file's own precision; bf16 is for OpenVINO"):
        CodecSession(exact.path, precision="bf16")
    model = onnx.load(exact.path)
    model.graph.node[3].op_type = "Nonsense"
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(GraphError, match=r"bad\.onnx: OpenVINO cannot load it"):
        opened(tmp_path / "bad.onnx")
    (tmp_path / "half.onnx").write_bytes(exact.path.read_bytes()[:-100])
    with pytest.raises(GraphError, match="truncated or not an ONNX graph"):
        opened(tmp_path / "half.onnx")


@pytest.mark.parametrize("there", ["onnxruntime", "openvino"])
def test_one_runtime_is_enough_and_a_missing_one_is_a_line(tiny_exact, tmp_path, there):
    np.save(tmp_path / "codes.npy", np.zeros((5, 3), np.int64))
    for runtime in ("onnxruntime", "openvino"):
        missing = {"onnxruntime", "openvino", "torch", "onnx"} - {there}
        hide = f"import sys; sys.modules |= dict.fromkeys({missing})\n"
        code = f"{hide}from qwen3_codec.cli.main import main; sys.exit(main())"
        files = [tiny_exact, "--codes", tmp_path / "codes.npy", "--output", tmp_path / f"{runtime}.npy"]
        command = [sys.executable, "-c", code, "decode", *files, "--runtime", runtime]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if runtime == there:
            assert run.returncode == 0 and np.load(tmp_path / f"{runtime}.npy").shape[0] == 1, run.stderr
        else:
            (line,) = run.stderr.splitlines()
            assert run.returncode == 2 and runtime in line and "which the extra [" in line, line
