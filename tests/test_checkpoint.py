"""Every place that weights come from, and one clear error for each way that they can be wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import UPSTREAM, random_codes
from safetensors.torch import load_file, save_file

from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, CheckpointError
from qwen3_codec.verify import one_shot


@pytest.fixture
def folder(tmp_path):
    """A copy of the upstream checkpoint to break."""
    return shutil.copytree(UPSTREAM, tmp_path / "checkpoint")


def edit_config(folder, **changes):
    config = json.loads((folder / CONFIG_FILE).read_text())
    for name, value in changes.items():
        place = config if name in config else config["decoder_config"]
        if value is None:
            del place[name]
        else:
            place[name] = value
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def edit_weights(folder, change):
    tensors = load_file(folder / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)


def test_subfolder_of_a_whole_model(tmp_path, upstream):
    shutil.copytree(UPSTREAM, tmp_path / "speech_tokenizer")
    (tmp_path / CONFIG_FILE).write_text('{"model_type": "qwen3_tts"}')
    assert checkpoint.load(tmp_path).fingerprint() == upstream.fingerprint()


def test_save_and_load(tmp_path, other):
    checkpoint.save(other, tmp_path)
    loaded = checkpoint.load(tmp_path)
    codes = random_codes(other.decoder, 9)
    assert loaded.fingerprint() == other.fingerprint()
    np.testing.assert_array_equal(one_shot(loaded.decoder, codes), one_shot(other.decoder, codes))


def test_half_precision_weights_are_read_as_float32(folder, upstream):
    edit_weights(folder, lambda tensors: tensors.update({n: t.to(torch.bfloat16) for n, t in tensors.items()}))
    assert all(tensor.dtype == torch.float32 for tensor in checkpoint.load(folder).decoder.state_dict().values())


@pytest.mark.parametrize("source", ["random", "random-small"])
def test_random_weights_neither_clip_nor_vanish(source):
    loaded = checkpoint.load(source)
    waveform = one_shot(loaded.decoder, random_codes(loaded.decoder, 24, seed=1))
    assert 0.05 < waveform.std() < 0.5 and (np.abs(waveform) >= 1).mean() < 1e-3
    if source == "random":
        assert sum(p.numel() for p in loaded.decoder.parameters()) == pytest.approx(114e6, rel=0.01)


def test_random_weights_are_seeded(small):
    assert checkpoint.load("random-small").fingerprint() == small.fingerprint()
    assert checkpoint.load("random-small", seed=1).fingerprint() != small.fingerprint()


NORM = "decoder.pre_transformer.norm.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: edit_config(f, head_dim=None), "'head_dim' is missing"),
        (lambda f: edit_config(f, output_sample_rate=None), "'output_sample_rate' is missing"),
        (lambda f: edit_config(f, sliding_window="72"), "sliding_window is '72', must be a whole number"),
        (lambda f: edit_config(f, codebook_size=0), "codebook_size is 0, must be at least 1"),
        (lambda f: edit_config(f, upsample_rates=[8, 5, 4]), "decode_upsample_rate is 1920"),
        (lambda f: edit_config(f, num_key_value_heads=3), "does not divide"),
        (lambda f: edit_config(f, latent_dim=32), "has the shape [64, 48, 7], the config makes it [64, 32, 7]"),
        (lambda f: (f / CONFIG_FILE).write_text("{"), "not valid JSON"),
        (lambda f: (f / CONFIG_FILE).unlink(), "no config.json in it"),
        (lambda f: (f / WEIGHTS_FILE).unlink(), "no such file"),
        (lambda f: (f / WEIGHTS_FILE).write_bytes((f / WEIGHTS_FILE).read_bytes()[:-1000]), "truncated"),
        (lambda f: (f / WEIGHTS_FILE).write_bytes(b"\x80\x04pickle"), "not a safetensors file"),
        (lambda f: edit_weights(f, lambda t: t.pop(NORM)), f"missing, the first is {NORM}"),
        (
            lambda f: edit_weights(f, lambda t: t.update({"decoder.odd": torch.ones(1)})),
            "not expected, the first is decoder.odd",
        ),
        (lambda f: edit_weights(f, lambda t: t.update({NORM: torch.ones(3)})), f"{NORM} has the shape [3]"),
    ],
)
def test_a_broken_checkpoint_has_one_clear_error(folder, change, words):
    change(folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(folder)
    assert words in str(caught.value) and str(folder) in str(caught.value)


def test_a_hub_id_offline_names_the_other_ways(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"Hub cannot be reached.*random-small"):
        checkpoint.load("nobody/no-such-checkpoint")


def test_a_folder_that_is_not_there():
    with pytest.raises(CheckpointError, match="/no/such/folder: no such folder"):
        checkpoint.load("/no/such/folder")
