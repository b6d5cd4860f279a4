"""Exercises on attention that carries its keys and values: the width of a head, empty places, windows and positions."""

from types import SimpleNamespace

import numpy as np
import torch

from .exercise import Case, Exercise, Wrong
from .play import normal, result_of, stream_cases, streamed

# ---- the width of a head -------------------------------------------------------------------------


def key_shape(config, batch, frames):
    return batch, config.num_key_value_heads, frames, config.head_dim


def width_by_formula(config, batch, frames):
    """`hidden_size / num_attention_heads` is what most models have. Where the config says `head_dim`, it is that."""
    return batch, config.num_key_value_heads, frames, config.hidden_size // config.num_attention_heads


def heads_of_queries(config, batch, frames):
    """There are fewer keys than queries where several heads of queries share one of keys: `num_key_value_heads`."""
    return batch, config.num_attention_heads, frames, config.head_dim


def both_wrong(config, batch, frames):
    """Two numbers are derived that the config says: `head_dim`, and `num_key_value_heads`."""
    return batch, config.num_attention_heads, frames, config.hidden_size // config.num_attention_heads


def frames_first(config, batch, frames):
    """The order is [batch, heads, frames, head_dim]: the axis of time is the last but one."""
    return batch, frames, config.num_key_value_heads, config.head_dim


CONFIGS = {
    "the official dimensions": {
        "hidden_size": 512,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 64,
    },
    "grouped queries": {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 24},
    "an ordinary model": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16},
}


def width_cases() -> list[Case]:
    cases = []
    for label, fields in CONFIGS.items():
        config = SimpleNamespace(**fields)
        wanted = 2, fields["num_key_value_heads"], 5, fields["head_dim"]
        cases.append(Case(label, lambda a, c=config: [np.asarray(tuple(a(c, 2, 5)))], [np.asarray(wanted)]))
    return cases


HEAD_DIM = Exercise(
    name="head_dim",
    notebook="02_inspect_dims",
    solution=key_shape,
    cases=width_cases,
    mistakes=(width_by_formula, heads_of_queries, both_wrong, frames_first),
    hints=(
        "Compare the computed width with the config's: section 4 of page 2 has both.",
        "Nothing has to be computed: every number has a name in the config.",
    ),
    difficulty=1,
    minutes=5,
)

# ---- empty is not zero ---------------------------------------------------------------------------


def attend_to_the_valid(query, keys, values, valid):
    """[B, 1, D], [B, W, D], [B, W, D], and [B, 1] how many of the W slots are valid, the last ones."""
    scores = query @ keys.transpose(1, 2) / query.size(-1) ** 0.5
    places = torch.arange(keys.size(1))
    scores = scores.masked_fill((places < keys.size(1) - valid)[:, None], torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) @ values


def zeros_have_weight(query, keys, values, valid):
    """The count is not used. A zero key gives the score 0, and softmax gives 0 a weight like any other number."""
    return (query @ keys.transpose(1, 2) / query.size(-1) ** 0.5).softmax(dim=-1) @ values


def masks_the_other_end(query, keys, values, valid):
    """The mask hides the wrong end: the valid keys are the *last* ones."""
    scores = query @ keys.transpose(1, 2) / query.size(-1) ** 0.5
    places = torch.arange(keys.size(1))
    scores = scores.masked_fill((places >= valid)[:, None], torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) @ values


def masks_the_weights(query, keys, values, valid):
    """The weights are zeroed behind the softmax and no longer add up to 1: the scores have to be hidden before it."""
    weights = (query @ keys.transpose(1, 2) / query.size(-1) ** 0.5).softmax(dim=-1)
    places = torch.arange(keys.size(1))
    return weights.masked_fill((places < keys.size(1) - valid)[:, None], 0.0) @ values


def asks_the_keys(query, keys, values, valid):
    """It looks for keys that are zero. A valid key may be zero too; the count alone tells them apart."""
    scores = query @ keys.transpose(1, 2) / query.size(-1) ** 0.5
    scores = scores.masked_fill((keys == 0).all(dim=-1)[:, None], torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) @ values


def one_count_for_all(query, keys, values, valid):
    """One count is used for all rows. Each row has an offset of its own."""
    return attend_to_the_valid(query, keys, values, valid.max().expand_as(valid))


def empty_cases() -> list[Case]:
    window, width = 6, 4

    def case(label, offsets, zero=(), rest=0.0):
        keys, values = normal(len(offsets), window, width, seed=1), normal(len(offsets), window, width, seed=2)
        for row, offset in enumerate(offsets):
            keys[row, : window - offset] = values[row, : window - offset] = rest
        for row, place in zero:
            keys[row, place] = 0
        query, wanted = 3 * normal(len(offsets), 1, width, seed=3), []
        for row, offset in enumerate(offsets):  # each row alone, with its valid keys and nothing else
            valid = slice(window - offset, None)
            scores = query[row] @ keys[row, valid].T / width**0.5
            wanted.append(scores.softmax(dim=-1) @ values[row, valid])
        inputs = query, keys, values, torch.tensor(offsets)[:, None]
        return Case(label, lambda a: result_of(a(*inputs), 1), [torch.stack(wanted)])

    return [
        case("a full window", [6]),
        case("two keys so far", [2]),
        case("one key so far, the new one's own", [1]),
        case("rows of three offsets", [1, 4, 6]),
        case("a valid key that is zero", [3, 5], zero=[(0, 4), (1, 2)]),
        case("places that are not valid hold something of before", [2, 4], rest=0.5),
    ]


EMPTY = Exercise(
    name="empty is not zero",
    notebook="03_verify_wrapper",
    solution=attend_to_the_valid,
    cases=empty_cases,
    mistakes=(zeros_have_weight, masks_the_other_end, masks_the_weights, asks_the_keys, one_count_for_all),
    hints=(
        "What is exp(0)? What does softmax make of a key of zeros?",
        "Set the scores of the first W − valid keys of each row to the dtype's lowest number, before the softmax.",
    ),
    difficulty=2,
    minutes=10,
)

# ---- keys: where they are trimmed, and where they are rotated ------------------------------------


def rotate(x, positions):
    """RoPE (arXiv:2104.09864): [B, T, D] turned by angles that grow with `positions` [T]."""
    half = x.size(-1) // 2
    angles = positions[:, None] * 100.0 ** (-torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat(
        [first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos()], dim=-1
    )


def window_attention(q, k, v, window):
    """Queries at the end of the keys, each with itself and the window − 1 before it: [B, N, D], twice [B, T, D]."""
    places = torch.arange(k.size(1))
    distance = places[k.size(1) - q.size(1) :, None] - places
    scores = q @ k.transpose(1, 2) / q.size(-1) ** 0.5
    scores = scores.masked_fill((distance < 0) | (distance >= window), torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) @ v


def attention_step(q, k, v, past_k, past_v, window):
    k, v = torch.cat([past_k, k], dim=1), torch.cat([past_v, v], dim=1)
    positions = torch.arange(k.size(1))
    y = window_attention(rotate(q, positions[past_k.size(1) :]), rotate(k, positions), v, window)
    return y, k[:, -(window - 1) :], v[:, -(window - 1) :]


def stored_rotated(q, k, v, past_k, past_v, window):
    """Keys are stored rotated, at positions that come from the length of the store. It stops growing where the window
    is full.
    """
    positions = torch.arange(q.size(1)) + past_k.size(1)
    k, v = torch.cat([past_k, rotate(k, positions)], dim=1), torch.cat([past_v, v], dim=1)
    return window_attention(rotate(q, positions), k, v, window), k[:, -(window - 1) :], v[:, -(window - 1) :]


def positions_begin_anew(q, k, v, past_k, past_v, window):
    """Queries begin at position 0 in each call, while the stored keys stand there: attention depends on the
    distance.
    """
    k, v = torch.cat([past_k, k], dim=1), torch.cat([past_v, v], dim=1)
    y = window_attention(rotate(q, torch.arange(q.size(1))), rotate(k, torch.arange(k.size(1))), v, window)
    return y, k[:, -(window - 1) :], v[:, -(window - 1) :]


def trimmed_before(q, k, v, past_k, past_v, window):
    """Keys are trimmed before attention: the first queries of a long chunk lose the oldest keys that they may
    look at.
    """
    k = torch.cat([past_k, k], dim=1)[:, -max(window - 1, q.size(1)) :]
    v = torch.cat([past_v, v], dim=1)[:, -max(window - 1, q.size(1)) :]
    positions = torch.arange(k.size(1))
    y = window_attention(rotate(q, positions[k.size(1) - q.size(1) :]), rotate(k, positions), v, window)
    return y, k[:, -(window - 1) :], v[:, -(window - 1) :]


def trimmed_and_counted(q, k, v, past_k, past_v, window):
    """Keys are trimmed before attention, and positions are still counted from the length before: in a long chunk
    they no longer fit.
    """
    k = torch.cat([past_k, k], dim=1)[:, -(window - 1) :]
    v = torch.cat([past_v, v], dim=1)[:, -(window - 1) :]
    positions = torch.arange(k.size(1))
    y = window_attention(rotate(q, positions[past_k.size(1) :]), rotate(k, positions), v, window)
    return y, k, v


def never_trimmed(q, k, v, past_k, past_v, window):
    """The result is right, and the store grows with the stream: nothing ever leaves it."""
    y, _, _ = attention_step(q, k, v, past_k, past_v, window)
    return y, torch.cat([past_k, k], dim=1), torch.cat([past_v, v], dim=1)


def one_too_few(q, k, v, past_k, past_v, window):
    """One key too few is stored: a query looks at window − 1 earlier ones."""
    y, k, v = attention_step(q, k, v, past_k, past_v, window)
    return y, k[:, 1:] if k.size(1) == window - 1 else k, v[:, 1:] if v.size(1) == window - 1 else v


WINDOW, WIDTH = 8, 6


def attention_cases() -> list[Case]:
    x = 2 * normal(2, 40, 3 * WIDTH)
    q, k, v = x.split(WIDTH, dim=2)
    places = torch.arange(40)
    whole = window_attention(rotate(q, places), rotate(k, places), v, WINDOW)

    def step(answer):
        def one(part, past_k, past_v):
            y, *stored = result_of(answer(*part.split(WIDTH, dim=2), past_k, past_v, WINDOW), 3)
            if stored[0].size(1) > WINDOW:
                raise Wrong(f"{stored[0].size(1)} keys are stored, a window has {WINDOW}")
            return y, *stored

        return one

    empty = [torch.zeros(2, 0, WIDTH)] * 2
    within = x[:, : WINDOW - 1]
    return [
        Case("within the window", lambda a: [streamed(step(a), within, empty, (2,), 1)], [whole[:, : WINDOW - 1]]),
        *stream_cases("past the window", step, x, empty, whole, axis=1),
    ]


KEYS = Exercise(
    name="keys and positions",
    notebook="03_verify_wrapper",
    solution=attention_step,
    cases=attention_cases,
    mistakes=(stored_rotated, positions_begin_anew, trimmed_before, trimmed_and_counted, never_trimmed, one_too_few),
    hints=(
        "Which positions do the stored keys have when the store no longer grows? Attention depends on distances alone.",
        "Store keys as they came, unrotated. In each call join them, rotate *all* at 0, 1, 2, ..., attend, "
        "and trim what "
        "is stored last.",
    ),
    difficulty=3,
    minutes=25,
)
