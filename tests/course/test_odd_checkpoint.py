"""Every page that is about a checkpoint, on one that has none of the default's numbers.

Run as papermill does it: from another folder, with values injected as text behind the cell of parameters. On the demo
`make walkthrough` and the night execute these pages.
"""

import copy

import nbformat
import numpy as np
import pytest
from conftest import CHOOSES_CHECKPOINT, mostly_slow, random_codes, small_checkpoint
from nbclient import NotebookClient
from test_notebooks import FOLDER, NAMES

from qwen3_codec.files import build_folder
from qwen3_codec.model import checkpoint

ODD = {
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 10,
    "sliding_window": 7,
    "num_quantizers": 5,
    "codebook_size": 24,
    "num_hidden_layers": 2,
    "upsample_rates": [4, 3],
    "upsampling_ratios": [2],
    "latent_dim": 40,
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder with weights and 40 frames of codes, shape [B, N, Q]."""
    folder = tmp_path_factory.mktemp("odd") / "a checkpoint"
    made = small_checkpoint("odd", **ODD)
    checkpoint.save(made, folder)
    (folder / "codes").mkdir()
    np.save(folder / "codes" / "mine.npy", random_codes(made.decoder, 40))
    return folder


def parameters(notebook):
    (index,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    return index, notebook.cells[index].source


# By day those that read dimensions, that verify, that judge an edit, and that encode; the night has all.
DAY = ["02_inspect_dims", "05_verify_onnxruntime", "06_workbench", "09_your_voice"]


@pytest.mark.parametrize("name", mostly_slow(NAMES, DAY))
def test_every_page_holds_on_an_odd_checkpoint(odd, tmp_path, name, monkeypatch):
    notebook = copy.deepcopy(nbformat.read(FOLDER / f"{name}.ipynb", as_version=4))
    assert notebook.metadata.kernelspec.name == "python3"
    index, defaults = parameters(notebook)
    if CHOOSES_CHECKPOINT not in defaults:
        pytest.skip("this page is not about a checkpoint of the reader's")
    given = {"CHECKPOINT": str(odd), "BUILD": str(tmp_path / "graphs"), "SKIP_OFFICIAL": True}
    given |= {"LONG": 100}  # well past what this decoder sees
    lines = [f"{key} = {value!r}" for key, value in given.items() if f"{key} =" in defaults]
    notebook.cells.insert(index + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    # Cells that a page marks as being of a model of their own do the same on any checkpoint.
    notebook.cells = [cell for cell in notebook.cells if "own-model" not in cell.metadata.get("tags", [])]
    for variable in ("QWEN3_CODEC_BUILD", "QWEN3_CODEC_CHECKPOINT"):
        monkeypatch.delenv(variable, raising=False)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "graphs" not in path.parts]
    assert not written, "a page writes into BUILD alone"
    if "BUILD =" in defaults:
        assert [*(tmp_path / "graphs").rglob("*")], "the injected value reaches everything that comes from it"


def test_a_folder_that_cannot_be_written_says_which_variable_to_set(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"file/build: cannot be written .*; set BUILD, or QWEN3_CODEC_BUILD, to a folder"
    ):
        build_folder(tmp_path / "file" / "build")
    assert build_folder(str(tmp_path / "new")) == tmp_path / "new" and not [*(tmp_path / "new").iterdir()]
    assert build_folder().name == "build"
