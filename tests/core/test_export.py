"""Graphs from both exporters: named, dynamic, self-describing, and never written half."""

import json

import onnx
import pytest
import torch
from conftest import random_codes, small_checkpoint

from qwen3_codec.exporting import validate
from qwen3_codec.exporting.check import check_graph
from qwen3_codec.exporting.export import export
from qwen3_codec.exporting.tracing import ExportError, trace
from qwen3_codec.exporting.validate import compare_once, validation_cases
from qwen3_codec.model.receptive_field import conv_receptive_field
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.metrics import MAX_ERROR
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper
from qwen3_codec.verification.decoder import verify
from qwen3_codec.verification.graph import wrapper_like


def test_the_graph_agrees_chunk_by_chunk_and_state_by_state(small, exact_window, session):
    for frames, schedule in ((12, [1]), (90, [7, 1, 2])):
        report = verify(small, exact_window, random_codes(small.decoder, frames, batch=2), [schedule], session)
        assert report.judged and report.passed, str(report)


def test_past_three_hundred_frames(small, exact_window, session):
    report = verify(small, exact_window, random_codes(small.decoder, 410), [[80]], session)
    assert report.judged and report.passed, str(report)


@pytest.mark.slow
def test_dynamo_exports_the_same_wrapper(tiny, tmp_path):
    """Without look-ahead, where slices are empty; page 4 does it with one."""
    wrapper = StatefulCodecONNXWrapper(tiny.decoder, conv_receptive_field(tiny.decoder), lookahead_frames=0)
    done = export(tiny, wrapper, tmp_path / "decoder.onnx", "dynamo")
    assert done.validation_runs == 8 and done.warnings == ()
    report = verify(tiny, wrapper, random_codes(tiny.decoder, 90), [[1], [7, 1, 2]], CodecSession(done.path))
    assert report.judged and report.passed, str(report)


def test_another_config_is_exported(everything, tmp_path):
    wrapper = StatefulCodecONNXWrapper(everything.decoder, 4, 0)
    done = export(everything, wrapper, tmp_path / "decoder.onnx")
    report = verify(everything, wrapper, random_codes(everything.decoder, 40), [[1], [5, 2]], CodecSession(done.path))
    assert report.passed, str(report)


def test_a_client_finds_all_it_needs_in_the_file(small, graph):
    model = onnx.load(graph)
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert (found["format_version"], found["state_kind"], found["exporter"]) == ("1", "windowed", "torchscript")
    assert (found["sample_rate"], found["samples_per_frame"]) == ("24000", "1920")
    assert json.loads(found["config"]) == small.config and found["weights_sha256"] == small.fingerprint()
    assert json.loads(found["versions"])["torch"] == torch.__version__
    assert [value.name for value in model.graph.input] == [t.name for t in CodecSession(graph).spec.all_inputs]
    axes = {value.name: value.type.tensor_type.shape.dim[2].dim_param for value in model.graph.input[5:]}
    assert axes["past_key_3"] == "past_seq_3" and axes["past_value_7"] == "past_seq_7"
    assert not {node.op_type for node in model.graph.node} & {"If", "Loop"}
    assert str(validate.__file__).rsplit("/", 1)[0].encode() not in graph.read_bytes()


class BakedInLength(StatefulCodecONNXWrapper):
    """`int(size)`: the trace keeps the number that it saw."""

    def _transform(self, hidden, past):
        frames = int(hidden.size(1))
        return super()._transform(hidden[:, :frames], past)


class BranchOnLast(StatefulCodecONNXWrapper):
    """`if is_last`: the trace keeps one side and no longer reads the input."""

    def forward(self, audio_codes, is_last, *rest):
        held = 0 if is_last.item() > 0.5 else self.lookahead_frames
        outputs = super().forward(audio_codes, torch.zeros(1), *rest)
        return (outputs[0], outputs[1] + 0 * held, *outputs[2:])


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        # The same graph stops at one length and is wrong at another; then what the exporter said, and where it shows.
        (
            BakedInLength,
            r"(length was frozen|has the shape).*; test_export.py:\d+: int\(hidden.size\(1\)\) becomes a constant; "
            r"baked-in axis: frames \(of audio_codes\) at .*, first in the node Slice ",
        ),
        (BranchOnLast, r"lost the input is_last.*; test_export.py:\d+: is_last.item\(\) becomes a constant"),
    ],
)
def test_a_graph_that_lost_something_is_refused_and_nothing_is_written(tiny, tmp_path, mistake, words):
    path = tmp_path / "decoder.onnx"
    path.write_bytes(b"the graph of yesterday")
    with pytest.raises(ExportError, match=words):
        export(tiny, mistake(tiny.decoder), path, strict=False)
    assert path.read_bytes() == b"the graph of yesterday" and [*tmp_path.iterdir()] == [path]


def test_an_interrupted_export_leaves_nothing(shallow, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(validate, "compare_once", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(shallow, StatefulCodecONNXWrapper(shallow.decoder), tmp_path / "decoder.onnx")
    assert not [*tmp_path.iterdir()]


def test_checks_name_what_is_wrong(shallow, tmp_path):
    wrapper = StatefulCodecONNXWrapper(shallow.decoder)
    trace(wrapper, tmp_path / "draft.onnx", "torchscript")
    model = onnx.load(tmp_path / "draft.onnx")
    check_graph(model, wrapper.spec)
    model.graph.input[2].type.tensor_type.shape.dim[2].dim_value = 2
    with pytest.raises(ExportError, match=r"input pre_conv_h: axis 2 \(pre_conv_frames\) was frozen at 2"):
        check_graph(model, wrapper.spec)
    model.graph.input[2].type.tensor_type.shape.dim[2].dim_param = "pre_conv_frames"
    model.graph.node.append(onnx.helper.make_node("If", ["is_last"], ["odd"]))
    with pytest.raises(ExportError, match="holds If"):
        check_graph(model, wrapper.spec)


def test_probe_runs_cover_lengths_and_both_ends(exact_window, session):
    cases = validation_cases(exact_window.spec)
    assert {case["frames"] for case in cases} == {1, 2, 5, 12} and {case["fill"] for case in cases} == {0, 5, 72}
    assert {case["is_last"] for case in cases} == {True, False} and {case["batch"] for case in cases} == {1, 2}
    assert {(c["fill"], c["is_last"]) for c in cases} == {(fill, last) for fill in (0, 5, 72) for last in (False, True)}
    wrong = StatefulCodecONNXWrapper(small_checkpoint(seed=9).decoder, 10, 4)
    with pytest.raises(ExportError, match="differs from the wrapper"):
        compare_once(wrong, session, cases[0])


def test_unknown_exporter(small, exact_window, tmp_path):
    with pytest.raises(ValueError, match="'tensorrt', must be one of torchscript, dynamo"):
        export(small, exact_window, tmp_path / "x.onnx", "tensorrt")


def test_a_graph_knows_its_checkpoint(small, shallow, session):
    assert wrapper_like(small, session).spec == session.spec
    with pytest.raises(ValueError, match="exported from other weights"):
        wrapper_like(small_checkpoint(seed=3), session)
    with pytest.raises(ValueError, match="interface is not that of the checkpoint"):
        wrapper_like(shallow, session)


def test_non_zero_random_state_gives_equal_states(exact_window, session):
    """From a full random state, as after a long stream: audio and every next state agree."""
    cases = [{"frames": n, "fill": 72, "is_last": last, "batch": 2} for n in (1, 2, 5, 12) for last in (False, True)]
    assert max(compare_once(exact_window, session, case) for case in cases) < MAX_ERROR
