"""The traps on purpose: a helper for cells that must fail, and streams whose state is wrong in one way."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from .exact import ExactStreamingWrapper
from .inspection import receptive_field
from .kv_stack import TraceableKVStack, keep_last
from .metrics import chunks
from .runtime import CodecStream
from .verify import TorchSession
from .windowed import StatefulCodecONNXWrapper


@contextmanager
def fails_with(error: type[BaseException], words: str) -> Iterator[None]:
    """Run a block that must raise `error` with `words` (a regular expression) in its text, and print the first lines.

    Raises AssertionError where nothing failed: a trap that has gone should be noticed. Another error passes through.
    """
    try:
        yield
    except error as caught:
        text = f"{type(caught).__name__}: {caught}"
        if not re.search(words, text):
            raise
        print("\n".join(line for line in text.splitlines() if line.strip())[:600])
    else:
        raise AssertionError(f"nothing failed; expected {error.__name__} with {words!r}")


class StoredRotatedStack(TraceableKVStack):
    """Keys are stored as they were rotated, and positions come from the length of the trimmed cache.

    Right until the window is full. From then on every new key gets the position of the one before it, and all distances
    are wrong.
    """

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        keys = torch.cat([self.keys[layer_idx], key_states], dim=2)
        values = torch.cat([self.values[layer_idx], value_states], dim=2)
        self.keys[layer_idx] = keep_last(keys, self.keep, dim=2)
        self.values[layer_idx] = keep_last(values, self.keep, dim=2)
        return keys, values


class SaturatingPositions(StatefulCodecONNXWrapper):
    """A windowed wrapper with `StoredRotatedStack`."""

    def _transform(self, hidden, past, **parts):
        return super()._transform(hidden, past, stack_type=StoredRotatedStack, **parts)


def dropped(*prefixes: str) -> Callable[[dict], dict]:
    """What to do to a state between two calls: zeros for every tensor whose name begins with one of `prefixes`."""
    return lambda state: {n: np.zeros_like(a) if n.startswith(prefixes) else a for n, a in state.items()}


def stream_meddled(stream: CodecStream, codes, chunk: int, meddle: Callable[[dict], dict] = dict) -> np.ndarray:
    """Push codes [B, N, Q] in chunks, with `meddle` applied to the state between two calls."""
    pieces = []
    for part in chunks(codes, [chunk]):
        pieces.append(stream.push(part))
        stream.state = meddle(stream.state)
    return np.concatenate([*pieces, stream.finish()], axis=1)


def wrong_states(decoder, codes: np.ndarray, chunk: int = 3, warm: int = 0) -> dict[str, np.ndarray]:
    """Streams that lose one part of their state between calls, {what is wrong: waveform of all but `warm` frames}.

    The first is right, to compare with. The last keeps all of its state, but its positions stop growing at the window.
    The first `warm` frames go through in one call, unharmed: a quick way past the attention window.
    """
    wrappers = (
        ExactStreamingWrapper(decoder),
        SaturatingPositions(decoder, receptive_field(decoder).conv_frames, lookahead_frames=0),
    )
    exact, saturating = (CodecStream(TorchSession(wrapper), codes.shape[0]) for wrapper in wrappers)
    if warm:
        exact.push(codes[:, :warm])
        saturating.push(codes[:, :warm])
    rest = codes[:, warm:]
    attention = ("past_frames", "key_", "value_")
    losses = {"nothing": (), "all state": ("",), "conv state": ("conv_",), "keys and values": attention}
    found = {
        f"{name} dropped": stream_meddled(exact.fork(), rest, chunk, dropped(*parts)) for name, parts in losses.items()
    }
    return found | {"positions stop at the window": stream_meddled(saturating, rest, chunk)}


def short_histories(decoder, codes: np.ndarray, histories, chunk: int = 3) -> dict[int, np.ndarray]:
    """The windowed design without look-ahead, {frames of conv history: waveform}."""
    sessions = {h: TorchSession(StatefulCodecONNXWrapper(decoder, h, 0)) for h in histories}
    return {h: stream_meddled(session.stream(codes.shape[0]), codes, chunk) for h, session in sessions.items()}
