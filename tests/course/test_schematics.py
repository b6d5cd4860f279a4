"""Schematic pictures show the numbers that they are drawn from, and these are those of the designs."""

import matplotlib
import numpy as np
import pytest
import torch
from conftest import random_codes

matplotlib.use("agg")
import matplotlib.pyplot as plt

from qwen3_codec.course.lab import schematics
from qwen3_codec.course.pitfalls.state import StoredRotatedStack
from qwen3_codec.model.dimensions import memory_stages
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.session import TorchSession
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def words(figure):
    figure.canvas.draw()
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text)}


def test_windowed_calls_are_what_the_wrapper_does(shallow):
    """The bars from the counts of a run: all frames are given once, history stands right before them."""
    history, lookahead, chunk = 2, 3, 4
    wrapper = StatefulCodecONNXWrapper(shallow.decoder, history, lookahead)
    stream, codes, rows = TorchSession(wrapper).stream(), random_codes(shallow.decoder, 14), []
    for start in range(0, 14, chunk):
        before = {name: stream.state[name].shape[2] for name in ("conv_h", "latent_buf")}
        part = codes[:, start : start + chunk]
        given = stream.push(part, last=start + chunk >= 14).shape[1] // shallow.decoder.samples_per_frame
        rows.append((part.shape[1], given, before["conv_h"], before["latent_buf"]))
    calls, given = schematics.windowed_calls(rows), []
    for call, (new, finalized, past, held) in zip(calls, rows, strict=True):
        first = call[schematics.BEFORE][0]
        assert call[schematics.AGAIN] == (first - past, past) and first - past >= 0
        assert call[schematics.BEFORE][1] + call[schematics.NEW][1] == finalized
        assert call[schematics.HELD][1] == new + held - finalized <= lookahead
        given += range(first, first + finalized)
    assert given == list(range(14))
    figure = schematics.calls_see(calls, "windowed")
    assert {"call 1", "call 4", "buffered", "recomputed: left context"} <= words(figure)


def test_exact_calls():
    first, second = schematics.exact_calls([3, 2], window=8, start=4)
    assert first == {schematics.KEYS: (0, 4), schematics.NEW: (4, 3)}
    assert second == {schematics.KEYS: (0, 7), schematics.NEW: (7, 2)}
    assert {"3", "2", "7", "new, emitted now"} <= words(schematics.calls_see([first, second], "exact"))


def test_the_memory_line_has_every_state(small):
    wrapper = ExactStreamingWrapper(small.decoder)
    stages = memory_stages(wrapper)
    assert sorted(name for stage in stages for name in stage.states) == sorted(
        before.name for before, _ in wrapper.spec.states
    )
    assert sum(stage.bytes for stage in stages) == wrapper.spec.bytes_per_stream()
    by_name = {stage.name: stage for stage in stages}
    config, frame_ms = small.decoder.config, 1000 * small.decoder.samples_per_frame / small.sample_rate
    assert by_name["pre_transformer"].reach_ms == pytest.approx((config.sliding_window - 1) * frame_ms)
    assert by_name["pre_conv"].reach_ms == pytest.approx(2 * frame_ms)
    wanted = {"pre_conv", "12.5 Hz", "24,000 Hz", "160 ms", "1 state", "5.68 s", "17 states", "no state"}
    assert wanted <= words(schematics.memory_line(stages, "memory"))


@pytest.mark.parametrize("calls", [0, 1, 5, 20])
def test_positions_that_saturate_are_those_of_the_trap(calls):
    """The picture's distances against the store that the trap uses, read off its rotated keys."""
    window, chunk, width = 12, 3, 8
    angles = torch.arange(64)[:, None] * torch.full((1, width), 0.05)
    keys = [torch.zeros(1, 1, 0, width)]
    values = [torch.zeros(1, 1, 0, width)]
    for new in [window] + [chunk] * calls:
        past = keys[0].size(2)
        cos, sin = angles[None, : past + new].cos(), angles[None, : past + new].sin()
        stack = StoredRotatedStack(keys, values, cos, sin, keep=window)
        every, _ = stack.update(_rotated(angles[past : past + new]), torch.zeros(1, 1, new, width), 0)
        keys, values = stack.keys, stack.values
    positions = (torch.acos(every[0, 0, :, 0].clamp(-1, 1)) / 0.05).round().int().tolist()
    true, seen = schematics.saturated(window, chunk, calls)
    assert true == list(range(window))
    assert seen == [positions[-1] - position for position in positions[::-1][:window]]


def _rotated(angles):
    """Keys of ones, turned by `angles` [N, width]: their first number is the cosine."""
    return angles.cos()[None, None]


def test_saturated_positions_are_right_until_the_window_is_full():
    true, seen = schematics.saturated(8, 3, 0)
    assert true == seen == list(range(8))
    true, seen = schematics.saturated(8, 3, 5)
    assert true == list(range(8)) and seen != true and max(seen) < 8


def test_masks_and_the_rest_are_labelled():
    right = np.array([[2, 2, 0], [0, 2, 2]])
    figure = schematics.masks({"right": right, "wrong": np.where(right == 2, 1, 0)}, 1, "masks")
    assert {"masks", "right", "wrong", "attended to", "should be attended to, and is lost", "hidden"} <= words(figure)
    assert "should be attended to, and is lost" not in words(schematics.masks({"right": right}, 1, "masks"))
    figure = schematics.overlap(16, 8, inputs=4, border=2, title="kernel 16, stride 8")
    assert {"kernel 16, stride 8", "input 3", "a new chunk begins", "what it adds to this chunk: the state"} <= words(
        figure
    )
    figure = schematics.branches({"a": 0, "b": 3}, {"a": 0, "b": 0}, "a branch", "frames")
    assert {"a branch", "the module", "its graph", "frames", "3"} <= words(figure)
    figure = schematics.distances({"right": (range(3), range(3))}, "distances")
    assert {"distances", "right"} <= words(figure)
