"""Mistakes that many make in a streaming step, each of which runs: a step that is wrong is compared with what they do.

A mistake is what the right step gives when it reads its state wrongly, computes with another mask or store, or hands
something else on.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import rotate_half

from ...spec import StateSpec
from ...streaming.kv_stack import TraceableKVStack, keep_last, sliding_window_mask
from .calls import Arrays


class StoredRotatedStack(TraceableKVStack):
    """Keys are stored as they were rotated; `stream_transformer` takes positions from the length of the trimmed store.

    Right until the window is full. From then on that length stays, every call begins at the position of the one before
    it, and the distances to older keys are wrong.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys = torch.cat([self.keys[layer_idx], key_states], dim=2)  # trap
        values = torch.cat([self.values[layer_idx], value_states], dim=2)
        self.keys[layer_idx] = keep_last(keys, self.keep, dim=2)
        self.values[layer_idx] = keep_last(values, self.keep, dim=2)
        return keys, values


class TrimmedBeforeAttentionStack(TraceableKVStack):
    """Keys and values are cut to the window before attention: a chunk's early queries lose the oldest ones."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states, layer_idx)
        return keep_last(keys, self.keep, dim=2), keep_last(values, self.keep, dim=2)  # trap


class _OldestKept(TraceableKVStack):
    """The store is trimmed at its newest end."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        past_key, past_value = self.keys[layer_idx], self.values[layer_idx]
        keys, values = super().update(key_states, value_states, layer_idx)
        cos, sin = self._new_rotation
        unrotated = key_states * cos - rotate_half(key_states) * sin
        self.keys[layer_idx] = torch.cat([past_key, unrotated], dim=2)[:, :, : self.keep]
        self.values[layer_idx] = torch.cat([past_value, value_states], dim=2)[:, :, : self.keep]
        return keys, values


class _RotatedTwice(TraceableKVStack):
    """Keys are stored as they were rotated, and rotated again when they are read."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        past = self.keys[layer_idx]
        keys, values = super().update(key_states, value_states, layer_idx)
        self.keys[layer_idx] = keep_last(torch.cat([past, key_states], dim=2), self.keep, dim=2)
        return keys, values


def mask_of_what_is_left(
    positions: Tensor, past: int, window: int, dtype: torch.dtype, past_frames: Tensor | None = None
) -> Tensor:
    """`sliding_window_mask` for the keys that `TrimmedBeforeAttentionStack` leaves."""
    return keep_last(sliding_window_mask(positions, past, window, dtype), window)


def mask_seeing_the_future(
    positions: Tensor, past: int, window: int, dtype: torch.dtype, past_frames: Tensor | None = None
) -> Tensor:
    """`sliding_window_mask`, one column off: a query sees the frame after its own."""
    return _mask(positions, past, dtype, past_frames, lambda distance: (distance >= -1) & (distance < window))  # trap


def _mask(
    positions: Tensor,
    past: int,
    dtype: torch.dtype,
    past_frames: Tensor | None,
    visible: Callable[[Tensor], Tensor],
) -> Tensor:
    """A mask by the distance from query to key."""
    seen = visible(positions[past:, None] - positions[None, :])[None]
    if past_frames is not None:
        seen = seen & (positions >= past - past_frames)[:, None]
    return torch.where(seen, torch.zeros((), dtype=dtype), torch.full((), torch.finfo(dtype).min, dtype=dtype))[:, None]


def _by(visible: Callable[[Tensor, int], Tensor]) -> dict[str, Any]:
    """The mask that shows a query what `visible(distance, window)` says."""

    def mask(
        positions: Tensor, past: int, window: int, dtype: torch.dtype, past_frames: Tensor | None = None
    ) -> Tensor:
        return _mask(positions, past, dtype, past_frames, lambda distance: visible(distance, window))

    return {"mask": mask}


def _cut(fewer: int) -> dict[str, Any]:
    """The mask that does what trimming to `window - fewer` entries before attention does."""

    def mask(
        positions: Tensor, past: int, window: int, dtype: torch.dtype, past_frames: Tensor | None = None
    ) -> Tensor:
        left = positions >= positions.size(0) - (window - fewer)
        blocked = torch.finfo(dtype).min
        return sliding_window_mask(positions, past, window, dtype, past_frames).masked_fill(~left, blocked)

    return {"mask": mask}


def _mask_of_all_slots(
    positions: Tensor, past: int, window: int, dtype: torch.dtype, past_frames: Tensor | None = None
) -> Tensor:
    """`sliding_window_mask` that takes empty cache slots for frames."""
    return sliding_window_mask(positions, past, window, dtype)


TRIMMED = "keys and values are trimmed before attention, so that a chunk's first queries lose their oldest frames"
# (what is wrong, the parts of `stream_layers` that do it)
ATTENTION: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "the attention mask is off by one: a query sees one frame more than the sliding window",
        _by(lambda distance, window: (distance >= 0) & (distance <= window)),
    ),
    (
        "the attention mask is off by one: a query sees one frame less than the sliding window",
        _by(lambda distance, window: (distance >= 0) & (distance < window - 1)),
    ),
    ("the attention mask is off by one: a query sees the frame after its own", {"mask": mask_seeing_the_future}),
    (
        "the attention mask is not causal: a query sees every later frame of its chunk",
        _by(lambda distance, window: distance < window),
    ),
    (
        "the attention mask hides the query's own frame",
        _by(lambda distance, window: (distance > 0) & (distance < window)),
    ),
    ("the attention mask has no sliding window", _by(lambda distance, _: distance >= 0)),
    ("the attention mask takes empty cache slots for valid ones", {"mask": _mask_of_all_slots}),
    (TRIMMED, _cut(0)),
    (TRIMMED, _cut(1)),
    (
        "keys are stored post-RoPE, at positions that count from the start of the cache: these saturate (in a cache "
        "that grows, when it is full), and every distance to a key of an earlier call is then wrong",
        {"stack_type": StoredRotatedStack},
    ),
    ("keys are stored post-RoPE and rotated once more when they are read", {"stack_type": _RotatedTwice}),
    ("the cache is trimmed at the wrong end: new keys and values are dropped", {"stack_type": _OldestKept}),
)


@dataclass(frozen=True)
class Mistake:
    """`words` say what is wrong, `run` does it: the inputs of one call -> its outputs."""

    words: str
    run: Callable[[Arrays], Arrays]


def run_of(step: Callable[..., Any], spec: StateSpec) -> Callable[[Arrays], Arrays]:
    """One call by names, of a step that gives what `spec` declares but perhaps in another shape."""

    def run(feeds: Arrays) -> Arrays:
        with torch.no_grad():
            outputs = step(*(torch.from_numpy(feeds[tensor.name]) for tensor in spec.all_inputs))
        return {tensor.name: output.numpy() for tensor, output in zip(spec.all_outputs, outputs, strict=True)}

    return run


def known_mistakes(step: Any) -> Iterator[Mistake]:
    """Every mistake of this file, made in the right `step`; the likeliest first."""
    spec, run = step.spec, run_of(step, step.spec)
    for words, parts in ATTENTION:
        yield Mistake(words, run_of(_with(step, parts), spec))
    yield from _reads_wrongly(spec, run)
    yield from _computes_wrongly(step)


def _with(step: Any, parts: dict[str, Any]) -> Any:
    """The step with other parts in its attention; the weights are shared."""
    name = "transform" if hasattr(step, "transform") else "_transform"
    changed = copy.copy(step)
    vars(changed)[name] = partial(getattr(step, name), **parts)
    return changed


def _reads_wrongly(spec: StateSpec, run: Callable[[Arrays], Arrays]) -> Iterator[Mistake]:
    """The right computation, on a state that is read wrongly."""

    def on(change: Callable[..., Arrays], *names: str) -> Callable[[Arrays], Arrays]:
        return lambda feeds: run(feeds | change(feeds, *names))

    names = [before.name for before, _ in spec.states]
    yield Mistake("no state is read: each chunk is decoded as if the stream began with it", on(_zeros, *names))
    for name in names:
        yield Mistake(f"`{name}` is not read: zeros are taken in its place", on(_zeros, name))
    for name in (before.name for before, _ in spec.states if before.dtype != "int64" and len(before.shape) == 3):
        too_short = f"the left context in `{name}` is read one too short: its oldest entry is lost"
        yield Mistake(too_short, on(_without_oldest, name))
        yield Mistake(f"`{name}` is read shifted by one", on(_shifted, name))
    shapes = {before.name: before.shape for before, _ in spec.states}
    for one, other in combinations(names, 2):
        if _alike(shapes[one], shapes[other]) and _neighbours(one, other):
            yield Mistake(f"`{one}` and `{other}` are swapped where they are read", on(_swapped, one, other))


def _zeros(feeds: Arrays, *names: str) -> Arrays:
    return {name: np.zeros_like(feeds[name]) for name in names}


def _without_oldest(feeds: Arrays, name: str) -> Arrays:
    array = feeds[name].copy()
    array[:, :, :1] = 0
    return {name: array}


def _shifted(feeds: Arrays, name: str) -> Arrays:
    return {name: np.roll(feeds[name], 1, axis=2)}


def _swapped(feeds: Arrays, one: str, other: str) -> Arrays:
    return {one: feeds[other], other: feeds[one]}


def _alike(one: tuple, other: tuple) -> bool:
    return [axis if isinstance(axis, int) else 0 for axis in one] == [
        axis if isinstance(axis, int) else 0 for axis in other
    ]


def _neighbours(one: str, other: str) -> bool:
    """Key and value of one layer, or two states of one kind."""
    kinds = [name.rpartition("_") for name in (one, other)]
    return kinds[0][0] == kinds[1][0] or (kinds[0][2] == kinds[1][2] and "conv" not in one + other)


def _computes_wrongly(step: Any) -> Iterator[Mistake]:
    """The right step with a bias that is added twice, or not at all."""
    tensors = {**dict(step.named_parameters()), **dict(step.named_buffers())}
    biases = {name: tensor for name, tensor in tensors.items() if name.endswith("bias")}
    for name, bias in biases.items():
        for words, factor in ((f"`{name}` is added twice", 2.0), (f"`{name}` is not added", 0.0)):
            changed = partial(torch.func.functional_call, step, {name: factor * bias})
            yield Mistake(words, run_of(lambda *inputs, changed=changed: changed(inputs), step.spec))


def batch_mistakes(step: Any) -> Iterator[Mistake]:
    """What many do to the rows of one call, made in the right `step`."""
    spec, run = step.spec, run_of(step, step.spec)
    kinds: tuple[tuple[str, Callable[[np.ndarray], Any]], ...] = (
        ("the first row's", lambda rows: rows[:1]),
        ("the largest", np.max),
        ("the smallest", np.min),
    )
    for name in (before.name for before, _ in spec.states if before.dtype == "int64"):
        for which, of in kinds:
            words = f"{which} `{name}` is used for all rows, though each row has its own offset"
            yield Mistake(words, _one_count(run, name, of))
            yield Mistake(words, run_of(_with(step, {"mask": _mask_of_one_count(of)}), spec))


def _one_count(run: Callable[[Arrays], Arrays], name: str, of: Callable[[np.ndarray], Any]) -> Callable:
    return lambda feeds: run(feeds | {name: np.zeros_like(feeds[name]) + of(feeds[name])})


def _mask_of_one_count(of: Callable[[np.ndarray], Any]) -> Callable[..., Tensor]:
    def mask(positions: Tensor, past: int, window: int, dtype: torch.dtype, past_frames: Tensor) -> Tensor:
        one = torch.zeros_like(past_frames) + torch.from_numpy(np.asarray(of(past_frames.numpy())))
        return sliding_window_mask(positions, past, window, dtype, one)

    return mask
