"""Which design is which wrapper, what settings it has, and how the wrapper of a graph is made again."""

from collections.abc import Callable

from ..model.checkpoint import Checkpoint
from ..runtime.measured_snr import FLOAT16, FLOAT32
from ..spec import DECODER, ENCODER, EXACT, ONE_SHOT, WINDOWED
from .encoder import StreamEncoderWrapper
from .exact import ExactStreamingWrapper, OneShotWrapper
from .session import StreamingModule
from .windowed import StatefulCodecONNXWrapper

# (part, design, precision): what makes the wrapper of a checkpoint's decoder or encoder. float16 is made of float32's
# graph; `exporting.precision` adds int8.
WRAPPERS: dict[tuple[str, str, str], Callable[..., StreamingModule]] = {
    (DECODER, EXACT, FLOAT32): ExactStreamingWrapper,
    (DECODER, WINDOWED, FLOAT32): StatefulCodecONNXWrapper,
    (DECODER, ONE_SHOT, FLOAT32): OneShotWrapper,
    (ENCODER, EXACT, FLOAT32): StreamEncoderWrapper,
}
SETTINGS = {WINDOWED: ("conv_history_frames", "lookahead_frames")}  # as a wrapper takes them and its spec has them


def wrapper_of(
    checkpoint: Checkpoint, design: str = EXACT, part: str = DECODER, precision: str = FLOAT32, **settings: int
) -> StreamingModule:
    """The wrapper of a checkpoint's `part` in `design`; raises ValueError where there is none, or none so set."""
    traced = FLOAT32 if precision == FLOAT16 else precision
    if (part, design, traced) not in WRAPPERS:
        raise ValueError(f"there is no {design} {part} in {precision}")
    if odd := settings.keys() - {*SETTINGS.get(design, ())}:
        raise ValueError(f"the {design} design has no {', '.join(sorted(odd))}")
    return WRAPPERS[part, design, traced](getattr(checkpoint, part), **settings)
