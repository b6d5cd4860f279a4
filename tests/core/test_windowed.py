"""The windowed wrapper in PyTorch: exact where its history reaches, and every known mistake is caught."""

import numpy as np
import pytest
import torch
from conftest import mostly_slow, random_codes
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_codec.course.pitfalls.state import (
    HistoryFromNewFramesAlone,
    SaturatingPositions,
    SeesTheFuture,
    TrimmedBeforeAttention,
)
from qwen3_codec.model.one_shot import one_shot, windowed_oracle
from qwen3_codec.model.receptive_field import conv_receptive_field
from qwen3_codec.runtime.metrics import MAX_ERROR, chunks, max_error, mse
from qwen3_codec.streaming.fixed import FixedAxes
from qwen3_codec.streaming.kv_stack import drop_last, keep_last
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper
from qwen3_codec.verification.decoder import TorchSession, verify
from qwen3_codec.verification.report import MAX_MSE

LONG = 410  # past the 72-frame window, past upstream's own chunk of 300


def stream(wrapper, codes, schedule):
    session = TorchSession(wrapper).stream(codes.shape[0])
    pieces = [session.push(part) for part in chunks(codes, schedule)]
    return np.concatenate([*pieces, session.finish()], axis=1)


def test_names_and_counts_are_those_of_the_notes(exact_window):
    spec = exact_window.spec
    layers = range(8)
    assert [t.name for t in spec.all_inputs] == [
        *("audio_codes", "is_last", "pre_conv_h", "latent_buf", "conv_h"),
        *(f"past_key_{i}" for i in layers),
        *(f"past_value_{i}" for i in layers),
    ]
    assert [t.name for t in spec.all_outputs] == [
        *("final_wav", "valid_samples", "start_samples", "num_finalize"),
        *("next_pre_conv_h", "next_latent_buf", "next_conv_h"),
        *(f"next_key_{i}" for i in layers),
        *(f"next_value_{i}" for i in layers),
    ]
    assert (len(spec.all_inputs), len(spec.all_outputs)) == (21, 23)


SCHEDULES = [[1], [3], [12], [7, 1, 2], [72], [73, 1], [LONG]]
SOON = [([1], 4), ([3], 0), ([12], 4), ([7, 1, 2], 0), ([72], 0), ([73, 1], 4), ([LONG], 0)]


@pytest.mark.parametrize(("schedule", "lookahead"), mostly_slow([(s, n) for s in SCHEDULES for n in (0, 4)], SOON))
def test_exact_with_history_at_the_receptive_field(small, shallow, schedule, lookahead):
    """All 8 layers; two of them where calls are many, which would take a quarter of a minute with 8."""
    loaded, frames = shallow if max(schedule) < 12 else small, max(*schedule, 2 * 72)
    wrapper = StatefulCodecONNXWrapper(loaded.decoder, conv_receptive_field(loaded.decoder), lookahead)
    report = verify(loaded, wrapper, random_codes(loaded.decoder, frames), [schedule])
    assert report.judged and report.passed, str(report)


def test_exact_on_other_configs(other):
    history = conv_receptive_field(other.decoder)
    wrapper = StatefulCodecONNXWrapper(other.decoder, history, lookahead_frames=3)
    for frames, schedules in ((24, [[1]]), (90, [[12], [7, 1, 2]])):
        report = verify(other, wrapper, random_codes(other.decoder, frames, batch=2), schedules)
        assert report.judged and report.passed, str(report)


def test_exact_on_upstreams_checkpoint(upstream):
    wrapper = StatefulCodecONNXWrapper(upstream.decoder, 10, 4)
    report = verify(upstream, wrapper, random_codes(upstream.decoder, 84), [[1], [5, 2]])
    assert report.judged and report.passed, str(report)


@settings(max_examples=10, deadline=None)
@given(schedule=st.lists(st.integers(1, 40), min_size=1, max_size=5), lookahead=st.integers(0, 6))
def test_any_schedule(shallow, schedule, lookahead):
    codes = random_codes(shallow.decoder, 90)
    history = conv_receptive_field(shallow.decoder)
    waveform = stream(StatefulCodecONNXWrapper(shallow.decoder, history, lookahead), codes, schedule)
    assert max_error(one_shot(shallow.decoder, codes), waveform) < MAX_ERROR


def test_history_of_four_is_a_real_approximation(small):
    codes = random_codes(small.decoder, 60)
    report = verify(small, StatefulCodecONNXWrapper(small.decoder), codes, [[3]])
    (result,) = report.results
    assert report.judged and report.passed and result.oracle_error < MAX_ERROR < 1e-3 < result.max_error
    assert result.mse > 1e-6 and max(chunk.oracle_mse for chunk in result.chunks) < MAX_MSE
    errors = [
        mse(one_shot(small.decoder, codes), stream(StatefulCodecONNXWrapper(small.decoder, history, 0), codes, [3]))
        for history in (0, 4, 6, 10)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < MAX_MSE


class TestOracle:
    """What a short history must give, computed without a state, is what the wrapper gives, and nothing else passes."""

    @settings(max_examples=8, deadline=None)
    @given(
        schedule=st.lists(st.integers(1, 30), min_size=1, max_size=4),
        history=st.integers(0, 6),
        lookahead=st.integers(0, 6),
        frames=st.integers(1, 20),
    )
    def test_any_schedule_history_and_lookahead(self, tiny, schedule, history, lookahead, frames):
        wrapper = StatefulCodecONNXWrapper(tiny.decoder, history, lookahead)
        report = verify(tiny, wrapper, random_codes(tiny.decoder, frames, batch=2), [schedule])
        assert report.judged and report.passed, str(report)

    def test_past_the_window_and_past_the_pieces_of_a_long_reference(self, tiny):
        wrapper = StatefulCodecONNXWrapper(tiny.decoder, 2, 4)
        report = verify(tiny, wrapper, random_codes(tiny.decoder, 530), [[12], [50, 1, 2]])
        assert report.passed and report.past_window and report.results[0].mse > MAX_MSE, str(report)

    def test_a_fixed_number_of_frames_is_a_schedule_of_its_own(self, tiny):
        """A push of 6 frames is two calls of 3, each with the history of its own; the last one is filled up."""
        wrapper = FixedAxes(StatefulCodecONNXWrapper(tiny.decoder, 1, 2), frames=3)
        report = verify(tiny, wrapper, random_codes(tiny.decoder, 40), [[6], [3]])
        assert report.passed and report.results[0].mse > MAX_MSE, str(report)

    def test_it_does_not_depend_on_one_shot_alone(self, tiny):
        """Two schedules, two right results: the borders lie elsewhere."""
        codes = random_codes(tiny.decoder, 24)
        by_schedule = [windowed_oracle(tiny.decoder, codes, schedule, 1, 0) for schedule in ([3], [5])]
        assert max_error(*by_schedule) > 100 * MAX_ERROR
        exact = windowed_oracle(tiny.decoder, codes, [3], conv_receptive_field(tiny.decoder), 0)
        assert max_error(exact, one_shot(tiny.decoder, codes)) < MAX_ERROR


class Louder(StatefulCodecONNXWrapper):
    """-7 times the waveform."""

    def forward(self, *inputs):
        waveform, *rest = super().forward(*inputs)
        return -7 * waveform, *rest


class Shorter(StatefulCodecONNXWrapper):
    """It declares 4 frames of left context and keeps 3 of them; the oldest is zeros."""

    def forward(self, *inputs):
        *outputs, history = super().forward(*inputs)[:7]
        keys_and_values = super().forward(*inputs)[7:]
        return *outputs, torch.cat([torch.zeros_like(history[..., :1]), history[..., 1:]], dim=2), *keys_and_values


class Forgets(StatefulCodecONNXWrapper):
    """What `pre_conv` looks back at does not come out."""

    def forward(self, *inputs):
        outputs = list(super().forward(*inputs))
        outputs[4] = torch.zeros_like(outputs[4])
        return tuple(outputs)


class HoldsNothingBack(StatefulCodecONNXWrapper):
    """`is_last` in every call."""

    def forward(self, audio_codes, is_last, *states):
        return super().forward(audio_codes, torch.ones_like(is_last), *states)


@pytest.mark.parametrize("mistaken", [Louder, Shorter, Forgets, HoldsNothingBack])
def test_no_wrong_wrapper_passes_for_being_approximate(tiny, mistaken):
    """4 + 4 frames. One that returned -7 times the waveform passed before it had an oracle."""
    report = verify(tiny, mistaken(tiny.decoder, 4, 4), random_codes(tiny.decoder, 24), [[5]])
    assert not report.passed and report.verdict == "failed"
    assert report.failures[0].startswith("PyTorch wrapper, chunks [5]: "), report.failures
    if mistaken is Louder:
        assert "the first wrong frame is 0; largest error" in report.failures[0]
        assert report.results[0].oracle_error > 1


def test_saturating_positions_are_seen_past_the_window_alone(tiny):
    """40 and 73 frames pass: the window of 72 is full, and no call begins after that. The report says so."""
    reports = {
        frames: verify(
            tiny,
            SaturatingPositions(tiny.decoder, conv_receptive_field(tiny.decoder), 0),
            random_codes(tiny.decoder, frames),
            [[1], [3]],
        )
        for frames in (40, 73, 80)
    }
    assert [report.passed for report in reports.values()] == [True, True, False]
    assert [report.past_window for report in reports.values()] == [False, False, True]
    for frames in (40, 73):
        last = str(reports[frames]).splitlines()[-1]
        assert last.startswith(
            f"passed, but these {frames} frames do not go past the window: all states are full after 72"
        )
    assert [result.first_wrong_frame for result in reports[80].results] == [73, 75]
    assert "the first wrong frame is 73;" in reports[80].failures[0]


def test_what_is_held_back_and_what_is_finished(small):
    """The bookkeeping outputs, call by call: 3 + 3 + 2 frames with a look-ahead of 4."""
    wrapper = StatefulCodecONNXWrapper(small.decoder, 4, 4)
    session, rate = TorchSession(wrapper), small.decoder.samples_per_frame
    state, rows = wrapper.spec.zero_state(), []
    for codes, last in zip(chunks(random_codes(small.decoder, 8), [3, 3, 2]), (0, 0, 1), strict=True):
        out = session.run({"audio_codes": codes, "is_last": np.array([last], np.float32), **state})
        state = {before.name: out[after.name] for before, after in wrapper.spec.states}
        counts = [int(out[name][0]) for name in ("num_finalize", "valid_samples", "start_samples")]
        rows.append((*counts, out["final_wav"].shape[1]))
    assert rows == [(0, 0, 0, 3 * rate), (2, 2 * rate, 0, 6 * rate), (6, 6 * rate, 2 * rate, 6 * rate)]


def test_settings_must_not_be_negative(small):
    with pytest.raises(ValueError, match="conv_history_frames is -1"):
        StatefulCodecONNXWrapper(small.decoder, -1)


def test_slices_by_a_setting():
    x = torch.arange(5)
    assert (
        keep_last(x, 2).tolist() == [3, 4]
        and keep_last(x, 0).tolist() == []
        and keep_last(x, 9).tolist() == [*range(5)]
    )
    assert drop_last(x, 2).tolist() == [0, 1, 2] and drop_last(x, 0).tolist() == [*range(5)]
    assert keep_last(torch.zeros(1, 2, 7, 3), 4, dim=2).shape == (1, 2, 4, 3)


# Each known mistake, made on purpose. `verify` must refuse it: a test that a wrong wrapper passes is no test.


@pytest.mark.parametrize(
    ("mistaken", "schedule"), [(TrimmedBeforeAttention, [12]), (SaturatingPositions, [3]), (SeesTheFuture, [12])]
)
def test_mistakes_in_attention_are_caught(small, mistaken, schedule):
    report = verify(small, mistaken(small.decoder, 10, 0), random_codes(small.decoder, 150), [schedule])
    assert not report.passed
    if mistaken is SaturatingPositions:  # right until the window is full, and wrong from there on
        late = [chunk.start_frame for chunk in report.results[0].chunks if chunk.max_error > MAX_ERROR]
        assert 71 <= min(late) <= 76


def test_history_from_new_frames_alone_is_caught_at_one_frame(shallow):
    codes = random_codes(shallow.decoder, 40)
    wrapper = HistoryFromNewFramesAlone(shallow.decoder, conv_receptive_field(shallow.decoder), 0)
    assert verify(shallow, wrapper, codes, [[3]]).passed
    assert not verify(shallow, wrapper, codes, [[1]]).passed
    assert not verify(shallow, wrapper, codes, [[7, 1, 2]]).passed
