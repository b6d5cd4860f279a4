"""Many streams on one server: a model repository for NVIDIA Triton, a client, and what a server holds."""

from .. import loaded_when_asked

MODEL = "qwen3_codec"  # the model's name on the server, by default

__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "NoServer": "server",
        "Request": "simulation",
        "Server": "server",
        "SimulatedServer": "simulation",
        "find": "server",
    },
)
