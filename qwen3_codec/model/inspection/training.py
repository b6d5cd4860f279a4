"""Which parts of a module are in training mode, and compute something else in it."""

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

from torch import nn


def parts_in_training(wrapper: Any) -> list[str]:
    """Name and class of each module that is in training mode and asks for it, the smallest first: a dropout is one."""
    asks: Callable[[Any], bool] = _asks_for_training
    parts = [(name, part) for name, part in wrapper.named_modules() if part.training and asks(type(part))]
    parts.sort(key=lambda each: len([*each[1].modules()]))
    return [f"{name or 'itself'} ({type(part).__name__})" for name, part in parts]


@cache
def _asks_for_training(kind: Any) -> bool:
    """Whether a class's code reads `self.training`. Every new module is in training mode; most never ask for it."""
    functions = (part for each in kind.__mro__ if each is not nn.Module for part in vars(each).values())
    return any("training" in part.__code__.co_names for part in functions if isinstance(part, FunctionType))
