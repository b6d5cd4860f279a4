"""Metrics by hand, and chunk schedules as a property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_codec.runtime import metrics


@given(total=st.integers(0, 500), schedule=st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_a_schedule_covers_every_frame_once(total, schedule):
    lengths = list(metrics.chunk_lengths(total, schedule))
    assert sum(lengths) == total and all(length >= 1 for length in lengths)
    assert all(length == schedule[i % len(schedule)] for i, length in enumerate(lengths[:-1]))


def test_numbers_by_hand():
    a, b = np.array([[1.0, 0.0, -1.0, 0.0]], np.float32), np.array([[1.0, 0.1, -1.0, -0.1]], np.float32)
    assert metrics.mse(a, b) == pytest.approx(0.005)
    assert metrics.max_error(a, b) == pytest.approx(0.1)
    assert metrics.snr_db(a, b) == pytest.approx(20.0)
    assert metrics.snr_db(a, a) == np.inf and metrics.snr_db(np.zeros(3), np.ones(3)) == -np.inf
    assert metrics.per_chunk(metrics.max_error, a, b, [1, 3]) == pytest.approx([0.0, 0.1])


def test_lengths_that_differ_are_not_compared():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        metrics.mse(np.zeros(2), np.zeros(3))


@pytest.mark.parametrize("text", ["", "3,", "0", "3,-1", "2.5", "three"])
def test_a_wrong_schedule_names_the_part(text):
    with pytest.raises(ValueError, match="is not an integer of at least 1"):
        metrics.parse_schedule(text)


def test_schedules():
    assert metrics.parse_schedule("3, 1,7") == [3, 1, 7]
    for schedule in ([], [3, 0]):
        with pytest.raises(ValueError, match="lengths of at least 1"):
            list(metrics.chunk_lengths(5, schedule))
