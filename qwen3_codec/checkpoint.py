"""Where weights come from, and the checks that they pass before anything is built on them.

`load(source)` takes `random-small`, `random`, a folder in upstream's layout (`config.json` and `model.safetensors`),
a folder that holds one as `speech_tokenizer/`, or a Hub id. Only safetensors files are read.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .reference import CodecDecoder, code2wav_config

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SUBFOLDER = "speech_tokenizer"
PREFIX = "decoder."
HUB_ID = "Qwen/Qwen3-TTS-Tokenizer-12Hz"

# The official checkpoint's config.json (the decoder's half of it), as published with Qwen/Qwen3-TTS-Tokenizer-12Hz.
OFFICIAL_CONFIG = {
    "model_type": "qwen3_tts_tokenizer_12hz",
    "decode_upsample_rate": 1920,
    "output_sample_rate": 24000,
    "decoder_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "codebook_dim": 512,
        "codebook_size": 2048,
        "decoder_dim": 1536,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 512,
        "intermediate_size": 1024,
        "latent_dim": 1024,
        "layer_scale_initial_scale": 0.01,
        "max_position_embeddings": 8000,
        "num_attention_heads": 16,
        "num_hidden_layers": 8,
        "num_key_value_heads": 16,
        "num_quantizers": 16,
        "num_semantic_quantizers": 1,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000,
        "semantic_codebook_size": 4096,
        "sliding_window": 72,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "vector_quantization_hidden_dimension": 512,
    },
}
# The official layers at small widths; head_dim (16) still differs from hidden_size / num_attention_heads (8).
SMALL_DIMS = {
    "codebook_dim": 32,
    "codebook_size": 64,
    "decoder_dim": 64,
    "head_dim": 16,
    "hidden_size": 32,
    "intermediate_size": 64,
    "latent_dim": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
RANDOM_CONFIGS = {
    "random": OFFICIAL_CONFIG,
    "random-small": {**OFFICIAL_CONFIG, "decoder_config": {**OFFICIAL_CONFIG["decoder_config"], **SMALL_DIMS}},
}

# The fields that are read, with their types. Everything else in a config is carried along and not used.
SIZES = (
    "codebook_dim",
    "codebook_size",
    "decoder_dim",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "latent_dim",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_quantizers",
    "sliding_window",
)
NUMBERS = ("rms_norm_eps", "rope_theta", "layer_scale_initial_scale")
RATES = ("upsample_rates", "upsampling_ratios")
FLAGS = ("attention_bias",)
NAMES = ("hidden_act",)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and the field or tensor at fault."""


@dataclass(frozen=True)
class Checkpoint:
    """A decoder and where it came from. `config` is the whole config.json; `weights` says which weights these are."""

    source: str
    config: dict
    decoder: CodecDecoder

    @property
    def sample_rate(self) -> int:
        """Hz of the waveform."""
        return self.config["output_sample_rate"]

    @property
    def weights(self) -> str:
        """What a figure or table made from these weights has to say about them."""
        return f"{self.source} (random weights)" if self.source in RANDOM_CONFIGS else self.source

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of all decoder weights: two graphs with the same one have the same weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.decoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def load(source: str | os.PathLike, seed: int = 0) -> Checkpoint:
    """Load a decoder from `source` (see the module's docstring); `seed` is for the random ones.

    Raises CheckpointError, with the file and the field or tensor that is at fault.
    """
    source = os.fspath(source)
    if source in RANDOM_CONFIGS:
        return random_checkpoint(RANDOM_CONFIGS[source], seed, source)
    folder = _find_folder(source)
    config = read_config(folder / CONFIG_FILE)
    decoder = CodecDecoder(code2wav_config(config["decoder_config"], config["output_sample_rate"]))
    decoder.load_state_dict(_read_weights(folder / WEIGHTS_FILE, decoder.state_dict()), strict=True)
    return Checkpoint(source, config, decoder)


def save(checkpoint: Checkpoint, folder: str | os.PathLike) -> None:
    """Write `checkpoint` into `folder` in upstream's layout: `config.json` and `model.safetensors` with `decoder.*` keys."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(checkpoint.config, indent=2) + "\n")
    tensors = {PREFIX + name: tensor.contiguous() for name, tensor in checkpoint.decoder.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def random_checkpoint(config: dict, seed: int = 0, source: str = "random") -> Checkpoint:
    """A decoder of any config with seeded random weights that neither clip nor vanish.

    Weights are scaled by fan-in so that each layer keeps the size of its input; the last convolution is then set so
    that the waveform of random codes has a standard deviation of 0.2. The layer scales are set far above a
    checkpoint's initial 0.01, so that an error in attention is loud in the waveform.
    """
    _check_config(config, f"the config of {source}")
    generator = torch.Generator().manual_seed(seed)
    decoder = CodecDecoder(code2wav_config(config["decoder_config"], config["output_sample_rate"]))
    for name, tensor in decoder.state_dict().items():
        _fill(name, tensor, generator)
    codes = torch.randint(decoder.config.codebook_size, (1, 24, decoder.config.num_quantizers), generator=generator)
    last = decoder.decoder[-1].conv
    last.weight.mul_(1e-3)  # so small that nothing is clipped while the size is measured
    last.weight.mul_(0.2 / decoder(codes).std())
    return Checkpoint(source, config, decoder)


def _fill(name: str, tensor: torch.Tensor, generator: torch.Generator) -> None:
    """Random values for one parameter, by what its name says it is."""
    if name.endswith("cluster_usage"):
        tensor.uniform_(0.5, 2.0, generator=generator)
    elif name.endswith(("layernorm.weight", "norm.weight")):
        tensor.fill_(1.0)
    elif name.endswith((".scale", "gamma")):
        tensor.fill_(0.3)
    elif name.endswith((".alpha", ".beta")):
        tensor.uniform_(-0.5, 0.5, generator=generator)
    elif name.endswith(".bias"):
        tensor.uniform_(-0.05, 0.05, generator=generator)
    elif "embedding_sum" in name:
        tensor.normal_(generator=generator)
    else:
        # A residual branch is made smaller than its trunk, or the sum would grow with every unit.
        gain = 0.3 if "conv2" in name else 1.0
        tensor.normal_(std=gain * _fan_in(name, tensor) ** -0.5, generator=generator)


def _fan_in(name: str, weight: torch.Tensor) -> int:
    """How many products make one output value."""
    transposed = weight.ndim == 3 and (".block.1.conv" in name or (name.startswith("upsample") and ".0.conv" in name))
    if not transposed:
        return prod(weight.shape[1:])
    # A transposed conv of kernel 2s and stride s adds two taps to each output sample, one of kernel s adds one.
    return weight.shape[0] * (2 if ".block.1.conv" in name else 1)


def read_config(path: Path) -> dict:
    """Read and check a `config.json`; raises CheckpointError naming the field."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    _check_config(config, str(path))
    return config


def _check_config(config: dict, where: str) -> None:
    def need(fields, name, types, what):
        if name not in fields:
            raise CheckpointError(f"{where}: the field {name!r} is missing")
        value = fields[name]
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise CheckpointError(f"{where}: {name} is {value!r}, must be {what}")
        return value

    def need_size(fields, name):
        if need(fields, name, int, "a whole number") < 1:
            raise CheckpointError(f"{where}: {name} is {fields[name]}, must be at least 1")

    if not isinstance(config, dict):
        raise CheckpointError(f"{where}: holds a {type(config).__name__}, must be an object")
    fields = need(config, "decoder_config", dict, "an object")
    for name in ("decode_upsample_rate", "output_sample_rate"):
        need_size(config, name)
    for name in SIZES:
        need_size(fields, name)
    for name in NUMBERS:
        need(fields, name, (int, float), "a number")
    for name in FLAGS:
        need(fields, name, bool, "true or false")
    for name in NAMES:
        need(fields, name, str, "a text")
    for name in RATES:
        rates = need(fields, name, list, "a list of whole numbers")
        if not all(type(rate) is int and rate >= 1 for rate in rates):
            raise CheckpointError(f"{where}: {name} is {rates!r}, must be a list of whole numbers of at least 1")
    _check_agreement(config, fields, where)


def _check_agreement(config: dict, fields: dict, where: str) -> None:
    """Fields that must fit each other."""
    rates = fields["upsampling_ratios"] + fields["upsample_rates"]
    halvings = 2 ** len(fields["upsample_rates"])
    checks = [
        (
            prod(rates) == config["decode_upsample_rate"],
            f"decode_upsample_rate is {config['decode_upsample_rate']}, but the rates {rates} multiply to {prod(rates)}",
        ),
        (
            fields["num_attention_heads"] % fields["num_key_value_heads"] == 0,
            f"num_key_value_heads ({fields['num_key_value_heads']}) does not divide "
            f"num_attention_heads ({fields['num_attention_heads']})",
        ),
        (fields["codebook_dim"] % 2 == 0, f"codebook_dim is {fields['codebook_dim']}, must be even"),
        (fields["head_dim"] % 2 == 0, f"head_dim is {fields['head_dim']}, must be even (rotary halves)"),
        (fields["num_quantizers"] >= 2, f"num_quantizers is {fields['num_quantizers']}, must be at least 2"),
        (
            fields["decoder_dim"] >= halvings,
            f"decoder_dim is {fields['decoder_dim']}, too small to be halved once per upsample rate ({halvings})",
        ),
    ]
    for holds, problem in checks:
        if not holds:
            raise CheckpointError(f"{where}: {problem}")


def _read_weights(path: Path, expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The `decoder.*` tensors of a safetensors file as float32, checked one by one against `expected`."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            names = [name.removeprefix(PREFIX) for name in file.keys() if name.startswith(PREFIX)]  # noqa: SIM118
            if missing := sorted(expected.keys() - set(names)):
                raise CheckpointError(f"{path}: {len(missing)} tensors are missing, the first is {PREFIX}{missing[0]}")
            if unexpected := sorted(set(names) - expected.keys()):
                raise CheckpointError(
                    f"{path}: {len(unexpected)} tensors are not expected, the first is {PREFIX}{unexpected[0]}"
                )
            for name in names:
                shape, wanted = file.get_slice(PREFIX + name).get_shape(), list(expected[name].shape)
                if shape != wanted:
                    raise CheckpointError(f"{path}: {PREFIX}{name} has the shape {shape}, the config makes it {wanted}")
            return {name: file.get_tensor(PREFIX + name).float() for name in names}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: truncated, or not a safetensors file ({error})") from error


def _find_folder(source: str) -> Path:
    path = Path(source)
    # A whole Qwen3-TTS model has a config.json of its own beside speech_tokenizer/, so the subfolder comes first.
    for folder in (path / SUBFOLDER, path):
        if (folder / CONFIG_FILE).is_file():
            return folder
    if path.exists():
        raise CheckpointError(f"{source}: no {CONFIG_FILE} in it or in its {SUBFOLDER}/")
    if source.count("/") == 1 and not source.startswith((".", "/", "~")):
        return _download(source)
    raise CheckpointError(f"{source}: no such folder; a checkpoint is {', '.join(RANDOM_CONFIGS)}, a folder, or a Hub id")


def _download(repo_id: str) -> Path:
    """Fetch the tokenizer's two files from the Hugging Face Hub (or its local cache)."""
    others = f"Give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or one of {', '.join(RANDOM_CONFIGS)}, instead."
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise CheckpointError(f"{repo_id}: a Hub id needs the package huggingface_hub. {others}") from error
    for subfolder in (SUBFOLDER, None):
        try:
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                file = hf_hub_download(repo_id, name, subfolder=subfolder)
            return Path(file).parent
        except LocalEntryNotFoundError as error:
            raise CheckpointError(f"{repo_id}: no folder of that name, and the Hub cannot be reached. {others}") from error
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{repo_id}: could not be fetched from the Hub ({reason}). {others}") from error
    raise CheckpointError(f"{repo_id}: the Hub has no {CONFIG_FILE} there, nor in {SUBFOLDER}/. {others}")
