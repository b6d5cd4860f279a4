"""Every trap fails as described and its fix is right; the finder names axis and node; wrong states are measured."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_codes

from qwen3_codec.course.pitfalls import (
    TRAPS,
    Says,
    Wrong,
    axes_of,
    branches,
    fails_with,
    find_frozen_axes,
    lengths,
    pages,
    signals,
)
from qwen3_codec.course.pitfalls.__main__ import main
from qwen3_codec.course.pitfalls.graphs import export_step, row
from qwen3_codec.course.pitfalls.lengths import LENGTHS, Verdict, verdicts
from qwen3_codec.course.pitfalls.precision import precisions
from qwen3_codec.course.pitfalls.state import dropped, short_histories, wrong_states
from qwen3_codec.course.pitfalls.streams import exact_graph_bound, two_buffers
from qwen3_codec.exporting.diagnostics import Diagnostic, captured
from qwen3_codec.exporting.tracing import example_inputs, trace
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime.metrics import MAX_ERROR, max_error, snr_db
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper

# Notebook 6 is executed with the tests, and stops where a trap or a fix that it shows is no longer as described, or
# where what is said is not what is recorded. So each trap is run once, with nothing suppressed: on the page, or here.
PAGE = (Path(__file__).parents[2] / "notebooks" / "07_trap_catalogue.py").read_text(encoding="utf-8")
NOT_ON_THE_PAGE = [name for name in TRAPS if f'show_trap("{name}")' not in PAGE or f'show_fix("{name}")' not in PAGE]


@pytest.mark.parametrize("name", NOT_ON_THE_PAGE)
def test_the_naive_code_fails_as_described(name):
    assert TRAPS[name].run_naive()


@pytest.mark.parametrize("name", NOT_ON_THE_PAGE)
def test_the_fix_holds(name):
    assert TRAPS[name].run_fix()


def test_a_trap_says_why_and_where():
    for name, trap in TRAPS.items():
        assert trap.name == name and len(trap.why) > 40 and trap.notes in ("", *"12345")
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", source) for source in trap.sources), name
    assert {trap.notes for trap in TRAPS.values()} == {"", *"12345"}


def test_what_is_unreported_follows_from_what_is_recorded():
    """Of the traps that go through, those that an exporter, or ONNX Runtime at its default log level, warns of."""
    warns = {name for name, trap in TRAPS.items() if trap.reported == "warning"}
    on_a_length = {f"{name} on a length" for name in ("int()", "float()", "math.ceil", "min()", "max()", "if")}
    traced = {f"{name}, torchscript" for name in {"if on a tensor"} | on_a_length}
    traced |= {"an end of a slice as a number", "a cache rebuilt from trimmed keys"}
    assert {n for n in warns if TRAPS[n].warns[0].category == "TracerWarning"} == traced
    names = {"too few input names", "a misspelt name in dynamic_axes"}
    assert warns == traced | names | {"an example of length 1", "a size after unflatten, torchscript"}
    trap = TRAPS["range() on a length, torchscript"]
    assert trap.reported == "nothing" and replace(trap, warns=(Says("WARNING", "x"),)).reported == "warning"
    assert TRAPS["if on a tensor, dynamo"].warns and TRAPS["if on a tensor, dynamo"].reported == "error"


def test_no_text_calls_a_trap_silent():
    """What a trap says is in its record: a sentence that denies it would be an opinion. *Silent* is for audio."""
    for name, trap in TRAPS.items():
        assert not re.search(r"silen|without a word|no word|says nothing|complain", trap.why), name


def test_a_record_that_is_not_what_is_said_is_an_error_both_ways():
    traced, unreported = TRAPS["min() on a length, torchscript"], TRAPS["range() on a length, torchscript"]
    with pytest.raises(AssertionError, match=r"min.*said and not in its record: lengths.py:\d+: TracerWarning: Conver"):
        replace(traced, warns=()).run_naive()
    with pytest.raises(AssertionError, match=r"range.*in its record and not said: TracerWarning: Converting"):
        replace(unreported, warns=traced.warns).run_naive()
    warned = replace(unreported, fix=lambda: warnings.warn("beware", stacklevel=1) or unreported.fix())
    with pytest.raises(AssertionError, match=r"the fix is right, yet this is said: .*UserWarning: beware"):
        warned.run_fix()


def test_what_is_said_is_each_thing_once_without_advice_and_without_what_is_raised_too():
    stamp = "\x1b[0;93m2026-11-27 22:04:02.282157139 "
    said = [
        Diagnostic("DeprecationWarning", "You are using the legacy TorchScript-based ONNX export. Starting", "a.py", 3),
        Diagnostic("TracerWarning", "Converting a tensor", "a.py", 4),
        Diagnostic("TracerWarning", "Converting a tensor", "a.py", 4),
        Diagnostic("stdout", "[torch.onnx] Run decompositions...\nbeware\n"),
        Diagnostic(
            "stderr", f"{stamp}[W:onnxruntime:, a.cc:1 F] odd\x1b[m\n{stamp}[E:onnxruntime:, b.cc:2 G] no\nfit\x1b[m\n"
        ),
    ]
    assert [str(each).strip() for each in signals(said)] == [
        "a.py:4: TracerWarning: Converting a tensor",
        "stdout: beware",
        "stderr: [W:onnxruntime:, a.cc:1 F] odd",
    ]


def test_a_page_shows_what_is_said_before_what_it_does():
    """With the file's name alone, the line of code, and links to the public reports."""
    text = pages.show_trap("an end of a slice as a number").data
    warning = re.search(r"branches\.py:\d+: TracerWarning: Converting a tensor to a Python integer", text).start()
    assert text.index("What is said while it runs") < warning < text.index("return wav[:, 1 : int(valid)]", warning)
    assert warning < text.index("What it does today") and str(Path(branches.__file__)) not in text
    assert "No error and no warning." in pages.show_trap("range() on a length, torchscript").data
    text = pages.show_trap("an example of length 1").data
    assert "Reported in [pytorch/pytorch#151582](https://github.com/pytorch/pytorch/issues/151582)." in text


def test_a_dump_is_shown_by_its_first_line():
    text = pages.show_trap("if on a tensor, dynamo").data
    assert re.search(r"stderr: def forward\(self, .* … \(and \d+ more lines\)\n", text)


def test_a_trap_that_has_gone_says_so():
    loud, wrong = TRAPS["head_dim by the formula"], TRAPS["min() on a length, torchscript"]
    assert loud.reported == "error" and isinstance(wrong.today, Wrong)
    with pytest.raises(AssertionError, match="nothing failed; expected RuntimeError"):
        replace(loud, naive=loud.fix).run_naive()
    with pytest.raises(AssertionError, match=r"min.* the trap has gone, the naive code is within"):
        replace(wrong, naive=wrong.fix).run_naive()
    with pytest.raises(AssertionError, match="the fix is inf from right"):
        replace(wrong, fix=wrong.naive).run_fix()


def test_the_command_runs_what_is_asked_for(capsys, monkeypatch):
    assert main(["head_dim"]) == 0
    assert "head_dim by the formula (naive): as described, reported by: error" in capsys.readouterr().out
    gone = TRAPS["head_dim by the formula"]
    monkeypatch.setitem(TRAPS, gone.name, replace(gone, naive=gone.fix))
    assert main(["head_dim"]) == 1 and "CHANGED: AssertionError" in capsys.readouterr().out
    assert main(["no such trap"]) == 2
    assert "no trap has 'no such trap' in its name" in capsys.readouterr().err


def test_the_exporters_that_are_not_listed_do_not_freeze_it_and_do_not_warn():
    """The others are traps, and tested as such."""
    for length in LENGTHS:
        for exporter in {"torchscript", "dynamo"} - length.frozen_by.keys():
            with captured() as said:
                assert length.demonstration(exporter)(length.naive).error < 1e-5, (length.name, exporter)
                assert length.demonstration(exporter)(length.fix).error < 1e-5, (length.name, exporter)
            assert not signals(said), (length.name, exporter)


def test_the_table_of_both_exporters(monkeypatch):
    monkeypatch.setattr(lengths, "LENGTHS", [length for length in LENGTHS if length.name == "math.ceil"])
    assert verdicts() == [
        Verdict("math.ceil", "torchscript", right=1, wrong=4, refused=0, fix=5, lengths=5, warns=("TracerWarning",)),
        Verdict("math.ceil", "dynamo", right=5, wrong=0, refused=0, fix=5, lengths=5),
    ]


@pytest.mark.parametrize("length", LENGTHS, ids=lambda length: length.name)
def test_an_export_safe_rewrite_does_what_the_naive_code_does(length):
    for case in length.cases:
        assert torch.allclose(length.naive()(*case.values()), length.fix()(*case.values()))


def test_bound_buffers_on_the_exact_graph():
    """With two sets the stream is exact; one set may or may not hurt, by the order of the graph's nodes."""
    assert exact_graph_bound(two_buffers).error < MAX_ERROR


class FrozenFrames(StatefulCodecONNXWrapper):
    def _transform(self, hidden, past):
        return super()._transform(hidden[:, : int(hidden.size(1))], past)


class FrozenHistory(StatefulCodecONNXWrapper):
    def forward(self, audio_codes, is_last, pre_conv_h, latent_buf, conv_h, *past):
        return super().forward(audio_codes, is_last, pre_conv_h, latent_buf, conv_h[..., -int(conv_h.size(2)) :], *past)


@pytest.mark.parametrize(
    ("step", "axis", "inputs"),
    [
        (StatefulCodecONNXWrapper, None, ()),
        (FrozenFrames, "frames", ("audio_codes",)),
        (FrozenHistory, "left_context_frames", ("conv_h",)),
    ],
)
def test_the_finder_names_the_axis_its_inputs_and_the_node(shallow, tmp_path, step, axis, inputs):
    wrapper, path = step(shallow.decoder), tmp_path / "draft.onnx"
    trace(wrapper, path, "torchscript")
    axes = axes_of(wrapper.spec)
    states = axes.keys() - {"batch", "frames"}
    found = find_frozen_axes(path, wrapper, example_inputs(wrapper.spec), axes, may_be_empty=states)
    assert [(entry.axis, entry.inputs) for entry in found] == ([(axis, inputs)] if axis else [])
    if found:
        assert found[0].node.startswith("Slice ") and "first in the node Slice" in str(found[0])


def test_the_finder_needs_an_example_that_it_can_stretch(tmp_path):
    step, example = LENGTHS[0].fix(), {"x": row(5)}
    with captured():
        export_step(step, example, tmp_path / "step.onnx", "torchscript")
    with pytest.raises(ValueError, match="the example's x is empty along axis 1"):
        find_frozen_axes(tmp_path / "step.onnx", step, {"x": row(0).numpy()}, {"n": [("x", 1)]})


def test_the_finder_on_each_way_to_freeze(tmp_path):
    """Where a graph stops, ONNX Runtime names the node; where it does not, the first node that does not follow."""
    found = {}
    for length in LENGTHS:
        for step in (length.naive(), length.fix()):
            example, path = length.example, tmp_path / "step.onnx"
            with captured():
                export_step(step, example, path, "torchscript")
            arrays, places = {n: t.numpy() for n, t in example.items()}, {n: [(n, 1)] for n in example}
            found[type(step).__name__] = find_frozen_axes(path, step, arrays, places, may_be_empty=["past"])
    assert all(not found[length.fix.__name__] for length in LENGTHS)
    first = {name: axes[0] for name, axes in found.items() if axes}
    assert {length.naive.__name__ for length in LENGTHS} == set(first)
    assert first["IntOfSize"].node == "Add /Add" and first["RangeOfSize"].node == "Gather /Gather_4"
    assert (first["MaxOfSize"].axis, first["MaxOfSize"].length) == ("past", 0)
    assert "off by" in first["FloatOfSize"].what and first["FloatOfSize"].node == ""


def test_what_a_conversion_costs_in_sound():
    """On the demo's weights. Times are in the notebook, not here."""
    float32, half, *eight = precisions(frames=30, rounds=1)
    assert (
        len(eight) == 3
        and float32.snr_db > 110
        and 50 < half.snr_db < 80
        and all(20 < int8.snr_db < 45 for int8 in eight)
    )
    assert half.bytes < 0.65 * float32.bytes and eight[1].bytes < 0.45 * float32.bytes


def test_every_lost_state_is_measured(small):
    codes = random_codes(small.decoder, 96)
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


def test_the_notebook_shows_every_trap():
    """Where only the exporter differs, the table of notebook 6 has it."""
    page = (Path(__file__).parents[2] / "notebooks" / "07_trap_catalogue.py").read_text()
    in_table = {f"{length.name} on a length, dynamo" for length in LENGTHS}
    for name in TRAPS.keys() - in_table:
        assert page.count(f'show_trap("{name}")') == 1 == page.count(f'show_fix("{name}")'), name
