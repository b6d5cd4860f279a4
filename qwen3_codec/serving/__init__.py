"""Many streams on one server, over WebSocket or on NVIDIA Triton: servers, clients, a model repository."""

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
