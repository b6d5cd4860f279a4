"""`parity` on graphs that nobody declared: right ones pass, each wrong one fails, and what is not tested is named."""

import numpy as np
import pytest
import torch
from torch import nn

from qwen3_codec.exporting.diagnostics import captured
from qwen3_codec.runtime import GraphError
from qwen3_codec.verification.parity import PairedGraph, parity


class Echo(nn.Module):
    """y[t] = x[t] + x[t - 2] / 2, and an accumulator that counts samples and is added as it is, times `weight`."""

    def __init__(self, weight=0.01, clamp=np.inf):
        super().__init__()
        self.weight, self.clamp = weight, clamp

    def forward(self, x, past, seen):
        joined = torch.cat([past, x], dim=1)
        count = seen + torch.ones_like(x).cumsum(dim=1)
        y = (joined[:, 2:] + joined[:, :-2] / 2 + self.weight * count).clamp(-self.clamp, self.clamp)
        return y, joined[:, -2:], count[:, -1:]


class Idle(Echo):
    """One state more, which comes out as it went in and does nothing that shows."""

    def forward(self, x, past, seen, idle):
        y, *after = super().forward(x, past, seen)
        return y + 0 * idle[:, :1], *after, idle


def one_shot(x):
    joined = np.pad(x, ((0, 0), (2, 0)))
    return joined[:, 2:] + joined[:, :-2] / 2 + 0.01 * np.arange(1, x.shape[1] + 1, dtype=np.float32)


def exported(module, path, names=("past", "seen"), dynamic=("x", "y")):
    axes = {name: {0: "batch"} for name in [*names, *(f"next_{name}" for name in names)]}
    axes |= {name: {0: "batch", 1: "length"} for name in dynamic}
    with captured():
        torch.onnx.export(
            module,
            (torch.randn(2, 3), *(torch.randn(2, {"past": 2}.get(name, 1)) for name in names)),
            path,
            dynamo=False,
            input_names=["x", *names],
            output_names=["y", *(f"next_{name}" for name in names)],
            dynamic_axes=axes,
        )
    return path


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(0).normal(0, 0.3, (2, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return exported(Echo(), tmp_path_factory.mktemp("parity") / "right.onnx")


def test_a_right_graph_passes_and_every_state_is_tested(right, samples):
    found = parity(right, one_shot, samples, [[1], [3], [7, 1, 2], [20]])
    assert found.passed and not found.unnoticed
    assert list(found.errors) == [(1,), (3,), (7, 1, 2), (20,)] and max(found.errors.values()) < 1e-6
    assert set(found.lost) == {"past", "seen"} and min(found.lost.values()) > 0.05
    assert "2 losses show" in str(found) and str(found).endswith("passed")
    assert found.peak == pytest.approx(np.abs(one_shot(samples)).max())


def test_a_state_that_does_nothing_is_named(tmp_path, samples):
    def reference(x):
        return one_shot(x) - 0.01 * np.arange(1, x.shape[1] + 1, dtype=np.float32)

    found = parity(exported(Echo(weight=1e-9), tmp_path / "x.onnx"), reference, samples)
    assert found.passed and found.unnoticed == ["seen"]
    assert "seen: its loss does not show, so it is NOT tested" in str(found)


@pytest.mark.parametrize("weight", [0.01, 0.02])
def test_a_loss_is_measured_against_the_graphs_own_stream(tmp_path, samples, weight):
    """In a graph that is wrong already, a state that does nothing differs from one shot as much as any other."""
    right_or_wrong = exported(Echo(weight=weight), tmp_path / "x.onnx")
    found = parity(right_or_wrong, one_shot, samples)
    assert found.passed == (weight == 0.01) and not found.unnoticed
    wrong = exported(Idle(weight=2 * weight), tmp_path / "idle.onnx", names=("past", "seen", "idle"))
    found = parity(wrong, one_shot, samples)
    assert not found.passed and found.unnoticed == ["idle"] and found.lost["idle"] == 0
    assert "2 losses show" in str(found)


def test_a_graph_that_gives_no_numbers_shows_no_loss(tmp_path, samples):
    broken = exported(Echo(weight=float("nan")), tmp_path / "x.onnx")
    found = parity(broken, one_shot, samples)
    assert not found.passed and found.unnoticed == ["past", "seen"]


def test_what_a_stream_does_not_fill_is_named(right, samples):
    """`past` holds two samples: full before the last call but one from four calls of one on."""
    fills = {n: parity(right, one_shot, samples[:, :n], [[1]]) for n in (1, 2, 3, 4, 20)}
    assert [found.unfilled for found in fills.values()] == [("past", "seen"), ("past", "seen"), ("past",), (), ()]
    assert str(fills[3]).endswith("passed, but these frames do not fill past: no call began after they were full")
    assert str(fills[20]).endswith("passed")


def test_a_window_that_is_not_full_is_named(exact, shallow):
    """Without metadata: the zeros at the beginning of keys and values are there to be counted."""
    from conftest import random_codes

    from qwen3_codec.model.one_shot import one_shot as whole

    codes = random_codes(shallow.decoder, 30)
    found = parity(exact.path, lambda codes: whole(shallow.decoder, codes), codes, [[5]])
    layers = shallow.decoder.config.num_hidden_layers
    assert found.passed and set(found.unfilled) == {
        f"{kind}_{i:02}" for kind in ("key", "value") for i in range(layers)
    }


def test_one_call_alone_tests_no_state(right, samples):
    assert parity(right, one_shot, samples, [[20]]).unnoticed == ["past", "seen"]


@pytest.mark.parametrize("wrong", [Echo(weight=0.02), Echo(clamp=0.5)])
def test_a_wrong_graph_fails(tmp_path, samples, wrong):
    found = parity(exported(wrong, tmp_path / "x.onnx"), one_shot, samples)
    assert not found.passed and str(found).endswith("FAILED")


def test_another_length_fails(right, samples):
    found = parity(right, lambda x: one_shot(x)[:, 1:], samples)
    assert not found.passed and set(found.errors.values()) == {float("inf")}


def test_nan_does_not_pass(right, samples):
    assert not parity(right, lambda x: one_shot(x) * np.nan, samples).passed


def test_graphs_that_cannot_be_streamed_say_why(tmp_path, right):
    with pytest.raises(GraphError, match="cannot load it"):
        PairedGraph(tmp_path / "nothing.onnx")
    stray = exported(Echo(), tmp_path / "stray.onnx", names=("past", "seen"))
    import onnx

    model = onnx.load(stray)
    for node in model.graph.node:
        node.output[:] = ["next_other" if name == "next_seen" else name for name in node.output]
    model.graph.output[2].name = "next_other"
    onnx.save(model, stray)
    with pytest.raises(GraphError, match="next_other comes out, and no input other takes it"):
        PairedGraph(stray)
    grows = exported(Echo(), tmp_path / "grows.onnx", dynamic=("x", "y", "past"))
    with pytest.raises(GraphError, match=r"the state past is .*: how long is length at the start"):
        PairedGraph(grows)


class LayersFirst(nn.Module):
    """A torch LSTM whose states go in and out as torch has them, [layers, B, hidden]."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 3, num_layers=2)

    def forward(self, x, h, c):
        y, (h, c) = self.lstm(x.transpose(0, 1)[..., None], (h, c))
        return y[..., 0].transpose(0, 1), h, c


@pytest.mark.parametrize("axes", [{}, {1: "batch"}])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_state_whose_first_axis_is_not_the_batch_is_refused(tmp_path, samples, axes, rows):
    """Also two layers for two rows, which the shape alone does not tell apart."""
    names = ["x", "h", "c"], ["y", "next_h", "next_c"]
    with captured():
        torch.onnx.export(
            LayersFirst().eval(),
            (torch.randn(1, 3), torch.zeros(2, 1, 3), torch.zeros(2, 1, 3)),
            tmp_path / "layers_first.onnx",
            dynamo=False,
            input_names=names[0],
            output_names=names[1],
            dynamic_axes={"x": {1: "length"}, "y": {1: "length"}} | {n: axes for n in ("h", "c") if axes},
        )
    with pytest.raises(GraphError, match=r"the state h is \[2, .*first axis must be the batch.*transpose"):
        parity(tmp_path / "layers_first.onnx", lambda x: x, samples[:rows])


def test_the_projects_own_graph_passes_as_any_other(exact, shallow):
    """The exact graph without its metadata: the second opinion needs none."""
    from conftest import random_codes

    from qwen3_codec.model.one_shot import one_shot as whole

    codes = random_codes(shallow.decoder, 80, 2)
    found = parity(exact.path, lambda codes: whole(shallow.decoder, codes), codes, [[1], [7, 1, 2]])
    assert found.passed and len(found.lost) == len(exact.spec.states) and not found.unfilled


class TestAModelThatIsNotOurs:
    """`export` and `verify` with `OtherModel`: a wrapper, a spec and a reference, and no checkpoint."""

    @pytest.fixture
    def echo(self):
        from qwen3_codec.spec import StateSpec, TensorSpec, audio_codes_spec

        class Wrapper(Echo):
            spec = StateSpec(
                design="exact",
                sample_rate=100,
                samples_per_frame=1,
                codebook_size=50,
                inputs=(audio_codes_spec(1),),
                outputs=(TensorSpec("waveform", ("batch", "samples")),),
                states=tuple(
                    (TensorSpec(name, ("batch", width)), TensorSpec(f"next_{name}", ("batch", width)))
                    for name, width in (("past", 2), ("seen", 1))
                ),
                limits={"past_frames": 2},
            )

            def forward(self, audio_codes, past, seen):
                return super().forward(audio_codes[..., 0] / 50.0, past, seen)

        return Wrapper()

    def test_it_is_exported_and_verified(self, echo, tmp_path):
        from qwen3_codec.exporting.export import export, exported
        from qwen3_codec.model.checkpoint import OtherModel
        from qwen3_codec.runtime import CodecSession
        from qwen3_codec.verification.decoder import verify

        def reference(codes):
            return one_shot(codes[..., 0].astype(np.float32) / 50)

        model = OtherModel("an echo", echo, {"taps": 2})
        path = export(model, echo, tmp_path / "echo.onnx").path
        session = CodecSession(path)
        assert session.metadata["source"] == "an echo" and session.metadata["config"] == '{"taps": 2}'
        before = path.stat().st_mtime_ns
        assert exported(model, echo, path).stat().st_mtime_ns == before
        codes = np.random.default_rng(0).integers(50, size=(2, 30, 1))
        report = verify(model, echo, codes, [[1], [7, 1, 2]], session, reference=reference)
        assert report.passed and report.judged and report.weights == "an echo weights"
        assert report.peak == pytest.approx(np.abs(reference(codes)).max())
        assert f"which peaks at {report.peak:.2g}" in str(report) and f'"peak": {report.peak}' in report.to_json()
        with pytest.raises(ValueError, match="an echo: give a reference"):
            verify(model, echo, codes)
        with torch.no_grad():
            other = OtherModel("an echo", nn.Linear(1, 1), {})
        assert other.fingerprint() != model.fingerprint() == OtherModel("x", Echo(), {}).fingerprint()
