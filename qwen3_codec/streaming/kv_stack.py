"""A key/value store that both exporters can follow: plain tensors, `torch.cat` and negative slices."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import rotate_half

Streamed = tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]  # what comes out, the next keys, the next values


def keep_last(x: Tensor, count: int | None, dim: int = -1) -> Tensor:
    """The last `count` entries along `dim`, or all if there are fewer (None: all).

    `count` is a setting, never a tensor's size.
    """
    if count is None:
        return x
    dim = dim % x.ndim
    return x[(slice(None),) * dim + (slice(-count, None) if count else slice(0, 0),)]


def drop_last(x: Tensor, count: int) -> Tensor:
    """All but the last `count` entries of the last axis. `count` is a setting, never a tensor's size."""
    return x[..., :-count] if count else x


def sliding_window_mask(
    positions: Tensor, past: int, window: int | None, dtype: torch.dtype, past_frames: Tensor | None = None
) -> Tensor:
    """Additive mask [1 or B, 1, N, past + N]: 0 where a query may look, the dtype's lowest number elsewhere.

    `positions` is `arange(past + N)`. A query sees itself and the `window - 1` frames before it (Longformer's sliding
    window, arXiv:2004.05150, made causal; transformers' `sliding_window_overlay`). `past_frames` [B, 1] says how many
    of the `past` stored frames are real: the last ones. A `window` of None lets it look at all that came before.
    """
    distance = positions[past:, None] - positions[None, :]
    visible = ((distance >= 0) if window is None else (distance >= 0) & (distance < window))[None]
    if past_frames is not None:
        visible = visible & (positions >= past - past_frames)[:, None]
    blocked = torch.full((), torch.finfo(dtype).min, dtype=dtype)
    return torch.where(visible, torch.zeros((), dtype=dtype), blocked)[:, None]


class TraceableKVStack:
    """Keys and values of every layer, [B, num_key_value_heads, past, head_dim] each, behind `Cache.update()`.

    Keys are kept *unrotated* and are rotated for each call at positions that start at the oldest frame kept. Attention
    depends on the distance of two positions alone (RoPE, arXiv:2104.09864), so this equals rotation at absolute
    positions, and no position ever grows past window + N. Keys that are stored rotated need absolute positions
    instead: taken from the length of a trimmed cache they stop growing at `window`, and every distance is then wrong.

    `cos` and `sin` are [1, past + N, head_dim], transformers' rotary tables for those positions; `keep` is how many
    frames are stored for the next call (None: all, where attention has no window).
    """

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], cos: Tensor, sin: Tensor, keep: int | None):
        self.keys, self.values = list(keys), list(values)
        self.keep = keep
        past = self.keys[0].size(2)
        self._past_rotation = cos[:, None, :past], sin[:, None, :past]
        self._new_rotation = cos[:, None, past:], sin[:, None, past:]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take the new keys (rotated, as transformers' attention passes them) and values [B, heads, N, head_dim].

        Returns all keys (rotated) and values that this call's queries may look at. Only what is *stored* is trimmed:
        the first query of a chunk still needs the oldest frame, the last one no longer does.
        """
        past_key, past_value = self.keys[layer_idx], self.values[layer_idx]
        values = torch.cat([past_value, value_states], dim=2)
        cos, sin = self._new_rotation
        # transformers rotates before it calls `update`; the same angle the other way undoes it.
        unrotated = key_states * cos - rotate_half(key_states) * sin
        self.keys[layer_idx] = keep_last(torch.cat([past_key, unrotated], dim=2), self.keep, dim=2)
        self.values[layer_idx] = keep_last(values, self.keep, dim=2)
        cos, sin = self._past_rotation
        # Positions count from the oldest key kept, so a stored key has another one in each call.
        rotated = past_key * cos + rotate_half(past_key) * sin
        return torch.cat([rotated, key_states], dim=2), values


def split_states(states: Sequence[Tensor], layers: int) -> tuple[Sequence[Tensor], ...]:
    """(the convolutions' states, each layer's keys, each layer's values), as the specs have them in order."""
    return states[: -2 * layers], states[-2 * layers : -layers], states[-layers:]


def stream_transformer(
    transformer: Any,
    hidden: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    keep: int | None,
    past_frames: Tensor | None = None,
    **parts: Any,
) -> Streamed:
    """`pre_transformer` with its state: [B, N, latent_dim] -> the same, and each layer's next keys and values.

    Its projections and its norm around `stream_layers`, which takes `parts` and the rest.
    """
    hidden = transformer.input_proj(hidden)
    hidden, keys, values = stream_layers(transformer, hidden, keys, values, keep, past_frames, **parts)
    return transformer.output_proj(transformer.norm(hidden)), keys, values


def stream_layers(
    transformer: Any,
    hidden: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    keep: int | None,
    past_steps: Tensor | None = None,
    stack_type: Callable[..., Any] = TraceableKVStack,
    mask: Callable[..., Tensor] = sliding_window_mask,
) -> Streamed:
    """A transformer's layers with their state: [B, T, hidden_size] -> the same, and each layer's next keys and values.

    `transformer` has `layers`, `rotary_emb` and `config.sliding_window` (None: attention looks at all that came).
    `keys` and `values` are a tensor [B, num_key_value_heads, past, head_dim] a layer, of which the last `past_steps`
    [B, 1] are real (None: all).
    Window, positions and count are in the transformer's own steps: a codec that upsamples before its attention has
    several a frame. The layers are called one by one: its own `forward` would ask the cache for its length and build
    its masks from Python numbers; here both come from tensors. A norm behind the layers is the caller's affair.
    `stack_type` and `mask` are for those who try others. Raises ValueError for a rotary embedding that scales:
    to turn a key back would then not give the key.
    """
    if (scale := getattr(transformer.rotary_emb, "attention_scaling", 1.0)) != 1.0:
        raise ValueError(f"the rotary embedding scales by {scale}: keys cannot be stored unrotated")
    past, window = keys[0].size(2), getattr(transformer.config, "sliding_window", None)
    positions = torch.arange(past + hidden.size(1))
    cos, sin = transformer.rotary_emb(hidden, positions[None])
    visible = mask(positions, past, window, hidden.dtype, past_steps)
    stack = stack_type(keys, values, cos, sin, keep)
    new_rotation = cos[:, past:], sin[:, past:]
    for layer in transformer.layers:
        hidden = layer(hidden, attention_mask=visible, position_embeddings=new_rotation, cache=stack)
    return hidden, stack.keys, stack.values
