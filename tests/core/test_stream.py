"""Streams as servers use them: primed, saved, pickled, by many threads, very long, on the provider asked for."""

import multiprocessing
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import onnxruntime
import pytest
from conftest import random_codes, slow

from qwen3_codec.exporting.export import export
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime import CodecSession, stream
from qwen3_codec.runtime.cpu import sums_overflow, usable_cores
from qwen3_codec.runtime.metrics import MAX_ERROR
from qwen3_codec.runtime.providers import provider_name
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.session import TorchSession
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper


@pytest.fixture(scope="module")
def sessions(shallow, exact, tmp_path_factory):
    """An exact graph and a windowed one with look-ahead whose history reaches far enough to be exact."""
    wrapper = StatefulCodecONNXWrapper(shallow.decoder, 24, 4)
    path = export(shallow, wrapper, tmp_path_factory.mktemp("stream") / "windowed.onnx").path
    made = {"exact": exact, "windowed": CodecSession(path, 1)}
    if find_spec("openvino"):
        made |= {f"{name}, openvino": CodecSession(made[name].path, 1, runtime="openvino") for name in [*made]}
    return made


@pytest.fixture(params=["exact", "windowed", "exact, openvino", "windowed, openvino"])
def session(request, sessions):
    if request.param not in sessions:
        pytest.skip("OpenVINO is not installed")
    return sessions[request.param]


@pytest.fixture(scope="module")
def codes(shallow):
    return random_codes(shallow.decoder, 110, batch=2)


def said(stream, codes, schedule):
    return stream.run(codes, schedule)


@pytest.mark.parametrize("reference", [1, 3, 4, 6, 80])
@pytest.mark.parametrize("schedule", [[1], [2, 7], [30]])
def test_a_primed_stream_says_what_follows_and_nothing_before(session, shallow, codes, reference, schedule):
    voice = session.stream(2)
    voice.prime(codes[:, :reference])
    assert voice.frames.tolist() == [reference] * 2
    utterance = codes[:, reference : reference + 30]
    whole = one_shot(shallow.decoder, codes[:, : reference + 30])[:, reference * shallow.decoder.samples_per_frame :]
    for _ in range(2):  # the voice itself stays as it is
        np.testing.assert_allclose(said(voice.fork(), utterance, schedule), whole, atol=MAX_ERROR)


def test_priming_twice_is_priming_with_both(session, codes):
    once, twice = session.stream(2), session.stream(2)
    once.prime(codes[:, :9])
    for part in (codes[:, :2], codes[:, 2:3], codes[:, 3:9]):
        twice.prime(part)
    for each in (once, twice):
        each.heard = [each.push(codes[:, 9:11]), each.push(codes[:, 11:20]), each.finish()]
    for mine, other in zip(once.heard, twice.heard, strict=True):
        np.testing.assert_allclose(mine, other, atol=MAX_ERROR)
    assert sum(part.shape[1] for part in once.heard) == 11 * session.spec.samples_per_frame


def test_nothing_is_heard_of_a_reference_alone(session, codes):
    voice = session.stream(2)
    voice.prime(codes[:, :20])
    assert voice.finish().shape == (2, 0)


def test_just_primed_and_not_do_not_share_a_call_of_a_graph_that_holds_back(sessions, codes):
    primed, other = (sessions["windowed"].stream(2) for _ in range(2))
    primed.prime(codes[:, :30])
    other.push(codes[:, :30])
    with pytest.raises(ValueError, match="just primed"):
        primed.join(other)


@pytest.mark.parametrize("frames", [0, 3, 100])
def test_a_saved_stream_goes_on_as_if_nothing_had_been(session, codes, tmp_path, frames):
    path = tmp_path / "stream.npz"
    going = session.stream(2)
    if frames:
        going.prime(codes[:, : frames // 3])
        going.push(codes[:, frames // 3 : frames])
    going.save(path)
    back = session.load_stream(path)
    np.testing.assert_array_equal(back.frames, going.frames)
    np.testing.assert_array_equal(said(back, codes[:, -9:], [4]), said(going, codes[:, -9:], [4]))
    going.save(path)
    with pytest.raises(RuntimeError, match="finished"):
        session.load_stream(path).push(codes[:, :1])


def test_what_is_no_stream_of_this_graph_is_refused(sessions, shallow, codes, tmp_path):
    path = tmp_path / "stream.npz"
    going = sessions["exact"].stream(2)
    going.push(codes[:, :5])
    going.save(path)
    with pytest.raises(ValueError, match=r"stream.npz: was saved from a graph with another state spec"):
        sessions["windowed"].load_stream(path)
    other = CodecSession(sessions["exact"].path)
    other.metadata["weights_sha256"] = "0"
    with pytest.raises(ValueError, match="another weights sha256"):
        other.load_stream(path)

    arrays = dict(np.load(path))
    for change, words in (
        ({"state.past_frames": np.array([[-1], [0]])}, "past_frames is outside 0..71"),
        ({"state.past_frames": np.array([[1]])}, "past_frames has 1 rows, must have 2"),
        ({"state.conv_00": arrays["state.conv_00"].astype(np.float64)}, "conv_00 is float64"),
        ({"state.key_00": arrays["state.key_00"][:, :, 1:]}, "key_00: axis 2 is 70 long, must be 71"),
        ({"state.odd": np.zeros(1)}, "they differ in odd"),
        ({"header": np.array("{")}, "not a saved stream"),
    ):
        np.savez(tmp_path / "bad.npz", **(arrays | change))
        with pytest.raises(ValueError, match=words):
            sessions["exact"].load_stream(tmp_path / "bad.npz")
    (tmp_path / "bad.npz").write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="not a saved stream, or truncated"):
        sessions["exact"].load_stream(tmp_path / "bad.npz")
    np.save(tmp_path / "bad.npz", {"a": 1}, allow_pickle=True)
    with pytest.raises((ValueError, FileNotFoundError)):
        sessions["exact"].load_stream(tmp_path / "bad.npz")


def _half(stream, codes):
    return stream.push(codes)


FORK = pytest.param(
    "windowed", "fork", marks=pytest.mark.skipif(sys.platform != "linux", reason="a fork is safe on Linux alone")
)


@pytest.mark.parametrize(
    ("session", "method"),
    [("exact", "spawn"), slow(("windowed", "spawn")), slow(("exact, openvino", "spawn")), FORK],
    indirect=["session"],
)
def test_sessions_and_streams_go_to_other_processes(session, codes, method):
    """A session as its path and options, a stream with its state."""
    going = session.stream(2)
    going.push(codes[:, :20])
    again = pickle.loads(pickle.dumps(session))
    assert again.path.is_absolute() and again.spec == session.spec and again._arguments == session._arguments
    expected = going.fork().push(codes[:, 20:30])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(going)).push(codes[:, 20:30]), expected)
    with multiprocessing.get_context(method).Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(_half, (going, codes[:, 20:30])), expected)


def test_many_threads_share_a_session(session, codes):
    """Bit for bit what each would have heard alone."""
    expected = [session.decode(codes[row % 2], [3 + row]) for row in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            heard = [*pool.map(lambda row: session.decode(codes[row % 2], [3 + row]), range(4))]
            for mine, alone in zip(heard, expected, strict=True):
                np.testing.assert_array_equal(mine, alone)


def test_a_stream_used_by_two_at_once_tells_the_second(shallow, codes):
    entered, leave = threading.Event(), threading.Event()

    class Slow(TorchSession):
        def run(self, feeds):
            entered.set()
            assert leave.wait(30)
            return super().run(feeds)

    slow = Slow(ExactStreamingWrapper(shallow.decoder)).stream(2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(slow.push, codes[:, :5])
        assert entered.wait(30)
        with pytest.raises(RuntimeError, match="another thread is in a call of this stream"):
            slow.push(codes[:, 5:6])
        leave.set()
        first.result()
    assert slow.frames.tolist() == [5, 5]
    plain = TorchSession(ExactStreamingWrapper(shallow.decoder)).stream(2)
    plain.push(codes[:, :5])
    np.testing.assert_array_equal(slow.push(codes[:, 5:9]), plain.push(codes[:, 5:9]))


def test_a_long_push_is_cut_and_stays_exact(sessions, shallow, codes, monkeypatch):
    monkeypatch.setattr(stream, "PIECE_FRAMES", 16)
    lengths, run = [], CodecSession.run
    monkeypatch.setattr(
        CodecSession, "run", lambda self, feeds: lengths.append(feeds["audio_codes"].shape[1]) or run(self, feeds)
    )
    whole = one_shot(shallow.decoder, codes)
    np.testing.assert_allclose(sessions["exact"].stream(2).push(codes, last=True), whole, atol=MAX_ERROR)
    assert lengths == [16] * 6 + [14]
    lengths.clear()
    np.testing.assert_allclose(sessions["windowed"].stream(2).push(codes, last=True), whole, atol=MAX_ERROR)
    assert lengths == [110], "a short history would make each cut audible, so a windowed graph gets it whole"


def test_a_failure_in_a_later_piece_takes_the_earlier_ones_back(sessions, codes, monkeypatch):
    monkeypatch.setattr(stream, "PIECE_FRAMES", 4)
    going, untouched = sessions["exact"].stream(2), sessions["exact"].stream(2)
    calls, run = [], CodecSession.run

    def third_fails(self, feeds):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return run(self, feeds)

    with monkeypatch.context() as patched:
        patched.setattr(CodecSession, "run", third_fails)
        with pytest.raises(MemoryError):
            going.push(codes[:, :20])
    assert going.frames.tolist() == [0, 0]
    np.testing.assert_array_equal(going.push(codes[:, :9]), untouched.push(codes[:, :9]))


def test_a_provider_that_is_not_there_or_does_not_run_is_an_error(sessions, monkeypatch):
    path = sessions["exact"].path
    assert CodecSession(path, providers=["cpu"]).providers == sessions["exact"].providers == ["CPUExecutionProvider"]
    with pytest.raises(ValueError, match=r"the provider 'cuda' is not in this ONNX Runtime .*CPUExecutionProvider"):
        CodecSession(path, providers=["cuda"])
    there = [*onnxruntime.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    assert provider_name("Cuda") == "CUDAExecutionProvider"
    with pytest.raises(ValueError, match="did not start CUDAExecutionProvider: CPUExecutionProvider runs in its place"):
        CodecSession(path, providers=["cuda", "cpu"])


def test_provider_options_reach_onnx_runtime(sessions):
    options = [{"arena_extend_strategy": "kSameAsRequested"}]
    session = CodecSession(sessions["exact"].path, providers=["cpu"], provider_options=options)
    assert session.providers == ["CPUExecutionProvider"] and session._arguments[3] == options


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/c/cpu.cfs_quota_us": "400000", "cpu/c/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_a_quota_counts_as_cores(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / "mounted" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mounted" / name).write_text(text + "\n")
    (tmp_path / "own").write_text("4:cpu,cpuacct:/c\n1:name=systemd:/x\n0::/a/b\n")
    assert usable_cores(tmp_path / "mounted", tmp_path / "own") == cores
    assert usable_cores(tmp_path / "mounted", tmp_path / "none") <= 8


def test_without_any_onnx_runtime_one_line_says_what_to_install():
    hide = "import sys; sys.modules['onnxruntime'] = None; from qwen3_codec.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", hide, "decode", "x.onnx", "--codes", "x.npy", "--output", "x.wav"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = run.stderr.splitlines()
    assert run.returncode == 2 and "onnxruntime" in line and "which the extra [cpu] brings" in line


@pytest.mark.parametrize(
    ("flags", "overflow"),
    [
        ("sse4_2 avx2", True),
        ("avx2 avx512f avx512_vnni", False),
        ("avx2 avx_vnni", False),
        ("asimddp", False),
        (None, False),
    ],
)
def test_processors_whose_sums_of_8_bit_products_overflow(flags, overflow, tmp_path):
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert sums_overflow(file) == overflow
