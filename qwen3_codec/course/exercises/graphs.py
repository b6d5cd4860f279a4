"""Exercises on what an exporter loses: branches, lengths, cuts that depend on data."""

import torch

from .exercise import Case, Exercise
from .play import graph_cases, normal

# ---- an if on a tensor ---------------------------------------------------------------------------


def finish(x, is_last):
    return torch.where(is_last > 0.5, x * 0.5, x)


def python_if(x, is_last):
    """A Python `if` on a tensor: the trace keeps the branch that the example took, and the graph no longer reads
    `is_last`.
    """
    if is_last.item() > 0.5:
        return x * 0.5
    return x


def branches_swapped(x, is_last):
    """The two branches are the wrong way round: `torch.where` takes its second argument where the condition holds."""
    return torch.where(is_last > 0.5, x, x * 0.5)


def times_the_flag(x, is_last):
    """It computes with the flag's value. The flag is above 0.5 or not: 0.8 means the same as 1."""
    return x * (1 - 0.5 * is_last)


def always(x, is_last):
    """`is_last` is not looked at: what must happen at the end happens each time."""
    return x * 0.5


def never(x, is_last):
    """`is_last` is not looked at: what must happen at the end never happens."""
    return x


def if_cases() -> list[Case]:
    def feed(length, flag):
        return {"x": normal(1, length), "is_last": torch.tensor([flag])}

    feeds = [feed(4, 0.0), feed(4, 1.0), feed(1, 1.0), feed(7, 0.8), feed(3, 0.2)]
    return graph_cases(lambda answer: answer, finish, feeds[0], feeds)


IF = Exercise(
    name="the if",
    notebook="04_export_onnx",
    solution=finish,
    cases=if_cases,
    mistakes=(python_if, branches_swapped, times_the_flag, always, never),
    hints=(
        "A trace writes down operations on tensors. A Python `if` is none.",
        "Compute both results, and let `torch.where` choose by `is_last > 0.5`.",
    ),
    difficulty=1,
    minutes=5,
)

# ---- three lengths baked in ----------------------------------------------------------------------


def length_step(x, past):
    joined = torch.cat([past, x], dim=1)
    ramp = torch.arange(x.size(1)) * 0.1
    return x + ramp, joined[:, -4:], joined.mean(dim=1, keepdim=True)


def range_left(x, past):
    """The ramp has the example's length for ever: a `range` or a `len` makes it of a Python number.
    `torch.arange(x.size(1))` follows.
    """
    joined = torch.cat([past, x], dim=1)
    ramp = torch.tensor([0.1 * i for i in range(x.size(1))])
    return x + ramp, joined[:, -4:], joined.mean(dim=1, keepdim=True)


def max_left(x, past):
    """`max(0, …)` of a size is decided once, in Python. A negative slice, `[:, -4:]`, takes what there is, at any
    length.
    """
    joined = torch.cat([past, x], dim=1)
    ramp = torch.arange(x.size(1)) * 0.1
    return x + ramp, joined[:, max(0, joined.size(1) - 4) :], joined.mean(dim=1, keepdim=True)


def int_left(x, past):
    """`int(…)` of a size is the example's number: the mean divides by it at every length. `mean`, or a bare `size()`,
    follows.
    """
    joined = torch.cat([past, x], dim=1)
    ramp = torch.arange(x.size(1)) * 0.1
    return x + ramp, joined[:, -4:], joined.sum(dim=1, keepdim=True) / int(joined.size(1))


def none_freed(x, past):
    """All three are still baked in: the `range`, the `max` and the `int`."""
    joined = torch.cat([past, x], dim=1)
    ramp = torch.tensor([0.1 * i for i in range(x.size(1))])
    return x + ramp, joined[:, max(0, joined.size(1) - 4) :], joined.sum(dim=1, keepdim=True) / int(joined.size(1))


def baked_in_cases() -> list[Case]:
    def feed(length, past):
        return {"x": normal(1, length), "past": normal(1, past, seed=1)}

    feeds = [feed(3, 4), feed(3, 1), feed(1, 4), feed(12, 4), feed(2, 1), feed(5, 0)]
    return graph_cases(lambda answer: answer, length_step, feeds[0], feeds)


LENGTHS = Exercise(
    name="lengths baked in",
    notebook="04_export_onnx",
    solution=length_step,
    cases=baked_in_cases,
    mistakes=(none_freed, range_left, max_left, int_left),
    hints=(
        "Which lines make a Python number of a size?",
        "`torch.arange(x.size(1))`, `joined[:, -4:]`, `joined.mean(...)`: none of them ever asks Python.",
    ),
    difficulty=1,
    minutes=10,
)

# ---- how much of it is valid ---------------------------------------------------------------------


def deliver(pending, is_last, lookahead):
    total = torch.zeros(1, dtype=torch.int64) + pending.size(1)
    return pending, torch.where(is_last > 0.5, total, (total - lookahead).clamp(min=0))


def slices_by_the_flag(pending, is_last, lookahead):
    """It cuts by a number that depends on data. The trace keeps the example's cut; give all of it, and say how much is
    valid.
    """
    held = 0 if is_last.item() > 0.5 else lookahead
    kept = pending[:, : pending.size(1) - held]
    return kept, torch.zeros(1, dtype=torch.int64) + kept.size(1)


def below_zero(pending, is_last, lookahead):
    """Fewer frames than the look-ahead give a negative count: clamp it at 0."""
    total = torch.zeros(1, dtype=torch.int64) + pending.size(1)
    return pending, torch.where(is_last > 0.5, total, total - lookahead)


def max_of_a_size(pending, is_last, lookahead):
    """`max(0, …)` of a size is decided in Python, and the trace keeps the example's choice. `clamp` a tensor in
    its place.
    """
    total = pending.size(1) + torch.zeros(1, dtype=torch.int64)
    return pending, torch.where(is_last > 0.5, total, max(0, pending.size(1) - lookahead) + 0 * total)


def buffers_at_the_end(pending, is_last, lookahead):
    """At the end nothing stays buffered: here some of it does, whatever `is_last` says."""
    total = torch.zeros(1, dtype=torch.int64) + pending.size(1)
    return pending, (total - lookahead).clamp(min=0)


def count_from_python(pending, is_last, lookahead):
    """The count is a Python number when it is traced, so it is the example's in every call. Add the size to a tensor of
    zeros.
    """
    total = torch.tensor([int(pending.size(1))])
    return pending, torch.where(is_last > 0.5, total, (total - lookahead).clamp(min=0))


def valid_cases() -> list[Case]:
    def feed(length, flag):
        return {"pending": normal(1, length), "is_last": torch.tensor([flag])}

    feeds = [feed(6, 0.0), feed(6, 1.0), feed(9, 0.0), feed(2, 0.0), feed(2, 1.0)]

    def bound(answer):
        return lambda pending, is_last: answer(pending, is_last, 3)

    return graph_cases(bound, bound(deliver), feeds[0], feeds)


VALID = Exercise(
    name="valid samples",
    notebook="03_verify_wrapper",
    solution=deliver,
    cases=valid_cases,
    mistakes=(slices_by_the_flag, below_zero, max_of_a_size, buffers_at_the_end, count_from_python),
    hints=(
        "The output's length may depend on the inputs' *shapes*, never on their values.",
        "Return `pending` whole, and a count: `torch.where` between the total and the total less the look-ahead, "
        "clamped at 0.",
    ),
    difficulty=2,
    minutes=15,
)
