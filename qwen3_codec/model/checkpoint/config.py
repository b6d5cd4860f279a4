"""A checkpoint's `config.json`: the official one, a small one, and the checks that every one passes before use."""

import json
from math import prod
from pathlib import Path

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
SMALL_ENCODER = {
    "codebook_dim": 16,
    "codebook_size": SMALL_DIMS["codebook_size"],
    "head_dim": 16,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_filters": 8,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "num_quantizers": 20,
    "upsample_groups": 32,
    "vector_quantization_hidden_dimension": 16,
}


def small_config(**fields) -> dict:
    """The official config at small widths, with some `decoder_config` fields changed."""
    dims = {**OFFICIAL_CONFIG["decoder_config"], **SMALL_DIMS, **fields}
    rate = prod(dims["upsample_rates"] + dims["upsampling_ratios"])
    return {**OFFICIAL_CONFIG, "decode_upsample_rate": rate, "decoder_config": dims, "encoder_config": SMALL_ENCODER}


RANDOM_CONFIGS = {"random": OFFICIAL_CONFIG, "random-small": small_config()}

# What upstream's config classes fill in where a file leaves a field out, as `save_pretrained` does with a field that
# equals its default (`configuration_qwen3_tts_tokenizer_v2.py` of qwen-tts 0.1.1). There is none for `head_dim`
# and `codebook_dim`.
DEFAULTS = {
    "output_sample_rate": 24000,
    "decode_upsample_rate": 1920,
}
DECODER_DEFAULTS = {
    "attention_bias": False,
    "codebook_size": 2048,
    "decoder_dim": 1536,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
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
    "sliding_window": 72,
    "upsample_rates": [8, 5, 4, 3],
    "upsampling_ratios": [2, 2],
}
MODEL_TYPE = "qwen3_tts_tokenizer_12hz"
# Configs that are near enough to be given by mistake.
OTHER_MODELS = {
    "qwen3_tts": "a Qwen3-TTS language model; the codec is in its folder speech_tokenizer/, which is missing here",
    "qwen3_tts_tokenizer_25hz": "the 25 Hz tokenizer, whose decoder is another one",
    "qwen3_tts_tokenizer_multi_codebook": "a conversion for a class of transformers, with other names for the weights; "
    "take the files as Qwen publishes them",
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
READ_FIELDS = (*SIZES, *NUMBERS, *RATES, "attention_bias", "hidden_act")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and the field or tensor at fault."""


def read_config(path: Path) -> dict:
    """Read, complete and check a `config.json`; raises CheckpointError naming the field."""
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    config = complete(config, str(path))
    check_config(config, str(path))
    return config


def complete(config: dict, where: str) -> dict:
    """`config` with upstream's defaults where a field is left out, and `rope_theta` flat as upstream has it.

    Raises CheckpointError for the config of another model, and for rotary positions that are scaled.
    """
    if not isinstance(config, dict):
        raise CheckpointError(f"{where}: holds a {type(config).__name__}, must be an object")
    model_type = config.get("model_type", MODEL_TYPE)
    if model_type != MODEL_TYPE and (model_type in OTHER_MODELS or "decoder_config" not in config):
        raise CheckpointError(f"{where}: this is {OTHER_MODELS.get(model_type, f'a model of type {model_type!r}')}")
    fields = config.get("decoder_config")
    if not isinstance(fields, dict):
        return config  # `check_config` says what is wrong
    return {**DEFAULTS, **config, "decoder_config": {**DECODER_DEFAULTS, **flat_rope(fields, where)}}


def flat_rope(fields: dict, where: str) -> dict:
    """transformers 5 writes `rope_parameters: {rope_type, rope_theta}`, upstream `rope_theta`."""
    for name in ("rope_parameters", "rope_scaling"):
        value = fields.get(name) or {}
        kind = value.get("rope_type", value.get("type", "default")) if isinstance(value, dict) else None
        if kind != "default":
            raise CheckpointError(f"{where}: {name} is {value!r}; rotary positions of type 'default' alone are known")
    nested = (fields.get("rope_parameters") or {}).get("rope_theta")
    flat = fields.get("rope_theta", nested)
    if nested not in (None, flat):
        raise CheckpointError(f"{where}: rope_theta is {flat!r}, but rope_parameters has {nested!r}")
    others = {name: value for name, value in fields.items() if name != "rope_parameters"}
    return others if flat is None else others | {"rope_theta": flat}


def check_config(config: dict, where: str) -> None:
    """Every field that is read is there, of the right type and in range; raises CheckpointError naming it."""
    fields = need(config, "decoder_config", dict, "an object", where)
    check_fields(config, where, sizes=("decode_upsample_rate", "output_sample_rate"))
    check_fields(fields, where, SIZES, NUMBERS, RATES)
    check_transformer(fields, where)
    if (semantic := fields.get("num_semantic_quantizers", 1)) != 1:
        raise CheckpointError(
            f"{where}: num_semantic_quantizers is {semantic!r}; upstream's decoder has 1, so has this"
        )
    _check_agreement(config, fields, where)


def need(fields: dict, name: str, types, what: str, where: str):
    """A field's value; raises CheckpointError where it is missing or not `what`."""
    if name not in fields:
        raise CheckpointError(f"{where}: the field {name!r} is missing")
    value = fields[name]
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise CheckpointError(f"{where}: {name} is {value!r}, must be {what}")
    return value


def check_fields(fields: dict, where: str, sizes=(), numbers=(), rates=()) -> None:
    """Integers of at least 1, numbers, and lists of integers; raises CheckpointError naming the field."""
    for name in sizes:
        if need(fields, name, int, "an integer", where) < 1:
            raise CheckpointError(f"{where}: {name} is {fields[name]}, must be at least 1")
    for name in numbers:
        need(fields, name, (int, float), "a number", where)
    for name in rates:
        found = need(fields, name, list, "a list of integers", where)
        if not all(type(rate) is int and rate >= 1 for rate in found):
            raise CheckpointError(f"{where}: {name} is {found!r}, must be a list of integers of at least 1")


def check_transformer(fields: dict, where: str) -> None:
    """What both halves' transformers ask for; raises CheckpointError naming the field."""
    from transformers.activations import ACT2FN  # here, so that a client can read what is above without it

    need(fields, "attention_bias", bool, "true or false", where)
    if (act := need(fields, "hidden_act", str, "a text", where)) not in ACT2FN:
        raise CheckpointError(f"{where}: hidden_act is {act!r}, must be one of {', '.join(ACT2FN)}")
    heads, kv_heads = fields["num_attention_heads"], fields["num_key_value_heads"]
    if heads % kv_heads:
        raise CheckpointError(
            f"{where}: num_key_value_heads ({kv_heads}) does not divide num_attention_heads ({heads})"
        )
    if fields["head_dim"] % 2:
        raise CheckpointError(f"{where}: head_dim is {fields['head_dim']}, must be even (rotary halves)")


def _check_agreement(config: dict, fields: dict, where: str) -> None:
    """Fields that must fit each other."""
    rates = fields["upsampling_ratios"] + fields["upsample_rates"]
    halvings = 2 ** len(fields["upsample_rates"])
    checks = [
        (
            prod(rates) == config["decode_upsample_rate"],
            f"decode_upsample_rate is {config['decode_upsample_rate']}, "
            f"but the rates {rates} multiply to {prod(rates)}",
        ),
        (fields["codebook_dim"] % 2 == 0, f"codebook_dim is {fields['codebook_dim']}, must be even"),
        (fields["num_quantizers"] >= 2, f"num_quantizers is {fields['num_quantizers']}, must be at least 2"),
        (
            fields["decoder_dim"] >= halvings,
            f"decoder_dim is {fields['decoder_dim']}, too small to be halved once per upsample rate ({halvings})",
        ),
    ]
    for holds, problem in checks:
        if not holds:
            raise CheckpointError(f"{where}: {problem}")
