"""Streams whose state is wrong in one way: wrappers with one mistake each, and states changed between two calls."""

from collections.abc import Callable

import numpy as np

from ...runtime import CodecStream
from ...streaming.kv_stack import keep_last
from ...streaming.windowed import StatefulCodecONNXWrapper
from ...verification.workbench.mistakes import (
    StoredRotatedStack,
    TrimmedBeforeAttentionStack,
    mask_of_what_is_left,
    mask_seeing_the_future,
)


class SaturatingPositions(StatefulCodecONNXWrapper):
    """A windowed wrapper with `StoredRotatedStack`."""

    def _transform(self, hidden, past):
        return super()._transform(hidden, past, stack_type=StoredRotatedStack)


class TrimmedBeforeAttention(StatefulCodecONNXWrapper):
    """A windowed wrapper with `TrimmedBeforeAttentionStack`."""

    def _transform(self, hidden, past):
        return super()._transform(hidden, past, stack_type=TrimmedBeforeAttentionStack, mask=mask_of_what_is_left)


class SeesTheFuture(StatefulCodecONNXWrapper):
    """A windowed wrapper with `mask_seeing_the_future`."""

    def _transform(self, hidden, past):
        return super()._transform(hidden, past, mask=mask_seeing_the_future)


class HistoryFromNewFramesAlone(StatefulCodecONNXWrapper):
    """The next `pre_conv_h` is cut from the new frames only: too short if a chunk is shorter than the left context."""

    def forward(self, audio_codes, *rest):
        outputs = list(super().forward(audio_codes, *rest))
        # The fifth output is `next_pre_conv_h`; the right one joins the old left context and the new frames first.
        outputs[4] = keep_last(self.decoder.quantizer.decode(audio_codes), self.decoder.pre_conv.left_context)  # trap
        return tuple(outputs)


def dropped(*prefixes: str) -> Callable[[dict], dict]:
    """What to do to a state between two calls: zeros for every tensor whose name begins with one of `prefixes`."""
    return lambda state: {n: np.zeros_like(a) if n.startswith(prefixes) else a for n, a in state.items()}


def stream_with_changes(
    stream: CodecStream, codes, chunk: int, change_state: Callable[[dict], dict] = dict
) -> np.ndarray:
    """Push codes [B, N, Q] in chunks, with `change_state` applied to the state between two calls."""
    pieces = []
    for piece in stream.pushes(codes, [chunk]):
        pieces.append(piece)
        stream.state = change_state(stream.state)
    return np.concatenate(pieces, axis=1)
