"""What an exporter says becomes part of the result, in words with their place; what cannot be exported is named so."""

import math
import warnings

import numpy as np
import pytest
import torch
from conftest import mostly_slow, slow
from torch import nn

from qwen3_codec.cli import main as cli
from qwen3_codec.cli import options
from qwen3_codec.exporting.diagnostics import captured
from qwen3_codec.exporting.diagnostics.wording import described, tells_of_a_loss
from qwen3_codec.exporting.export import export
from qwen3_codec.exporting.precision.export import export_in, wrapper_in
from qwen3_codec.exporting.tracing import EXPORTERS, ExportError, trace
from qwen3_codec.model.checkpoint import OtherModel
from qwen3_codec.model.inspection.places import short
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime import self_test as selftest
from qwen3_codec.runtime.describe import description
from qwen3_codec.spec import StateSpec, TensorSpec, audio_codes_spec
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.fixed import FixedAxes
from qwen3_codec.streaming.session import TorchSession
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper
from qwen3_codec.verification.decoder import verify
from qwen3_codec.verification.parity import parity


class Decay(nn.Module):
    """A codec of one code a frame and one sample a code, with one float state; its spec has no limits."""

    spec = StateSpec(
        design="decay",
        sample_rate=100,
        samples_per_frame=1,
        codebook_size=50,
        inputs=(audio_codes_spec(1),),
        outputs=(TensorSpec("waveform", ("batch", "samples")),),
        states=((TensorSpec("past", ("batch", 1)), TensorSpec("next_past", ("batch", 1))),),
    )

    def forward(self, audio_codes, past):
        waveform = torch.cat([past, audio_codes[..., 0] / 50.0], dim=1)
        return self.change(waveform[:, 1:] + waveform[:, :-1] / 2), waveform[:, -1:]

    def change(self, waveform):
        return waveform


def model_of(wrapper):
    return OtherModel("a decay", wrapper, {})


def decay_with(change):
    """`Decay` whose waveform goes through `change`."""
    return type("Changed", (Decay,), {"change": lambda self, waveform: change(waveform)})()


def one_shot(codes):
    x = codes[..., 0].astype(np.float32) / 50
    return x + np.pad(x, ((0, 0), (1, 0)))[:, :-1] / 2


def branch(x):
    if x.sum() > 0:
        return x * 2
    return x


def checks(x):
    assert x.size(1) > 0, "no samples"
    return x


def rows(x):
    return torch.stack([row * 2 for row in x])


# What the trace says of each, in our words, and whether the graph is refused for it.
TRACED = {
    "int": (lambda x: x * int(x.size(1)), "int(x.size(1)) becomes a constant", True),
    "ceil": (lambda x: x * math.ceil(x.size(1) / 3), "math.ceil(x.size(1) / 3) becomes a constant", True),
    "item": (lambda x: x * x.mean().item(), "x.mean().item() becomes a constant", True),
    "list": (lambda x: x * x.tolist()[0][0], "x.tolist() becomes a constant", True),
    "numpy": (lambda x: x * float(x.numpy()[0, 0]), "x.numpy() becomes a constant", True),
    "len": (lambda x: x * len(x), "len(x) becomes a constant", True),
    "min": (lambda x: x[:, : min(x.size(1), 4)], "min(x.size(1), 4) is decided once, as in the example", True),
    "if": (branch, "x.sum() > 0 is decided once, as in the example", True),
    "for": (rows, "[row * 2 for row in x] is gone through as often as in the example", True),
    "constant": (lambda x: x * torch.tensor(0.5), "torch.tensor(0.5) becomes a constant; right if it is one", False),
    "assert": (checks, "x.size(1) > 0 is decided once, as in the example", False),
}


@pytest.mark.parametrize("name", TRACED)
def test_the_tracers_warnings_in_words(name):
    function, words, lost = TRACED[name]
    with captured() as said:
        torch.jit.trace(function, torch.ones(2, 5), check_trace=False)
    said = [each for each in said if each.category == "TracerWarning"]
    (line,) = described(said)
    assert [tells_of_a_loss(each) for each in said] == [lost] * len(said)
    # What the expression is of a loop or an assert, versions of Python see differently.
    assert line.startswith("test_warnings.py:") and line.endswith(
        words if name not in ("for", "assert") else words[-19:]
    )


def test_a_notebooks_cell_is_called_one():
    assert short("/tmp/ipykernel_123/4567.py") == "cell" and short("/home/me/my_wrapper.py") == "my_wrapper.py"
    assert short(torch.functional.__file__) == "torch/functional.py"


def test_a_key_that_names_nothing_and_a_length_of_one(tmp_path):
    step = decay_with(lambda x: x)
    example = (torch.zeros(2, 5, 1), torch.zeros(2, 1))
    with captured() as said:
        torch.onnx.export(step, example, tmp_path / "x.onnx", dynamo=False, dynamic_axes={"past_0": {0: "batch"}})
    assert described(filter(tells_of_a_loss, said)) == ("dynamic_axes names past_0, which is no input or output",)
    auto = torch.export.Dim.AUTO
    with captured() as said:
        torch.export.export(step, example, dynamic_shapes=({0: auto}, {0: auto, 1: auto}))
    assert described(filter(tells_of_a_loss, said)) == (
        "axis 1 of input past becomes a constant: the example has length 1 there",
    )


def test_a_warning_inside_a_library_names_the_call_too():
    with captured() as said, torch.no_grad():
        nn_lstm = nn.LSTM(1, 2).requires_grad_(False)
        torch.jit.trace(lambda x: nn_lstm(x)[0], torch.zeros(3, 2, 1), check_trace=False)
    found = [each for each in said if each.category == "TracerWarning"]
    assert found and all("torch/nn/modules/rnn.py" in line for line in described(found))
    assert all("(called in test_warnings.py:" in line and "nn_lstm(x)" in line for line in described(found))
    assert not any(map(tells_of_a_loss, found))  # torch ignores them itself


# A branch that no validation run takes: every check passes, and the graph is wrong at 100 frames.
def past_all_probes(x):
    return x * 2 if x.size(1) > 100 else x


class TestStrict:
    def test_what_was_lost_refuses_the_file_where_no_run_shows_it(self, tmp_path, capfd):
        wrapper, path = decay_with(past_all_probes), tmp_path / "x.onnx"
        words = r"^the exporter warns .*lost something: test_warnings.py:\d+: x.size\(1\) > 100 is decided once"
        with pytest.raises(ExportError, match=words):
            export(model_of(wrapper), wrapper, path)
        assert not [*tmp_path.iterdir()]
        done = export(model_of(wrapper), wrapper, path, strict=False)
        assert len(done.warnings) == 1 and done.warnings[0].endswith(
            "x.size(1) > 100 is decided once, as in the example"
        )
        assert [each.category for each in trace(wrapper, path, "torchscript")] == ["TracerWarning"]
        assert capfd.readouterr() == ("", "")

    @pytest.mark.filterwarnings("ignore:made by an older tool")  # the validation runs give it as any run does
    def test_what_nobody_knows_is_told_and_refuses_nothing(self, tmp_path, capfd):
        def chatty(x):
            warnings.warn("made by an older tool", stacklevel=1)
            print("so many:", 3)
            return x * torch.tensor(0.5)

        wrapper = decay_with(chatty)
        done = export(model_of(wrapper), wrapper, tmp_path / "x.onnx")
        known, text, constant = done.warnings
        assert known.startswith("test_warnings.py:") and known.endswith("UserWarning: made by an older tool")
        assert text.startswith("on stdout: so many: 3") and "torch.tensor(0.5) becomes a constant" in constant
        assert "so many" not in capfd.readouterr().err

    def test_the_command(self, tiny, tmp_path, monkeypatch, capsys):
        class Branches(ExactStreamingWrapper):
            def forward(self, audio_codes, *state):
                waveform, *after = super().forward(audio_codes, *state)
                return past_all_probes(waveform[:, :100]) if waveform.size(1) > 10**6 else waveform, *after

        monkeypatch.setattr(options, "wrapper", lambda *_: Branches(tiny.decoder))
        monkeypatch.setattr("qwen3_codec.model.checkpoint.load", lambda *_: tiny)
        command = ["export", "--checkpoint", "random-small", "--output", str(tmp_path / "x.onnx")]
        assert cli.main(command) == 2 and not [*tmp_path.iterdir()]
        line = "waveform.size(1) > 10**6 is decided once, as in the example"
        assert line in capsys.readouterr().err
        assert cli.main([*command, "--no-strict"]) == 0 and (tmp_path / "x.onnx").is_file()
        assert "warning: test_warnings.py:" in (said := capsys.readouterr().err) and line in said


@pytest.mark.parametrize("design", ["exact", "windowed", "fixed", "encoder", "int8", slow("float16")])
def test_right_wrappers_give_no_warning(design, tiny, tmp_path):
    """By dynamo: with the exports of test_exact, test_export, test_tools, test_encoder_graph and test_bits."""
    if design in ("int8", "float16"):
        wrapper = wrapper_in(tiny, design)
        done = export_in(design, tiny, wrapper, tmp_path / "x.onnx", least_snr_db=-100)
    else:
        wrapper = {
            "exact": lambda: ExactStreamingWrapper(tiny.decoder),
            "windowed": lambda: StatefulCodecONNXWrapper(tiny.decoder, 4, 4),
            "fixed": lambda: FixedAxes(ExactStreamingWrapper(tiny.decoder), 3, 1),
            "encoder": lambda: StreamEncoderWrapper(tiny.encoder),
        }[design]()
        done = export(tiny, wrapper, tmp_path / "x.onnx")
    assert done.warnings == ()


@pytest.mark.parametrize("exporter", mostly_slow(EXPORTERS, ["torchscript"]))
def test_a_spec_without_limits(exporter, tmp_path):
    wrapper = Decay()
    done = export(model_of(wrapper), wrapper, tmp_path / "x.onnx", exporter)
    assert wrapper.spec.limits == {} and done.warnings == () and done.validation_runs == 8
    session, codes = CodecSession(done.path), np.random.default_rng(0).integers(50, size=(2, 30, 1))
    checked = parity(done.path, one_shot, codes, [[1], [7, 1, 2]])
    assert checked.passed and not checked.unnoticed
    report = verify(model_of(wrapper), wrapper, codes, [[1], [7, 1, 2]], session, reference=one_shot)
    assert report.passed and report.judged, report
    assert selftest.replay(session).passed and "next_past" in str(description(session))


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_a_state_that_grows_or_counts_needs_a_limit(dtype, tmp_path):
    class Grows(Decay):
        shape = ("batch", "steps") if dtype == "float32" else ("batch", 1)
        spec = StateSpec(
            **{
                **vars(Decay.spec),
                "states": ((TensorSpec("past", shape, dtype), TensorSpec("next_past", shape, dtype)),),
            }
        )

    words = {
        "float32": r"past: axis 1 \(steps\) grows, so the spec's limits must say",
        "int64": "past holds integers",
    }
    with pytest.raises(ValueError, match=words[dtype]):
        export(model_of(Grows()), Grows(), tmp_path / "x.onnx")


class TestWhatCannotBeCompared:
    def test_a_trace_leaves_every_part_in_its_mode(self, tmp_path):
        """The outer module is new, hence in training mode; torch's trace puts all that it holds into the same."""
        wrapper = Decay()
        wrapper.part = nn.Dropout().eval()
        assert wrapper.training
        trace(wrapper, tmp_path / "x.onnx", "torchscript")
        assert wrapper.training and not wrapper.part.training

    def test_training_mode(self, tiny, tmp_path):
        class Dropout(Decay):
            def __init__(self):
                super().__init__()
                self.part = nn.Sequential(nn.Identity(), nn.Dropout(0.1))

            def change(self, waveform):
                return self.part(waveform)

        wrapper, codes = Dropout(), np.zeros((1, 4, 1), np.int64)
        words = r"in training mode: part\.1 \(Dropout\); call its eval\(\) before"
        for run in (
            lambda: export(model_of(wrapper), wrapper, tmp_path / "x.onnx"),
            lambda: verify(model_of(wrapper), wrapper, codes, [[1]], reference=one_shot),
            lambda: TorchSession(wrapper),
        ):
            with pytest.raises(ValueError, match=words):
                run()
        assert export(model_of(wrapper), wrapper.eval(), tmp_path / "x.onnx").warnings == ()
        with pytest.raises(ValueError, match=r"in training mode: .*pre_transformer"):
            TorchSession(ExactStreamingWrapper(tiny.decoder).train())
        tiny.decoder.eval()

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            (lambda x: x + torch.rand_like(x), r"torch\.rand_like\(x\) is random"),
            (lambda x: nn.functional.dropout(x), r"nn\.functional\.dropout\(x\) is random"),
            (lambda x: x + float(np.random.rand()), "outside torch"),
        ],
    )
    def test_random_numbers(self, change, place, tmp_path):
        wrapper, codes = decay_with(change), np.ones((1, 20, 1), np.int64)
        words = "the same input gives two results in waveform: .*" + place
        torch.manual_seed(0)
        with pytest.raises(ValueError, match=words):
            export(model_of(wrapper), wrapper, tmp_path / "x.onnx")
        if "outside" not in place:
            with pytest.raises(ValueError, match=words):
                verify(model_of(wrapper), wrapper, codes, [[1]], reference=one_shot)

    def test_random_numbers_that_change_nothing(self, tmp_path):
        """Attention's operator may draw some, and does not without a dropout."""

        def attention(x):
            square = x[:, None, :, None]
            return nn.functional.scaled_dot_product_attention(square, square, square)[:, 0, :, 0]

        assert TorchSession(decay_with(attention)).run({"audio_codes": np.ones((1, 4, 1), np.int64), **zeros()})


def zeros():
    return {"past": np.zeros((1, 1), np.float32)}


COMPLEX = {
    "stft": lambda x: torch.stft(x, 1, 1, window=torch.ones(1), center=False, return_complex=True)[:, 0].real,
    "view_as_complex": lambda x: torch.view_as_complex(torch.stack([x, x], -1)).real,
    "fft": lambda x: torch.fft.irfft(torch.fft.rfft(x), x.size(1)),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers_are_named_in_one_line(name, tmp_path, capfd):
    wrapper = decay_with(COMPLEX[name])
    with pytest.raises(ExportError) as caught:
        export(model_of(wrapper), wrapper, tmp_path / "x.onnx")
    text = str(caught.value)
    assert text.startswith("the exporter torchscript gives up: test_warnings.py:") and name in text
    assert "gives complex numbers" in text and "\n" not in text and not [*tmp_path.iterdir()]
    assert capfd.readouterr() == ("", "")  # the exporter itself prints the whole graph


def test_dynamos_report_is_told_in_its_gist(tmp_path, capfd):
    def branches(x):
        return x * 2 if x.sum() > 0 else x

    wrapper = decay_with(branches)
    with pytest.raises(ExportError, match=r"gives up: test_warnings.py:\d+: .*data-dependent") as caught:
        export(model_of(wrapper), wrapper, tmp_path / "x.onnx", "dynamo")
    assert len(str(caught.value).splitlines()) <= 4 and capfd.readouterr() == ("", "")
    assert "## Exception summary" in str(caught.value.__context__)
