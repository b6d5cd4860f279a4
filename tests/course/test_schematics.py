"""Schematic pictures show the numbers that they are drawn from, and these are those of the designs."""

import matplotlib
import numpy as np
import pytest
import torch
from conftest import random_codes

matplotlib.use("agg")
import matplotlib.pyplot as plt

from qwen3_codec.course.lab import ruler, schematics
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
    figure = schematics.calls_see({"windowed": calls}, "calls")
    assert {"windowed", "calls", "call 1", "call 4", schematics.HELD, schematics.AGAIN} <= words(figure)


def test_exact_calls_stand_beside_the_windowed_ones():
    calls = schematics.exact_calls([3, 2])
    assert calls == [{schematics.NEW: (0, 3)}, {schematics.NEW: (3, 2)}]
    windowed = schematics.windowed_calls([(3, 1, 0, 0), (2, 4, 1, 2)])
    shown = words(schematics.calls_see({"exact": calls, "windowed": windowed}, "both"))
    assert {"both", "exact", "windowed", *schematics.KINDS} <= shown


def test_the_memory_line_has_every_state(small):
    wrapper = ExactStreamingWrapper(small.decoder)
    stages = memory_stages(wrapper)
    assert sorted(name for stage in stages for name in stage.states) == sorted(
        before.name for before, _ in wrapper.spec.states
    )
    assert sum(stage.bytes for stage in stages) == wrapper.spec.bytes_per_stream()
    by_name = {stage.name: stage for stage in stages}
    config, frame_ms = small.decoder.config, 1000 * small.decoder.samples_per_frame / small.sample_rate
    assert by_name["pre_transformer"].left_context_ms == pytest.approx((config.sliding_window - 1) * frame_ms)
    assert by_name["pre_conv"].left_context_ms == pytest.approx(2 * frame_ms)
    wanted = {"pre_conv", "12.5 Hz", "24,000 Hz", "160 ms", "1 state", "5.68 s", "17 states", "no state"}
    assert wanted <= words(schematics.memory_line(stages, "memory"))


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_positions_that_saturate_are_those_of_the_trap(count):
    """The picture's positions against the cache that the trap uses, read off its rotated keys."""
    window, chunk, width = 12, 3, 8
    angles = torch.arange(64)[:, None] * torch.full((1, width), 0.05)
    keys = [torch.zeros(1, 1, 0, width)]
    values = [torch.zeros(1, 1, 0, width)]
    for new in [window] + [chunk] * count:
        past = keys[0].size(2)
        cos, sin = angles[None, : past + new].cos(), angles[None, : past + new].sin()
        stack = StoredRotatedStack(keys, values, cos, sin, keep=window)
        every, _ = stack.update(_rotated(angles[past : past + new]), torch.zeros(1, 1, new, width), 0)
        keys, values = stack.keys, stack.values
    found = (torch.acos(every[0, 0, :, 0].clamp(-1, 1)) / 0.05).round().int().tolist()
    call = ruler.calls(ruler.FROM_LENGTH, window, chunk, count)[-1]
    assert call.positions == found
    true, seen = call.distances(window)
    assert true == [*range(window)] and (seen == true) == (count < 2)


def _rotated(angles):
    """Keys of ones, turned by `angles` [N, width]: their first number is the cosine."""
    return angles.cos()[None, None]


@pytest.mark.parametrize("store", [ruler.PRE_ROPE, ruler.ABSOLUTE])
def test_right_caches_keep_every_distance_and_one_of_them_grows(store):
    calls = ruler.calls(store, 8, 3, 20)
    assert all(true == seen for true, seen in (call.distances(8) for call in calls))
    assert max(calls[-1].positions) == (8 + 3 - 1 if store == ruler.PRE_ROPE else 8 + 60 - 1)


def test_the_ruler_shows_the_positions():
    shown = words(ruler.sliding(6, 2, 3, "a ruler"))
    assert {"a ruler", "call 4", "11", "0", ruler.FROM_LENGTH, ruler.WRONG} <= shown
    call = ruler.calls(ruler.FROM_LENGTH, 6, 2, 3)[-1]
    assert call.positions == [4, 5, 6, 7, 6, 7, 6, 7]
    assert {"late", "positions"} <= words(ruler.positions({"late": call}, 6, "positions"))


def test_masks_and_the_rest_are_labelled():
    right = np.array([[2, 2, 0], [0, 2, 2]])
    figure = schematics.masks({"right": right, "wrong": np.where(right == 2, 1, 0)}, 1, "masks")
    assert {"masks", "right", "wrong", "attended to", "should be attended to, and is lost", "hidden"} <= words(figure)
    assert "should be attended to, and is lost" not in words(schematics.masks({"right": right}, 1, "masks"))
    figure = schematics.overlap(16, 8, inputs=4, border=2, title="kernel 16, stride 8")
    assert {
        "kernel 16, stride 8",
        "input 3",
        "a new chunk begins",
        "what it adds to this chunk, and needs its state for",
    } <= words(figure)
