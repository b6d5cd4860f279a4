"""`judge`: right for the steps as they are; of each edit the right row, state, first wrong frame and likely cause."""

import json

import edits
import numpy as np
import pytest
from conftest import random_codes, slow, small_checkpoint

from qwen3_codec import ExactStreamingWrapper, StatefulCodecONNXWrapper, judge, one_shot
from qwen3_codec.model.checkpoint import OtherModel
from qwen3_codec.spec import DECODER
from qwen3_codec.verification.workbench import causes, checks, looks
from qwen3_codec.verification.workbench.bench import Bench

WINDOW = 9
CONFIG = {"num_key_value_heads": 2, "sliding_window": WINDOW, "upsample_rates": [3, 2], "upsampling_ratios": [2]}
ONE, THREE, MIXED, WHOLE = "chunks of 1", "chunks of 3", "chunks of 7, 1, 2", "all at once"
PAST, SINGLE, RANDOM = "past the window", "each call from the right state", "calls from random states"
TURN, ROWS, ABLATION, CALL = "two streams in turn", "rows at different offsets", "state ablation", "one call"
GRAPH = "graph against step"
CHUNKS, EVERY = (ONE, THREE, MIXED, PAST, SINGLE), (ONE, THREE, MIXED, WHOLE, PAST, SINGLE)


@pytest.fixture(scope="module")
def loaded():
    return small_checkpoint("bench", num_hidden_layers=2, **CONFIG)


@pytest.mark.parametrize("step", [ExactStreamingWrapper, StatefulCodecONNXWrapper])
def test_the_steps_as_they_are_pass_every_check(loaded, step):
    found = judge(step, loaded)
    assert found.passed and not found.likely and not found.observed and not found.warnings, str(found)
    assert [row.check for row in found.rows if row.passed is None] == []
    assert len(found.rows) == 13 and found.frames == found.streamed[0].schedule[0] * found.frames
    assert found.row(GRAPH).error < 5e-5 and found.first_frame is None


@pytest.mark.parametrize("step", [edits.Detached, slow(edits.OwnQuantizer)])
def test_another_way_to_the_same_numbers_passes(loaded, step):
    found = judge(step, loaded, exporter=None)
    assert found.passed and not found.likely, str(found)


@pytest.mark.parametrize(
    "settings", [{"conv_history_frames": 12, "lookahead_frames": 2}, slow({"lookahead_frames": 0})]
)
def test_settings_reach_the_step(loaded, settings):
    found = judge(StatefulCodecONNXWrapper, loaded, exporter=None, **settings)
    assert found.passed and all(str(value) in found.design for value in settings.values()), str(found)


# (the edit, the checks that fail, the first wrong frame, the state or output that a call has wrong, the likely cause)
FOUND = [
    (edits.ContextTooShort, CHUNKS, 3, "next_conv_02", "wrong in its oldest entry alone (zeros)"),
    (edits.ContextReadTooShort, CHUNKS, 3, "next_conv_04", "the left context in `conv_02` is read one too short"),
    (edits.OldStateHandedBack, CHUNKS, 1, "next_conv_02", "`next_conv_02` comes out as it went in"),
    (edits.OldKeysHandedBack, CHUNKS, 1, "next_key_01", "`next_key_01` comes out as it went in"),
    (edits.StatesSwapped, CHUNKS, 1, "next_value_00", "`next_key_00` holds what belongs into `next_value_00`"),
    (edits.StatesReadSwapped, CHUNKS, 1, "next_key_01", "`key_00` and `key_01` are swapped where they are read"),
    (edits.StateScaled, (ONE, THREE, PAST, SINGLE), 2, "next_conv_01", "`next_conv_01` is 1.01 times what it must be"),
    (edits.StateLost, CHUNKS, 1, "next_value_01", "`next_value_01` comes out as zeros"),
    (edits.StateShifted, CHUNKS, 1, "next_conv_02", "`next_conv_02` is late by 1"),
    (edits.HalfPrecisionState, CHUNKS, 2, "next_conv_02", "`next_conv_02` is rounded to float16"),
    (edits.ChannelsFlipped, CHUNKS, 1, "next_conv_03", "`next_conv_03` is flipped along axis 1"),
    (edits.ChannelsReshaped, CHUNKS, 1, "next_conv_02", "has the right values in another order"),
    (edits.CountNotClamped, (THREE, WHOLE, PAST, SINGLE), 0, "next_past_frames", "does not stop at the window"),
    (edits.CountsCalls, (THREE, MIXED, PAST, SINGLE), 3, "next_past_frames", "counts calls in place of frames"),
    (edits.MaskOffByOne, (PAST, SINGLE), WINDOW, "next_conv_08", "sees one frame more than the sliding window"),
    (edits.MaskOneTooFew, (PAST, SINGLE), WINDOW - 1, "next_conv_10", "sees one frame less than the sliding window"),
    (edits.MaskSeesTheNext, (THREE, MIXED, WHOLE, PAST, SINGLE), 0, "next_conv_06", "sees the frame after its own"),
    (edits.EmptySlotsCounted, (*EVERY, ABLATION), 0, "next_conv_09", "takes empty cache slots for valid ones"),
    (edits.MaskIsInfinite, EVERY, 0, "waveform", "a softmax over a row that is -inf everywhere gives NaN"),
    (edits.PostRopeKeys, CHUNKS, 1, "next_key_01", "keys are stored post-RoPE"),
    (edits.SaturatingPositions, (PAST, SINGLE), WINDOW + 1, "next_key_0", "these saturate"),
    (edits.TrimmedBeforeAttention, (MIXED, WHOLE, PAST, SINGLE), 0, "next_conv_h", "trimmed before attention"),
    (edits.FirstRowsOffset, (ROWS,), 20, "next_conv_08", "the first row's `past_frames` is used for all rows"),
    (edits.OtherScale, EVERY, 0, "next_conv_10", "`add` takes the constant 0.01, where the package's step takes 1e-05"),
    (edits.ClampTooMany, EVERY, 0, "next_conv_11", "a clamp that the package's step does not have: edits.py:"),
    (edits.CodesCut, EVERY, 3, "next_conv_00", "a clamp that the package's step does not have: edits.py:"),
    (edits.FirstCallSilent, EVERY, 0, "next_conv_03", "a call that begins a stream is computed in another way"),
    (edits.QuietClamp, (RANDOM,), None, "next_conv_11", "is clamped at 20"),
    (edits.BiasTwice, EVERY, 0, "next_conv_09", "`decoder.upsample.0.0.conv.bias` is added twice"),
    (edits.HalfPrecision, EVERY, 1, "next_conv_11", "the computation goes through float16: edits.py:"),
    (edits.LooksAhead, EVERY, 0, "waveform", "it is not causal"),
    (edits.Dropout, (CALL,), 0, "", "a dropout is left on"),
    (edits.InTrainingMode, (CALL,), None, "", "a dropout is left on"),
    (edits.SamplesMissing, EVERY, 0, "waveform", "`waveform` comes out 1 too short"),
    (edits.Louder, EVERY, 0, "waveform", "`waveform` is 0.9 times what it must be"),
    (edits.FirstCallFlag, (RANDOM, ROWS), 10, "next_key_01", "`called` changes from call to call"),
    (edits.Buffer, (RANDOM, TURN, ROWS), 3, "next_conv_10", "`kept` changes from call to call"),
    (edits.InPlace, (CALL,), 0, "", "an operation in place"),
    (edits.StateMissing, (CALL,), 0, "", "an output or a state is missing"),
    (edits.DoublePrecision, (CALL,), 0, "", "the dtype changed on the way"),
    (edits.WrongShape, (CALL,), 0, "", "trimmed by another length"),
    (edits.BatchSqueezed, (ROWS,), 0, "waveform", "the batch axis is lost or mixed up"),
    (edits.RowsMixed, (ROWS,), 0, "next_conv_09", "rows influence one another"),
    (edits.HistoryTooShort, CHUNKS, 1, "next_conv_h", "`next_conv_h` lacks its oldest entry"),
    (edits.HistoryFromNewFrames, (ONE, MIXED, PAST, SINGLE), 2, "next_pre_conv_h", "is cut from the new frames alone"),
    (edits.ValidSamplesOfOneFrameMore, CHUNKS, 0, "valid_samples", "`valid_samples` counts 12 too many"),
    (edits.WindowedKeysSwapped, CHUNKS, 1, "next_key_1", "`next_key_0` holds what belongs into `next_key_1`"),
]  # fmt: skip
# The others vary what these show: a state, the mask, positions, rows, the computation, what random states alone show,
# a module that remembers, a look-ahead, and the windowed design.
SOON = (edits.ContextTooShort, edits.StatesSwapped, edits.StateScaled, edits.MaskOffByOne, edits.SaturatingPositions)
SOON += (edits.FirstRowsOffset, edits.OtherScale, edits.QuietClamp, edits.Buffer, edits.LooksAhead)
SOON += (edits.HistoryFromNewFrames,)
SLOW_TOO = [
    pytest.param(*case, id=case[0].__name__, marks=() if case[0] in SOON or case[1] == (CALL,) else pytest.mark.slow)
    for case in FOUND
]


@pytest.mark.parametrize(("step", "failing", "first_frame", "worst", "cause"), SLOW_TOO)
def test_an_edit_is_found_and_named(loaded, step, failing, first_frame, worst, cause):
    weights = loaded.fingerprint(DECODER)
    found = judge(step, loaded, exporter=None)
    assert loaded.fingerprint(DECODER) == weights, "a mistake that was tried is left in there"
    # A batch of another size rounds otherwise, and float16 makes more of that on some processors.
    failed = [row.check for row in found.failures if row.check != ROWS or "float16" not in cause]
    assert failed == [*failing] and found.first_frame == first_frame, str(found)
    assert not worst or worst in [row.worst for row in found.failures], str(found)
    assert any(cause in text for text in found.likely), str(found)
    assert len(found.likely) <= 3 and "Traceback" not in str(found)


# (the edit, which of the single calls are wrong, what the wrong state looks like); every state is full at frame 8.
SINGLE_CALLS = [
    (edits.ContextReadTooShort, "those from frame 3 on are wrong", None),
    (edits.MaskOffByOne, "all that are wrong reach frame 8, where", None),
    (edits.CountsCalls, "all that are wrong begin before frame 8, where", "counts calls in place of frames"),
    (edits.CountBackToZero, "all that are wrong reach frame 8, where", "comes out as zeros once every state is full"),
    (edits.CountNotClamped, "all that are wrong reach frame 8, where", None),
    (edits.FirstCallSilent, "the one at frame 0 alone is wrong", None),
]


@pytest.mark.parametrize(("step", "rule", "look"), SINGLE_CALLS)
def test_which_single_calls_are_wrong_goes_with_the_streams(loaded, step, rule, look):
    bench = Bench(loaded, step, {}, None, None)
    row, forced = checks.single_calls(bench, False)
    assert causes.which_calls(forced, bench.full).startswith(f"of the single calls (in chunks of 1, 2, 2, 7), {rule}")
    # In a stream of short chunks a state that was made wrong shows at the next call or later, not before.
    assert bench.errors((1,))[1].argmax() in (0, row.first_frame) or bench.errors((1,))[1].argmax() >= bench.full
    found = looks.handed_on(bench.spec, forced, bench.waveform)
    assert len(found) == bool(look) and all(look in text for text in found), found


def test_a_clamp_of_the_codes_is_none_of_the_packages_clamps(loaded):
    bench = Bench(loaded, edits.CodesCut, {}, None, None)
    (cause,) = causes.computed(bench.right, bench.make(), bench.right_calls[-1].feeds)[1]
    assert cause.startswith("a clamp that the package's step does not have: edits.py:"), cause


def test_an_error_that_ends_the_steps_stream_is_the_reason_why_more_is_not_run(loaded):
    found = judge(edits.CountNotClamped, loaded, exporter=None)
    assert len(found.likely) == 1 and "`clamp(max=sliding_window - 1)` is missing" in found.likely[0], str(found)
    for check in (ROWS, ABLATION):
        assert found.row(check).found == "not run: the step's own stream stops at frame 8", str(found)


GRAPHS = [
    (edits.LengthAsInteger, ("export", GRAPH), 0, "next_past_frames", "int(codes.size(1)) becomes a constant"),
    (edits.FirstCallBranch, ("export", GRAPH), 7, "next_conv_02", "past_frames.max() == 0 is decided once"),
]


@pytest.mark.parametrize(("step", "failing", "first_frame", "worst", "cause"), GRAPHS)
def test_what_is_right_in_pytorch_and_lost_in_the_graph(loaded, step, failing, first_frame, worst, cause):
    found = judge(step, loaded)
    assert [row.check.split(",")[0] for row in found.failures] == [*failing], str(found)
    row = found.row(GRAPH)
    assert (row.first_frame, row.worst) == (first_frame, worst) and row.error > 0.1
    assert any(cause in text for text in found.likely) and any(cause in text for text in found.warnings)


@pytest.mark.parametrize(("step", "words"), [(edits.OtherStore, "on purpose"), (edits.OtherNames, "not the package's")])
def test_other_states_are_no_fault_where_the_audio_is_right(loaded, step, words):
    found = judge(step, loaded, exporter=None)
    assert found.passed and found.row(SINGLE).passed is None and words in found.row(SINGLE).found, str(found)


@pytest.mark.slow
def test_dynamo(tiny):
    found = judge(ExactStreamingWrapper, tiny, exporter="dynamo")
    assert found.passed and found.row(f"{GRAPH}, dynamo").passed, str(found)


def test_an_error_of_the_step_is_a_row_with_its_line(loaded):
    found = judge(edits.Raises, loaded, exporter=None)
    assert [row.check for row in found.failures] == [PAST, SINGLE]
    text = found.row(PAST).found
    assert "RuntimeError: shape '[-1, 7]'" in text and "edits.py:" in text and "codes.view(-1, 7)" in text
    assert "those of 2 frames are wrong, others" in found.observed[0] and "own code stops" in found.likely[0]


def test_what_cannot_be_built_is_a_row_too(loaded):
    class NoSpec:
        def __init__(self, decoder):
            pass

    class WantsMore(ExactStreamingWrapper):
        def __init__(self, decoder, size):
            super().__init__(decoder)

    cases = [
        (NoSpec, "has no `spec`"),
        (WantsMore, "missing 1 required positional argument"),
        (3, "int is no streaming step"),
    ]
    for step, words in [*cases, (edits.ReturnsNothing, "TypeError"), (edits.ReturnsArrays, "AttributeError")]:
        found = judge(step, loaded)
        assert [row.check for row in found.failures] == [CALL] and words in found.rows[0].found, str(found)
    assert judge(WantsMore, loaded, exporter=None, size=3).passed


def test_a_step_that_changes_the_decoders_weights_is_not_run():
    own = small_checkpoint("changed", num_hidden_layers=1, **CONFIG)
    found = judge(edits.Decoder, own, exporter=None)
    assert [row.check for row in found.rows if row.passed is False] == [CALL]
    assert any("weights of the decoder are changed in place" in text for text in found.likely)


def test_an_instance_is_judged_like_its_class(loaded):
    step = edits.Buffer(loaded.decoder)
    found = judge(step, loaded, exporter=None)
    assert [row.check for row in found.failures] == [RANDOM, TURN, ROWS] and not step.kept.any()


def test_codes_that_end_before_the_window_do_not_judge_what_comes_after(loaded):
    found = judge(edits.SaturatingPositions, loaded, codes=random_codes(loaded.decoder, WINDOW), exporter=None)
    assert found.row(PAST).passed is None and "do not go past the window" in found.row(PAST).found
    assert "not judged" in judge(ExactStreamingWrapper, loaded, random_codes(loaded.decoder, 5), exporter=None).verdict


def test_a_model_of_another_kind_is_judged_by_its_reference(loaded):
    other = OtherModel("mine", loaded.decoder, {})
    codes = random_codes(loaded.decoder, WINDOW + 12)
    step = ExactStreamingWrapper(loaded.decoder)
    reference = one_shot(loaded.decoder, codes)
    assert judge(step, other, codes, reference, exporter=None).row(ONE).passed
    wrong = judge(step, other, codes, 0.5 * reference, exporter=None)
    assert wrong.row(SINGLE).passed is None and wrong.row(ONE).first_frame == 0
    with pytest.raises(ValueError, match="give codes and a reference"):
        judge(step, other)
    with pytest.raises(ValueError, match="exporter is 'jit', must be one of torchscript, dynamo, or None"):
        judge(step, loaded, exporter="jit")


def test_the_table_as_text_markdown_and_json(loaded):
    found = judge(edits.StateScaled, loaded, exporter=None)
    text, markdown, entries = str(found), found._repr_markdown_(), json.loads(found.to_json())
    assert text.splitlines()[1].startswith("check") and text.splitlines()[-1] == "✗ StateScaled: 4 of 10 checks failed"
    assert "| each call from the right state | ✗ | 0 | 1.0e-02 in next\\_conv\\_01 |" in markdown
    assert "`next_conv_01` is 1.01 times" in markdown
    assert not entries["passed"] and entries["rows"][1]["first_frame"] == 2
    assert np.abs(found.failing.waveform - found.failing.wanted).max() > 5e-5
