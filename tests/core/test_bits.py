"""Fewer bits: the same states and schedules as in float32, and an SNR that is measured, written into the file and held.

How far 8 bits are from float32 is a property of the weights: on the demo at least 35 dB, on random weights less, since
they pass every noise on. Tests on random weights compare a graph with its own wrapper, or two ways to run one graph.
"""

import json
import shutil
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import mostly_slow, random_codes, slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen3_codec import demo
from qwen3_codec.cli import main as cli
from qwen3_codec.exporting.export import export, exported
from qwen3_codec.exporting.precision import int8
from qwen3_codec.exporting.precision.export import export_in, measured, sensitivity, wrapper_in
from qwen3_codec.exporting.precision.integers import BlockProduct, IntegerProduct
from qwen3_codec.exporting.tracing import ExportError
from qwen3_codec.model import checkpoint
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.model.snake import COARSE, PRECISE, sine_squared
from qwen3_codec.runtime import CodecSession, GraphError
from qwen3_codec.runtime.measured_snr import FLOAT16, FLOAT32, INT8, MeasuredSnr, fingerprint, measured_snr_of
from qwen3_codec.runtime.metrics import max_error, snr_db
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.fixed import FixedAxes
from qwen3_codec.streaming.session import TorchSession
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper
from qwen3_codec.verification.decoder import verify
from qwen3_codec.verification.graph import wrapper_like

ANY = float("-inf")  # random weights are held to no SNR
FRAMES = 36  # that the SNR is measured on


def made(loaded, name, folder, **options):
    codes = checkpoint.example_codes(loaded, FRAMES)
    write = export if name == FLOAT32 else partial(export_in, name, codes=codes, **options)
    done = write(loaded, wrapper_in(loaded, name), folder / f"{name}.onnx")
    assert done.warnings == ()
    return CodecSession(done.path, 1)


@pytest.fixture(scope="module")
def speech():
    return checkpoint.load("demo")


class Made(dict):
    """Sessions by their precision, each made when it is asked for."""

    def __init__(self, make):
        self.make = make

    def __missing__(self, precision):
        return self.setdefault(precision, self.make(precision))


@pytest.fixture(scope="module")
def sessions(speech, demo_graphs, tmp_path_factory):
    """The demo's exact graph in each precision, exported with the default accuracy bounds."""
    folder = tmp_path_factory.mktemp("bits")

    def make(name):
        if name == FLOAT32:
            return CodecSession(exported(speech, wrapper_in(speech, FLOAT32), demo_graphs / "exact.onnx"), 1)
        return made(speech, name, folder)

    return Made(make)


# float16 on the demo is page 8's too, and on other weights test_bench.py's.
REDUCED = [INT8, slow(FLOAT16)]


@pytest.fixture(scope="module")
def tiny_int8(tiny, tmp_path_factory):
    return made(tiny, INT8, tmp_path_factory.mktemp("tiny"), least_snr_db=ANY)


@pytest.fixture(scope="module")
def passage(speech):
    """Codes of speech and the one-shot waveform, past the attention window."""
    codes = checkpoint.example_codes(speech, 90)
    return codes, one_shot(speech.decoder, codes)


@pytest.fixture(scope="module")
def beginning(passage):
    codes, wanted = passage
    return codes[:, :FRAMES], wanted[:, : wanted.shape[1] // codes.shape[1] * FRAMES]


class TestProducts:
    @pytest.mark.parametrize("width", [1, 64, 128, 200])
    @pytest.mark.parametrize(("product", "least"), [(BlockProduct, 35), (IntegerProduct, 33)])
    def test_near_float32_at_any_width(self, product, least, width):
        generator = torch.Generator().manual_seed(width)
        weight, bias = torch.randn(48, width, generator=generator), torch.randn(48, generator=generator)
        x = torch.randn(2, 9, width, generator=generator)
        wanted = (x.double() @ weight.double().T + bias).numpy()
        assert snr_db(wanted, product(weight, bias)(x).numpy()) > least

    def test_two_terms_leave_the_noise_of_the_weights(self):
        generator = torch.Generator().manual_seed(0)
        weight, x = torch.randn(8, 300, generator=generator), torch.randn(3, 20, 300, generator=generator)
        product = IntegerProduct(weight, None, terms=2)
        exact = x.double() @ (product.weight.double() * product.scale.double())
        # 8 + 8 bits less the half step that symmetry costs: 6.02 dB a bit, some 12 dB for the peaks of noise.
        assert snr_db(exact.numpy(), product(x).numpy()) > 78

    @pytest.mark.parametrize("terms", [1, 2])
    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
    def test_a_bad_row_does_nothing_to_the_others(self, terms, bad):
        generator = torch.Generator().manual_seed(1)
        product = IntegerProduct(torch.randn(5, 16, generator=generator), torch.zeros(5), terms)
        x = torch.randn(3, 7, 16, generator=generator)
        alone = product(x)
        x[1, 2] = bad
        beside = product(x)
        assert torch.equal(beside[[0, 2]], alone[[0, 2]])

    @pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
    @pytest.mark.parametrize("terms", [1, 2])
    def test_a_constant_row(self, terms, value):
        product = IntegerProduct(torch.ones(2, 4), torch.tensor([0.0, 1.0]), terms)
        found = product(torch.full((1, 3, 4), value))
        np.testing.assert_allclose(found, torch.tensor([4 * value, 4 * value + 1]).expand(1, 3, 2), atol=0.02)

    def test_the_sine_is_one(self):
        t = torch.linspace(-3, 3, 4001, dtype=torch.float64)
        for form, within in ((COARSE, 3.2e-4), (PRECISE, 2.4e-8)):
            assert max_error(torch.sin(torch.pi * t) ** 2, sine_squared(t, form)) < within


def test_convolutions_are_such_as_onnxruntime_is_quick_with(tiny_exact, tiny):
    """In two dimensions and with weights that are there at loading: else it does not take its blocked layout."""
    graph = onnx.load(tiny_exact).graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    convs = [weights.get(node.input[1], ()) for node in graph.node if node.op_type == "Conv"]
    units = 3 * len(tiny.decoder.config.upsample_rates)  # with two convolutions each
    assert sum(len(dims) == 4 for dims in convs) >= 2 * units


class TestOnSpeech:
    @pytest.mark.parametrize("name", REDUCED)
    def test_the_measured_snr(self, sessions, name):
        reached, least = {INT8: (35, 30), FLOAT16: (60, 50)}[name]
        found = measured_snr_of(sessions[name].metadata)
        assert found.snr_db >= reached and found.least_snr_db == least
        assert measured_snr_of(sessions[FLOAT32].metadata) is None
        assert sessions[name].spec == sessions[FLOAT32].spec

    @pytest.mark.parametrize("bits", REDUCED)
    @pytest.mark.parametrize(
        "name", mostly_slow([record.name for record in demo.utterances()], ["en_small", "zh_again"])
    )
    def test_every_utterance_is_understood_as_well(self, name, bits, sessions):
        stoi = pytest.importorskip("pystoi").stoi
        recording, rate = demo.recording(name)
        clear = [stoi(recording, sessions[each].decode(demo.codes(name), [3])[0], rate) for each in (bits, FLOAT32)]
        assert abs(clear[0] - clear[1]) < 0.003

    @pytest.mark.parametrize("name", REDUCED)
    def test_verify_holds_it_to_its_bound(self, name, sessions, speech):
        session = sessions[name]
        codes = checkpoint.example_codes(speech, FRAMES)
        wrapper = wrapper_like(speech, session)
        assert isinstance(wrapper, int8.Int8StreamingWrapper) == (name == "int8")
        report = verify(speech, wrapper, codes, [[3], [7, 1, 2]], session)
        assert report.passed, report.failures
        assert report.limits.min_snr_db == pytest.approx(measured_snr_of(session.metadata).snr_db - 0.5)

    def test_verify_fails_where_the_bound_is_not_met(self, sessions, speech, tmp_path):
        model = onnx.load(sessions["int8"].path)
        metadata = sessions["int8"].metadata | {"snr_db": "47.0"}
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, tmp_path / "boast.onnx")
        session = CodecSession(tmp_path / "boast.onnx", 1)
        codes = checkpoint.example_codes(speech, FRAMES)
        report = verify(speech, wrapper_in(speech, "int8"), codes, [[12]], session)
        assert not report.passed and "the bound is 46.5" in str(report)

    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(schedule=st.lists(st.integers(1, 40), min_size=1, max_size=5))
    def test_any_schedule(self, sessions, passage, schedule):
        codes, wanted = passage
        assert snr_db(wanted, sessions["int8"].decode(codes, schedule)) > 33  # 35 is the bound for three of them

    def test_a_stream_changes_over_in_mid_sentence(self, sessions, passage, tmp_path):
        codes, wanted = passage
        stream = sessions["float32"].stream()
        pieces = [stream.push(codes[:, :30])]
        stream = stream.move_to(sessions["int8"])
        pieces.append(stream.push(codes[:, 30:60]))
        stream.save(tmp_path / "stream.npz")
        pieces.append(stream.move_to(sessions["float32"]).push(codes[:, 60:]))
        third = wanted.shape[1] // 3
        snr = [snr_db(wanted[:, i * third : (i + 1) * third], piece) for i, piece in enumerate(pieces)]
        assert snr[0] > 80 and snr[1] > 30 and snr[2] > snr[1]
        again = sessions["float32"].load_stream(tmp_path / "stream.npz").push(codes[:, 60:])
        np.testing.assert_array_equal(again, pieces[2])

    def test_a_stream_does_not_move_to_other_weights(self, sessions, tiny_exact):
        with pytest.raises(ValueError, match="another state spec and another weights sha256"):
            sessions["int8"].stream().move_to(CodecSession(tiny_exact))

    def test_rows_and_chunks_are_rounded_otherwise_and_no_worse(self, sessions, beginning):
        codes, wanted = beginning
        others = np.concatenate([codes, *(np.roll(codes, k, axis=1) for k in range(1, 8))])
        alone = sessions["int8"].decode(codes, [3])
        beside = sessions["int8"].decode(others, [3])[:1]
        # A row has its own scales. More rows change the order of sums alone, which moves values over an edge.
        assert snr_db(alone, beside) > 38  # 39.7 measured
        assert snr_db(sessions["int8"].decode(codes, [1]), sessions["int8"].decode(codes, [12])) > 33
        assert snr_db(wanted, beside) > 35

    @pytest.mark.parametrize("bad", [np.nan, 1e4])
    def test_a_bad_row_of_a_batch(self, sessions, passage, bad):
        codes = np.repeat(passage[0][:, :24], 2, axis=0)
        pair = sessions["int8"].stream(2)
        pair.push(codes[:, :12])
        alone = pair.fork([0])
        pair.state = {name: array.copy() for name, array in pair.state.items()}
        for name, array in pair.state.items():
            if name != "past_frames":
                array[1] = bad
        beside = pair.push(codes[:, 12:])[0]
        assert np.isfinite(beside).all() and snr_db(alone.push(codes[:1, 12:])[0], beside) > 40

    def test_sensitivity_names_every_kind_once(self, speech):
        rows = sensitivity(speech, frames=12)
        blocks = len(speech.decoder.config.upsample_rates)
        assert {row.kind for row in rows} == set(int8.PRODUCT_OF_KIND)
        assert len({(row.kind, row.block) for row in rows}) == len(rows) == len(int8.PRODUCT_OF_KIND) - 3 + 3 * blocks
        assert min(rows, key=lambda row: row.snr_db).kind == "transposed"
        assert all(35 < row.snr_db < 60 for row in rows)


class TestAnyConfig:
    def test_int8_does_what_its_wrapper_does(self, everything, tmp_path):
        """Its states too: `verify` compares each after every call."""
        session = made(everything, "int8", tmp_path, least_snr_db=ANY)
        codes = random_codes(everything.decoder, 2 * everything.decoder.config.sliding_window + 3, batch=2)
        wrapper = wrapper_like(everything, session)
        graph, torch_ = (s.stream(2).run(codes, [7, 1, 2]) for s in (session, TorchSession(wrapper)))
        assert snr_db(torch_, graph) > 15  # random weights; a wrong tap or state is below 5
        assert snr_db(one_shot(everything.decoder, codes), graph) > 8

    @pytest.mark.slow
    def test_float16(self, everything, tmp_path):
        session = made(everything, "float16", tmp_path, least_snr_db=ANY)
        codes = random_codes(everything.decoder, 30)
        assert snr_db(one_shot(everything.decoder, codes), session.decode(codes, [7, 1, 2])) > 35

    def test_all_in_float32_it_is_the_exact_wrapper(self, other):
        """With another table nothing is rounded, and what is left is the other layout and the shorter sine."""
        wrapper = int8.Int8StreamingWrapper(other.decoder, lambda kind, block: int8.FLOAT)
        for module in wrapper.modules():
            if isinstance(module, int8.StepSnake):
                module.form = PRECISE
        codes = random_codes(other.decoder, 24)
        report = verify(other, wrapper, codes, [[1], [7, 1, 2], [24]])
        assert report.passed, report.failures

    @pytest.mark.slow
    def test_dynamo(self, tiny, tmp_path):
        """float16 is made of the float32 graph, which other tests export so; 8 bits are a wrapper of their own."""
        session = made(tiny, "int8", tmp_path, exporter="dynamo", least_snr_db=ANY)
        codes = random_codes(tiny.decoder, 20)
        assert snr_db(one_shot(tiny.decoder, codes), session.decode(codes, [3, 1])) > 12
        assert measured_snr_of(session.metadata).precision == "int8"

    def test_fixed_axes(self, tiny, tmp_path):
        wrapper = FixedAxes(wrapper_in(tiny, INT8), frames=3, batch=2)
        path = export_in(INT8, tiny, wrapper, tmp_path / "fixed.onnx", least_snr_db=ANY).path
        session = CodecSession(path, 1)
        assert session.stream().push(np.zeros((2, 3, session.spec.num_quantizers), np.int64)).shape[0] == 2

    @pytest.mark.parametrize("frames", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
    def test_states_after_many_frames_are_no_further_off(self, tiny, tiny_exact, tiny_int8, frames):
        codes = random_codes(tiny.decoder, frames)
        streams = [session.stream() for session in (CodecSession(tiny_exact, 1), tiny_int8)]

        def apart(part):
            for stream in streams:
                stream.push(part)
            states = [np.concatenate([a.ravel() for n, a in s.state.items() if n != "past_frames"]) for s in streams]
            return snr_db(*states)

        early, late = apart(codes[:, :200]), apart(codes[:, 200:])
        assert late > early - 1  # dB; the codes are others, so the noise is another one


def test_less_than_the_bound_is_not_written(tiny, tmp_path):
    with pytest.raises(ExportError, match=r"int8 comes to \d\d\.\d dB against float32 on tiny: .*, the least is 50"):
        export_in(INT8, tiny, wrapper_in(tiny, INT8), tmp_path / "x.onnx", least_snr_db=50)
    assert not [*tmp_path.iterdir()]


def test_one_precision_is_not_taken_for_another(tiny, tiny_exact, tmp_path):
    """A float32 graph is within 8 bits' tolerance; a run cannot tell, so the metadata must."""
    path = tmp_path / "graph.onnx"
    shutil.copy(tiny_exact, path)
    wrapper = wrapper_in(tiny, INT8)
    options = {"codes": random_codes(tiny.decoder, FRAMES), "write": exported}
    export_in(INT8, tiny, wrapper, path, least_snr_db=ANY, **options)
    first = path.stat().st_mtime_ns
    assert measured_snr_of(CodecSession(path).metadata).precision == INT8
    export_in(INT8, tiny, wrapper, path, least_snr_db=ANY, **options)
    assert path.stat().st_mtime_ns == first
    with pytest.raises(ExportError, match="the least is 60"):
        export_in(INT8, tiny, wrapper, path, least_snr_db=60, **options)
    assert path.stat().st_mtime_ns == first
    exported(tiny, ExactStreamingWrapper(tiny.decoder), path)
    assert measured_snr_of(CodecSession(path).metadata) is None


def test_a_design_without_an_8_bit_form(shallow, tmp_path):
    with pytest.raises(ValueError, match="int8 is there for the exact decoder, this is the windowed decoder"):
        export_in(INT8, shallow, StatefulCodecONNXWrapper(shallow.decoder, 2, 0), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="float32 is not reduced"):
        export_in(FLOAT32, shallow, ExactStreamingWrapper(shallow.decoder), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="precision is 'int4', must be one of float32, float16, int8"):
        wrapper_in(shallow, "int4")


def test_a_measured_snr_in_words_and_back():
    measured = MeasuredSnr(INT8, 36.125, 30.0, "ab")
    assert measured_snr_of(measured.entries()) == MeasuredSnr(INT8, 36.12, 30.0, "ab")
    assert "36.1 dB" in str(measured)
    codes = np.arange(6).reshape(1, 3, 2)
    assert fingerprint(codes) == fingerprint(codes[0]) != fingerprint(codes.reshape(1, 2, 3))
    assert MeasuredSnr(INT8, 36.0, 30.0, fingerprint(codes)).least(codes) == 35.5
    assert measured.least(codes) == 30
    with pytest.raises(ValueError, match="its precision is int8, and its measured SNR cannot be read"):
        measured_snr_of({"precision": INT8})


def test_an_older_runtime_is_told_what_is_missing(sessions, tmp_path, monkeypatch):
    broken = tmp_path / "int8.onnx"
    broken.write_bytes(sessions["int8"].path.read_bytes().replace(b"MatMulNBits", b"MatMulNBats"))
    with pytest.raises(GraphError, match="truncated or not an ONNX graph"):
        CodecSession(broken)
    monkeypatch.setattr(onnxruntime, "__version__", "1.20.3")
    with pytest.raises(GraphError, match=r"it needs ONNX Runtime 1\.22 or newer, this is 1\.20\.3"):
        CodecSession(broken)


def test_the_command(shallow, tmp_path, capsys):
    checkpoint.save(shallow, tmp_path / "weights")
    np.save(tmp_path / "codes.npy", random_codes(shallow.decoder, 40)[0])
    weights, codes = ["--checkpoint", str(tmp_path / "weights")], ["--codes", str(tmp_path / "codes.npy")]
    path = str(tmp_path / "int8.onnx")
    export = ["export", *weights, "--precision", "int8", "--output", path]
    assert cli.main([*export, *codes, "--min-snr", "60"]) == 2
    assert "a lower one is for you to name" in capsys.readouterr().err
    assert cli.main([*export, *codes]) == 0
    assert "dB against float32, held to at least 30" in capsys.readouterr().out
    assert cli.main(["describe", path]) == 0
    assert "precision: int8, 3" in capsys.readouterr().out
    assert cli.main(["verify", path, *weights, *codes, "--chunks", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["limits"]["min_snr_db"] > 30
    assert cli.main(["selftest", path]) == 0
    assert cli.main(["export", "--min-snr", "40", "--output", path]) == 2
    assert "--codes and --min-snr are for --precision int8 and float16" in capsys.readouterr().err


def test_the_measure_is_the_worst_of_its_chunks(speech, sessions, beginning):
    codes, wanted = beginning
    snr = [snr_db(wanted, sessions["int8"].decode(codes, [n])) for n in (1, 3, 12)]
    assert measured(speech, sessions["int8"], INT8, codes, 30).snr_db == pytest.approx(min(snr), rel=1e-5)
