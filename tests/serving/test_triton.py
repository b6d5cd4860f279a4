"""The model on a real Triton server, on 127.0.0.1: many streams at once, and all that goes wrong with clients."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime.codes import random_codes
from qwen3_codec.runtime.console import run_module
from qwen3_codec.runtime.metrics import MAX_ERROR, chunks, max_error

pytest.importorskip("tritonclient.grpc", reason="needs the extra [serve]")
from qwen3_codec.measure import load
from qwen3_codec.serving import client, repository, triton_client
from qwen3_codec.serving import server as serving

try:
    serving.find()
except serving.NoServer as reason:
    pytest.skip(str(reason), allow_module_level=True)

IDLE = 1.0  # seconds


@pytest.fixture(scope="module")
def models(exact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    repository.write(exact.path, folder, threads=1, idle_seconds=IDLE)
    return folder


@pytest.fixture(scope="module")
def running(models):
    with serving.Server(models) as running:
        yield running


@pytest.fixture
def server(running):
    """One for all tests, started anew where the one before left it dead."""
    if running.crashed():
        running.restart()
    return running


def again_after_a_crash(test):
    """Once more on a server made anew, where the server crashed under a test. What fails again is a failure.

    Triton's Python backend gives a request up, and its memory free, when the model's process got no processor for a
    second; going on, that process reads the memory (a segmentation fault in `IPCMessage::LoadFromSharedMemory`).
    """

    @functools.wraps(test)
    def twice(server, **fixtures):
        try:
            return test(server=server, **fixtures)
        except Exception:
            deadline = time.monotonic() + 3
            while not server.crashed():
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        server.restart()
        return test(server=server, **fixtures)

    return twice


def memory(server) -> int:
    """Bytes of the models' interpreters, the children of the server."""
    files = [Path("/proc", str(pid), "status") for pid in serving.children_of(server.process.pid)]
    lines = [line for file in files for line in file.read_text().splitlines()]
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def settles(server, live=0, within=5 * IDLE) -> bool:
    """Whether the number of live streams comes down to `live`."""
    deadline = time.monotonic() + within
    while server.live_streams() != live:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def crowd(url, decoder, seed, streams=64):
    """Clients of random lengths and schedules at random moments; (rows, their waveforms)."""
    rng = np.random.default_rng(seed)
    rows = [random_codes(decoder.config, int(rng.integers(1, 30)), seed=seed + n) for n in range(streams)]
    parts = [[*chunks(row, rng.choice([1, 2, 3, 7], 4).tolist())] for row in rows]

    async def speak(parts, wait):
        samples = []
        async with client.AsyncRemoteStream(url) as stream:
            for part in parts:
                await asyncio.sleep(wait.uniform(0, 0.01))
                samples.append(await stream.push(part, last=part is parts[-1] and wait.random() < 0.5))
        return np.concatenate(samples, axis=1)

    async def all_of_them():
        return await asyncio.gather(*(speak(p, np.random.default_rng(n)) for n, p in enumerate(parts)))

    return rows, asyncio.run(all_of_them())


@pytest.mark.parametrize("seed", [0, 1])
@again_after_a_crash
def test_64_sequences_at_once_are_each_exact(server, shallow, seed):
    requests, calls = server.statistics()
    rows, waveforms = crowd(server.url, shallow.decoder, seed)
    for row, waveform in zip(rows, waveforms, strict=True):
        assert max_error(one_shot(shallow.decoder, row), waveform) < MAX_ERROR
    after = server.statistics()
    assert (after[0] - requests) / (after[1] - calls) > 1, "no call had two rows"
    assert server.live_streams() == 0


@again_after_a_crash
def test_nothing_is_left_of_many(server, shallow):
    crowd(server.url, shallow.decoder, 2)
    before = memory(server)
    for seed in (3, 4):
        crowd(server.url, shallow.decoder, seed)
    assert server.live_streams() == 0
    assert memory(server) < before + 8e6, "each of these crowds passes some 60 MB of states through the model"


@again_after_a_crash
def test_a_client_that_dies_is_forgotten(server, exact):
    code = (
        "import sys, time; import numpy as np; from qwen3_codec.serving.client import RemoteStream\n"
        "stream = RemoteStream(sys.argv[1]).__enter__()\n"
        f"stream.push(np.zeros((2, {exact.spec.num_quantizers}), np.int64)); print('there', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, server.url], stdout=subprocess.PIPE, text=True) as dies:
        told = dies.stdout.readline()
        alive = server.live_streams()
        dies.send_signal(signal.SIGKILL)
    assert (told, alive) == ("there\n", 1)
    assert settles(server)


@again_after_a_crash
def test_a_sequence_that_times_out_says_so(server, exact):
    codes = random_codes(exact.spec, 2)
    with client.RemoteStream(server.url) as stream:
        stream.push(codes)
        assert settles(server)
        with pytest.raises(client.ServerError, match="must specify the START flag"):
            stream.push(codes)


@again_after_a_crash
def test_a_start_sent_twice_begins_anew(server, exact):
    codes = random_codes(exact.spec, 6, seed=5)
    with client.RemoteStream(server.url) as stream:
        stream.push(random_codes(exact.spec, 9, seed=6))
        stream.started = False  # so that the next request says start once more
        again = [stream.push(codes[:, :2]), stream.push(codes[:, 2:])]
    assert max_error(exact.decode(codes), np.concatenate(again, axis=1)) < MAX_ERROR
    assert settles(server)


@again_after_a_crash
def test_a_flood_of_bad_requests_beside_good_ones(server, shallow, exact):
    spec = exact.spec
    high = random_codes(spec, 2)
    high[0, 1, 2] = spec.codebook_size
    bad = [
        (high, f"code {spec.codebook_size} at row 0, frame 1, codebook 2 is outside 0..{spec.codebook_size - 1}"),
        (random_codes(spec, 2)[:, :, :-1], rf"codes have the shape \[1, 2, {spec.num_quantizers - 1}\]"),
        (np.zeros((1, 0, spec.num_quantizers), np.int64), "holds no frame"),
    ]

    def flood(number):
        codes, words = bad[number % len(bad)]
        with client.RemoteStream(server.url) as stream:
            for _ in range(6):
                with pytest.raises(client.ServerError, match=words):
                    stream.push(codes)

    with ThreadPoolExecutor(8) as floods:
        running = [floods.submit(flood, number) for number in range(16)]
        rows, waveforms = crowd(server.url, shallow.decoder, 7, streams=8)
        for one in running:
            one.result()
    for row, waveform in zip(rows, waveforms, strict=True):
        assert max_error(one_shot(shallow.decoder, row), waveform) < MAX_ERROR
    with client.RemoteStream(server.url) as stream:  # without a start, or after a bad chunk in the middle
        stream.started = True
        with pytest.raises(client.ServerError, match="must specify the START flag"):
            stream.push(high)
    codes = random_codes(spec, 4)
    with client.RemoteStream(server.url) as stream:
        samples = [stream.push(codes[:, :2])]
        with pytest.raises(client.ServerError, match="outside"):
            stream.push(high)
        samples.append(stream.push(codes[:, 2:]))
    assert max_error(exact.decode(codes), np.concatenate(samples, axis=1)) < MAX_ERROR
    assert settles(server)


def test_a_server_that_stops_and_starts_again(models, exact):
    codes = random_codes(exact.spec, 4)
    with serving.Server(models) as first:
        stream = client.RemoteStream(first.url, timeout=10).__enter__()
        stream.push(codes)
        process = first.process
    assert process.poll() is not None and not [*serving.SHARED_MEMORY.glob(f"{first.folder.name}*")]
    with pytest.raises(client.ServerError, match=first.url):
        stream.push(codes)
    stream.__exit__()
    with serving.Server(models, grpc_port=first.ports["grpc"]) as second:
        with client.RemoteStream(second.url) as stream:
            assert max_error(exact.decode(codes), stream.push(codes, last=True)) < MAX_ERROR
        assert second.live_streams() == 0


def test_a_model_that_does_not_load_is_said(tmp_path, exact):
    folder = repository.write(exact.path, tmp_path)
    (folder / "1" / "model.onnx").write_bytes(b"half")
    with (
        pytest.raises(RuntimeError, match=r"did not become ready: .*truncated or not an ONNX graph"),
        serving.Server(tmp_path),
    ):
        pass


def test_a_configuration_with_implicit_state_passes_the_servers_own_checks(exact, tmp_path):
    """The wheel lacks the backend that would run it: that is all that the server has to say of this model."""
    repository.write(exact.path, tmp_path, "onnxruntime")
    words = r"did not become ready: unable to find backend library for backend 'onnxruntime'"
    with pytest.raises(RuntimeError, match=words), serving.Server(tmp_path):
        pass


def test_two_instances_each_keep_their_own(exact, shallow, tmp_path):
    repository.write(exact.path, tmp_path, threads=1, instances=2)
    with serving.Server(tmp_path) as server:
        rows, waveforms = crowd(server.url, shallow.decoder, 8, streams=16)
        assert server.live_streams() == 0
    for row, waveform in zip(rows, waveforms, strict=True):
        assert max_error(one_shot(shallow.decoder, row), waveform) < MAX_ERROR


@again_after_a_crash
def test_the_client_on_the_command_line(server, exact, tmp_path, capsys):
    codes = random_codes(exact.spec, 9, batch=3)
    np.save(tmp_path / "codes.npy", codes)
    command = ["--codes", str(tmp_path / "codes.npy"), "--url", server.url, "--chunks", "2,5"]
    assert run_module(client, "client", [*command, "--output", str(tmp_path / "speech.npy")]) == 0
    assert "3 streams, " in (printed := capsys.readouterr().out) and "in 9 chunks" in printed and "p99" in printed
    for row in range(3):
        assert max_error(exact.decode(codes[row]), np.load(tmp_path / f"speech_{row}.npy")) < MAX_ERROR
    assert run_module(client, "client", [*command, "--model", "other"]) == 2
    assert "other" in capsys.readouterr().err
    found = client.dimensions(server.url)
    assert (found.sample_rate, found.num_quantizers) == (exact.spec.sample_rate, exact.spec.num_quantizers)


LONG, TOO_SHORT = 2000, 0.03  # frames that keep the model busy for a quarter of a second, far less than IDLE; seconds


@again_after_a_crash
def test_a_push_that_timed_out_ends_its_stream_and_a_new_one_is_right(server, exact):
    codes = random_codes(exact.spec, 6, seed=9)
    with client.RemoteStream(server.url) as stream:
        stream.push(codes[:, :2])
        stream.timeout = TOO_SHORT
        with pytest.raises(client.ServerError, match="no answer within"):
            stream.push(random_codes(exact.spec, LONG))
        with pytest.raises(client.ServerError, match="this stream is over"):
            stream.push(codes[:, 4:])
    assert settles(server)
    with client.RemoteStream(server.url) as stream:
        samples = [stream.push(codes[:, :2]), stream.push(codes[:, 2:])]
    assert max_error(exact.decode(codes), np.concatenate(samples, axis=1)) < MAX_ERROR


@again_after_a_crash
def test_a_cancelled_push_ends_its_stream_alone(server, exact):
    codes = random_codes(exact.spec, 4, seed=10)

    async def talk():
        async with (
            triton_client.triton_aio.InferenceServerClient(server.url) as shared,
            client.AsyncRemoteStream(server.url, client=shared) as stream,
            client.AsyncRemoteStream(server.url, client=shared) as other,
        ):
            await stream.push(codes[:, :2])
            samples = [await other.push(codes[:, :2])]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.push(random_codes(exact.spec, LONG)), TOO_SHORT)
            with pytest.raises(client.ServerError, match=r"this stream is over.*CancelledError"):
                await stream.push(codes[:, 2:])
            samples.append(await other.push(codes[:, 2:]))
        return np.concatenate(samples, axis=1)

    assert max_error(exact.decode(codes), asyncio.run(talk())) < MAX_ERROR
    assert settles(server)


@contextmanager
def command_line(models):
    """The server as a command; nothing that it started may be left after it."""
    command = [sys.executable, "-m", "qwen3_codec.serving.server", str(models)]
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    run = subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, text=True)
    try:
        yield run
    finally:
        run.terminate()
        run.wait(30)
        run.stdout.close()


def ends(run) -> None:
    """A SIGTERM ends the command now, and all that it started."""
    servers = serving.children_of(run.pid)
    started = [*servers, *(pid for server in servers for pid in serving.children_of(server))]
    assert started
    run.send_signal(signal.SIGTERM)
    assert run.wait(30) == 128 + signal.SIGTERM
    assert not [pid for pid in started if Path("/proc", str(pid)).exists()]


def test_a_sigterm_just_after_ready_ends_all(models):
    with command_line(models) as run:
        line = run.stdout.readline()
        assert line.startswith("ready: gRPC 127.0.0.1:")
        ends(run)
    assert not Path(line.partition("says: ")[2].partition(";")[0]).exists()


def test_a_sigterm_before_ready_ends_all(models):
    with command_line(models) as run:
        while not any(map(serving.children_of, serving.children_of(run.pid))):  # the model loads
            time.sleep(0.01)
        ends(run)
        assert not run.stdout.read()


def test_what_crashes_is_started_again_and_a_new_stream_is_right(models, exact):
    codes = random_codes(exact.spec, 4, seed=11)
    with command_line(models) as run:
        url = run.stdout.readline().removeprefix("ready: gRPC ").partition(";")[0]
        assert run.stdout.readline().startswith("try: ")
        with client.RemoteStream(url, timeout=20) as stream:
            stream.push(codes)
            (server,) = serving.children_of(run.pid)
            (interpreter,) = serving.children_of(server)
            os.kill(interpreter, signal.SIGSEGV)
            with pytest.raises(client.ServerError, match=f"{url}: .*this stream is over, begin a new one"):
                stream.push(codes)
            assert run.stdout.readline().startswith("crashed: a model's process ended; all streams are lost, it starts")
            assert run.stdout.readline().startswith(f"ready: gRPC {url}; what the crashed one said: ")
        with client.RemoteStream(url) as stream:
            assert max_error(exact.decode(codes), stream.push(codes, last=True)) < MAX_ERROR
        (server,) = serving.children_of(run.pid)
        os.kill(server, signal.SIGSEGV)
        assert run.stdout.readline().startswith("crashed: the server ended (SIGSEGV); ")
        while not serving.children_of(run.pid):
            time.sleep(0.01)
        ends(run)  # in the middle of a start


@pytest.mark.slow
def test_a_model_in_openvino_says_in_the_log_what_ran(exact, shallow, tmp_path):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    repository.write(exact.path, tmp_path, threads=1, runtime="openvino")
    with serving.Server(tmp_path) as server:
        rows, waveforms = crowd(server.url, shallow.decoder, 0, streams=8)
        assert "it runs in OpenVINO, f32" in server.log()
    for row, waveform in zip(rows, waveforms, strict=True):
        assert max_error(one_shot(shallow.decoder, row), waveform) < MAX_ERROR


def test_a_load_is_measured(exact, capsys, tmp_path):
    command = [
        str(exact.path),
        "--streams",
        "2,1",
        "--chunk",
        "3",
        "--seconds",
        "1",
        "--threads",
        "1",
        "--calls",
        "joined",
    ]
    assert run_module(load, "load", [*command, "--figure", str(tmp_path / "load.png")]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == load.HEADER and all(line.startswith("joined") for line in lines) and lines
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


def test_no_server_is_said_in_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(serving.NoServer, match=r"no Triton server in .*make test"):
        serving.find(tmp_path)
    folder = serving.find().root.parents[1]
    monkeypatch.setattr(serving, "PYTHON", "3.99")
    with pytest.raises(serving.NoServer, match=r"no interpreter for Python 3\.99"):
        serving.find(folder)
