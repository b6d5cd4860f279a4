"""Which design is which wrapper, what settings it has, and how the wrapper of a graph is made again."""

from collections.abc import Callable

from ..model.checkpoint import Checkpoint
from ..runtime import CodecSession
from ..runtime.measured_snr import FLOAT16, FLOAT32
from ..spec import DECODER, ENCODER, EXACT, ONE_SHOT, WINDOWED
from .encoder import StreamEncoderWrapper
from .exact import ExactStreamingWrapper, OneShotWrapper
from .fixed import FixedAxes
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
# As a wrapper takes them and its spec has them.
SETTINGS = {WINDOWED: ("conv_history_frames", "lookahead_frames")}


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


def wrapper_like(checkpoint: Checkpoint, session: CodecSession) -> StreamingModule:
    """The wrapper that `session`'s graph was exported from, on the weights of `checkpoint`.

    Raises ValueError where the graph was made from other weights or another config, CheckpointError where the config
    was changed after it was loaded.
    """
    spec, metadata = session.spec, session.metadata
    checkpoint.check_unchanged(spec.part)
    wrapper = wrapper_of(checkpoint, spec.design, spec.part, metadata.get("precision", FLOAT32), **spec.settings)
    if spec.fixed_frames or spec.fixed_batch:
        wrapper = FixedAxes(wrapper, spec.fixed_frames, spec.fixed_batch)
    if wrapper.spec != spec:
        raise ValueError(f"{session.path}: its interface is not that of the checkpoint {checkpoint.source}")
    if metadata.get("weights_sha256") != checkpoint.fingerprint(spec.part):
        raise ValueError(f"{session.path}: was exported from other weights than the checkpoint {checkpoint.source} has")
    return wrapper
