"""Where a step begins to compute something else than another one: operator by operator, with the line of code."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ...model.inspection.places import Place
from .calls import their_place

# Of two sums over the same numbers in another order, relative to the sum of their sizes: float32 rounds by 6e-8.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Result:
    """What one operator gave: its name without overload, the Python floats and the tensors that it took, where.

    `key` stands for the values in any layout: how many, their sum, the sum of their sizes.
    """

    operator: str
    numbers: tuple[float, ...]
    inputs: tuple[int, ...]  # where their memory begins: a parameter is known by it
    dtype: torch.dtype
    key: tuple[int, float, float]
    place: Place | None

    def among(self, others: np.ndarray) -> bool:
        """Whether one of `others` [n, 3] has these values, to rounding."""
        count, total, size = self.key
        same = others[others[:, 0] == count]
        allowed = ROUNDING * size + 1e-12
        near = (np.abs(same[:, 1] - total) <= allowed) & (np.abs(same[:, 2] - size) <= allowed)
        return bool((near | (np.isnan(same[:, 2]) & np.isnan(size))).any())


class Results(TorchDispatchMode):
    """Every result of every operator of a run, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Result] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [*_flat(args), *_flat((kwargs or {}).values())]
        numbers = tuple(each for each in given if isinstance(each, float))
        inputs = tuple(each.data_ptr() for each in given if isinstance(each, torch.Tensor))
        place = their_place(sys._getframe(1))
        for tensor in _flat([result]):
            if isinstance(tensor, torch.Tensor):
                values = tensor.double()
                key = (tensor.numel(), float(values.sum()), float(values.abs().sum()))
                name = func.overloadpacket.__name__
                self.all.append(Result(name, numbers, inputs, tensor.dtype, key, place))
        return result


def _flat(values: Iterable) -> Iterator:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def results(run: Callable[[], Any]) -> list[Result]:
    """Every operator's result of `run`; as far as it came, where it raises."""
    seen = Results()
    try:
        with torch.no_grad(), seen:
            run()
    except (Exception, SystemExit):
        pass
    return seen.all


def departure(mine: list[Result], theirs: list[Result]) -> tuple[Result, Result | None] | None:
    """The first result of `theirs` that `mine` lacks, and of `mine` the first of the same operator that `theirs` lacks.

    None where there is none. A result that only comes in another layout or order is not one.
    """
    known, other = _keys(mine), _keys(theirs)
    first = next((result for result in theirs if not result.among(known)), None)
    if first is None:
        return None
    beside = (result for result in mine if result.operator == first.operator and not result.among(other))
    return first, next(beside, None)


def _keys(found: list[Result]) -> np.ndarray:
    return np.array([result.key for result in found], np.float64).reshape(-1, 3)
