"""What a researcher's change must not escape: a wrapper, a config or a spec that is no longer what it says it is."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_codes, small_checkpoint

from qwen3_codec.cli import main as cli
from qwen3_codec.exporting.export import export, exported
from qwen3_codec.exporting.tracing import ExportError, random_inputs
from qwen3_codec.measure.bench import benchmark
from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint import CheckpointError
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.measured_snr import MeasuredSnr
from qwen3_codec.runtime.metrics import MAX_ERROR, max_error
from qwen3_codec.spec import BATCH, ENCODER, TensorSpec
from qwen3_codec.streaming import exact
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.kv_stack import sliding_window_mask
from qwen3_codec.streaming.layers import StreamingConvTranspose1d
from qwen3_codec.streaming.session import TorchSession
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper
from qwen3_codec.verification.decoder import verify
from qwen3_codec.verification.encoder import verify_encoder
from qwen3_codec.verification.graph import wrapper_like
from qwen3_codec.verification.report import Limits


class Halved(ExactStreamingWrapper):
    """Another waveform behind the same interface."""

    def forward(self, *inputs):
        waveform, *states = super().forward(*inputs)
        return waveform / 2, *states


class TestReuse:
    def test_a_graph_that_does_the_same_is_kept(self, tiny, tmp_path):
        path = exported(tiny, ExactStreamingWrapper(tiny.decoder), tmp_path / "exact.onnx")
        made = path.stat().st_mtime_ns
        exported(tiny, ExactStreamingWrapper(tiny.decoder), path)
        assert path.stat().st_mtime_ns == made

    def test_a_subclass_with_the_same_interface_gets_its_own(self, tiny, tmp_path):
        codes = random_codes(tiny.decoder, 5)
        path = exported(tiny, ExactStreamingWrapper(tiny.decoder), tmp_path / "exact.onnx")
        before = CodecSession(path).decode(codes)
        exported(tiny, Halved(tiny.decoder), path)
        np.testing.assert_allclose(CodecSession(path).decode(codes), before / 2, atol=1e-7)

    def test_a_change_in_a_function_that_the_wrapper_calls(self, tiny, tmp_path, monkeypatch):
        path = exported(tiny, ExactStreamingWrapper(tiny.decoder), tmp_path / "exact.onnx")
        made = path.stat().st_mtime_ns
        original = exact.stream_transformer

        def changed(transformer, hidden, keys, values, **parts):
            hidden, keys, values = original(transformer, hidden, keys, values, **parts)
            return hidden, keys, [2 * value for value in values]  # a state alone: the audio of one call is the same

        monkeypatch.setattr(exact, "stream_transformer", changed)
        exported(tiny, ExactStreamingWrapper(tiny.decoder), path)
        assert path.stat().st_mtime_ns > made


class TestConfig:
    @pytest.mark.parametrize(("name", "value"), [("sliding_window", 35), ("num_hidden_layers", 2)])
    def test_a_field_changed_after_loading_is_told(self, tmp_path, name, value):
        loaded = small_checkpoint("changed")
        before = loaded.config["decoder_config"][name]
        setattr(loaded.decoder.config, name, value)
        words = f"changed: the decoder's {name} was changed to {value}, its config.json says {before}"
        wrapper = ExactStreamingWrapper(loaded.decoder)
        with pytest.raises(CheckpointError, match=words):
            export(loaded, wrapper, tmp_path / "x.onnx")
        with pytest.raises(CheckpointError, match=words):
            verify(loaded, wrapper, random_codes(loaded.decoder, 5))
        assert not [*tmp_path.iterdir()]

    def test_whoever_takes_a_checkpoint_asks(self, tiny, tmp_path):
        """A graph on disk, its wrapper, a benchmark: none of them trusts a config that was changed."""
        wrapper = ExactStreamingWrapper(tiny.decoder)
        session = CodecSession(export(tiny, wrapper, tmp_path / "x.onnx").path)
        tiny.decoder.config.sliding_window += 1
        try:
            for use in (
                lambda: wrapper_like(tiny, session),
                lambda: exported(tiny, wrapper, tmp_path / "x.onnx"),
                lambda: benchmark(tiny, tmp_path / "bench", designs=()),
            ):
                with pytest.raises(CheckpointError, match="the decoder's sliding_window was changed"):
                    use()
        finally:
            tiny.decoder.config.sliding_window -= 1
        wrapper_like(tiny, session)

    @pytest.mark.parametrize(
        ("fields", "name", "value", "told"),
        [
            (lambda encoder: vars(encoder.config), "sliding_window", 12, "sliding_window"),
            (lambda encoder: vars(encoder.config), "head_dim", 2, "head_dim"),
            (lambda encoder: encoder.config.rope_parameters, "rope_theta", 5.0, "rope_theta"),
            (vars, "num_quantizers", 2, "encoder_valid_num_quantizers"),
        ],
    )
    def test_the_encoders_fields_are_asked_too(self, shallow, tmp_path, monkeypatch, fields, name, value, told):
        shallow.check_unchanged(ENCODER)
        wrapper = StreamEncoderWrapper(shallow.encoder)
        monkeypatch.setitem(fields(shallow.encoder), name, value)
        audio = np.zeros(2 * shallow.encoder.samples_per_frame, np.float32)
        words = f"shallow: the encoder's {told} was changed to {value}, its config.json says"
        with pytest.raises(CheckpointError, match=words):
            verify_encoder(shallow, wrapper, audio)
        with pytest.raises(CheckpointError, match=words):
            export(shallow, wrapper, tmp_path / "x.onnx")
        assert not [*tmp_path.iterdir()]
        shallow.check_unchanged()

    def test_an_encoder_of_other_weights_does_not_pass(self, shallow):
        """One shot is the checkpoint's own encoder, not the wrapper's."""
        other = deepcopy(shallow.encoder)
        other.model.downsample.conv.weight.mul_(1.5)
        audio = np.random.default_rng(0).normal(0, 0.1, 3 * shallow.encoder.samples_per_frame).astype(np.float32)
        failed = verify_encoder(shallow, StreamEncoderWrapper(other), audio, [[1]])
        assert not failed.passed and "the first that is not stands in frame 0" in failed.failures[1]
        report = verify_encoder(shallow, StreamEncoderWrapper(shallow.encoder), audio, [[1]])
        assert report.passed and not report.past_window
        assert "these 3 frames do not go past the window: all states are full after 125" in str(report).splitlines()[-1]


class TestVerdicts:
    def test_an_empty_check_fails(self, tiny):
        report = verify(tiny, ExactStreamingWrapper(tiny.decoder), random_codes(tiny.decoder, 5), schedules=[])
        assert report.verdict == "failed" and "nothing was compared" in str(report)

    def test_what_was_not_judged_has_not_passed_and_says_so_in_its_last_line(self, tiny):
        """A file in reduced precision without an accuracy bound: its waveform may be anything, and that is no pass."""
        wrapper = ExactStreamingWrapper(tiny.decoder)
        session = TorchSession(wrapper)
        session.metadata = MeasuredSnr("int8", 40.0, float("-inf"), "of other codes").entries()
        report = verify(tiny, wrapper, random_codes(tiny.decoder, 12), [[3]], session)
        assert report.verdict == json.loads(report.to_json())["verdict"] == "not judged"
        assert not report.failures and not report.passed
        last = str(report).splitlines()[-1]
        assert (
            last.startswith("not judged: the file has no accuracy bound")
            and f"{report.results[1].snr_db:.1f} dB" in last
        )

    def test_both_numbers_of_an_approximate_design_are_shown(self, tiny):
        report = verify(tiny, StatefulCodecONNXWrapper(tiny.decoder, 0, 0), random_codes(tiny.decoder, 12), [[3]])
        (result,) = report.results
        row = next(line for line in str(report).splitlines() if "PyTorch wrapper" in line)
        assert (
            f"{result.oracle_error:.1e}" in row and f"{result.max_error:.1e}" in row and f"{result.snr_db:.1f}" in row
        )
        assert result.oracle_error < 1e-5 < 1e-2 < result.max_error
        entries = json.loads(report.to_json())
        assert entries["judged"] and entries["passed"] and entries["results"][0]["oracle_error"] == result.oracle_error

    def test_exit_codes(self, tiny, tmp_path, capsys):
        checkpoint.save(tiny, tmp_path / "weights")
        weights, path = str(tmp_path / "weights"), str(tmp_path / "x.onnx")
        options = ["--checkpoint", weights, "--output", path]
        check = ["verify", path, "--checkpoint", weights, "--chunks", "12"]
        assert cli.main(["export", "--state", "windowed", *options]) == 0 and cli.main(check) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "passed"
        np.save(tmp_path / "few.npy", random_codes(tiny.decoder, 40)[0])
        assert cli.main([*check, "--codes", str(tmp_path / "few.npy")]) == 0
        assert "these 40 frames do not go past the window" in capsys.readouterr().out.splitlines()[-1]
        assert cli.main(["export", "--state", "exact", *options]) == 0 and cli.main(check) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "passed"


def test_the_commands_own_codes_go_past_any_window(tmp_path, capsys):
    """120 frames do for the official 72, and not for a window of 130."""
    fields = {"num_hidden_layers": 1, "num_quantizers": 3, "upsample_rates": [3], "upsampling_ratios": [2]}
    loaded = small_checkpoint(sliding_window=130, **fields)
    checkpoint.save(loaded, tmp_path / "weights")
    export(loaded, ExactStreamingWrapper(loaded.decoder), tmp_path / "x.onnx")
    command = [
        "verify",
        str(tmp_path / "x.onnx"),
        "--checkpoint",
        str(tmp_path / "weights"),
        "--chunks",
        "20",
        "--json",
    ]
    assert cli.main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["past_window"] and report["frames_to_fill"] == 129 and report["frames"] == 129 + 21


class WithSpec(ExactStreamingWrapper):
    """An exact wrapper whose outputs and spec are changed by two functions."""

    def __init__(self, decoder, outputs=lambda outputs: outputs, spec=lambda spec: spec):
        super().__init__(decoder)
        self.change_outputs, self.change_spec = outputs, spec

    @property
    def spec(self):
        return self.change_spec(super().spec)

    def forward(self, *inputs):
        return self.change_outputs(super().forward(*inputs))


def half_states(spec):
    """Keys and values in half precision."""
    halved = [
        (replace(a, dtype="float16"), replace(b, dtype="float16")) if a.name[:3] in ("key", "val") else (a, b)
        for a, b in spec.states
    ]
    return replace(spec, states=tuple(halved))


class HalfStates(WithSpec):
    """Computes in float32, stores keys and values in 16 bits."""

    def __init__(self, decoder):
        super().__init__(decoder, spec=half_states)

    def transform(self, hidden, keys, values, past_frames, **parts):
        keys, values = [key.float() for key in keys], [value.float() for value in values]
        hidden, keys, values = super().transform(hidden, keys, values, past_frames, **parts)
        return hidden, [key.half() for key in keys], [value.half() for value in values]


class TestInterfaces:
    def test_a_state_of_the_wrong_dtype(self, tiny):
        wrapper = WithSpec(tiny.decoder, lambda outputs: (*outputs[:-1], outputs[-1].half()))
        with pytest.raises(ValueError, match="output next_value_00 is float16, must be float32, as its spec declares"):
            verify(tiny, wrapper, random_codes(tiny.decoder, 3))

    def test_a_wrong_number_of_outputs(self, tiny, tmp_path):
        wrapper = WithSpec(tiny.decoder, lambda outputs: outputs[:-1])
        count = len(wrapper.spec.all_outputs)
        with pytest.raises(ValueError, match=f"returns {count - 1} tensors, its spec declares {count} outputs"):
            verify(tiny, wrapper, random_codes(tiny.decoder, 3))
        with pytest.raises(ValueError, match=f"returns {count - 1} tensors"):
            export(tiny, wrapper, tmp_path / "x.onnx")

    def test_whole_numbers_need_a_limit(self, tiny, tmp_path):
        wrapper = WithSpec(tiny.decoder, spec=lambda spec: replace(spec, limits={}))
        with pytest.raises(ValueError, match="past_frames holds integers, so the spec's limits must say"):
            export(tiny, wrapper, tmp_path / "x.onnx")

    def test_an_output_that_is_no_state(self, tiny, tmp_path):
        loudness = TensorSpec("loudness", (BATCH, 1))
        wrapper = WithSpec(
            tiny.decoder,
            lambda outputs: (outputs[0], outputs[0].square().mean(dim=1, keepdim=True), *outputs[1:]),
            lambda spec: replace(spec, outputs=(*spec.outputs, loudness)),
        )
        session = CodecSession(export(tiny, wrapper, tmp_path / "x.onnx").path)
        codes = random_codes(tiny.decoder, 6)
        assert verify(tiny, wrapper, codes, [[1], [6]], session).verdict == "passed"
        outputs = session.run({"audio_codes": codes, **session.spec.zero_state()})
        np.testing.assert_allclose(
            outputs["loudness"], np.square(outputs["waveform"]).mean(1, keepdims=True), rtol=1e-5
        )

    def test_states_in_half_precision(self, tiny, tmp_path):
        """One rounding to 11 bits is more than the project's limits, which a research wrapper may widen."""
        wrapper, codes = HalfStates(tiny.decoder), random_codes(tiny.decoder, 90)
        with pytest.raises(ExportError, match=r"next_.*more than the tolerance of 5e-05"):
            export(tiny, wrapper, tmp_path / "x.onnx")
        session = CodecSession(export(tiny, wrapper, tmp_path / "x.onnx", tolerance=1e-3).path)
        assert session.stream().state["key_00"].dtype == np.float16
        assert verify(tiny, wrapper, codes, [[3]], session, limits=Limits(1e-2, 1e-5, 1e-3)).verdict == "passed"
        assert verify(tiny, wrapper, codes, [[3]], session, limits=Limits(1e-9, 1e-18, 1e-3)).verdict == "failed"

    def test_another_mask_needs_no_copy_of_forward(self, tiny):
        class FullAttention(ExactStreamingWrapper):
            def transform(self, *inputs):
                def everything(positions, past, window, dtype, past_frames=None):
                    return sliding_window_mask(positions, past, 10**6, dtype, past_frames)

                return super().transform(*inputs, mask=everything)

        window = tiny.decoder.config.sliding_window
        report = verify(tiny, FullAttention(tiny.decoder), random_codes(tiny.decoder, window + 20), [[window + 20]])
        late = [chunk.max_error for chunk in report.results[0].chunks]
        assert report.verdict == "failed" and late[-1] > MAX_ERROR


class FadeIn(ExactStreamingWrapper):
    """Meant to differ: the latents are scaled down."""

    def decode_latents(self, latents, convs):
        return super().decode_latents(latents / 2, convs)


def test_a_reference_for_a_wrapper_that_is_meant_to_differ(tiny):
    codes = random_codes(tiny.decoder, 20)

    def reference(codes):
        with torch.no_grad():
            return tiny.decoder.decode_latent(tiny.decoder.latents(torch.from_numpy(codes)).transpose(1, 2) / 2).numpy()

    assert verify(tiny, FadeIn(tiny.decoder), codes, [[3]]).verdict == "failed"
    assert verify(tiny, FadeIn(tiny.decoder), codes, [[3]], reference=reference).verdict == "passed"
    assert verify(tiny, ExactStreamingWrapper(tiny.decoder), codes, [[3]], reference=reference).verdict == "failed"


class Unflattened(StreamingConvTranspose1d):
    """The layout by `unflatten` and `flatten`, and a `view` of what comes out."""

    def forward(self, x, states):
        x = states.extend(x, self.left_context)
        y = torch.nn.functional.conv1d(x, self.weight, self.bias)
        y = y.unflatten(1, (self.out_channels, self.stride)).transpose(2, 3).flatten(2)
        return y.view(*y.shape)


class Frozen(ExactStreamingWrapper):
    def __init__(self, decoder):
        super().__init__(decoder)
        for module in self.modules():
            if isinstance(module, StreamingConvTranspose1d):
                module.__class__ = Unflattened


def test_what_unflatten_freezes_is_named(tiny, tmp_path):
    with pytest.raises(ExportError, match=r"waveform: axis 0 \(batch\) was frozen at 2") as raised:
        export(tiny, Frozen(tiny.decoder), tmp_path / "x.onnx")
    assert str(tmp_path / "x.onnx") in str(raised.value) and ".part" not in str(raised.value)


@pytest.mark.parametrize("opset", [14, 23])  # the newest of dynamo is in test_exact.py
def test_other_opsets(tiny, tmp_path, opset):
    import onnx

    wrapper = ExactStreamingWrapper(tiny.decoder)
    done = export(tiny, wrapper, tmp_path / "x.onnx", opset=opset)
    assert [entry.version for entry in onnx.load(done.path).opset_import if not entry.domain] == [opset]
    assert verify(tiny, wrapper, random_codes(tiny.decoder, 9), [[1], [4]], CodecSession(done.path)).verdict == "passed"


@pytest.mark.parametrize(("exporter", "opset"), [("torchscript", 13), ("torchscript", 24), ("dynamo", 17)])
def test_untested_opsets_are_refused(tiny, tmp_path, exporter, opset):
    with pytest.raises(ValueError, match=f"opset is {opset}, the exporter {exporter} was tested with"):
        export(tiny, ExactStreamingWrapper(tiny.decoder), tmp_path / "x.onnx", exporter, opset=opset)


def test_a_long_reference_is_decoded_in_exact_pieces(tiny, monkeypatch):
    codes = random_codes(tiny.decoder, 200, batch=2)
    whole = one_shot(tiny.decoder, codes)
    monkeypatch.setattr("qwen3_codec.model.one_shot.PIECE_FRAMES", 30)
    pieces = one_shot(tiny.decoder, codes)
    assert pieces.shape == whole.shape and max_error(whole, pieces) < 1e-5


def test_random_inputs_follow_the_spec(tiny):
    spec = HalfStates(tiny.decoder).spec
    feeds = random_inputs(spec, {"batch": 2, "frames": 3})
    assert all(tensor.problem(feeds[tensor.name], spec.limits) is None for tensor in spec.all_inputs)
    assert TorchSession(HalfStates(tiny.decoder)).run(feeds)["next_key_00"].dtype == np.float16
