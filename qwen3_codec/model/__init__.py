"""What is streamed: a checkpoint and the one-shot decoder made from it."""

from .. import loaded_when_asked

__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "CodecDecoder": "decoder",
        "CodecEncoder": "encoder",
        "OFFICIAL_CONFIG": "checkpoint.config",
        "conv_memory": "dimensions",
        "conv_receptive_field": "receptive_field",
        "encoder_dimensions": "dimensions",
        "memory_stages": "dimensions",
        "random_checkpoint": "checkpoint",
        "small_config": "checkpoint.config",
        "state_table": "dimensions",
    },
)
