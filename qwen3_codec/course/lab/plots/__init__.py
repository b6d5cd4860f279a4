"""Figures and tables of the notebooks: each function takes numbers, returns a figure, computes nothing.

`style` says how all of them look; a new figure is a function under `@styled` that begins with `panels`.
"""

# Notebooks find these beside the figures.
from ..display import player, progress, table
from .costs import (
    call_times,
    cost_against_sound,
    latency,
    latency_of_streams,
    offsets,
    states_along,
    throughput,
)
from .errors import (
    agreement,
    error_against_history,
    frame_errors,
    per_chunk_error,
    receptive_field,
    residual_by_codebook,
    sensitivity,
    state_worth,
)
from .sound import codes, differences, stream_error, waveforms
from .style import as_html

__all__ = [
    "agreement",
    "as_html",
    "call_times",
    "codes",
    "cost_against_sound",
    "differences",
    "error_against_history",
    "frame_errors",
    "latency",
    "latency_of_streams",
    "offsets",
    "per_chunk_error",
    "player",
    "progress",
    "receptive_field",
    "residual_by_codebook",
    "sensitivity",
    "state_worth",
    "states_along",
    "stream_error",
    "table",
    "throughput",
    "waveforms",
]
