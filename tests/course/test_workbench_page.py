"""The page of the workbench: its cells hold the package's steps, and a judgement is drawn and heard."""

import ast

import jupytext
import pytest
from conftest import small_checkpoint
from matplotlib import pyplot as plt
from test_notebooks import FOLDER

from qwen3_codec import ExactStreamingWrapper, judge
from qwen3_codec.course.lab import workbench


@pytest.mark.parametrize(("index", "source"), [(0, workbench.exact_source), (1, workbench.windowed_source)])
def test_the_cell_to_change_is_the_packages_step(index, source):
    """If it is not: write what `exact_source()` or `windowed_source()` gives into the cell, and format it."""
    cells = jupytext.read(FOLDER / "06_workbench.py").cells
    shown = [cell.source for cell in cells if "workbench" in cell.metadata.get("tags", [])][index]
    assert ast.dump(ast.parse(shown)) == ast.dump(ast.parse(source()))


class Shorter(ExactStreamingWrapper):
    def forward(self, *inputs):
        waveform, *rest = super().forward(*inputs)
        return waveform[:, :-1], *rest


class NotFinite(ExactStreamingWrapper):
    def decode_latents(self, latents, convs):
        return super().decode_latents(latents / 0, convs)


@pytest.mark.parametrize("step", [ExactStreamingWrapper, Shorter, NotFinite])
def test_a_judgement_is_drawn_and_heard_however_wrong_it_is(step, capsys):
    loaded = small_checkpoint("page", num_hidden_layers=1, sliding_window=5, upsample_rates=[3], upsampling_ratios=[2])
    judged = judge(step, loaded, exporter=None)
    figure = workbench.figure(judged)
    assert len(figure.axes) >= 4 and step.__name__ in figure.get_suptitle()
    plt.close(figure)
    workbench.players(judged)
    assert "what the design must give\n" in capsys.readouterr().out


def test_an_edit_to_try_is_shown_folded_with_its_judgement():
    """The page itself asserts what is found of each."""
    shown, (judged,) = workbench.tried(workbench.EDITS[2:3])
    assert shown.data.count("<details>") == 1 and "class OneRowsCountForAll" in shown.data
    assert workbench.wrong_in(judged) == "rows at different offsets" and judged.likely[0] in shown.data
    assert judged.first_frame and workbench.audio_from(judged) == "–", "a row's offset is no frame of wrong audio"
