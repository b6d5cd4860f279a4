"""The encoder's half of a `config.json`: upstream's defaults, a small one, and the checks that it passes before use."""

from math import ceil, prod

from .config import CheckpointError, check_fields, check_transformer, flat_rope

# What upstream's classes fill in (`MimiConfig` of transformers 4.57, `Qwen3TTSTokenizerV2Config` of qwen-tts 0.1.1).
# `head_dim` is hidden_size / num_attention_heads where it is left out.
ENCODER_DEFAULTS = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "audio_channels": 1,
    "codebook_dim": 256,
    "codebook_size": 2048,
    "compress": 2,
    "dilation_growth_rate": 2,
    "hidden_act": "gelu",
    "hidden_size": 512,
    "intermediate_size": 2048,
    "kernel_size": 7,
    "last_kernel_size": 3,
    "layer_scale_initial_scale": 0.01,
    "max_position_embeddings": 8000,
    "norm_eps": 1e-5,
    "num_attention_heads": 8,
    "num_filters": 64,
    "num_hidden_layers": 8,
    "num_key_value_heads": 8,
    "num_quantizers": 32,
    "num_residual_layers": 1,
    "num_semantic_quantizers": 1,
    "pad_mode": "constant",
    "residual_kernel_size": 3,
    "rope_theta": 10000.0,
    "sampling_rate": 24000,
    "sliding_window": 250,
    "trim_right_ratio": 1.0,
    "upsample_groups": 512,
    "upsampling_ratios": [8, 6, 5, 4],
    "use_causal_conv": True,
    "use_conv_shortcut": False,
    "vector_quantization_hidden_dimension": 256,
}
OUTER_DEFAULTS = {"encoder_valid_num_quantizers": 16, "encode_downsample_rate": 1920, "input_sample_rate": 24000}
SIZES = (
    "audio_channels",
    "codebook_dim",
    "codebook_size",
    "compress",
    "dilation_growth_rate",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "kernel_size",
    "last_kernel_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_filters",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_quantizers",
    "num_residual_layers",
    "num_semantic_quantizers",
    "residual_kernel_size",
    "sampling_rate",
    "sliding_window",
    "upsample_groups",
    "vector_quantization_hidden_dimension",
)
NUMBERS = ("layer_scale_initial_scale", "norm_eps", "rope_theta")
# What this project's encoder is made for; a file that says otherwise is refused rather than read wrongly.
FIXED = {"audio_channels": 1, "use_causal_conv": True, "pad_mode": "constant"}


def encoder_config(config: dict, where: str) -> dict:
    """`encoder_config` completed and checked, and `encoder_valid_num_quantizers`; CheckpointError names the field."""
    fields = config.get("encoder_config") or {}
    if not isinstance(fields, dict):
        raise CheckpointError(f"{where}: encoder_config is {fields!r}, must be an object")
    outer = {name: config.get(name, value) for name, value in OUTER_DEFAULTS.items()}
    fields = {**ENCODER_DEFAULTS, **flat_rope(fields, where)}
    # Upstream's files say `_frame_rate`, transformers 5 says `frame_rate`, and both may leave it to the strides.
    fields["frame_rate"] = fields.pop("_frame_rate", None) or fields.get("frame_rate")
    if fields.get("head_dim") is None:
        fields["head_dim"] = fields["hidden_size"] // fields["num_attention_heads"]
    place = f"{where}: encoder_config"
    check_fields(outer, where, sizes=tuple(OUTER_DEFAULTS))
    check_fields(fields, place, SIZES, NUMBERS, ("upsampling_ratios",))
    check_transformer(fields, place)
    for name, value in FIXED.items():
        if fields[name] != value:
            raise CheckpointError(f"{place}: {name} is {fields[name]!r}, this encoder has {value!r}")
    used, there = outer["encoder_valid_num_quantizers"], fields["num_quantizers"]
    if not fields["num_semantic_quantizers"] < used <= there:
        raise CheckpointError(
            f"{where}: encoder_valid_num_quantizers is {used}, must be above num_semantic_quantizers "
            f"({fields['num_semantic_quantizers']}) and at most num_quantizers ({there})"
        )
    hop = prod(fields["upsampling_ratios"])
    stride = int(ceil(fields["sampling_rate"] / hop) / fields["frame_rate"]) if fields["frame_rate"] else 2
    if stride < 2 or hop * stride != outer["encode_downsample_rate"]:
        raise CheckpointError(
            f"{where}: encode_downsample_rate is {outer['encode_downsample_rate']}, but in encoder_config the "
            f"upsampling_ratios {fields['upsampling_ratios']} and a stride of {stride} multiply to {hop * stride}"
        )
    if outer["input_sample_rate"] != fields["sampling_rate"]:
        raise CheckpointError(
            f"{where}: input_sample_rate is {outer['input_sample_rate']}, encoder_config has {fields['sampling_rate']}"
        )
    return fields | {"encoder_valid_num_quantizers": used}
