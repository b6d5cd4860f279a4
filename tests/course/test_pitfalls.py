"""Every trap does what is recorded of it, its fix is right, and the catalogue leads to it."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from conftest import random_codes

from qwen3_codec.course.pitfalls import (
    GROUPS,
    TRAPS,
    Outcome,
    Run,
    axes_of,
    card,
    catalogue,
    fails_with,
    find_baked_in_axes,
    lengths,
    pages,
    record,
    signals,
)
from qwen3_codec.course.pitfalls.__main__ import main
from qwen3_codec.course.pitfalls.checklist import CHECKLIST
from qwen3_codec.course.pitfalls.graphs import export_step, row
from qwen3_codec.course.pitfalls.lengths import CASES, CASES_WITH_PAST, EXAMPLE, EXAMPLE_WITH_PAST
from qwen3_codec.course.pitfalls.operators import SpectrumByConvolution, SpectrumByStft
from qwen3_codec.course.pitfalls.source import MARK, code_of, marked_code_of
from qwen3_codec.course.pitfalls.state import SaturatingPositions, dropped, stream_with_changes
from qwen3_codec.course.pitfalls.streams import exact_graph_bound, two_buffers
from qwen3_codec.course.pitfalls.symptoms import SYMPTOMS
from qwen3_codec.exporting.diagnostics import Diagnostic, captured
from qwen3_codec.exporting.tracing import example_inputs, trace
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.model.receptive_field import conv_receptive_field
from qwen3_codec.runtime import CodecStream
from qwen3_codec.runtime.metrics import MAX_ERROR, max_error, snr_db
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper
from qwen3_codec.verification.decoder import TorchSession

ON_A_LENGTH = [trap for trap in TRAPS.values() if trap.name.endswith(" on a length")]
# What varies what another trap or exporter shows: of two exporters the second one, but for one trap.
BOTH_SOON = "int() on a length"
VARIES = {(name, "dynamo") for name, trap in TRAPS.items() if len(trap.exporters) > 1 and name != BOTH_SOON} | {
    ("dynamic_shapes by input name", "dynamo"),
    ("an average that hides one bad chunk", ""),
    ("running sums in half precision", ""),
}
PAIRS = [
    pytest.param(name, exporter, marks=[pytest.mark.slow] if (name, exporter) in VARIES else [])
    for name, trap in TRAPS.items()
    for exporter in trap.exporters
]


@pytest.mark.parametrize(("name", "exporter"), PAIRS)
def test_both_sides_do_what_is_recorded(name, exporter):
    """With the versions that it was measured on; with others a trap may have gone, which is reported and no fault."""
    trap = TRAPS[name]
    for side, run in (("naive", trap.run_naive(exporter)), ("fix", trap.run_fix(exporter))):
        change = record.changed(record.recorded(trap, side).get(exporter), run)
        if change and record.versions() != record.recorded_versions():
            pytest.skip(f"{side}, recorded with {record.recorded_versions()}: {change}")
        assert not change


def test_the_record_is_whole_and_each_trap_is_one():
    """Each fix is right by every exporter, and each naive code is not, by one at least."""
    for name, trap in TRAPS.items():
        naive, fix = (record.recorded(trap, side) for side in ("naive", "fix"))
        assert tuple(naive) == tuple(fix) == trap.exporters, f"{name}: python -m qwen3_codec.course.pitfalls --record"
        wrong = [run for run in naive.values() if run.verdict != "right"]
        assert wrong and all(run.first for run in wrong), name
        assert all(run.verdict == "right" for run in fix.values()), name
    assert {trap.name for trap in TRAPS.values()} == set(record._file()["traps"]), "a trap that is no more"


def test_a_fix_is_said_nothing_of():
    """But of an LSTM in TorchScript's trace, whose warnings are of lines in torch that do no harm."""
    said = {(name, e) for name, trap in TRAPS.items() for e, run in record.recorded(trap, "fix").items() if run.said}
    assert said == {("an LSTM's length", "torchscript")}


def test_a_record_says_why_where_and_how_to_find_it():
    for name, trap in TRAPS.items():
        assert trap.name == name and len(trap.why) > 40 and trap.notes in ("", *"12345")
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", source) for source in trap.sources), name
        assert trap.symptoms and SYMPTOMS.keys() >= set(trap.symptoms) and len(trap.caught_by) > 10, name
        assert any(MARK.search(line) for line in marked_code_of(trap.shown[0]).splitlines()), f"{name}: no guilty line"
        assert "# trap" not in code_of(trap.shown[0]), name
    assert {trap.notes for trap in TRAPS.values()} == {"", *"12345"}
    assert {key for trap in TRAPS.values() for key in trap.symptoms} == set(SYMPTOMS)
    assert {name for _, _, names in CHECKLIST for name in names} == set(TRAPS)
    assert len({trap.anchor for trap in TRAPS.values()}) == len(TRAPS)


def test_no_text_calls_a_trap_silent():
    """What a trap says is in its record: a sentence that denies it would be an opinion. *Silent* is for audio."""
    for name, trap in TRAPS.items():
        assert not re.search(r"silen|without a word|no word|says nothing|complain", trap.why), name


def test_a_change_is_named():
    run = Run("warns", "off by 1.2e-01", ("a.py: TracerWarning: x",), "x 1 long")
    assert record.changed(run, replace(run, text="off by 3.4e-02")) == "", "numbers vary from machine to machine"
    assert record.changed(run, replace(run, verdict="right", text="right")) == "was warns, is right: right"
    assert "was first seen 'x 1 long'" in record.changed(run, replace(run, first="x 2 long"))
    assert "what is said was 'a.py: TracerWarning: x', is ''" in record.changed(run, replace(run, said=()))
    assert record.changed(run, replace(run, text="far off")).startswith("was 'off by") and record.changed(None, run)


def test_a_text_that_quotes_the_guilty_line_is_no_change():
    """Its mark is the project's: an error may quote the line with it, and a record has it or not."""

    def demonstrate(code):
        raise ValueError("at\nif is_last > 0.5:  # trap")

    run = replace(TRAPS["head_dim by the formula"], demonstrate=demonstrate).run_naive()
    assert run.text == "ValueError: at\nif is_last > 0.5:"
    assert not record.changed(replace(run, text=f"{run.text}  # trap"), run)


def test_a_cost_is_no_error():
    trap = replace(
        TRAPS["head_dim by the formula"], demonstrate=lambda code: Outcome(0.0, "20 nodes", "every call", costs=True)
    )
    assert trap.run_naive() == Run("costs", "20 nodes", first="every call")
    wrong = replace(trap, demonstrate=lambda code: Outcome(1.0, "off", "every call", costs=True))
    assert wrong.run_naive().verdict == "unreported"
    assert "right, at a cost; first seen: every call." in card.does(trap.run_naive())


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        (("right", "wrong"), "the export says nothing; the graph is wrong; first"),
        (("right", "stops"), "the export says nothing; ONNX Runtime stops; first"),
        (("stops", "wrong"), "the export says nothing; the graph is wrong, or ONNX Runtime stops; first"),
        ((), "wrong, without an error or a warning; first"),
    ],
)
def test_a_card_says_what_the_graph_does_when_the_export_says_nothing(cases, words):
    assert words in card.does(Run("unreported", "text", first="x 2 long", cases=cases))


def test_a_case_says_where_onnx_runtime_logs_a_warning():
    """At the length whose result is right, and not at the one where it is wrong."""
    lines = record.recorded(TRAPS["a size after unflatten"], "naive")["torchscript"].text.splitlines()
    assert lines[1] == "x 2 long: right; ONNX Runtime logs a warning" and lines[2].startswith("x 7 long: gives")
    assert "warning" not in lines[2]


def test_a_spectrum_by_convolution_is_the_one_by_stft():
    x = row(200)
    assert torch.allclose(SpectrumByStft()(x), SpectrumByConvolution()(x), atol=1e-5)


def test_a_trap_that_has_gone_is_reported_on_its_card_and_stops_nothing(monkeypatch):
    trap = TRAPS["min() on a length"]
    monkeypatch.setitem(TRAPS, trap.name, replace(trap, naive=trap.fix, exporters=("torchscript",)))
    text = pages.show_trap(trap.name).data
    assert re.search(r"Other than recorded</b> \(torch .*\): TorchScript naive: was warns, is right", text)
    assert "Other than recorded" not in pages.show_trap("a mask of minus infinity").data


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


def test_a_card_shows_the_guilty_line_what_is_said_and_the_fix_as_a_difference():
    """With the file's name alone, and links to the public reports."""
    trap = TRAPS["int() on a length"]
    page = BeautifulSoup(pages.show_trap(trap.name).data, "html.parser")
    assert page.mark.text == ">         return x + torch.zeros(1, int(x.size(1)))"
    assert "lengths.py: TracerWarning: Converting a tensor to a Python integer" in page.text
    assert page.find("del", string="-         return x + torch.zeros(1, int(x.size(1)))")
    assert page.find("ins", string="+         return x + torch.zeros(1, x.size(1))")
    assert page.find("a")["href"] == "https://github.com/yakhyo/face-parsing/issues/7"
    assert "IntOfSize in qwen3_codec/course/pitfalls/lengths.py" in page.text
    assert str(Path(lengths.__file__).parent) not in str(page)
    assert (
        page.text.index("the graph is wrong, or ONNX Runtime stops, with a warning")
        < page.text.index("Why.")
        < page.text.index("Fix")
    )
    assert all("monospace" in block["style"] for block in page.find_all("pre"))


@pytest.fixture(scope="module")
def page():
    """The catalogue as it is rendered."""
    tables = [catalogue.matrix(), catalogue.symptoms(), catalogue.messages(), catalogue.checklist()]
    html = [each.data for each in (*tables, *map(catalogue.cards, GROUPS))]
    return BeautifulSoup("".join(html), "html.parser")


def test_each_trap_has_a_row_with_filters_and_a_card_that_it_leads_to(page):
    rows = {row["data-trap"]: row for row in page.select(".trap-matrix tbody tr")}
    assert list(rows) == list(TRAPS)
    anchors = [card["id"] for card in page.select(".trap-card")]
    assert sorted(anchors) == sorted(trap.anchor for trap in TRAPS.values())
    links = {a["href"][1:] for a in page.find_all("a") if a["href"].startswith("#")}
    assert links == set(anchors)
    assert rows["int() on a length"]["class"] == ["dy", "ts", "unreported", "warns"]
    assert [cell.text for cell in rows["math.ceil on a length"].find_all("td")][1:3] == ["warns", "right"]
    assert rows["padding by code 0"].find_all("td")[1]["colspan"] == "2"
    assert "found here" in rows["a misspelt name in dynamic_axes"].text
    for key in catalogue.FILTERS:
        assert key == "all" or page.select(f".trap-matrix tbody tr.{key}"), key


def test_messages_stand_word_for_word_each_once_whatever_its_numbers():
    cells = [row.td.text for row in BeautifulSoup(catalogue.messages().data, "html.parser").select("tbody tr")]
    (add,) = (cell for cell in cells if "running Add node" in cell)
    assert re.match(
        r"Non-zero status code returned while running Add node\. Name:'/Add' Status Message: element_wise", add
    )
    assert "onnxruntime_src" not in add and "Attempting to broadcast an axis by a dimension other than 1" in add
    for words in ("indices element out of data bounds, idx=", "Could not find an implementation for ConvInteger(10)"):
        assert sum(words in cell for cell in cells) == 1, words
    assert not [cell for cell in cells if re.search(r"fails in|more lines|^std(out|err)|def forward|^WARNING", cell)]


def words(text: str) -> set[str]:
    text = text.lower()
    for word, others in catalogue.SAME.items():
        text = re.sub(rf"\b(?:{others})\b", word, text)
    return {word[:5] for word in re.findall(r"\w{3,}", text)}


def found(page, query: str) -> list[str]:
    """The five cards at most that the page's own search gives: by the rule of `catalogue.SEARCH`."""
    cards = {card["data-trap"]: card for card in page.select(".trap-card[id]")}
    has = {name: words(card.text) for name, card in cards.items()}
    titles = {name: words(" ".join(e.text for e in card.select("h4, .trap-symptom"))) for name, card in cards.items()}
    having = {word: sum(word in each for each in has.values()) or 1 for word in words(query)}
    asked = {word: math.log(1 + len(cards) / count) for word, count in having.items()}
    scores = {}
    for name in cards:
        shared = {word: weight for word, weight in asked.items() if word in has[name]}
        share = sum(shared.values()) / sum(asked.values())
        if share >= catalogue.LEAST:
            points = sum(w * (catalogue.TITLE if word in titles[name] else 1) for word, w in shared.items())
            scores[name] = share * points / len(titles[name]) ** 0.5
    return sorted(scores, key=lambda name: -scores[name])[:5]


# Written as people write them: messages and symptoms from public threads, of other models than this one.
ASKED = {
    # yakhyo/face-parsing#7
    "bisenet.py:130: TracerWarning: Converting a tensor to a Python integer might cause the trace to be incorrect. We "
    "can't record the data flow of Python values, so this value will be treated as a constant in the future. "
    "feat32_shape = [int(t) for t in feat32.size()[2:]]": "int() on a length",
    # pytorch/pytorch#42391
    "RuntimeError: Only tuples, lists and Variables supported as JIT inputs/outputs. Dictionaries and strings are "
    "also accepted but their usage is not recommended. But got unsupported type NoneType": "DynamicCache as an input",
    # pytorch/pytorch#143222
    "torch.onnx.export fails with torch._dynamo.exc.UserError: Could not guard on data-dependent expression u1 < 0 "
    "(unhinted: u1 < 0)": "if on a tensor",
    # open-edge-platform/geti#5319
    "RuntimeError: # Failed to convert 'dynamic_axes' to 'dynamic_shapes'. Please provide 'dynamic_shapes' directly. "
    "Refer to the documentation for 'torch.export.export'": "dynamic_axes with *args",
    # microsoft/onnxruntime#13358
    "quantize_dynamic Expected InsertedCast_1.proj.weight to be an initializer": "8-bit convolutions straight from the "
    "exporter",
    # unit8co/darts#3081
    "RuntimeError: value cannot be converted to type at::Half without overflow masked_fill": "a mask with float32's "
    "lowest number",
    # 0xShug0/audio.cpp#429
    "periodic click, chunked codec decode overlap is smaller than the decoder receptive field, left context": "too "
    "little left context",
    # sgl-project/sglang-omni#1354
    "streamed code2wav drops 555 samples at each boundary, audible clicks": "a transposed convolution trimmed on "
    "both sides",
    # rajveer43/VeloxQuant-MLX#389
    "cache trimmed, wrong position: RoPE saturates after the sliding window is full": "positions that saturate",
    # microsoft/onnxruntime#8910
    "[W:onnxruntime:, execution_frame.cc VerifyOutputSizes] Expected shape from model of {10,256} does not match "
    "actual shape of {5,256} for output 115": "a size after unflatten",
    # hsysfan/YOLOv5-Seg-OnnxRuntime#4
    "[ErrorCode:InvalidArgument] Unexpected input data type. Actual: (tensor(float)) , expected: (tensor(float16))": (
        "float32 for a graph in half precision"
    ),
    # microsoft/onnxruntime#12558
    "NOT_IMPLEMENTED : Could not find an implementation for ConvInteger(10) node with name 'Conv_59_quant'": "8-bit "
    "convolutions straight from the exporter",
    # speechbrain/speechbrain#1455
    "Exporting the operator stft to ONNX opset version 9 is not supported": "torch.stft at an old opset",
    "aten::stft": "torch.stft at an old opset",
    # descriptinc/descript-audio-codec#81
    "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment": "a copy "
    "of a module with the older weight norm",
    # yacineMTB/talk#34
    "running Gather node. indices element out of data bounds, idx=144 must be within the inclusive range [-130,129]": (
        "a control code among the codes"
    ),
    # Blaizzy/mlx-audio#537
    "latency grows with every chunk": "every chunk decoded from the start of the stream",
    "memory grows with each chunk": "every chunk decoded from the start of the stream",
    # AreevAI/flowcat#10
    "audio plays too fast and high pitched": "samples played at another rate",
    "wrong sample rate, voice too deep": "samples played at another rate",
}


@pytest.mark.parametrize(("query", "name"), ASKED.items(), ids=ASKED.values())
def test_who_has_a_message_or_a_symptom_finds_the_trap_within_the_first_hits(page, query, name):
    assert name in found(page, query)[:3], found(page, query)


@pytest.mark.parametrize("query", ["crackling at chunk boundaries", "clicks between chunks", "pops at the seams"])
def test_clicks_at_borders_have_many_words_and_lead_to_cards_with_that_symptom(page, query):
    names = found(page, query)
    assert len(names) == 5 and all("borders" in TRAPS[name].symptoms for name in names)


@pytest.mark.parametrize("query", ["banana bread recipe", "permission denied", "driver version is insufficient"])
def test_a_question_that_no_card_fits_gets_none(page, query):
    assert not found(page, query)


def test_the_command_runs_what_is_asked_for(capsys, monkeypatch):
    assert main(["head_dim"]) == 0
    assert "head_dim by the formula: as recorded: refuses" in capsys.readouterr().out
    gone = TRAPS["head_dim by the formula"]
    monkeypatch.setitem(TRAPS, gone.name, replace(gone, naive=gone.fix))
    assert (
        main(["head_dim"]) == 1 and "CHANGED: head_dim by the formula (naive): was refuses" in capsys.readouterr().out
    )
    assert main(["no such trap"]) == 2
    assert "no trap has 'no such trap' in its name" in capsys.readouterr().err


def cases(trap):
    """(example, cases) of a trap on a length."""
    past = trap.name.startswith("max()")
    return (EXAMPLE_WITH_PAST, CASES_WITH_PAST) if past else (EXAMPLE, CASES)


@pytest.mark.parametrize("trap", ON_A_LENGTH, ids=lambda trap: trap.name)
def test_an_export_safe_rewrite_does_what_the_naive_code_does(trap):
    for case in cases(trap)[1]:
        assert torch.allclose(trap.naive()(*case.values()), trap.fix()(*case.values()))


def test_bound_buffers_on_the_exact_graph():
    """With two sets the stream is exact; one set may or may not hurt, by the order of the graph's nodes."""
    assert exact_graph_bound(two_buffers).error < MAX_ERROR


class BakedInFrames(StatefulCodecONNXWrapper):
    def _transform(self, hidden, past):
        return super()._transform(hidden[:, : int(hidden.size(1))], past)


class BakedInContext(StatefulCodecONNXWrapper):
    def forward(self, audio_codes, is_last, pre_conv_h, latent_buf, conv_h, *past):
        return super().forward(audio_codes, is_last, pre_conv_h, latent_buf, conv_h[..., -int(conv_h.size(2)) :], *past)


@pytest.mark.parametrize(
    ("step", "axis", "inputs"),
    [
        (StatefulCodecONNXWrapper, None, ()),
        (BakedInFrames, "frames", ("audio_codes",)),
        (BakedInContext, "left_context_frames", ("conv_h",)),
    ],
)
def test_the_finder_names_the_axis_its_inputs_and_the_node(tiny, tmp_path, step, axis, inputs):
    wrapper, path = step(tiny.decoder), tmp_path / "draft.onnx"
    trace(wrapper, path, "torchscript")
    axes = axes_of(wrapper.spec)
    states = axes.keys() - {"batch", "frames"}
    found = find_baked_in_axes(path, wrapper, example_inputs(wrapper.spec), axes, may_be_empty=states)
    assert [(entry.axis, entry.inputs) for entry in found] == ([(axis, inputs)] if axis else [])
    if found:
        assert found[0].node.startswith("Slice ") and "first in the node Slice" in str(found[0])


def test_the_finder_needs_an_example_that_it_can_stretch(tmp_path):
    step, example = ON_A_LENGTH[0].fix(), {"x": row(5)}
    with captured():
        export_step(step, example, tmp_path / "step.onnx", "torchscript")
    with pytest.raises(ValueError, match="the example's x is empty along axis 1"):
        find_baked_in_axes(tmp_path / "step.onnx", step, {"x": row(0).numpy()}, {"n": [("x", 1)]})


def test_the_finder_on_each_way_to_freeze(tmp_path):
    """Where a graph stops, ONNX Runtime names the node; where it does not, the first node that does not follow."""
    found = {}
    for trap in ON_A_LENGTH:
        for step in (trap.naive(), trap.fix()):
            example, path = cases(trap)[0], tmp_path / "step.onnx"
            with captured():
                export_step(step, example, path, "torchscript")
            arrays, places = {n: t.numpy() for n, t in example.items()}, {n: [(n, 1)] for n in example}
            found[type(step).__name__] = find_baked_in_axes(path, step, arrays, places, may_be_empty=["past"])
    assert all(not found[trap.fix.__name__] for trap in ON_A_LENGTH)
    first = {name: axes[0] for name, axes in found.items() if axes}
    assert {trap.naive.__name__ for trap in ON_A_LENGTH} == set(first)
    assert first["IntOfSize"].node == "Add /Add" and first["RangeOfSize"].node == "Gather /Gather_4"
    assert (first["MaxOfSize"].axis, first["MaxOfSize"].length) == ("past", 0)
    assert "off by" in first["FloatOfSize"].what and first["FloatOfSize"].node == ""


def wrong_states(decoder, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Streams that lose one part of their state between calls, {what is wrong: waveform}.

    The first is right, to compare with. The last keeps all of its state, but its positions stop growing at the window.
    """
    wrappers = (
        ExactStreamingWrapper(decoder),
        SaturatingPositions(decoder, conv_receptive_field(decoder), lookahead_frames=0),
    )
    exact, saturating = (CodecStream(TorchSession(wrapper), codes.shape[0]) for wrapper in wrappers)
    attention = ("past_frames", "key_", "value_")
    losses = {"nothing": (), "all state": ("",), "conv state": ("conv_",), "keys and values": attention}
    found = {
        f"{name} dropped": stream_with_changes(exact.fork(), codes, 3, dropped(*parts))
        for name, parts in losses.items()
    }
    return found | {"positions stop at the window": stream_with_changes(saturating, codes, 3)}


def by_left_context(decoder, codes, contexts) -> dict[int, np.ndarray]:
    """The windowed design without look-ahead, {frames of left context: waveform}."""
    sessions = {h: TorchSession(StatefulCodecONNXWrapper(decoder, h, 0)) for h in contexts}
    return {h: stream_with_changes(session.stream(codes.shape[0]), codes, 3) for h, session in sessions.items()}


def test_every_lost_state_is_measured(shallow):
    codes = random_codes(shallow.decoder, 96)
    reference = one_shot(shallow.decoder, codes)
    waveforms = wrong_states(shallow.decoder, codes)
    assert max_error(reference, waveforms.pop("nothing dropped")) < MAX_ERROR
    snr = {name: snr_db(reference, waveform) for name, waveform in waveforms.items()}
    assert len(snr) == 4 and all(value < 40 for value in snr.values()), snr
    assert snr["all state dropped"] < 12 and snr["conv state dropped"] < 12
    stops = waveforms["positions stop at the window"]
    right = 70 * shallow.decoder.samples_per_frame
    assert max_error(reference[:, :right], stops[:, :right]) < MAX_ERROR, "right until the window is full"


def test_more_history_is_better(shallow):
    codes = random_codes(shallow.decoder, 40)
    reference = one_shot(shallow.decoder, codes)
    found = by_left_context(shallow.decoder, codes, [0, 2, 4, 8, conv_receptive_field(shallow.decoder)])
    snr = [snr_db(reference, waveform) for waveform in found.values()]
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


def test_the_notebook_shows_every_group_and_the_card_of_every_trap():
    page = (Path(__file__).parents[2] / "notebooks" / "07_trap_catalogue.py").read_text(encoding="utf-8")
    assert re.findall(r'^catalogue\.cards\("(\w+)"\)', page, re.MULTILINE) == list(GROUPS)
    assert len(TRAPS) == sum(len(group.TRAPS) for group in GROUPS.values())
