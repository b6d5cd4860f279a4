"""Decoders, graphs and codes that several tests share. Everything is small: the layers are the official ones."""

import gc
import os
from pathlib import Path

import pytest

from qwen3_codec.exporting.export import exported, write_draft
from qwen3_codec.files import written_whole
from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint.config import small_config
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime import codes as codec_codes
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper

CHOOSES_CHECKPOINT = "CHECKPOINT = "  # in the cell of parameters of a page
UPSTREAM = Path(__file__).parent / "upstream_tiny"

# What upstream's class could also write: each changes what the official config has, and none of it is a special case.
# Few layers and low rates keep the tests short.
FEW = {"num_hidden_layers": 2, "upsample_rates": [5, 4], "upsampling_ratios": [2]}
OTHER_CONFIGS = {
    "grouped-query": {**FEW, "num_key_value_heads": 2},
    "window-20": {**FEW, "sliding_window": 20, "num_hidden_layers": 3},
    "other-rates": {**FEW, "upsample_rates": [6, 5], "upsampling_ratios": [3]},
    "eight-codebooks": {**FEW, "num_quantizers": 8, "codebook_size": 32},
    "everything": {
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 10,
        "sliding_window": 7,
        "num_hidden_layers": 2,
        "num_quantizers": 5,
        "upsample_rates": [4, 3, 2],
        "upsampling_ratios": [2, 3, 2],
        "latent_dim": 40,
        "codebook_dim": 24,
        "attention_bias": True,
    },
}


def pytest_configure(config):
    # What is imported stays: to look through it again and again for what does not takes time.
    gc.set_threshold(20_000, 50, 100)
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.import_plugin("scheduling")


def pytest_collection_modifyitems(items):
    """Pages about a checkpoint are executed on the demo by the walkthrough and at night."""
    for item in items:
        if item.path.suffix == ".ipynb" and CHOOSES_CHECKPOINT in item.path.read_text(encoding="utf-8"):
            item.add_marker(pytest.mark.slow)


def slow(value):
    return pytest.param(*(value if isinstance(value, tuple) else [value]), marks=pytest.mark.slow)


def mostly_slow(values, soon):
    """`values` for `parametrize`, slow but for those in `soon`: what one finds, the others nearly always find too."""
    return [value if value in soon else slow(value) for value in values]


def small_checkpoint(name="", seed=0, **fields):
    """A random checkpoint at small dimensions with some config fields changed."""
    return checkpoint.random_checkpoint(small_config(**fields), seed, name or "small")


def random_codes(decoder, frames, batch=1, seed=0):
    return codec_codes.random_codes(decoder.config, frames, batch, seed)


@pytest.fixture(scope="session")
def graphs_folder(tmp_path_factory):
    """A folder for graphs, one for all workers: `exported` finds what another file of tests has made."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "graphs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def demo_graphs(graphs_folder):
    """The demo's, by their designs' names, as the page wants them."""
    (graphs_folder / "demo").mkdir(exist_ok=True)
    return graphs_folder / "demo"


def drafted(loaded, wrapper, path):
    """As `exported`, without its runs: for tests of what is done with graphs that other tests have exported and run."""
    if not path.is_file():
        with written_whole(path) as draft:
            write_draft(loaded, wrapper, draft)
    return path


@pytest.fixture(scope="session")
def small():
    """`random-small`: 8 layers, so that the windowed graph has its 21 inputs and 23 outputs."""
    return checkpoint.load("random-small")


@pytest.fixture(scope="session")
def upstream():
    return checkpoint.load(UPSTREAM)


@pytest.fixture(scope="session", params=OTHER_CONFIGS)
def other(request):
    return small_checkpoint(request.param, **OTHER_CONFIGS[request.param])


@pytest.fixture(scope="session")
def everything():
    """The one of these that changes most, where it would take too long to export all."""
    return small_checkpoint("everything", **OTHER_CONFIGS["everything"])


@pytest.fixture(scope="session")
def shallow():
    """Two layers, grouped queries and two upsampling steps: quick to run."""
    fields = {"num_hidden_layers": 2, "num_key_value_heads": 2, "upsample_rates": [5, 3], "upsampling_ratios": [2]}
    return small_checkpoint("shallow", **fields)


@pytest.fixture(scope="session")
def tiny():
    """As few operations as a decoder can have: `torch.export` takes a quarter of a minute for 8 layers."""
    fields = {"num_hidden_layers": 1, "num_quantizers": 3, "upsample_rates": [3], "upsampling_ratios": [2]}
    return small_checkpoint("tiny", **fields)


@pytest.fixture(scope="session")
def exact_window(small):
    """A windowed wrapper whose history reaches the receptive field, with look-ahead."""
    return StatefulCodecONNXWrapper(small.decoder, conv_history_frames=10, lookahead_frames=4)


@pytest.fixture(scope="session")
def graph(small, exact_window, graphs_folder):
    return exported(small, exact_window, graphs_folder / "small_windowed.onnx")


@pytest.fixture(scope="session")
def session(graph):
    return CodecSession(graph)


@pytest.fixture(scope="session")
def exact(shallow, graphs_folder):
    path = exported(shallow, ExactStreamingWrapper(shallow.decoder), graphs_folder / "shallow_exact.onnx")
    return CodecSession(path, threads=1)


@pytest.fixture(scope="session")
def tiny_exact(tiny, graphs_folder):
    return exported(tiny, ExactStreamingWrapper(tiny.decoder), graphs_folder / "tiny_exact.onnx")
