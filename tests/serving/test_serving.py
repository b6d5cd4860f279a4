"""The model repository, how a server pairs states and joins rows, the Python model: all that needs no server."""

import asyncio
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_codec.cli import main as cli
from qwen3_codec.files import folder_written_whole
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime import GraphError
from qwen3_codec.runtime.codes import CodesError
from qwen3_codec.runtime.console import run_module
from qwen3_codec.runtime.metrics import MAX_ERROR, chunks, max_error
from qwen3_codec.spec import TensorSpec
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.exact import ExactStreamingWrapper, OneShotWrapper
from qwen3_codec.streaming.fixed import FixedAxes

repository = pytest.importorskip("qwen3_codec.serving.repository", reason="needs the extra [serve]")
import grpc  # noqa: E402
from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: E402

from qwen3_codec.measure import load  # noqa: E402
from qwen3_codec.serving import client, triton_client  # noqa: E402
from qwen3_codec.serving import server as serving  # noqa: E402
from qwen3_codec.serving.simulation import Request, SimulatedServer  # noqa: E402


def test_the_configuration_names_every_state_as_the_graph_has_it(other, tmp_path):
    spec = ExactStreamingWrapper(other.decoder).spec
    written = repository.config(
        spec, "onnxruntime", max_batch=8, max_sequences=9, idle_seconds=2.5, wait_ms=3, gpu=True
    )
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.pbtxt").write_text(str(written))
    config = repository.read_config(folder)
    assert config == written
    batching = config.sequence_batching
    assert [(s.input_name, s.output_name) for s in batching.state] == [(a.name, b.name) for a, b in spec.states]
    for state, (before, _) in zip(batching.state, spec.states, strict=True):
        assert tuple(state.dims) == before.shape[1:] and -1 not in state.dims
        assert state.data_type == {"float32": repository.pb.TYPE_FP32, "int64": repository.pb.TYPE_INT64}[before.dtype]
        (first,) = state.initial_state
        assert first.zero_data and (first.dims, first.data_type) == (state.dims, state.data_type)
    assert (config.max_batch_size, batching.oldest.max_candidate_sequences) == (8, 9)
    assert batching.max_sequence_idle_microseconds == 2_500_000
    assert batching.oldest.max_queue_delay_microseconds == 3000
    assert config.instance_group[0].kind == repository.pb.ModelInstanceGroup.KIND_GPU
    assert [*config.input[0].dims] == [-1, spec.num_quantizers] and [*config.output[0].dims] == [-1]
    names = {tensor.name for tensor in (*config.input, *config.output)}
    assert not names & {name for pair in spec.states for name in (pair[0].name, pair[1].name)}
    assert config.parameters["samples_per_frame"].string_value == str(spec.samples_per_frame)
    assert not repository.mispaired(spec)


def test_sorted_names_keep_their_pairs_past_a_hundred_states(small):
    spec = ExactStreamingWrapper(small.decoder).spec
    assert len(spec.states) > 30 and not repository.mispaired(spec)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_batch", 0),
        ("max_sequences", 0),
        ("idle_seconds", 0),
        ("idle_seconds", float("nan")),
        ("wait_ms", -1),
        ("instances", 0),
        ("threads", -1),
    ],
)
def test_a_number_that_is_too_small_is_named(exact, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        repository.config(exact.spec, **{name: value})


def test_openvino_is_for_our_own_streams_on_the_cpu(exact):
    config = repository.config(exact.spec, runtime="openvino", precision="bf16")
    assert [config.parameters[name].string_value for name in ("runtime", "precision")] == ["openvino", "bf16"]
    for wrong in ({"gpu": True}, {"backend": "onnxruntime"}):
        with pytest.raises(ValueError, match="openvino runs on the CPU, and with the backend python alone"):
            repository.config(exact.spec, runtime="openvino", **wrong)


def test_a_windowed_graph_is_refused_with_every_reason(graph, tmp_path, capsys):
    assert cli.main(["triton", str(graph), "--output", str(tmp_path / "models")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for words in (
        "Triton cannot serve this windowed decoder: 18 of its 19 states would be paired wrongly",
        "latent_buf would get next_key_0, not next_latent_buf",
        "its input is_last has no row for each stream",
        "the first states pre_conv_h, ... are empty",
    ):
        assert words in line
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda decoder: OneShotWrapper(decoder), "it has no state"),
        (lambda decoder: FixedAxes(ExactStreamingWrapper(decoder), frames=4), "is fixed: export it without --frames"),
        (lambda decoder: FixedAxes(ExactStreamingWrapper(decoder), batch=2), "is fixed: export it without --frames"),
    ],
)
def test_other_graphs_are_refused(tiny, tmp_path, wrap, words):
    spec = wrap(tiny.decoder).spec
    with pytest.raises(GraphError, match=words):
        repository.check_servable(SimpleNamespace(spec=spec, path="g.onnx"))


def test_an_encoder_is_refused():
    from qwen3_codec.model import checkpoint

    spec = StreamEncoderWrapper(checkpoint.load("random-small").encoder).spec
    with pytest.raises(GraphError, match="it is an encoder"):
        repository.check_servable(SimpleNamespace(spec=spec, path="g.onnx"))


@pytest.mark.parametrize("backend", repository.BACKENDS)
def test_a_repository_is_written_whole(exact, tmp_path, backend, capsys, monkeypatch):
    output = tmp_path / "models"
    (output / "another").mkdir(parents=True)
    command = ["triton", str(exact.path), "--output", str(output), "--backend", backend, "--max-batch", "3"]
    assert cli.main(command) == 0
    files = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    model = {"qwen3_codec/1/model.py"} if backend == "python" else set()
    assert files == {"qwen3_codec/config.pbtxt", "qwen3_codec/1/model.onnx"} | model
    assert "tritonserver --model-repository" in capsys.readouterr().out
    assert (output / "another").is_dir() and not [*output.glob(".*")]
    assert (output / "qwen3_codec/1/model.onnx").read_bytes() == exact.path.read_bytes()
    before = (output / "qwen3_codec/config.pbtxt").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(repository.shutil, "copyfile", full)
        assert cli.main([*command[:-1], "5"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert (output / "qwen3_codec/config.pbtxt").read_bytes() == before and not [*output.glob(".*")]
    assert cli.main([*command[:-1], "5"]) == 0
    assert repository.read_config(output / "qwen3_codec").max_batch_size == 5


def test_what_is_no_model_is_left_alone(exact, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="is there and is no model"):
        repository.write(exact.path, tmp_path, name="mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
    for name in ("", "../up", ".hidden", "a b"):
        with pytest.raises(ValueError, match="the name"):
            repository.write(exact.path, tmp_path, name=name)
    (tmp_path / "mine" / "config.pbtxt").write_text("name: {")
    with pytest.raises(ValueError, match=r"config\.pbtxt"):
        repository.read_config(tmp_path / "mine")


def test_a_folder_that_cannot_take_its_place_gives_it_back(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "old").write_text("old")
    replace = os.replace

    def refuses(source, target):
        if Path(source).name == "new":
            raise OSError("no")
        return replace(source, target)

    monkeypatch.setattr("qwen3_codec.files.os.replace", refuses)
    with pytest.raises(OSError, match="no"), folder_written_whole(tmp_path / "site") as draft:
        (draft / "new").write_text("new")
    monkeypatch.setattr("qwen3_codec.files.os.replace", replace)
    assert [path.name for path in tmp_path.rglob("*")] == ["site", "old"]


@st.composite
def traffic(draw):
    """Streams as (codes' seed, first round, chunk lengths): who comes when, and with how much at a time."""
    stream = st.tuples(st.integers(0, 99), st.integers(0, 5), st.lists(st.integers(1, 5), min_size=1, max_size=6))
    return draw(st.lists(stream, min_size=1, max_size=9))


def play(server, exact, traffic):
    """{stream: waveform} of what a server gives when all that have a chunk in a round wait together."""
    parts = {
        name: [*chunks(random_codes_of(exact, sum(schedule), seed), schedule)]
        for name, (seed, _, schedule) in enumerate(traffic, 1)
    }
    heard = {name: [] for name in parts}
    for turn in range(max(first + len(schedule) for _, first, schedule in traffic)):
        waiting = []
        for name, (_, first, schedule) in enumerate(traffic, 1):
            if 0 <= (place := turn - first) < len(schedule):
                waiting.append(Request(name, parts[name][place], place == 0, place == len(schedule) - 1))
        for request, samples in zip(waiting, server.execute(waiting), strict=True):
            heard[request.sequence].append(samples)
    return {name: np.concatenate(samples, axis=1) for name, samples in heard.items()}


def random_codes_of(exact, frames, seed):
    return np.random.default_rng(seed).integers(exact.spec.codebook_size, size=(1, frames, exact.spec.num_quantizers))


@given(traffic=traffic())
@settings(max_examples=25, deadline=None)
def test_a_server_that_pairs_by_rank_streams_exactly(exact, shallow, traffic):
    """The ONNX Runtime backend's part, simulated: implicit state, rows stacked, any traffic."""
    server = SimulatedServer(repository.config(exact.spec, "onnxruntime", max_batch=4), exact.run)
    for name, waveform in play(server, exact, traffic).items():
        seed, _, schedule = traffic[name - 1]
        whole = one_shot(shallow.decoder, random_codes_of(exact, sum(schedule), seed))
        assert max_error(whole, waveform) < MAX_ERROR
    assert not server.states and max(server.calls) <= 4


def test_rows_are_joined(exact):
    server = SimulatedServer(repository.config(exact.spec, "onnxruntime"), exact.run)
    play(server, exact, [(seed, seed % 3, [2] * 5) for seed in range(12)])
    assert np.mean(server.calls) > 5


def test_the_simulation_refuses_what_the_server_does(exact, session):
    server = SimulatedServer(repository.config(exact.spec, "onnxruntime"), exact.run)
    with pytest.raises(ValueError, match="sequence 7 must begin with a start"):
        server.execute([Request(7, random_codes_of(exact, 2, 0))])
    spec = session.spec  # windowed
    states = tuple((before, TensorSpec(after.name, before.shape, after.dtype)) for before, after in spec.states)
    spec = SimpleNamespace(**{name: getattr(spec, name) for name in spec.__dataclass_fields__} | {"states": states})
    spec.inputs, spec.outputs, spec.num_quantizers = spec.inputs[:1], spec.outputs[:1], 16
    config = repository.config(spec, "onnxruntime")
    last = {"is_last": np.zeros(1, np.float32)}
    server = SimulatedServer(config, lambda feeds: session.run(feeds | last))
    with pytest.raises(ValueError, match="next_key_0 goes into latent_buf"):
        server.execute([Request(1, np.zeros((1, 4, 16), np.int64), start=True)])


# The Python model, with the backend's interface played by a few lines.


class Answer:
    def __init__(self, output_tensors=(), error=None):
        self.tensors, self.error = output_tensors, error


class Tensor:
    def __init__(self, name, values):
        self.name, self.values = name, values

    @classmethod
    def from_dlpack(cls, name, capsule):
        return cls(
            name, np.from_dlpack(SimpleNamespace(__dlpack__=lambda **_: capsule, __dlpack_device__=lambda: (1, 0)))
        )


class Metric:
    GAUGE, value = "gauge", 0

    def __init__(self, *_):
        pass

    def Metric(self, labels):
        return self

    def set(self, value):
        self.value = value


class Error(Exception):
    INVALID_ARG = 3

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


class Asked(SimpleNamespace):
    """A request as the backend hands it over."""

    def correlation_id(self):
        return self.name

    def flags(self):
        return self.bits

    def is_cancelled(self):
        return self.cancelled


START, END = 1, 2


def ask(name, codes, bits=0, cancelled=False):
    return Asked(name=name, codes=np.asarray(codes), bits=bits, cancelled=cancelled)


@pytest.fixture
def log():
    """What the model tells the server."""
    return []


@pytest.fixture
def model(exact, tmp_path, monkeypatch, log, request):
    """In ONNX Runtime, or as `request` says."""
    options = getattr(request, "param", {})
    if "openvino" in options.values():
        pytest.importorskip("openvino", reason="OpenVINO is not installed")
    backend = SimpleNamespace(
        InferenceResponse=Answer,
        Tensor=Tensor,
        TritonError=Error,
        MetricFamily=Metric,
        Logger=SimpleNamespace(log_info=log.append),
        get_input_tensor_by_name=lambda request, name: request.codes,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    monkeypatch.delitem(sys.modules, "qwen3_codec.serving.model", raising=False)
    from qwen3_codec.serving.model import TritonPythonModel

    folder = repository.write(exact.path, tmp_path / "models", idle_seconds=0.2, threads=1, **options)
    config = repository.read_config(folder)
    arguments = {
        "model_config": json.dumps(
            {
                "parameters": {key: {"string_value": value.string_value} for key, value in config.parameters.items()},
                "sequence_batching": {
                    "max_sequence_idle_microseconds": config.sequence_batching.max_sequence_idle_microseconds
                },
            }
        ),
        "model_repository": str(folder),
        "model_version": "1",
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
        "model_instance_name": "qwen3_codec_0_0",
    }
    made = TritonPythonModel()
    made.initialize(arguments)
    yield made
    made.finalize()


def heard(answers):
    for answer in answers:
        assert answer.error is None, answer.error
    return [answer.tensors[0].values for answer in answers]


def test_the_model_is_short():
    source = Path(repository.__file__).with_name("model.py").read_text()
    assert len(source.splitlines()) < 150


@pytest.mark.parametrize("model", [{}, {"runtime": "openvino"}], ids=["onnxruntime", "openvino"], indirect=True)
def test_rows_at_different_offsets_and_lengths_are_joined_and_parted(model, exact, monkeypatch):
    calls = []
    run = model.session.run
    monkeypatch.setattr(model.session, "run", lambda feeds: calls.append(len(feeds["audio_codes"])) or run(feeds))
    codes = {name: random_codes_of(exact, 12, name) for name in range(1, 5)}
    old = heard(model.execute([ask(1, codes[1][:, :7], START)]))
    now = [ask(1, codes[1][:, 7:9])] + [ask(name, codes[name][:, :2], START) for name in (2, 3)]
    now.append(ask(4, codes[4][:, :5], START))
    second = heard(model.execute(now))
    assert calls == [1, 3, 1] and model.live.value == 4
    third = heard(
        model.execute([ask(name, codes[name][:, 2:], END) for name in (2, 3)] + [ask(1, codes[1][:, 9:], END)])
    )
    assert model.live.value == 1 and [*model.streams] == [4]
    for name, samples in ((1, [old[0], second[0], third[2]]), (2, [second[1], third[0]]), (3, [second[2], third[1]])):
        assert max_error(exact.decode(codes[name])[:1], np.concatenate(samples, axis=1)) < MAX_ERROR


@pytest.mark.parametrize("model", [{"runtime": "openvino", "precision": "f16"}], indirect=True)
def test_the_log_says_what_ran(model, log):
    asked_for_and_ran = model.session.precision == "f16"
    assert log == [model.session.note or "it runs in OpenVINO, f16"] and asked_for_and_ran != bool(model.session.note)


def test_a_bad_request_gets_the_librarys_words_and_hurts_nobody(model, exact):
    good = random_codes_of(exact, 6, 0)
    wrong = good[:, :3].copy()
    wrong[0, 1, 2] = exact.spec.codebook_size
    model.execute([ask(1, good[:, :3], START), ask(2, good[:, :3], START)])
    bad = {
        2: (wrong, f"code {exact.spec.codebook_size} at row 0, frame 1, codebook 2 is outside"),
        3: (good[:, :3], "sequence 3 has no state here"),
        4: (good[:, :3, :-1], "codes have the shape [1, 3, "),
        5: (good[:, :0], "holds no frame"),
    }
    requests = [ask(name, codes, START if name in (4, 5) else 0) for name, (codes, _) in bad.items()]
    first, *rest = model.execute([ask(1, good[:, 3:]), *requests])
    assert max_error(exact.decode(good)[:, first_half(exact, good) :], heard([first])[0]) < MAX_ERROR
    for answer, (_, words) in zip(rest, bad.values(), strict=True):
        assert words in str(answer.error) and answer.error.code == Error.INVALID_ARG
    with pytest.raises(CodesError) as library:
        exact.stream().push(wrong)
    assert str(library.value) == str(rest[0].error)
    # Sequence 2 goes on as if the bad request had not been.
    assert (
        max_error(exact.decode(good)[:, first_half(exact, good) :], heard(model.execute([ask(2, good[:, 3:])]))[0])
        < MAX_ERROR
    )


def first_half(exact, codes):
    return codes.shape[1] // 2 * exact.spec.samples_per_frame


def test_a_second_start_begins_anew(model, exact):
    codes = random_codes_of(exact, 4, 0)
    model.execute([ask(1, random_codes_of(exact, 9, 1), START)])
    (samples,) = heard(model.execute([ask(1, codes, START)]))
    assert max_error(exact.decode(codes), samples) < MAX_ERROR and model.live.value == 1


def test_an_end_frees_also_without_frames_and_with_an_error(model, exact):
    codes = random_codes_of(exact, 2, 0)
    model.execute([ask(name, codes, START) for name in (1, 2, 3, 4)])
    answers = model.execute([ask(1, codes[:, :0], END), ask(2, codes - 1000, END), ask(3, codes, cancelled=True)])
    assert heard(answers[:1])[0].shape == (1, 0) and "outside" in str(answers[1].error)
    assert "sequence 3 was cancelled" in str(answers[2].error)
    assert [*model.streams] == [4] and model.live.value == 1


def test_who_says_nothing_is_forgotten(model, exact):
    model.execute([ask(1, random_codes_of(exact, 2, 0), START)])
    assert model.live.value == 1
    for _ in range(100):
        if not model.streams:
            break
        model.ended.wait(0.05)
    assert not model.streams and not model.last_used
    (answer,) = model.execute([ask(1, random_codes_of(exact, 2, 0))])
    assert "its start was lost, or it was idle for 0.2 s" in str(answer.error)


def test_a_call_that_fails_moves_no_stream(model, exact, monkeypatch):
    codes = random_codes_of(exact, 4, 0)
    model.execute([ask(name, codes[:, :2], START) for name in (1, 2)])

    def fails(_):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(model.session, "run", fails)
        answers = model.execute([ask(name, codes[:, 2:]) for name in (1, 2)])
    assert [str(answer.error) for answer in answers] == ["out of memory"] * 2
    for samples in heard(model.execute([ask(name, codes[:, 2:]) for name in (1, 2)])):
        assert max_error(exact.decode(codes)[:, first_half(exact, codes) :], samples) < MAX_ERROR


# The client and the load, as far as they go without a server.


def test_nobody_there_is_one_line(tmp_path, capsys):
    np.save(tmp_path / "codes.npy", np.zeros((4, 16), np.int64))
    command = ["--codes", str(tmp_path / "codes.npy"), "--url", "127.0.0.1:9"]
    assert run_module(client, "client", command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("client: 127.0.0.1:9: ") and "onnect" in line
    with pytest.raises(client.ServerError, match=r"127\.0\.0\.1:9"), client.RemoteStream("127.0.0.1:9") as stream:
        stream.push(np.zeros((1, 16), np.int64))

    async def ask():
        async with client.AsyncRemoteStream("127.0.0.1:9") as stream:
            await stream.push(np.zeros((1, 16), np.int64))

    with pytest.raises(client.ServerError, match=r"127\.0\.0\.1:9"):
        asyncio.run(ask())


@pytest.mark.parametrize("codes", [np.zeros((2, 16)), np.zeros(16, np.int64), np.zeros((2, 3, 16), np.int64), [["a"]]])
def test_the_client_sends_codes_alone(codes):
    with client.RemoteStream("127.0.0.1:9") as stream, pytest.raises(CodesError, match="must be integers"):
        stream.push(codes)


@pytest.mark.parametrize("command", [client, load, pytest.importorskip("qwen3_codec.serving.server")])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        run_module(command, command.__name__, ["--help"])
    assert (
        ended.value.code == 0
        and f"example:\n  python -m {command.__name__} {command.EXAMPLE}" in capsys.readouterr().out
    )


def test_loads_arithmetic():
    held = load.Load("joined", 4, 1, 80.0, 50.0, 3.5, [10.0] * 99 + [79.0])
    late = load.Load("joined", 8, 1, 80.0, 50.0, 3.5, [10.0] * 95 + [200.0] * 5)
    assert held.held and not late.held and load.most_held([held, late]) == 4 and load.most_held([late]) == 0
    assert str(held).split()[:4] == ["joined", "4", "50.0", "3.50"] and str(late).endswith("no")
    assert len(str(held).split()) == len(load.HEADER.replace("avg ms", "avg").split())
    # 10,000 streams of 5 GFLOP every 80 ms are 625 TFLOP/s.
    assert load.fleet(5.0, 80.0)["L4"] == pytest.approx(625 / load.GPU_TFLOPS["L4"])
    assert load.fleet(5.0, 80.0, streams=100, share=0.5)["L4"] == pytest.approx(6.25 / load.GPU_TFLOPS["L4"] / 0.5)


def test_a_load_that_cannot_be_is_refused(exact, capsys):
    for numbers in ({"streams": [0]}, {"streams": []}, {"chunk": 0}, {"seconds": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            load.measure(exact.path, **numbers)
    assert run_module(load, "load", [str(exact.path), "--calls", "joined,together"]) == 2
    assert "'together', must be of joined, apart, websocket" in capsys.readouterr().err


class Echo(service_pb2_grpc.GRPCInferenceServiceServicer):
    """A server that answers a request with its own codes, as soon as `free` is set; `cut` counts connections that were.

    `wrong` answers with another request's id, `closes` ends the connection in good order in place of an answer,
    `hangs` does nothing at all.
    """

    def __init__(self):
        self.free, self.cut = threading.Event(), threading.Semaphore(0)
        self.wrong = self.closes = self.hangs = False
        self.free.set()

    def ServerLive(self, request, context):
        time.sleep(0.1 if not self.free.is_set() else 0)
        return service_pb2.ServerLiveResponse(live=True)

    def ModelStreamInfer(self, requests, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        if self.hangs:
            ended.wait(60)
        for request in requests:
            while not (self.free.wait(0.01) or ended.is_set()):
                pass
            if ended.is_set():
                return self.cut.release()
            if self.closes:
                return None
            codes = np.frombuffer(request.raw_input_contents[0], np.int64).astype(np.float32)
            answer = service_pb2.ModelInferResponse(
                id=request.id + "0" * self.wrong, raw_output_contents=[codes.tobytes()]
            )
            answer.outputs.add(name="waveform", datatype="FP32", shape=[1, codes.size])
            yield service_pb2.ModelStreamInferResponse(infer_response=answer)
        return None


@pytest.fixture
def echo():
    """(the server, its address)"""
    server, echo = grpc.server(ThreadPoolExecutor(8)), Echo()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(echo, server)
    url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield echo, url
    echo.free.set()
    server.stop(0).wait()


def one(code):
    """Codes whose sound, on `Echo`, is this one sample."""
    return np.full((1, 1), code)


OVER = "this stream is over, begin a new one"


def test_after_a_push_without_an_answer_no_late_answer_is_taken_for_another(echo):
    server, url = echo
    with client.RemoteStream(url, timeout=0.2) as stream:
        assert stream.push(one(1)) == 1
        server.free.clear()
        with pytest.raises(client.ServerError, match=rf"no answer within 0\.2 s; {OVER}"):
            stream.push(one(2))
        assert server.cut.acquire(timeout=10), "the server was not told, and keeps the state"
        server.free.set()
        for call in (lambda: stream.push(one(3)), stream.finish):
            with pytest.raises(client.ServerError, match=rf"{OVER}; .*: no answer within 0\.2 s$"):
                call()
    with client.RemoteStream(url) as stream:
        assert [stream.push(one(code)).item() for code in (4, 5)] == [4, 5]
        assert stream.finish().shape == stream.finish().shape == (1, 0)
        with pytest.raises(RuntimeError, match="the stream is finished"):
            stream.push(one(6))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, MemoryError, triton_client.triton.InferenceServerException("not sent")]
)
def test_a_push_that_was_interrupted_ends_the_stream(echo, monkeypatch, error):
    def fails(**_):
        raise error

    with client.RemoteStream(echo[1]) as stream:
        monkeypatch.setattr(stream._client, "async_stream_infer", fails)
        raised = client.ServerError if isinstance(error, Exception) else error
        with pytest.raises(raised):
            stream.push(one(1))
        monkeypatch.undo()
        with pytest.raises(client.ServerError, match=f"{OVER}; .*(not sent|KeyboardInterrupt|MemoryError)"):
            stream.push(one(2))


def test_bad_codes_end_no_stream(echo):
    with client.RemoteStream(echo[1]) as stream:
        for _ in range(2):
            with pytest.raises(CodesError):
                stream.push([["a"]])
        assert stream.push(one(1)) == 1


def test_an_answer_to_another_request_is_none(echo):
    echo[0].wrong = True
    with (
        client.RemoteStream(echo[1]) as stream,
        pytest.raises(client.ServerError, match=r"request 1 got .* request 10"),
    ):
        stream.push(one(1))


def test_a_server_that_is_busy_is_not_gone(echo, monkeypatch):
    """Asked whether it is there, it does not answer in time either."""
    server, url = echo
    monkeypatch.setattr(triton_client, "ASKS_AFTER", 0.05)
    server.free.clear()
    threading.Timer(0.4, server.free.set).start()
    with client.RemoteStream(url, timeout=30) as stream:
        assert stream.push(one(1)) == 1


def test_two_threads_of_a_remote_stream(echo):
    server, url = echo
    with client.RemoteStream(url, timeout=30) as stream, ThreadPoolExecutor(1) as other:
        server.free.clear()
        first = other.submit(stream.push, one(1))
        while not stream.started:
            time.sleep(0.01)
        for call in (lambda: stream.push(one(2)), stream.finish):
            with pytest.raises(RuntimeError, match="another push of this stream"):
                call()
        server.free.set()
        assert first.result() == 1 and stream.push(one(3)) == 3
        server.free.clear()
        last = other.submit(stream.push, one(4))
        while stream._asked < 3:
            time.sleep(0.01)
        stream.__exit__()  # does not wait for the other thread's 30 s
        with pytest.raises(client.ServerError, match=OVER):
            last.result(timeout=10)


def test_a_connection_that_ended_between_pushes_says_why():
    with client.RemoteStream("127.0.0.1:9") as stream:
        while stream._answers.empty():
            time.sleep(0.01)
        with pytest.raises(client.ServerError, match=r"no connection to the server: .*refused"):
            stream.push(one(1))


def test_a_server_that_hangs_holds_nobody(echo):
    echo[0].hangs = True
    for codes in ([["a"]], one(1)):
        with (
            pytest.raises((CodesError, client.ServerError)),
            client.RemoteStream(echo[1], timeout=0.2) as stream,
        ):
            stream.push(codes)


def test_streams_leave_no_threads(echo):
    def some():
        for _ in range(3):
            with client.RemoteStream(echo[1]) as stream:
                stream.push(one(1))

    some()
    before = threading.active_count()
    some()
    assert threading.active_count() <= before


def test_a_remote_stream_of_asyncio_says_what_became_of_it(echo):
    server, url = echo

    async def talk():
        async with (
            triton_client.triton_aio.InferenceServerClient(url) as shared,
            client.AsyncRemoteStream(url, client=shared) as two,
            client.AsyncRemoteStream(url, client=shared) as cancelled,
            client.AsyncRemoteStream(url, client=shared, timeout=0.2) as late,
        ):
            assert [(await stream.push(one(1))).item() for stream in (two, cancelled, late)] == [1, 1, 1]
            server.free.clear()
            first = asyncio.create_task(two.push(one(2)))
            await asyncio.sleep(0)
            for call in (two.push(one(3)), two.finish()):
                with pytest.raises(RuntimeError, match="another push of this stream"):
                    await call
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cancelled.push(one(2)), 0.2)
            with pytest.raises(client.ServerError, match=rf"no answer within 0\.2 s; {OVER}"):
                await late.push(one(2))
            assert await asyncio.to_thread(server.cut.acquire, timeout=10)
            assert await asyncio.to_thread(server.cut.acquire, timeout=10)
            server.free.set()
            for stream, why in ((cancelled, "CancelledError"), (late, "no answer")):
                for call in (stream.push(one(3)), stream.finish()):
                    with pytest.raises(client.ServerError, match=f"{OVER}; .*{why}"):
                        await call
            assert await first == 2 and await two.push(one(4)) == 4  # the shared client is none of the worse

    asyncio.run(talk())


def test_who_has_closed_a_connection_is_said(echo):
    server, url = echo

    async def talk():
        async with client.AsyncRemoteStream(url) as stream:
            await stream.push(one(1))
            server.closes = True
            with pytest.raises(client.ServerError, match=f"no connection to the server: it has closed it; {OVER}"):
                await stream.push(one(2))
        server.closes = False
        async with triton_client.triton_aio.InferenceServerClient(url) as shared:
            stream = await client.AsyncRemoteStream(url, client=shared).__aenter__()
            server.free.clear()
            waits = asyncio.create_task(stream.push(one(1)))
            await asyncio.sleep(0.1)
        with pytest.raises(client.ServerError, match="closed on this side"):  # and not CancelledError
            await waits
        await stream.__aexit__()

    asyncio.run(talk())


def test_the_simulation_takes_one_request_of_a_sequence_at_a_time(exact):
    server = SimulatedServer(repository.config(exact.spec, "onnxruntime"), exact.run)
    server.execute([Request(7, random_codes_of(exact, 2, 0), start=True)])
    before = server.states[7]
    for second, words in ((7, "sequence 7 has two requests at once"), (8, "sequence 8 must begin with a start")):
        codes = random_codes_of(exact, 2, 1)
        with pytest.raises(ValueError, match=words):
            server.execute([Request(7, codes, start=True), Request(second, codes)])
        assert server.states[7] is before and [*server.states] == [7]


def test_what_crashes_too_often_is_left(monkeypatch, capsys):
    server = SimpleNamespace(crashed=lambda: "the server ended (SIGSEGV)", url="here", folder="folder", starts=0)
    server.restart = lambda: setattr(server, "starts", server.starts + 1)
    with pytest.raises(RuntimeError, match=r"crashed 6 times in 600 s \(the server ended \(SIGSEGV\)\)"):
        serving._keep_running(server)
    assert server.starts == 5 and "(5 of 5)" in capsys.readouterr().out
