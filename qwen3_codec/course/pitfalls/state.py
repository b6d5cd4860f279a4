"""Streams whose state is wrong in one way: wrappers with one mistake each, and states changed between two calls."""

from collections.abc import Callable

import numpy as np

from ...model.receptive_field import conv_receptive_field
from ...runtime import CodecStream
from ...streaming.exact import ExactStreamingWrapper
from ...streaming.kv_stack import keep_last
from ...streaming.windowed import StatefulCodecONNXWrapper
from ...verification.decoder import TorchSession
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


def wrong_states(decoder, codes: np.ndarray, chunk: int = 3, warm: int = 0) -> dict[str, np.ndarray]:
    """Streams that lose one part of their state between calls, {what is wrong: waveform of all but `warm` frames}.

    The first is right, to compare with. The last keeps all of its state, but its positions stop growing at the window.
    The first `warm` frames go through in one call, unharmed: a quick way past the attention window.
    """
    wrappers = (
        ExactStreamingWrapper(decoder),
        SaturatingPositions(decoder, conv_receptive_field(decoder), lookahead_frames=0),
    )
    exact, saturating = (CodecStream(TorchSession(wrapper), codes.shape[0]) for wrapper in wrappers)
    if warm:
        exact.push(codes[:, :warm])
        saturating.push(codes[:, :warm])
    rest = codes[:, warm:]
    attention = ("past_frames", "key_", "value_")
    losses = {"nothing": (), "all state": ("",), "conv state": ("conv_",), "keys and values": attention}
    found = {
        f"{name} dropped": stream_with_changes(exact.fork(), rest, chunk, dropped(*parts))
        for name, parts in losses.items()
    }
    return found | {"positions stop at the window": stream_with_changes(saturating, rest, chunk)}


def by_left_context(decoder, codes: np.ndarray, contexts, chunk: int = 3) -> dict[int, np.ndarray]:
    """The windowed design without look-ahead, {frames of left context: waveform}."""
    sessions = {h: TorchSession(StatefulCodecONNXWrapper(decoder, h, 0)) for h in contexts}
    return {h: stream_with_changes(session.stream(codes.shape[0]), codes, chunk) for h, session in sessions.items()}
