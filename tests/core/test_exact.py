"""The exact design: equal to the one-shot decoder for any schedule, in PyTorch and in ONNX Runtime, for every row."""

import sys

import numpy as np
import onnx
import pytest
import torch
from conftest import OTHER_CONFIGS, mostly_slow, random_codes, small_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_codec.exporting.export import export
from qwen3_codec.exporting.tracing import OPSETS
from qwen3_codec.exporting.validate import compare_once, validation_cases
from qwen3_codec.model.dimensions import conv_memory
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.model.receptive_field import receptive_field
from qwen3_codec.model.snake import Snake
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.metrics import MAX_ERROR, chunks, max_error, mse
from qwen3_codec.streaming.exact import ExactStreamingWrapper, OneShotWrapper
from qwen3_codec.streaming.layers import ConvStates, StreamingConvTranspose1d
from qwen3_codec.verification.decoder import TorchSession, verify
from qwen3_codec.verification.graph import wrapper_like

# float32 rounding of some forty layers, at a waveform of standard deviation 0.2: MSE 6e-13 where it was measured.
EXACT_MSE = 1e-10
SCHEDULES = ([1], [3], [12], [7, 1, 2], [72], [10_000])


@pytest.fixture(scope="module")
def exact_session(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("exact") / "exact.onnx"
    return CodecSession(export(small, ExactStreamingWrapper(small.decoder), path).path)


def assert_exact(report):
    assert report.judged and report.passed, str(report)
    assert all(result.mse <= EXACT_MSE for result in report.results), str(report)


def test_the_interface_at_eight_layers(small):
    wrapper = ExactStreamingWrapper(small.decoder)
    spec = wrapper.spec
    names = [tensor.name for tensor in spec.all_inputs]
    # pre_conv, 2 depthwise, decoder.0, 4 x (transposed + 3 dilated), the last conv: 21 states of convolutions.
    assert names[:3] == ["audio_codes", "past_frames", "conv_00"] and names[22:24] == ["conv_20", "key_00"]
    assert names[-1] == "value_07" and len(names) == 2 + 21 + 16
    assert [t.name for t in spec.all_outputs] == ["waveform", *(f"next_{name}" for name in names[1:])]
    assert sorted(names[1:]) == [n.removeprefix("next_") for n in sorted(t.name for t in spec.all_outputs[1:])]
    layers = [name for name, _ in wrapper.conv_layers]
    assert layers[:2] == ["pre_conv", "upsample.0.1.dwconv"] and layers[4:6] == [
        "decoder.1.block.1",
        "decoder.1.block.2.conv1",
    ]
    modules = dict(small.decoder.named_modules())
    assert list(spec.modules) == names[1:] and set(spec.modules.values()) <= set(modules)
    assert [spec.modules[f"conv_{i:02}"] for i in range(21)] == layers
    assert spec.modules["key_03"] == spec.modules["value_03"] == "pre_transformer.layers.3.self_attn"
    zero = spec.zero_state(2)
    assert not any(array.any() for array in zero.values()) and zero["key_03"].shape == (2, 4, 71, 16)
    lengths = {array.shape[2] for name, array in zero.items() if name.startswith("conv")}
    assert lengths == {1, 2, 6, 18, 54}, (
        "kernel 3, kernel 7 with dilation 1, 3, 9, and one sample for a transposed conv"
    )


def test_what_the_convolutions_remember_covers_the_receptive_field(other):
    """The times that the layers look back add up to the measured reach: two ways to the same number."""
    memory = conv_memory(ExactStreamingWrapper(other.decoder))[1:]  # without pre_conv
    reach = sum(history / rate for _, history, rate in memory) * other.sample_rate / other.decoder.samples_per_frame
    assert abs(receptive_field(other.decoder).conv_samples / other.decoder.samples_per_frame - (reach + 1)) < 1


@pytest.mark.parametrize("schedule", mostly_slow(SCHEDULES, [[1], [7, 1, 2], [10_000]]), ids=str)
def test_any_schedule_on_upstreams_checkpoint(upstream, schedule):
    codes = random_codes(upstream.decoder, 310 if schedule != [1] else 90)
    assert_exact(verify(upstream, ExactStreamingWrapper(upstream.decoder), codes, [schedule]))


def test_graph_and_wrapper_and_one_shot(small, exact_session):
    codes = random_codes(small.decoder, 100)
    wrapper = wrapper_like(small, exact_session)
    assert isinstance(wrapper, ExactStreamingWrapper)
    assert_exact(verify(small, wrapper, codes, SCHEDULES[2:], exact_session))


@pytest.mark.parametrize("other", mostly_slow(OTHER_CONFIGS, ["everything"]), indirect=True)
def test_other_configs(other, tmp_path):
    wrapper = ExactStreamingWrapper(other.decoder)
    session = CodecSession(export(other, wrapper, tmp_path / "exact.onnx").path)
    assert_exact(verify(other, wrapper, random_codes(other.decoder, 90, batch=2), [[1], [7, 1, 2], [12]], session))


@pytest.mark.slow
def test_dynamo(tiny, tmp_path):
    """In the newest opset that is allowed; in the usual one with fixed axes (test_tools.py) and in page 11."""
    wrapper, newest = ExactStreamingWrapper(tiny.decoder), OPSETS["dynamo"][-1]
    done = export(tiny, wrapper, tmp_path / "exact.onnx", "dynamo", opset=newest)
    assert [entry.version for entry in onnx.load(done.path).opset_import if not entry.domain] == [newest]
    assert not {"If", "Loop"} & done.nodes.keys() and done.warnings == ()
    assert_exact(verify(tiny, wrapper, random_codes(tiny.decoder, 90), [[1], [7, 1, 2]], CodecSession(done.path)))


@settings(max_examples=20, deadline=None)
@given(schedule=st.lists(st.integers(1, 100), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_random_schedules(shallow, exact, schedule, seed):
    codes = random_codes(shallow.decoder, 160, seed=seed)
    waveform = exact.decode(codes, schedule)
    reference = one_shot(shallow.decoder, codes)
    assert max_error(reference, waveform) <= MAX_ERROR and mse(reference, waveform) <= EXACT_MSE


def test_states_agree_from_a_random_state(exact_session, small):
    """`compare_once` compares every output, states included, from normal random states of rows at different offsets."""
    wrapper = ExactStreamingWrapper(small.decoder)
    cases = validation_cases(wrapper.spec)
    assert len(cases) == 8 and max(compare_once(wrapper, exact_session, case) for case in cases) < MAX_ERROR


def test_what_is_stored_beyond_past_frames_does_not_matter(exact_session, small):
    """A cold stream in a buffer full of another stream's keys."""
    spec, codes = exact_session.spec, random_codes(small.decoder, 5)
    clean = spec.zero_state()
    rng = np.random.default_rng(0)
    dirty = {n: rng.standard_normal(a.shape).astype("f") if n[:3] in ("key", "val") else a for n, a in clean.items()}
    outputs = [exact_session.run({"audio_codes": codes, **state})["waveform"] for state in (clean, dirty)]
    np.testing.assert_array_equal(*outputs)


def test_rows_at_different_offsets_equal_single_streams(exact_session, small):
    """Four streams start at different times, share calls, one leaves, one is doubled, and each stays what it was."""
    codes = random_codes(small.decoder, 120, batch=4)
    reference = one_shot(small.decoder, codes)
    offsets = [0, 1, 30, 90]
    single = []
    for row, offset in enumerate(offsets):
        stream = exact_session.stream()
        if offset:
            stream.push(codes[row, :offset])
        single.append(stream)
    together = single[0].join(*single[1:])
    assert together.frames.tolist() == offsets

    def step(stream, rows, frames):
        part = np.stack([codes[row, start : start + frames] for row, start in zip(rows, stream.frames, strict=True)])
        wanted = [(row, start * 1920) for row, start in zip(rows, stream.frames, strict=True)]
        for waveform, (row, start) in zip(stream.push(part), wanted, strict=True):
            np.testing.assert_allclose(waveform, reference[row, start : start + waveform.size], atol=MAX_ERROR)

    step(together, [0, 1, 2, 3], 5)
    step(together, [0, 1, 2, 3], 1)
    fewer = together.fork([3, 1, 1])
    step(fewer, [3, 1, 1], 4)
    step(together, [0, 1, 2, 3], 3)
    assert fewer.frames.tolist() == [100, 11, 11] and together.frames.tolist() == [9, 10, 39, 99]


def test_a_row_depends_on_itself_alone(exact_session, small):
    codes = random_codes(small.decoder, 12, batch=4)
    state = exact_session.stream(4)
    state.push(codes)
    changed = codes.copy()
    changed[2] = (changed[2] + 1) % small.decoder.config.codebook_size
    before, after = state.fork().push(codes), state.fork().push(changed)
    np.testing.assert_array_equal(before[[0, 1, 3]], after[[0, 1, 3]])
    assert max_error(before[2], after[2]) > 1e-2


def test_joins_that_cannot_be(session, exact_session, small):
    young, old = session.stream(), session.stream()
    old.push(random_codes(small.decoder, 9))
    with pytest.raises(ValueError, match=r"pre_conv_h have the shapes .* when their states are equally long"):
        young.join(old)
    same = session.stream()
    same.push(random_codes(small.decoder, 9, seed=1))
    assert old.join(same).batch == 2
    done = exact_session.stream()
    assert done.finish().shape == (1, 0)
    with pytest.raises(ValueError, match="finished"):
        exact_session.stream().join(done)
    with pytest.raises(ValueError, match="at least one row"):
        exact_session.stream().fork([])


def peak_memory():
    """kB, the most that this process has had; Linux says it so, elsewhere it is not looked at."""
    if sys.platform != "linux":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("frames", [3_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_long_stream_does_not_drift(shallow, exact, frames):
    """The end is compared with a one-shot decode of a stretch that is longer than the decoder's reach."""
    stretch = 700
    codes = random_codes(shallow.decoder, frames)
    rate = shallow.decoder.samples_per_frame
    stream, pieces, sizes = exact.stream(), [], set()
    for index, part in enumerate(chunks(codes, [50])):
        pieces.append(stream.push(part))
        sizes.add(sum(array.nbytes for array in stream.state.values()))
        if index == 40:
            memory = peak_memory()
    growth = peak_memory() - memory
    waveform = np.concatenate(pieces, axis=1)
    # Two layers of 71 frames, the convolutions and pre_conv: fewer than 200 frames.
    end = one_shot(shallow.decoder, codes[:, -stretch:])[:, 200 * rate :]
    start = one_shot(shallow.decoder, codes[:, :stretch])[:, 200 * rate :]
    at_start = max_error(start, waveform[:, 200 * rate : stretch * rate])
    at_end = max_error(end, waveform[:, -end.shape[1] :])
    assert at_end <= MAX_ERROR and at_end <= 2 * at_start, "both are maxima over rounding noise, within a factor of 2"
    assert len(sizes) == 1 and stream.state["past_frames"].item() == shallow.decoder.config.sliding_window - 1
    assert growth < 50_000, "kB: the state has one size, so memory does not grow"


def test_one_shot_graph(shallow, tmp_path):
    """The stateless graph that the benchmark and upstream's own chunking use."""
    done = export(shallow, OneShotWrapper(shallow.decoder), tmp_path / "one_shot.onnx")
    session, codes = CodecSession(done.path), random_codes(shallow.decoder, 40, batch=2)
    assert session.spec.design == "one-shot" and session.spec.bytes_per_stream() == 0
    np.testing.assert_allclose(session.stream(2).push(codes), one_shot(shallow.decoder, codes), atol=MAX_ERROR)


def test_a_transposed_conv_adds_its_bias_once(small):
    """Against the one-shot layer, sample for sample, cut anywhere; adding overlapping outputs would double the bias."""
    causal = small.decoder.decoder[1].block[1]
    layer, x = StreamingConvTranspose1d(causal.conv), torch.randn(2, causal.conv.in_channels, 11)
    state, pieces = torch.zeros(2, causal.conv.in_channels, 1), []
    for part in x.split([4, 1, 6], dim=-1):
        states = ConvStates([state])
        pieces.append(layer(part, states))
        (state,) = states.after
    torch.testing.assert_close(torch.cat(pieces, dim=-1), causal(x), atol=1e-5, rtol=1e-5)


def test_folded_snake(small):
    snake = small.decoder.decoder[1].block[0]
    x = torch.randn(1, snake.in_features, 9)
    torch.testing.assert_close(Snake(snake)(x), snake(x))


def test_half_precision_does_not_drift(tmp_path):
    """States rounded to half precision between calls: the error is there from the start, and stays what it is."""
    loaded = small_checkpoint("half", num_hidden_layers=2, upsample_rates=[5, 3], upsampling_ratios=[2])
    codes = random_codes(loaded.decoder, 2_000)
    exact = ExactStreamingWrapper(loaded.decoder)
    reference = TorchSession(exact).stream()
    state = {n: torch.from_numpy(a) for n, a in exact.spec.zero_state().items()}
    errors = []
    for index, part in enumerate(chunks(codes, [50])):
        wanted = reference.push(part)
        with torch.no_grad():
            waveform, *after = ExactStreamingWrapper.forward(exact, torch.from_numpy(part), *state.values())
        # What a half-precision state buffer would hold between two calls.
        state = {n: (t.half().float() if t.is_floating_point() else t) for n, t in zip(state, after, strict=True)}
        if index % 10 == 9:
            errors.append(mse(wanted, waveform.numpy()))
    assert max(errors) < 1e-4 and errors[-1] < 3 * errors[0]
