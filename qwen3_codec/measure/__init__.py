"""What it costs: each design beside the others, all of a checkpoint on one page, streams on a server."""

from .. import loaded_when_asked

__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "benchmark": "bench",
        "cost_of": "operations",
        "gflop_per_frame": "operations",
    },
)
