"""Where weights come from: configs and their checks, safetensors, the Hub, seeded random weights."""

from ... import loaded_when_asked

# So that a config is read without torch.
__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "Checkpoint": "loading",
        "CheckpointError": "config",
        "OtherModel": "loading",
        "example_audio": "loading",
        "example_codes": "loading",
        "fingerprint": "loading",
        "load": "loading",
        "random_checkpoint": "loading",
        "random_encoder": "loading",
        "save": "loading",
    },
)
