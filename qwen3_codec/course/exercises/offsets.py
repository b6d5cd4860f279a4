"""Exercises on rows at several offsets, and on counts where a frame makes several steps of attention."""

import numpy as np
import torch

from .attention import WIDTH, window_attention
from .exercise import Case, Exercise, Wrong
from .play import normal, result_of, stream_cases

# ---- rows at different offsets ----------------------------------------------------------------------


def visible(past, new, window, valid):
    """[B, new, past + new] of booleans; `valid` [B] of the `past` stored keys are valid, the last ones."""
    places = torch.arange(past + new)
    distance = places[past:, None] - places
    inside = (distance >= 0) & (distance < window)
    return inside & (places >= past - valid[:, None])[:, None]


def offsets_forgotten(past, new, window, valid):
    """All rows see all stored keys, also those that are not there yet: the offset is missing."""
    return visible(past, new, window, torch.full_like(valid, past))


def offsets_from_the_front(past, new, window, valid):
    """The first `valid` stored keys are let through. The valid ones are the last."""
    places = torch.arange(past + new)
    distance = places[past:, None] - places
    there = (places < valid[:, None]) | (places >= past)
    return ((distance >= 0) & (distance < window)) & there[:, None]


def first_alone(past, new, window, valid):
    """The first `valid` keys are let through and nothing else: the valid ones are the last stored, and the new
    ones count too.
    """
    places = torch.arange(past + new)
    distance = places[past:, None] - places
    return ((distance >= 0) & (distance < window)) & (places < valid[:, None])[:, None]


def one_too_few_valid(past, new, window, valid):
    """One valid key is hidden: the places from past − valid on are valid, that one included."""
    return visible(past, new, window, valid - 1)


def one_too_many_valid(past, new, window, valid):
    """A place that is not valid is let through, the one before the first valid key."""
    return visible(past, new, window, valid + 1)


def window_one_narrower(past, new, window, valid):
    """The window is one too narrow: a query sees itself and window − 1 before it."""
    return visible(past, new, window - 1, valid)


def window_one_wider(past, new, window, valid):
    """The window is one too wide: a query sees itself and window − 1 before it."""
    return visible(past, new, window + 1, valid)


def sees_the_chunk(past, new, window, valid):
    """A query sees the later ones of its own chunk. With chunks of 1 nobody notices."""
    places = torch.arange(past + new)
    inside = (places[past:, None] - places) < window
    return inside & (places >= past - valid[:, None])[:, None]


def mask_cases() -> list[Case]:
    def case(label, past, new, window, valid):
        wanted = np.zeros((len(valid), new, past + new), bool)
        for row, count in enumerate(valid):
            for query in range(new):
                for key in range(past - count, past + query + 1):
                    wanted[row, query, key] = past + query - key < window
        return Case(label, lambda a: result_of(a(past, new, window, torch.tensor(valid)), 1), [wanted])

    return [
        case("all rows full", 5, 3, 6, [5, 5]),
        case("one row empty, one full", 5, 3, 6, [0, 5]),
        case("three offsets, one new frame", 7, 1, 8, [0, 3, 7]),
        case("a chunk longer than the window", 3, 9, 4, [1, 3]),
    ]


OFFSETS = Exercise(
    name="rows at different offsets",
    notebook="03_verify_wrapper",
    solution=visible,
    cases=mask_cases,
    mistakes=(
        offsets_forgotten,
        offsets_from_the_front,
        first_alone,
        one_too_few_valid,
        one_too_many_valid,
        window_one_narrower,
        window_one_wider,
        sees_the_chunk,
    ),
    hints=(
        "Draw it for one row: the stored keys, of which the last are valid, and then the new ones.",
        "Two conditions: the distance is at least 0 and below the window; the key's place is at least past − valid.",
    ),
    difficulty=2,
    minutes=15,
)

# ---- a codec that upsamples before its attention -------------------------------------------------


def count_steps(past_frames, new_frames, steps_per_frame, window):
    most = -(-(window - 1) // steps_per_frame)
    return (past_frames * steps_per_frame).clamp(max=window - 1), (past_frames + new_frames).clamp(max=most)


def frames_as_steps(past_frames, new_frames, steps_per_frame, window):
    """Frames are counted as if they were the transformer's steps: some valid cache slots are hidden."""
    return past_frames, (past_frames + new_frames).clamp(max=window - 1)


def rounds_down(past_frames, new_frames, steps_per_frame, window):
    """The count stops too early: ⌊(window − 1) / steps⌋ frames do not fill the window where the division leaves
    a rest.
    """
    most = (window - 1) // steps_per_frame
    return (past_frames * steps_per_frame).clamp(max=window - 1), (past_frames + new_frames).clamp(max=most)


def never_stops(past_frames, new_frames, steps_per_frame, window):
    """The count grows with the stream. Nothing that is carried may: let it stop where the window is full."""
    return (past_frames * steps_per_frame).clamp(max=window - 1), past_frames + new_frames


def more_than_stored(past_frames, new_frames, steps_per_frame, window):
    """More steps are counted as valid than are stored. The mask does not mind; a saved stream, or code that reads the
    count, does.
    """
    _, after = count_steps(past_frames, new_frames, steps_per_frame, window)
    return past_frames * steps_per_frame, after


def counts_calls(past_frames, new_frames, steps_per_frame, window):
    """It counts calls in place of frames: a call brings `new_frames` of them."""
    past, _ = count_steps(past_frames, new_frames, steps_per_frame, window)
    return past, (past_frames + 1).clamp(max=-(-(window - 1) // steps_per_frame))


def upsampled_cases() -> list[Case]:
    cases = []
    for steps, window in ((2, 8), (3, 8), (1, 8), (4, 6)):
        x = 2 * normal(2, 30, WIDTH)
        repeated = x.repeat_interleave(steps, dim=1) + torch.linspace(-1, 1, steps).repeat(30)[:, None]
        whole = window_attention(repeated, repeated, repeated, window).unflatten(1, (30, steps)).flatten(2)

        def step(answer, steps=steps, window=window):
            return lambda part, keys, past: _upsampled(answer, part, keys, past, steps, window)

        state = [torch.zeros(2, window - 1, WIDTH), torch.zeros(2, 1, dtype=torch.int64)]
        label = f"{steps} steps a frame, window {window}"
        cases += stream_cases(label, step, x, state, whole, axis=1)
    return cases


def _upsampled(answer, part, keys, past_frames, steps: int, window: int):
    """One call of a toy codec that repeats each frame `steps` times before it attends; keys start as zeros."""
    new = part.repeat_interleave(steps, dim=1) + torch.linspace(-1, 1, steps).repeat(part.size(1))[:, None]
    past_steps, after = result_of(answer(past_frames, part.size(1), steps, window), 2)
    if past_steps.max() > window - 1:
        raise Wrong(f"more steps than are stored: {int(past_steps.max())} are said to be real, of {window - 1}")
    joined = torch.cat([keys, new], dim=1)
    seen = visible(keys.size(1), new.size(1), window, past_steps[:, 0])
    scores = (new @ joined.transpose(1, 2) / WIDTH**0.5).masked_fill(~seen, torch.finfo(torch.float32).min)
    y = (scores.softmax(dim=-1) @ joined).unflatten(1, (part.size(1), steps)).flatten(2)
    if after.max() > window:
        raise Wrong(f"the count still grows: it is {int(after.max())}, though a window of {window} steps is full")
    return y, joined[:, -(window - 1) :], after


UPSAMPLED = Exercise(
    name="steps and frames",
    notebook="09_your_voice",
    solution=count_steps,
    cases=upsampled_cases,
    mistakes=(frames_as_steps, rounds_down, never_stops, more_than_stored, counts_calls),
    hints=(
        "The mask asks how many of the stored *steps* are real. How many does a frame bring?",
        "Multiply for the mask, and clamp at window − 1. Let the count of frames stop at the smallest number "
        "that fills the "
        "window: round up.",
    ),
    difficulty=2,
    minutes=15,
)
