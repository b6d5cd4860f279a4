"""The exercise on quantization: activations in one 8-bit term, then in two."""

import torch

from .exercise import Case, Exercise, Wrong
from .play import normal, result_of

LARGEST = 127  # of a signed 8-bit integer, so that both signs have as many steps


def two_terms(x):
    scale = x.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny) / 127
    first = (x / scale).round()
    second = ((x / scale - first) * 2 * 127).round()
    return first, second, scale


def one_term(x):
    """The second term is nothing but zeros, so what the first rounds away stays lost."""
    first, second, scale = two_terms(x)
    return first, torch.zeros_like(second), scale


def one_scale_for_all(x):
    """One scale for the whole tensor: a loud row leaves a quiet one few of its 255 steps. Each row needs its own."""
    scale = x.abs().max().clamp(min=torch.finfo(x.dtype).tiny) / LARGEST * torch.ones(*x.shape[:-1], 1)
    first = (x / scale).round()
    return first, ((x / scale - first) * 2 * LARGEST).round(), scale


def divides_by_zero(x):
    """A row of zeros has the scale 0, and 0 / 0 is NaN. Clamp the scale from below."""
    scale = x.abs().amax(dim=-1, keepdim=True) / LARGEST
    first = (x / scale).round()
    return first, ((x / scale - first) * 2 * LARGEST).round(), scale


def second_step_too_large(x):
    """What is left over lies between -1/2 and 1/2 of a step. Multiplied by 127 it fills half of the second term's
    range, so half of its steps are unused.
    """
    first, _, scale = two_terms(x)
    return first, ((x / scale - first) * LARGEST).round(), scale


def quantization_cases() -> list[Case]:
    x = normal(3, 64)
    inputs = {
        "rows of one loudness": x,
        "a loud row beside a quiet one": x * torch.tensor([[1.0], [100.0], [0.01]]),
        "a row of zeros": x * torch.tensor([[1.0], [0.0], [1.0]]),
        "one row, with batch axes before it": normal(2, 1, 16, seed=1),
    }
    return [Case(label, lambda answer, x=x: [_excess(answer, x)], [torch.zeros_like(x)]) for label, x in inputs.items()]


def _excess(answer, x: torch.Tensor) -> torch.Tensor:
    """By how much each value is farther off than half a step of the second term, in steps of the first.

    A hundredth of a step is granted: an answer may round a tie to the other side.
    """
    first, second, scale = result_of(answer(x), 3)
    for name, term in (("first", first), ("second", second)):
        if term.shape != x.shape:
            raise Wrong(f"the {name} term has the shape {list(term.shape)}, must be {list(x.shape)}")
        if not torch.equal(term, term.round()):
            raise Wrong(f"the {name} term holds {term[term != term.round()][0]:.3g}, must be integers")
        if term.abs().max() > LARGEST:
            raise Wrong(f"the {name} term holds {term.abs().max():g}, must be within -{LARGEST} and {LARGEST}")
    step = two_terms(x)[2]
    off = ((first + second / (2 * LARGEST)) * scale - x).abs() / step
    return (off - 0.51 / (2 * LARGEST)).clamp(min=0)


TWO_TERMS = Exercise(
    name="two terms",
    notebook="08_fewer_bits",
    solution=two_terms,
    cases=quantization_cases,
    mistakes=(one_term, one_scale_for_all, divides_by_zero, second_step_too_large),
    hints=(
        "After rounding, how large can `x / scale - first` be? The second term has -127 to 127 for it.",
        "`second = ((x / scale - first) * 254).round()`, and each row has a scale of its own that is never 0.",
    ),
    difficulty=2,
    minutes=15,
)
