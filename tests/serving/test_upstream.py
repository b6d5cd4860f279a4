"""Upstream's own package on our codec: tests/upstream, in the environment of `make upstream`."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import slow

from qwen3_codec.exporting.export import exported
from qwen3_codec.files import CHECKOUT
from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint.config import small_config
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.exact import ExactStreamingWrapper

PYTHON = CHECKOUT / "build" / "upstream" / "bin" / "python"
TESTS = Path(__file__).parents[1] / "upstream"

pytestmark = pytest.mark.skipif(
    not (PYTHON.parents[1] / ".installed").is_file(),
    reason="upstream's package is not here: `make upstream` installs it",
)


def odd():
    """Both halves of a codec with none of the demo's numbers: two rates, grouped queries, 5 codebooks."""
    decoder = {
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 10,
        "sliding_window": 7,
        "latent_dim": 40,
    }
    decoder |= {"num_quantizers": 5, "codebook_size": 32, "num_hidden_layers": 2}
    config = small_config(**decoder, upsample_rates=[4, 3], upsampling_ratios=[2])
    encoder = {"num_quantizers": 6, "codebook_size": 32, "upsampling_ratios": [4, 3], "sliding_window": 40}
    config["encoder_config"] = config["encoder_config"] | encoder | {"sampling_rate": 16000}
    outer = {"encoder_valid_num_quantizers": 5, "encode_downsample_rate": 24, "input_sample_rate": 16000}
    return checkpoint.random_checkpoint(config | outer, source="odd")


# The odd one quickly: it has none of the demo's numbers.
@pytest.fixture(scope="module", params=["odd", slow("demo")])
def codec(request, tmp_path_factory, demo_graphs):
    """(name, a folder with its folder in it: the checkpoint, as upstream's classes load it, and both graphs)."""
    folder = tmp_path_factory.mktemp("codecs")
    if request.param == "odd":
        loaded, graphs = odd(), folder
    else:
        loaded, graphs = checkpoint.load("demo"), demo_graphs
    shutil.copy(checkpoint.loading.BUNDLED["demo"] / "codes" / "en_passage.npy", folder / "passage.npy")
    checkpoint.save(loaded, place := folder / request.param)
    features = {"feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1}
    features["sampling_rate"] = loaded.encoder.config.sampling_rate
    (place / "preprocessor_config.json").write_text(json.dumps(features))
    exact, encoder = ExactStreamingWrapper(loaded.decoder), StreamEncoderWrapper(loaded.encoder)
    shutil.copy(exported(loaded, exact, graphs / "exact.onnx"), place / "decoder.onnx")
    shutil.copy(exported(loaded, encoder, graphs / "encoder.onnx"), place / "encoder.onnx")
    return request.param, folder


def test_upstreams_package_goes_on_with_our_codec(codec):
    """`--confcutdir`: the fixtures of the other tests want another transformers than upstream's."""
    name, folder = codec
    command = [PYTHON, "-m", "pytest", "-p", "no:cacheprovider", f"--confcutdir={TESTS}", TESTS, "-k", name]
    environment = os.environ | {"QWEN3_CODEC_UPSTREAM": str(folder), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (CHECKOUT, TESTS.parent)))
    run = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and " skipped" not in run.stdout, run.stdout + run.stderr
