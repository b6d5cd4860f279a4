"""Files that say what they are and test themselves, and graphs whose axes are fixed."""

import base64
import json

import numpy as np
import onnx
import pytest
from conftest import mostly_slow, random_codes

from qwen3_codec.cli import main as cli
from qwen3_codec.exporting.export import export, exported
from qwen3_codec.model import checkpoint
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime import CodecSession, CodesError
from qwen3_codec.runtime import self_test as selftest
from qwen3_codec.runtime.metrics import MAX_ERROR
from qwen3_codec.spec import StateSpec
from qwen3_codec.streaming.exact import ExactStreamingWrapper, OneShotWrapper
from qwen3_codec.streaming.fixed import FixedAxes
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper
from qwen3_codec.verification.decoder import verify
from qwen3_codec.verification.graph import wrapper_like

MAKE = {
    "exact": ExactStreamingWrapper,
    "windowed": lambda decoder: StatefulCodecONNXWrapper(decoder, 2, 3),
    "one-shot": OneShotWrapper,
    "exact 4x2": lambda decoder: FixedAxes(ExactStreamingWrapper(decoder), 4, 2),
    "exact 1x1": lambda decoder: FixedAxes(ExactStreamingWrapper(decoder), 1, 1),
    "exact 5": lambda decoder: FixedAxes(ExactStreamingWrapper(decoder), frames=5),
    "windowed 4x1": lambda decoder: FixedAxes(StatefulCodecONNXWrapper(decoder, 24, 3), 4, 1),
}


# One of each design, and fixed axes once.
SOON = ["exact", "windowed", "one-shot", "exact 4x2"]


class Made(dict):
    """Each graph is exported when a test asks for it."""

    def __init__(self, loaded, folder):
        self.loaded, self.folder = loaded, folder

    def __missing__(self, name):
        self[name] = export(self.loaded, MAKE[name](self.loaded.decoder), self.folder / f"{name}.onnx").path
        return self[name]


@pytest.fixture(scope="module")
def graphs(shallow, tmp_path_factory):
    return Made(shallow, tmp_path_factory.mktemp("tools"))


@pytest.mark.parametrize("name", mostly_slow(MAKE, SOON))
def test_every_file_carries_its_test_and_passes_it(graphs, name, capsys):
    outcome = selftest.replay(CodecSession(graphs[name]))
    assert outcome.passed and outcome.limit == MAX_ERROR and max(outcome.errors.values()) < 1e-5
    assert len(CodecSession(graphs[name]).metadata[selftest.KEY]) < 6000
    assert cli.main(["selftest", str(graphs[name])]) == 0
    assert "passed: this machine's runtime computes what the exporter did" in capsys.readouterr().out


def changed(path, to, change):
    model = onnx.load(path)
    change(model)
    onnx.save(model, to)
    return to


def test_each_convolution_counts(graphs, tmp_path, capsys):
    """A runtime that computes one operator wrongly, played by a weight that is 1 % off in one place at a time."""
    weights = [w.name for w in onnx.load(graphs["exact"]).graph.initializer if len(w.dims) >= 3 and min(w.dims[:2]) > 4]
    assert len(weights) > 10
    for name in weights[::3]:

        def spoil(model, name=name):
            (weight,) = (w for w in model.graph.initializer if w.name == name)
            array = onnx.numpy_helper.to_array(weight).copy()
            array *= 1.01
            weight.CopyFrom(onnx.numpy_helper.from_array(array, name))

        outcome = selftest.replay(CodecSession(changed(graphs["exact"], tmp_path / "bad.onnx", spoil)))
        assert not outcome.passed, name
    assert cli.main(["selftest", str(tmp_path / "bad.onnx")]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (None, "carries no self-test; export it again"),
        ("{", "its self-test cannot be read"),
        ('{"codes": [[1, 2]], "limit": 1, "runs": []}', "it has no runs"),
        (
            '{"codes": [[1, 2]], "limit": 1, "runs": [{"schedule": [1], "samples": "?"}]}',
            "its self-test cannot be read",
        ),
    ],
)
def test_a_file_without_a_test_says_so(graphs, tmp_path, entry, words):
    def edit(model):
        kept = [prop for prop in model.metadata_props if prop.key != selftest.KEY]
        texts = {prop.key: prop.value for prop in kept} | ({selftest.KEY: entry} if entry else {})
        onnx.helper.set_model_props(model, texts)

    with pytest.raises(ValueError, match=words):
        selftest.replay(CodecSession(changed(graphs["exact"], tmp_path / "x.onnx", edit)))


def test_samples_of_another_length_fail(graphs, tmp_path):
    session = CodecSession(graphs["exact"])
    test = json.loads(session.metadata[selftest.KEY])
    test["runs"][0]["samples"] = base64.b64encode(np.zeros(3, "<f4").tobytes()).decode()
    session.metadata[selftest.KEY] = json.dumps(test)
    assert not selftest.replay(session).passed


def test_a_file_with_its_test_is_found_again(shallow, graphs):
    wrapper = ExactStreamingWrapper(shallow.decoder)
    before = graphs["exact"].stat().st_mtime_ns
    assert exported(shallow, wrapper, graphs["exact"]).stat().st_mtime_ns == before


@pytest.mark.parametrize("name", mostly_slow(MAKE, SOON))
def test_describe_is_enough_to_run_a_graph(graphs, shallow, name, capsys):
    """A client that reads the JSON alone, with ONNX Runtime and no metadata, decodes right."""
    import onnxruntime

    assert cli.main(["describe", str(graphs[name]), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    session = CodecSession(graphs[name])
    assert StateSpec.from_json(json.dumps(about["spec"])) == session.spec
    assert (
        about["metadata"]["weights_sha256"] == shallow.fingerprint() and about["metadata"]["config"]["decoder_config"]
    )

    plain = onnxruntime.InferenceSession(graphs[name])
    feeds = {f: np.full(t["shape"], t["fill"], t["dtype"]) for f, t in about["first_call"]["feeds"].items()}
    batch, frames, _ = about["first_call"]["feeds"]["audio_codes"]["shape"]
    codes = random_codes(shallow.decoder, 3 * frames, batch)
    stream, names = session.stream(batch), list(about["first_call"]["outputs"])
    for index in range(3):
        part = codes[:, index * frames : (index + 1) * frames]
        outputs = dict(zip(names, plain.run(names, feeds | {"audio_codes": part}), strict=True))
        if index == 0:
            assert {n: list(a.shape) for n, a in outputs.items()} == {
                n: t["shape"] for n, t in about["first_call"]["outputs"].items()
            }
        valid = int(outputs["valid_samples"][0]) if "valid_samples" in outputs else None
        np.testing.assert_array_equal(next(iter(outputs.values()))[:, :valid], stream.push(part))
        feeds |= {into: outputs[out] for out, into in about["next_call"].items()}


def test_describe_in_words(graphs, capsys):
    assert cli.main(["describe", str(graphs["windowed"])]) == 0
    words = capsys.readouterr().out
    assert "windowed decoder graph" in words and "past_key_1" in words and "self-test: yes" in words
    assert (
        "At the start 7 states are empty" in words
        and "use an exact graph" in words
        and "3 frames are buffered" in words
    )
    assert cli.main(["describe", str(graphs["exact 4x2"])]) == 0
    words = capsys.readouterr().out
    assert "[2, 4, 16]" in words and "A call takes 4 frames" in words and "empty" not in words


@pytest.mark.parametrize(
    ("name", "frames", "batch"),
    [
        ("exact 4x2", 4, 2),
        pytest.param("exact 1x1", 1, 1, marks=pytest.mark.slow),
        pytest.param("windowed 4x1", 4, 1, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("length", [1, 8, 79])
def test_fixed_axes_are_exact_for_any_length(graphs, shallow, name, frames, batch, length):
    model = onnx.load(graphs[name]).graph.input[0].type.tensor_type.shape
    assert [axis.dim_value for axis in model.dim] == [batch, frames, 16]
    session = CodecSession(graphs[name])
    codes = random_codes(shallow.decoder, length, batch)
    whole = one_shot(shallow.decoder, codes)
    np.testing.assert_allclose(session.decode(codes), whole, atol=MAX_ERROR)
    np.testing.assert_allclose(session.decode(codes, [3 * frames]), whole, atol=MAX_ERROR)
    stream = session.stream()
    stream.push(codes, last=True)
    assert stream.frames.tolist() == [length] * batch and stream.finish().shape == (batch, 0)


def test_rows_and_frames_that_a_fixed_graph_cannot_take(graphs, shallow):
    session = CodecSession(graphs["exact 4x2"])
    codes = random_codes(shallow.decoder, 9, 2)
    stream = session.stream()
    stream.push(codes[:, :4])
    with pytest.raises(CodesError, match="5 frames are no multiple of 4"):
        stream.push(codes[:, 4:9])
    assert stream.frames.tolist() == [4, 4]
    stream.push(codes[:, 4:9], last=True)
    with pytest.raises(ValueError, match="a chunk of 3 frames is no multiple of 4"):
        session.decode(codes, [3])
    with pytest.raises(ValueError, match="takes 2 rows in a call, not 1"):
        session.decode(codes[0])
    with pytest.raises(ValueError, match="takes 2 rows in a call, not 1"):
        session.stream().fork([0])
    with pytest.raises(ValueError, match="takes 2 rows in a call, not 4"):
        session.stream().join(session.stream())
    with pytest.raises(ValueError, match="frames is 0, must be at least 1"):
        FixedAxes(ExactStreamingWrapper(shallow.decoder), 0)


@pytest.mark.slow
def test_one_axis_alone_is_fixed(graphs, shallow):
    session = CodecSession(graphs["exact 5"])
    codes = random_codes(shallow.decoder, 11, 3)
    np.testing.assert_allclose(session.decode(codes), one_shot(shallow.decoder, codes), atol=MAX_ERROR)


def test_a_fixed_graph_is_verified_and_exported_from_the_command_line(shallow, tmp_path, capsys):
    path, weights = str(tmp_path / "fixed.onnx"), str(tmp_path / "weights")
    checkpoint.save(shallow, weights)
    options = ["--checkpoint", weights, "--output", path]
    assert cli.main(["export", *options, "--frames", "4", "--batch", "1"]) == 0
    assert cli.main(["verify", path, "--checkpoint", weights]) == 0
    assert cli.main(["export", *options, "--frames", "0"]) == 2
    assert "frames is 0, must be at least 1" in capsys.readouterr().err
    np.save(tmp_path / "codes.npy", np.zeros((6, 16), np.int64))
    decode = ["decode", path, "--codes", str(tmp_path / "codes.npy"), "--output", str(tmp_path / "x.npy")]
    assert cli.main(decode) == 0 and np.load(tmp_path / "x.npy").shape == (1, 6 * shallow.decoder.samples_per_frame)
    assert cli.main([*decode, "--chunks", "3"]) == 2 and "a chunk of 3 frames" in capsys.readouterr().err


@pytest.mark.slow
def test_dynamo_fixes_axes_too(tiny, tmp_path):
    wrapper = FixedAxes(ExactStreamingWrapper(tiny.decoder), 3, 1)
    done = export(tiny, wrapper, tmp_path / "x.onnx", exporter="dynamo")
    assert done.warnings == ()
    session = CodecSession(done.path)
    codes = random_codes(tiny.decoder, 80)
    report = verify(tiny, wrapper_like(tiny, session), codes, [[3], [9]], session)
    assert report.passed and selftest.replay(session).passed, report
