"""Where weights come from: configs and their checks, safetensors, the Hub, seeded random weights."""

from .config import CheckpointError
from .loading import (
    Checkpoint,
    OtherModel,
    example_audio,
    example_codes,
    fingerprint,
    load,
    random_checkpoint,
    random_encoder,
    save,
)

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "OtherModel",
    "example_audio",
    "example_codes",
    "fingerprint",
    "load",
    "random_checkpoint",
    "random_encoder",
    "save",
]
