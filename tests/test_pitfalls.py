"""Wrong states are loud where they are, and right streams are right; the helper notices a trap that has gone."""

import numpy as np
import pytest
from conftest import random_codes

from qwen3_codec.metrics import max_error, snr_db
from qwen3_codec.pitfalls import fails_with
from qwen3_codec.pitfalls.state import dropped, short_histories, wrong_states
from qwen3_codec.verify import MAX_ERROR, one_shot


def test_every_lost_state_is_measured(small):
    codes = random_codes(small.decoder, 120)
    reference = one_shot(small.decoder, codes)
    waveforms = wrong_states(small.decoder, codes)
    assert max_error(reference, waveforms.pop("nothing dropped")) < MAX_ERROR
    snr = {name: snr_db(reference, waveform) for name, waveform in waveforms.items()}
    assert len(snr) == 4 and all(value < 40 for value in snr.values()), snr
    assert snr["all state dropped"] < 12 and snr["conv state dropped"] < 12
    stops = waveforms["positions stop at the window"]
    assert max_error(reference[:, : 70 * 1920], stops[:, : 70 * 1920]) < MAX_ERROR, "right until the window is full"


def test_more_history_is_better(small):
    codes = random_codes(small.decoder, 40)
    reference = one_shot(small.decoder, codes)
    snr = [snr_db(reference, waveform) for waveform in short_histories(small.decoder, codes, [0, 2, 4, 8, 10]).values()]
    assert snr == sorted(snr) and snr[-1] > 100


def test_dropped_leaves_the_rest():
    state = {"conv_00": np.ones(2), "key_00": np.ones(2)}
    after = dropped("conv_")(state)
    assert after["conv_00"].tolist() == [0, 0] and after["key_00"] is state["key_00"] and state["conv_00"].all()


def test_a_trap_that_has_gone_is_noticed(capsys):
    with fails_with(ValueError, "too wide"):
        raise ValueError("far too wide")
    assert capsys.readouterr().out == "ValueError: far too wide\n"
    with pytest.raises(AssertionError, match="nothing failed"), fails_with(ValueError, "too wide"):
        pass
    with pytest.raises(ValueError, match="narrow"), fails_with(ValueError, "too wide"):
        raise ValueError("narrow")
    with pytest.raises(KeyError), fails_with(ValueError, "x"):
        raise KeyError("x")
