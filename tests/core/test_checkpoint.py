"""Every place that weights come from, and one clear error for each way that they can be wrong."""

import json
import shutil
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import UPSTREAM, random_codes, slow
from safetensors.torch import load_file, save_file

from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint import CheckpointError
from qwen3_codec.model.checkpoint.config import DECODER_DEFAULTS, OFFICIAL_CONFIG
from qwen3_codec.model.checkpoint.hub import CONFIG_FILE
from qwen3_codec.model.checkpoint.weights import INDEX_FILE, WEIGHTS_FILE
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime.codes import CodesError


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


def add_to_config(folder, **fields):
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["decoder_config"] |= fields
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def swap_axes(tensors):
    """As MLX keeps a convolution's weights."""
    tensors |= {name: t.transpose(1, 2).contiguous() for name, t in tensors.items() if t.ndim == 3}


def rename_all(tensors):
    renamed = {name.replace("decoder.", "decoder.model.", 1): t for name, t in tensors.items()}
    tensors.clear()
    tensors.update(renamed)


def quantise(tensors, name="decoder.pre_conv.conv.weight"):
    scale = tensors[name].abs().max() / 127
    tensors |= {name: (tensors[name] / scale).to(torch.int8), f"{name}_scale": scale[None]}


def shard(folder, pattern="model-{}.safetensors"):
    """The weights in two files and an index, as `save_pretrained` cuts large ones."""
    if (folder / WEIGHTS_FILE).is_file():
        tensors = load_file(folder / WEIGHTS_FILE)
        (folder / WEIGHTS_FILE).unlink()
        files = [pattern.format(f"{part:05}-of-00002") for part in (1, 2)]
        places = {name: files[index % 2] for index, name in enumerate(tensors)}
        for file in files:
            save_file({name: tensors[name] for name in places if places[name] == file}, folder / file)
        (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return sorted(folder.glob("model-*.safetensors"))


def test_sharded_weights(folder, upstream):
    assert len(shard(folder)) == 2
    assert checkpoint.load(folder).fingerprint() == upstream.fingerprint()


def test_a_config_as_transformers_5_writes_it(folder, upstream):
    edit_config(folder, rope_theta=None)
    add_to_config(folder, rope_parameters={"rope_type": "default", "rope_theta": 10000})
    loaded = checkpoint.load(folder)
    assert loaded.decoder.config.rope_parameters == upstream.decoder.config.rope_parameters
    assert loaded.config == upstream.config
    loaded.check_unchanged()
    add_to_config(folder, rope_theta=10000.0)  # both there and the same
    assert checkpoint.load(folder).config == upstream.config


def test_fields_that_equal_upstreams_defaults_may_be_left_out(tmp_path, small):
    """Whole config: with each field of the defaults' value gone, the same decoder is built."""
    fields = {**DECODER_DEFAULTS, **{"head_dim": 16, "codebook_dim": 32, "hidden_size": 32, "decoder_dim": 64}}
    fields |= {"num_hidden_layers": 2, "latent_dim": 48, "intermediate_size": 64, "codebook_size": 64}
    whole = {**OFFICIAL_CONFIG, "decoder_config": fields}
    checkpoint.save(checkpoint.random_checkpoint(whole), tmp_path)
    there = checkpoint.load(tmp_path)
    left = {name: value for name, value in fields.items() if DECODER_DEFAULTS.get(name) != value}
    assert len(left) == 8 and "rope_theta" not in left and "num_attention_heads" not in left
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"decoder_config": left}))
    loaded = checkpoint.load(tmp_path)
    assert loaded.decoder.config.to_dict() == there.decoder.config.to_dict() and loaded.sample_rate == 24000
    checkpoint.save(loaded, tmp_path / "again")
    assert checkpoint.load(tmp_path / "again").config == loaded.config


def test_a_byte_order_mark_is_no_matter(folder, upstream):
    (folder / CONFIG_FILE).write_text((folder / CONFIG_FILE).read_text(), encoding="utf-8-sig")
    assert checkpoint.load(folder).config == upstream.config


def test_a_tilde_is_the_home_folder(folder, upstream, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert checkpoint.load("~/checkpoint").fingerprint() == upstream.fingerprint()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("codec.gguf", b"GGUF\3\0\0\0", "this is GGUF, a format for other programs"),
        ("model.safetensors", b"", "this is the weights alone; a checkpoint is a folder"),
        ("model.pt", b"PK\3\4", "this is a pickle"),
    ],
)
def test_a_file_in_place_of_a_folder(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(tmp_path / name)


def test_example_codes_are_the_longest_row_and_checked(folder, upstream):
    (folder / "codes").mkdir()
    rows = random_codes(upstream.decoder, 7, batch=2)
    np.save(folder / "codes" / "two.npy", rows)
    np.save(folder / "codes" / "short.npy", rows[0, :3])
    loaded = checkpoint.load(folder)
    np.testing.assert_array_equal(checkpoint.example_codes(loaded, 5), rows[:1, :5])
    np.testing.assert_array_equal(checkpoint.example_codes(loaded, 16), np.tile(rows[:1], (1, 3, 1))[:, :16])
    np.save(folder / "codes" / "short.npy", rows[0] + 10_000)
    with pytest.raises(CodesError, match=r"codes/short.npy: code \d+ at row 0, frame 0, codebook 0 is outside"):
        checkpoint.example_codes(loaded, 100)
    np.save(folder / "codes" / "short.npy", rows[0, :, :3])
    with pytest.raises(CodesError, match=r"short.npy: codes have the shape \[7, 3\]"):
        checkpoint.example_codes(loaded, 100)


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


@pytest.mark.parametrize("source", [slow("random"), "random-small"])
def test_random_weights_neither_clip_nor_vanish(source):
    loaded = checkpoint.load(source)
    waveform = one_shot(loaded.decoder, random_codes(loaded.decoder, 12, seed=1))
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
        (lambda f: edit_config(f, codebook_dim=None), "'codebook_dim' is missing"),
        (lambda f: edit_config(f, decoder_config=[]), "decoder_config is [], must be an object"),
        (lambda f: edit_config(f, hidden_act="swoosh"), "hidden_act is 'swoosh', must be one of"),
        (lambda f: edit_config(f, num_semantic_quantizers=2), "num_semantic_quantizers is 2; upstream's decoder has 1"),
        (
            lambda f: add_to_config(f, rope_parameters={"rope_type": "yarn", "rope_theta": 10000, "factor": 4.0}),
            "rope_parameters is {'rope_type': 'yarn'",
        ),
        (
            lambda f: add_to_config(f, rope_parameters={"rope_type": "default", "rope_theta": 500}),
            "rope_theta is 10000, but rope_parameters has 500",
        ),
        (
            lambda f: add_to_config(f, rope_scaling={"type": "linear", "factor": 2.0}),
            "rope_scaling is {'type': 'linear'",
        ),
        (lambda f: add_to_config(f, rope_parameters="linear"), "rope_parameters is 'linear'"),
        (
            lambda f: (f / CONFIG_FILE).write_text('{"model_type": "qwen3_tts", "talker_config": {}}'),
            "a Qwen3-TTS language model; the codec is in its folder speech_tokenizer/, which is missing here",
        ),
        (
            lambda f: edit_config(f, model_type="qwen3_tts_tokenizer_25hz"),
            "the 25 Hz tokenizer, whose decoder is another",
        ),
        (
            lambda f: edit_config(f, model_type="qwen3_tts_tokenizer_multi_codebook"),
            "a conversion for a class of transf",
        ),
        (lambda f: (f / CONFIG_FILE).write_text('{"model_type": "mimi"}'), "a model of type 'mimi'"),
        (lambda f: (f / CONFIG_FILE).write_text("[]"), "holds a list, must be an object"),
        (lambda f: edit_weights(f, swap_axes), "the same axes in another order, as MLX keeps convolutions"),
        (lambda f: edit_weights(f, rename_all), "the weights have other names: decoder."),
        (lambda f: edit_weights(f, quantise), "decoder.pre_conv.conv.weight is I8; quantised weights are not read"),
        (
            lambda f: edit_weights(f, lambda t: t.update({NORM: t[NORM].to(torch.float8_e4m3fn)})),
            f"{NORM} is F8_E4M3; quantised",
        ),
        (
            lambda f: edit_weights(f, lambda t: t[NORM][3:5].fill_(torch.nan)),
            f"{NORM} has 2 values that are not finite",
        ),
        (
            lambda f: (f / WEIGHTS_FILE).write_text("version https://git-lfs.github.com/spec/v1\noid"),
            "a Git LFS pointer",
        ),
        (lambda f: (f / WEIGHTS_FILE).write_bytes(b"GGUF\3\0\0\0"), "GGUF, a format for other programs"),
        (lambda f: (f / WEIGHTS_FILE).rename(f / "pytorch_model.bin"), "pytorch_model.bin there is a pickle"),
        (lambda f: (f / WEIGHTS_FILE).rename(f / "codec.gguf"), "codec.gguf there is GGUF"),
        (lambda f: shard(f)[1].unlink(), "model-00002-of-00002.safetensors: no such file"),
        (lambda f: shard(f)[1].write_bytes(shard(f)[1].read_bytes()[:-9]), "00002-of-00002.safetensors: truncated"),
        (lambda f: shard(f, "../{}.safetensors"), "is not the name of a safetensors file beside it"),
        (lambda f: (shard(f), (f / INDEX_FILE).write_text("{}")), "not an index of safetensors files"),
        (lambda f: edit_config(f, sliding_window="72"), "sliding_window is '72', must be an integer"),
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
    with pytest.raises(CheckpointError, match=r"the Hub is not asked \(HF_HUB_OFFLINE is set\).*random-small"):
        checkpoint.load("nobody/no-such-checkpoint")


def cached(home, source, repo="someone/codec", subfolder=""):
    """`source`'s files as the Hub's cache keeps them."""
    place = home / "hub" / f"models--{repo.replace('/', '--')}"
    shutil.copytree(source, place / "snapshots" / "0123abcd" / subfolder)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / "main").write_text("0123abcd")
    return repo


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path


@pytest.fixture(params=["refuses", "never answers"])
def no_hub(request, monkeypatch):
    """An address where nobody listens, and one that takes the call and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "never answers":
            listening.listen()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.3)
        yield


@pytest.mark.parametrize("subfolder", ["", "speech_tokenizer"])
def test_what_is_in_the_hubs_cache_loads_offline(hub_cache, no_hub, upstream, folder, subfolder):
    if subfolder:
        shard(folder)
    repo = cached(hub_cache, folder, subfolder=subfolder)
    assert checkpoint.load(repo).fingerprint() == upstream.fingerprint()


def test_without_the_hub_there_is_one_try(hub_cache, no_hub, monkeypatch):
    """The Hub's own library would try each file five times; here nothing is asked for but a sign of life."""
    asked, session = [], huggingface_hub.utils.get_session()
    request = type(session).request
    monkeypatch.setattr(type(session), "request", lambda *args, **more: asked.append(args) or request(*args, **more))
    with pytest.raises(CheckpointError, match=r"not in the Hub's cache, and the Hub cannot be reached.*random-small"):
        checkpoint.load("nobody/no-such-checkpoint")
    assert len(asked) == 1


def test_a_hub_id_without_the_hubs_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        CheckpointError, match=r"for a Hub id, .*huggingface_hub.*the extra \[hub\] brings.*random-small"
    ):
        checkpoint.load("nobody/no-such-checkpoint")


class SlowHub(BaseHTTPRequestHandler):
    """Answers as the Hub does, `delay` seconds late, with the files of `folder`."""

    delay, folder, status = 0.2, UPSTREAM, 200

    def do_HEAD(self):
        time.sleep(self.delay)
        path = self.folder / self.path.partition("/resolve/main/")[2]
        content = path.read_bytes() if path.is_file() else b""
        self.send_response(200 if self.path == "/" else 404 if self.status == 200 and not content else self.status)
        headers = {"ETag": f'"{path.name}"', "X-Repo-Commit": 40 * "0", "Content-Length": str(len(content))}
        for name, value in (
            headers | ({} if content or self.status != 200 else {"X-Error-Code": "EntryNotFound"})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        return content

    def do_GET(self):
        self.wfile.write(self.do_HEAD())

    def log_message(self, *_):
        """Nothing on the screen."""


@pytest.fixture
def slow_hub(hub_cache, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowHub)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield url
    server.shutdown()
    server.server_close()


def test_a_hub_that_takes_its_time_is_waited_for(slow_hub, upstream, monkeypatch):
    """As long as the Hub's own setting says, 10 s by default: not a number of ours."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.05)
    with pytest.raises(CheckpointError, match=rf"cannot be reached \({slow_hub}: .*0.05 s, HF_HUB_ETAG_TIMEOUT"):
        checkpoint.load("someone/codec")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 30)
    assert checkpoint.load("someone/codec").fingerprint() == upstream.fingerprint()


def test_a_hub_that_answers_and_gives_nothing_is_not_one_without_the_file(slow_hub, upstream, folder, monkeypatch):
    """A firewall's page, a gate: what it said is in the error. And what the cache has serves."""
    monkeypatch.setattr(SlowHub, "status", 403)
    monkeypatch.setattr(SlowHub, "delay", 0)
    with pytest.raises(CheckpointError, match=r"could not be fetched from the Hub \(.*403 Forbidden.*random-small"):
        checkpoint.load("someone/codec")
    repo = cached(folder.parent, folder, "someone/other")
    assert checkpoint.load(repo).fingerprint() == upstream.fingerprint()


def test_another_models_config_is_refused_before_its_weights_are_fetched(hub_cache, no_hub, folder):
    (folder / CONFIG_FILE).write_text('{"model_type": "qwen3_tts"}')
    repo = cached(hub_cache, folder)
    with pytest.raises(CheckpointError, match="a Qwen3-TTS language model"):
        checkpoint.load(repo)


def test_a_folder_that_is_not_there():
    with pytest.raises(CheckpointError, match="/no/such/folder: no such folder"):
        checkpoint.load("/no/such/folder")
