"""The client: streams that can fail, fork, finish and start again, without torch."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import random_codes
from hypothesis import given
from hypothesis import strategies as st

from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime import CodecSession, CodesError, GraphError
from qwen3_codec.runtime.graph_file import read_graph
from qwen3_codec.runtime.metrics import MAX_ERROR, chunks


@pytest.fixture(scope="module")
def codes(small):
    return random_codes(small.decoder, 40)


@pytest.fixture(scope="module")
def waveform(small, codes):
    return one_shot(small.decoder, codes)


def test_whole_stream(session, codes, waveform):
    for schedule in ([3], [1, 5], [40]):
        np.testing.assert_allclose(session.decode(codes[0], schedule), waveform, atol=MAX_ERROR)


def test_finish_gives_what_last_would_have_given(session, codes):
    known, unknown = session.stream(), session.stream()
    for part in chunks(codes[:, :20], [5]):
        known.push(part)
        unknown.push(part)
    told = known.push(codes[:, 20:23], last=True)
    learned = np.concatenate([unknown.push(codes[:, 20:23]), unknown.finish()], axis=1)
    np.testing.assert_array_equal(told, learned)
    assert known.finish().shape == (1, 0) and unknown.finish().shape == (1, 0)


def test_a_stream_shorter_than_the_look_ahead(session, codes, waveform):
    stream = session.stream()
    assert stream.push(codes[:, :2]).shape == (1, 0)
    np.testing.assert_allclose(stream.finish(), waveform[:, : 2 * 1920], atol=MAX_ERROR)
    np.testing.assert_array_equal(session.stream().finish(), np.zeros((1, 0)))


def test_a_finished_stream_says_so_until_reset(session, codes):
    stream = session.stream()
    first = stream.push(codes[:, :9], last=True)
    with pytest.raises(RuntimeError, match="reset"):
        stream.push(codes[:, :1])
    stream.reset()
    np.testing.assert_array_equal(stream.push(codes[:, :9], last=True), first)


def test_a_fork_and_its_origin_do_not_see_each_other(session, codes):
    stream = session.stream()
    stream.push(codes[:, :10])
    fork = stream.fork()
    other = fork.push(codes[:, 30:38])
    np.testing.assert_array_equal(stream.fork().push(codes[:, 30:38]), other)
    again = stream.push(codes[:, 10:18])
    assert fork.frames == stream.frames == [18] and not np.array_equal(again, other)


def test_batch_rows_equal_single_streams(session, small):
    codes = random_codes(small.decoder, 30, batch=3)
    together = session.decode(codes, [4])
    for row in range(3):
        np.testing.assert_allclose(together[row], session.decode(codes[row], [4])[0], atol=MAX_ERROR)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.astype(np.float32), "codes are float32, must be integers"),
        (lambda c: np.where(c == c[0, 1, 2], np.nan, 1.0), r"first NaN is at \[0, "),
        (lambda c: c.astype(bool), "codes are bool"),
        (lambda c: c[:, :0], "N is 0"),
        (lambda c: c[..., :15], r"shape \[1, 3, 15\], must be \[N, 16\]"),
        (lambda c: c[None], r"shape \[1, 1, 3, 16\]"),
        (lambda c: np.repeat(c, 2, axis=0), "2 rows, the stream has 1"),
        (lambda c: np.where(np.arange(16) == 5, 64, c), "code 64 at row 0, frame 0, codebook 5 is outside 0..63"),
        (lambda c: np.where(np.arange(16) == 15, -1, c), "code -1 at row 0, frame 0, codebook 15"),
    ],
)
def test_wrong_codes_are_named_and_change_nothing(session, codes, change, words):
    stream, untouched = session.stream(), session.stream()
    for each in (stream, untouched):
        each.push(codes[:, :5])
    with pytest.raises(CodesError, match=words):
        stream.push(change(codes[:, 5:8].copy()))
    np.testing.assert_array_equal(stream.push(codes[:, 5:8]), untouched.push(codes[:, 5:8]))


def test_a_failing_run_changes_nothing(session, codes, monkeypatch):
    stream = session.stream()
    stream.push(codes[:, :5])
    before = dict(stream.state)
    monkeypatch.setattr(session, "run", lambda feeds: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        stream.push(codes[:, 5:8])
    assert stream.frames == 5 and all(stream.state[name] is array for name, array in before.items())


def test_small_integer_codes_are_taken(session, codes):
    np.testing.assert_array_equal(session.decode(codes.astype(np.uint8), [9]), session.decode(codes, [9]))


def edited(graph, tmp_path, edit):
    model = onnx.load(graph)
    edit(model)
    onnx.save(model, tmp_path / "edited.onnx")
    return tmp_path / "edited.onnx"


def set_metadata(model, key, value):
    entry = next(entry for entry in model.metadata_props if entry.key == key)
    entry.value = value


def remove_format(model):
    entries = [entry for entry in model.metadata_props if entry.key != "format_version"]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: set_metadata(m, "format_version", "2"), "format version 2, this package reads 1"),
        (remove_format, "not written by qwen3_codec"),
        (lambda m: set_metadata(m, "state_spec", "{"), "state_spec cannot be read"),
        (
            lambda m: set_metadata(m, "state_spec", m.metadata_props[2].value.replace("latent_buf", "latent")),
            "inputs are not those of its metadata; they differ in latent",
        ),
        (
            lambda m: setattr(m.graph.input[5].type.tensor_type.shape.dim[2], "dim_value", 5),
            "input past_key_0: axis 2 .past_seq_0. was frozen at 5",
        ),
    ],
)
def test_a_graph_that_does_not_match_its_metadata_is_refused(graph, tmp_path, edit, words):
    with pytest.raises(GraphError, match=words):
        CodecSession(edited(graph, tmp_path, edit))


def test_missing_and_truncated_files(graph, tmp_path):
    with pytest.raises(GraphError, match="no such file"):
        CodecSession(tmp_path / "none.onnx")
    (tmp_path / "half.onnx").write_bytes(graph.read_bytes()[:100_000])
    with pytest.raises(GraphError, match="truncated or not an ONNX graph"):
        CodecSession(tmp_path / "half.onnx")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\x3a\xff", b"\x80" * 10**6 + b"\0"])
def test_what_is_no_graph(tmp_path, content):
    (tmp_path / "odd.onnx").write_bytes(content)
    with pytest.raises(GraphError, match=r"odd\.onnx: truncated or not an ONNX graph"):
        CodecSession(tmp_path / "odd.onnx")


@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=r"any\.onnx: "):
        read_graph(path)


def test_the_client_loads_no_torch(graph):
    """In a process where torch, transformers and onnx cannot be imported at all."""
    code = f"""
import sys
for name in ("torch", "transformers", "onnx", "onnxscript", "safetensors", "huggingface_hub", "matplotlib", "scipy",
             "soundfile", "IPython", "ipywidgets", "tqdm", "jupytext", "pandas"):
    sys.modules[name] = None
import numpy as np
from qwen3_codec.runtime import CodecSession
session = CodecSession({str(graph)!r})
print(session.decode(np.zeros((5, 16), np.int64), [2]).shape)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "(1, 9600)"
