"""What the lab runs, without a front end, and the widget around it, driven by setting its controls' values."""

import shutil
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from conftest import slow

matplotlib.use("agg")
import matplotlib.pyplot as plt

from qwen3_codec.course.lab import experiment
from qwen3_codec.course.lab.experiment import (
    EXACT,
    NO_TRAP,
    ONE_SHOT,
    RANDOM,
    TRAPS,
    WINDOWED,
    WRITTEN,
    Settings,
    run,
    schedule,
)
from qwen3_codec.course.lab.widget import Lab
from qwen3_codec.model import checkpoint
from qwen3_codec.runtime.codes import CodesError
from qwen3_codec.runtime.metrics import max_error

# At chunks of 5 every trap but one shows; that one wants chunks shorter than the first convolution's history.
CHUNK = {"left context from the new frames alone": 1}
# Enough for the attention window of 72 frames to be full where a trap waits for it.
FULL = 84


@pytest.fixture(scope="module")
def demo():
    return checkpoint.load("demo")


@pytest.fixture(scope="module", params=["demo", slow("random-small")])
def loaded(request, demo, small):
    return {"demo": demo, "random-small": small}[request.param]


@pytest.fixture
def lab(demo, small):
    return Lab({"demo": demo, "random-small": small}, Settings(frames=12))


def test_exact_is_exact_and_a_short_history_is_not(loaded):
    settings = Settings(frames=24)
    exact = run(loaded, settings)
    assert exact.snr_db > 100 and exact.streamed.shape == exact.reference.shape
    assert sum(exact.schedule) == 24 and sum(exact.samples) == exact.streamed.size
    assert run(loaded, replace(settings, cut=RANDOM)).snr_db > 100
    windowed = run(loaded, replace(settings, design=WINDOWED))
    assert 10 < windowed.snr_db < 60 and windowed.samples[0] == 0, "the look-ahead holds the first chunk back"
    assert run(loaded, replace(settings, design=WINDOWED, left_context=10)).snr_db > 100
    assert run(loaded, replace(settings, design=ONE_SHOT)).snr_db < 12, "chunks decoded alone do not fit together"


@pytest.mark.parametrize("design, trap", [(d, t) for d in (EXACT, WINDOWED) for t in TRAPS[d] if t != NO_TRAP])
def test_each_trap_is_a_loss(loaded, design, trap):
    frames = FULL if TRAPS[design][trap].needs_full_window else 16
    utterance = "en_passage" if loaded.folder else None
    right = Settings(utterance, frames, design, left_context=10, lookahead=2, chunk=CHUNK.get(trap, 5))
    assert run(loaded, right).snr_db > 100
    wrong = run(loaded, replace(right, trap=trap))
    assert wrong.snr_db < 60
    if frames == FULL:
        before = slice(0, 65 * 1920)
        assert max_error(wrong.reference[before], wrong.streamed[before]) < 1e-5, "silent until the window is full"


def test_a_random_schedule_comes_from_its_seed():
    first, again, other = (schedule(Settings(cut=RANDOM, seed=seed), 100) for seed in (1, 1, 2))
    assert first == again != other and sum(first) == sum(other) == 100
    assert schedule(Settings(cut=WRITTEN, written="3,1"), 9) == [3, 1, 3, 1, 1]


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"utterance": "en_large"}, "the utterance is 'en_large', must be one of en_small, "),
        ({"frames": 0}, "frames is 0"),
        ({"design": "new"}, "the design is 'new'"),
        ({"trap": "positions that saturate"}, "the exact design's trap is 'positions that saturate'"),
        ({"cut": "thin"}, "the cut is 'thin'"),
        ({"chunk": 0}, r"at least 1, got \[0\]"),
        ({"cut": RANDOM, "seed": -1}, "the seed is -1"),
        ({"cut": WRITTEN, "written": "3,x,7"}, "'x' in the chunk schedule '3,x,7'"),
        ({"design": WINDOWED, "left_context": -2}, "conv_history_frames is -2"),
    ],
)
def test_bad_settings_name_the_value(demo, wrong, words):
    with pytest.raises(ValueError, match=words):
        run(demo, Settings(**wrong))


def test_an_utterance_is_the_demos_or_random(demo, small):
    whole = run(demo, Settings("zh_weather", frames=1000, chunk=12))
    assert whole.reference.size == experiment.utterances(demo)["zh_weather"].shape[1] * 1920
    assert list(experiment.utterances(small)) == ["example codes"]


def test_the_figure_draws_the_numbers(demo):
    result = run(demo, Settings(frames=8, trap="conv state lost"))
    drawn = experiment.figure(result)
    stairs = drawn.axes[3].patches[0].get_data()
    assert stairs.values.tolist() == result.chunk_mse and stairs.edges[-1] == pytest.approx(8 * 0.08)
    assert "conv state lost" in drawn.get_suptitle() and f"{result.snr_db:.1f} dB" in drawn.get_suptitle()
    assert all(axes.get_ylabel() for axes in drawn.axes)
    plt.close(drawn)


def test_a_call_without_samples_is_not_drawn(demo):
    drawn = experiment.figure(run(demo, Settings(frames=12, design=WINDOWED, lookahead=7)))
    assert len(drawn.axes[3].patches[0].get_data().values) == 2, "two of four calls buffered everything"
    plt.close(drawn)


def test_a_change_changes_numbers_and_picture(lab):
    open_figures, picture, table = plt.get_fignums(), lab.picture.value, lab.table.value
    assert lab.result.snr_db > 100 and not lab.message.value
    lab.controls["trap"].value = "conv state lost"
    assert lab.result.snr_db < 20 and not lab.message.value
    assert f"{lab.result.snr_db:.1f} dB" in lab.table.value != table
    assert 'alt="exact; chunks of 3; trap: conv state lost: SNR' in lab.picture.value != picture
    assert lab.players.value.count("<audio") == 2
    assert plt.get_fignums() == open_figures and lab.bar.layout.visibility == "hidden"


def test_what_cannot_run_says_so_and_leaves_the_picture(lab):
    lab.controls["cut"].value = WRITTEN
    result, picture = lab.result, lab.picture.value
    lab.controls["written"].value = "3,x,7"
    assert "&#x27;x&#x27; in the chunk schedule" in lab.message.value
    assert lab.result is result and lab.picture.value == picture
    lab.controls["written"].value = "5,1"
    assert not lab.message.value and lab.result.schedule == [5, 1, 5, 1]


def test_other_weights(lab):
    result = lab.result
    lab.other.value = "no-such-folder"
    assert "no-such-folder: no such folder" in lab.message.value and lab.result is result
    lab.weights.value = "random-small"
    assert not lab.message.value and lab.result.weights == "random-small weights"
    assert lab.controls["utterance"].value == "example codes"
    lab.weights.value = "demo"
    assert lab.controls["utterance"].value == "en_small" and lab.controls["frames"].max == 32


def test_weights_are_loaded_by_name(small):
    lab = Lab({"mine": small}, Settings(frames=4))
    lab.other.value = "demo"
    assert lab.weights.options == ("mine", "demo") and lab.result.weights == "demo weights"
    assert not lab.message.value


def test_controls_without_a_meaning_are_off(lab):
    def off():
        return {name for name, control in lab.controls.items() if control.disabled}

    assert off() == {"left_context", "lookahead", "seed", "written"}
    lab.controls["design"].value = WINDOWED
    lab.controls["cut"].value = RANDOM
    assert off() == {"chunk", "written"}
    lab.controls["trap"].value = "positions that saturate"
    assert "72 frames (5.8 s)" in lab.explanation.value and "12 frames do not fill it" in lab.explanation.value
    lab.controls["design"].value = ONE_SHOT
    assert {"left_context", "lookahead", "trap"} < off() and lab.controls["trap"].value == NO_TRAP
    assert "no state" in lab.explanation.value


def test_progress_counts_the_chunks(lab):
    seen = []
    lab.bar.observe(lambda change: seen.append(change.new), "value")
    lab.controls["chunk"].value = 4
    assert seen == [0, 1, 2, 3] and np.isfinite(lab.result.mse)


def test_a_lone_chunk_says_why_the_trap_does_nothing(demo):
    settings = Settings(frames=6, chunk=6, trap="all state lost")
    result = run(demo, settings)
    assert (
        "one chunk has no border" in result.numbers()["SNR"] and "no border" in experiment.figure(result).get_suptitle()
    )
    for other in (replace(settings, chunk=3), replace(settings, trap=NO_TRAP)):
        assert not run(demo, other).harmless
    within = Settings(
        frames=6, chunk=6, design=WINDOWED, left_context=10, lookahead=0, trap="mask that sees the future"
    )
    assert not run(demo, within).harmless, "this one acts inside a chunk"


def test_a_new_limit_draws_the_slider_anew(lab):
    """The browser's slider keeps the End key's old target until it is drawn anew; a new orientation does that."""
    seen = []
    lab.controls["frames"].observe(lambda change: seen.append((change.name, change.new)), ["max", "orientation"])
    lab.controls["utterance"].value = "zh_model"
    assert seen == [("max", 50), ("orientation", "vertical"), ("orientation", "horizontal")]


def test_codes_that_do_not_fit_are_told_with_their_file(demo, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(demo.folder, folder, ignore=shutil.ignore_patterns("recordings", "*.py", "__pycache__"))
    np.save(folder / "codes" / "zh_model.npy", np.full((5, 16), 5000))
    with pytest.raises(CodesError, match=r"zh_model.npy: code 5000 at row 0, frame 0"):
        experiment.utterances(replace(demo, folder=folder))
