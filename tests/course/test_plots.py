"""Every figure has a title and named axes, draws what it was given, and reads at 800 pixels."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

from qwen3_codec.course.lab import plots, ruler, schematics
from qwen3_codec.course.lab.plots import style
from qwen3_codec.exporting.precision.export import Sensitivity
from qwen3_codec.measure.costs import Row
from qwen3_codec.measure.load import Load
from qwen3_codec.model.dimensions import StageMemory
from qwen3_codec.verification.report import ChunkResult, PathResult

CHUNKS = [ChunkResult(3 * i, 3, 5760, 10.0**-i, 0.1, 0.0, 0.01 * (i + 1)) for i in range(5)]
RESULT = PathResult("ONNX Runtime", [3], 28800, 1e-3, 0.1, 20.0, 0.0, 20.0, 0, None, 0.5, CHUNKS)
WAVE = np.sin(np.arange(4800) / 20)

ROWS = [
    Row(
        design,
        "ONNX Runtime",
        chunk,
        1,
        *np.array([5, 6, 7]) * chunk,
        5,
        0.06,
        85 * chunk,
        1e-6,
        100,
        10,
        99,
        [5.0] * 4,
    )
    for design in ("windowed 4+4", "exact")
    for chunk in (1, 3)
]

LOADS = [Load(kind, n, 4, 320.0, 3.0, 1.0, [5.0 * n, 6.0 * n]) for kind in ("joined", "apart") for n in (1, 2, 4)]

FIGURES = {
    "states_along": lambda: plots.states_along(["a", "b"], [0.1, 0.2], [100, 200], "states"),
    "call_times": lambda: plots.call_times({"a": [5.0, 7.0], "b": [6.0, 6.0]}, 3, 240.0, "calls"),
    "state_worth": lambda: plots.state_worth({"a": {"x": 3.0, "y": 40.0}, "b": {"x": 2.0, "y": 9.0}}, "worth"),
    "latency": lambda: plots.latency(ROWS, "latency"),
    "latency_of_streams": lambda: plots.latency_of_streams(LOADS, "load"),
    "throughput": lambda: plots.throughput({"N = 1": [(1, 5.0), (4, 2.0)], "N = 4": [(1, 3.0), (4, 2.5)]}, "rows"),
    "offsets": lambda: plots.offsets(np.array([[0, 3, np.nan], [np.nan, 0, 1]]), "offsets"),
    "cost_against_sound": lambda: plots.cost_against_sound(ROWS, "cost and sound"),
    "sensitivity": lambda: plots.sensitivity(
        [Sensitivity("first", None, 41.0, "two-term int8"), Sensitivity("residual", 1, 43.0, "8 bits")], "noise"
    ),
    "receptive_field": lambda: plots.receptive_field(WAVE, WAVE[:90], 480, 2, "random"),
    "waveforms": lambda: plots.waveforms(WAVE, 0.9 * WAVE, 24000, "two waves", [0, 2400]),
    "per_chunk_error": lambda: plots.per_chunk_error([RESULT, RESULT], "errors", 1e-9),
    "error_against_history": lambda: plots.error_against_history(
        {"a": [(0, 1.0), (4, 1e-3), (10, 0.0)]}, 10, "history"
    ),
    "differences": lambda: plots.differences(WAVE, {"a": 0.9 * WAVE, "b": WAVE}, 24000, "lost", [2400]),
    "residual_by_codebook": lambda: plots.residual_by_codebook([0.5, 0.1, 0.0], {1: 3.0, 2: 9.0}, "residual"),
    "codes": lambda: plots.codes(np.arange(60).reshape(20, 3), 0.08, "codes", np.zeros((20, 3))),
    "frame_errors": lambda: plots.frame_errors({"a": [1e-3, 0.0], "b": [1.0, 1e-9]}, "edges", "error"),
    "agreement": lambda: plots.agreement({"a": [1.0, 0.5], "b": [1.0, 1.0]}, "agreement"),
    "stream_error": lambda: plots.stream_error(
        WAVE, 0.9 * WAVE, 24000, [0, 2400, 2400], [0.0, 1e-3, 1e-12], "stream", 1e-9, {"window full": 2400}
    ),
}

MASK = np.tril(np.full((3, 5), 2), 2)
STAGES = [StageMemory("pre_conv", 12.5, ("conv_00",), 160.0, 512), StageMemory("decoder.5", 24000.0, (), 0.0, 0)]
SCHEMATICS = {
    "calls_see": lambda: schematics.calls_see({"exact": schematics.exact_calls([3, 2])}, "calls"),
    "memory_line": lambda: schematics.memory_line(STAGES, "memory"),
    "step_loop": lambda: schematics.step_loop("a step", "3 frames", "38 tensors", "5760 samples"),
    "masks": lambda: schematics.masks({"a row that has seen 2 frames": MASK, "another": MASK}, 2, "masks"),
    "overlap": lambda: schematics.overlap(16, 8, 4, 2, "kernel 16, stride 8"),
}
RULERS = {
    "sliding": lambda: ruler.sliding(6, 2, 3, "a ruler"),
    "positions": lambda: ruler.positions({"late": ruler.calls(ruler.FROM_LENGTH, 6, 2, 3)[-1]}, 6, "positions"),
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_labelled(name):
    figure = FIGURES[name]()
    assert figure.get_suptitle() or any(axes.get_title() for axes in figure.axes)
    assert any(axes.get_ylabel() for axes in figure.axes) and any(axes.get_xlabel() for axes in figure.axes)
    figure.canvas.draw()


@pytest.mark.parametrize("name", [*FIGURES, *SCHEMATICS, *RULERS])
def test_a_figure_reads_at_800_pixels(name):
    """At most 850 pixels wide, so that a page shrinks it hardly; no text below 9 points, and none outside."""
    figure = (FIGURES | SCHEMATICS | RULERS)[name]()
    assert figure.get_figwidth() <= 8.5 and figure.get_dpi() == 100
    figure.canvas.draw()
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert {text.get_text(): text.get_fontsize() for text in shown if text.get_fontsize() < 9} == {}
    boxes = {text.get_text(): text.get_window_extent() for text in shown if text not in _ticks_outside(figure)}
    assert [words for words, box in boxes.items() if box.x0 < 0 or box.x1 > figure.bbox.x1] == []


def _ticks_outside(figure):
    """Matplotlib keeps the labels of ticks that lie outside their axis, and draws none of them."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        yield from (tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high)


@pytest.mark.parametrize(("module", "tried"), [(plots, FIGURES), (schematics, SCHEMATICS), (ruler, RULERS)])
def test_every_figure_is_tried(module, tried):
    drawing = {
        name for name, value in vars(module).items() if getattr(value, "__annotations__", {}).get("return") is Figure
    }
    assert drawing == set(tried)


def test_the_style_ends_with_the_figure_and_nothing_else_does():
    """A notebook's backend turns `interactive` on when the first figure is made; it shows no later one without it."""
    before = dict(plt.rcParams)

    @style.styled
    def draw():
        plt.rcParams["interactive"] = True
        assert plt.rcParams["font.size"] == style.SMALL

    draw()
    after = dict(plt.rcParams)
    plt.rcParams["interactive"] = before["interactive"]
    assert after == before | {"interactive": True}


def test_a_progress_bar_is_no_error(capsys):
    assert list(plots.progress(range(3), unit="thing")) == [0, 1, 2]
    found = capsys.readouterr()
    assert "thing" in found.out and not found.err


def test_per_chunk_error_draws_the_numbers():
    line = plots.per_chunk_error([RESULT], "errors").axes[0].lines[0]
    assert line.get_xdata().tolist() == [0, 3, 6, 9, 12] and line.get_ydata().tolist() == [c.mse for c in CHUNKS]


def test_a_table_and_a_player():
    assert plots.table(["a", "b"], [(1, 2)]).data == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    long = plots.table(["n"], [(n,) for n in range(13)]).data
    shown, folded = long.split("<details><summary>All 13 rows</summary>")
    assert shown.count("\n| ") == 1 + 6 and folded.count("\n| ") == 2 + 13
    assert len(plots.player(WAVE[None], 24000, seconds=0.1).data) == 2 * 2400 + 44


def test_every_series_is_drawn_in_a_style_and_with_a_label_of_its_own():
    axes = plots.per_chunk_error([RESULT] * 28, "errors").axes[0]
    styles = {(line.get_marker(), line.get_linestyle()) for line in axes.lines}
    labels = [text.get_text() for text in axes.get_figure().legends[0].get_texts()]
    assert len(axes.lines) == len(styles) == len(set(labels)) == 28
    assert labels[:2] == ["ONNX Runtime, chunks of 3", "ONNX Runtime, chunks of 3 (2)"]
    many = {str(index): [(0, 1.0), (4, 1e-3)] for index in range(9)}
    assert len(plots.error_against_history(many, 10, "history").legends[0].get_texts()) == 9
    designs = [replace(ROWS[0], design=str(index)) for index in range(9)]
    assert len(plots.latency(designs, "latency").axes[0].lines) == 9
    worth = {str(index): {"x": 3.0} for index in range(7)}
    assert len(plots.state_worth(worth, "worth").axes[0].containers) == 7


@pytest.mark.parametrize(
    "draw",
    [
        lambda title: plots.per_chunk_error([RESULT], title),
        lambda title: plots.stream_error(WAVE, WAVE, 24000, [4800], [0.0], title, 1e-9),
        lambda title: plots.latency(ROWS, title),
    ],
)
def test_a_long_title_stays_inside_its_figure(draw):
    figure = draw("windowed, history 4, look-ahead 4; chunks of 3,1,7; trap: none " * 4)
    figure.canvas.draw()
    (title,) = [text for text in figure.findobj(Text) if text.get_text().startswith("windowed, history")]
    box, page = title.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1
