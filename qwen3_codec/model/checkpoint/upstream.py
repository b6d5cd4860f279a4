"""Upstream's config fields and parameter names as transformers' classes have them."""

from transformers.models.mimi.configuration_mimi import MimiEncoderConfig
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeCode2WavConfig

# Upstream's parameter names -> transformers'; what follows the prefix is the same.
RENAMED = {
    "encoder.": "model.encoder_seanet.",
    "encoder_transformer.": "model.encoder_transformer.",
    "downsample.": "model.downsample.",
    "quantizer.": "quantizer.",
}


def code2wav_config(decoder_config: dict, output_sample_rate: int) -> Qwen3OmniMoeCode2WavConfig:
    """Upstream's `decoder_config` fields as the config object that transformers' blocks read.

    `rope_theta` lies flat in upstream's file; transformers 5 looks for it in `rope_parameters`. Fields that Omni does
    not know (`head_dim`, `latent_dim`, `codebook_dim`) stay on the object under their own names.
    """
    fields = {name: value for name, value in decoder_config.items() if name not in ("model_type", "rope_theta")}
    config = Qwen3OmniMoeCode2WavConfig(
        **fields,
        output_sample_rate=output_sample_rate,
        rope_parameters={"rope_type": "default", "rope_theta": float(decoder_config["rope_theta"])},
    )
    # The plain matmul-softmax-matmul: it exports to the same few nodes from both exporters.
    config._attn_implementation = "eager"
    return config


def mimi_config(encoder_config: dict) -> MimiEncoderConfig:
    """`encoder_config.encoder_config`'s fields as the config object that transformers' blocks read."""
    skipped = ("model_type", "rope_theta", "dtype", "encoder_valid_num_quantizers")
    fields = {name: value for name, value in encoder_config.items() if name not in skipped}
    rope = {"rope_type": "default", "rope_theta": float(encoder_config["rope_theta"])}
    config = MimiEncoderConfig(**fields, rope_parameters=rope)
    config._attn_implementation = "eager"
    return config


def upstream_name(name: str) -> str:
    """A parameter's name in upstream's files, without the prefix `encoder.`."""
    theirs, ours = next(pair for pair in RENAMED.items() if name.startswith(pair[1]))
    return theirs + name.removeprefix(ours)
