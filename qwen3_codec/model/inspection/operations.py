"""Every operation of a run: where it first draws random numbers, and where it first gives complex ones."""

import sys
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .places import Place


class Operations(TorchDispatchMode):
    """Sees every operation of a run: where the first is that draws `random` numbers, or gives `complex` ones, or ""."""

    def __init__(self) -> None:
        super().__init__()
        self.random = self.complex = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.random and torch.Tag.nondeterministic_seeded in func.tags:
            self.random = self._place(func)
        if not self.complex and isinstance(result, torch.Tensor) and result.is_complex():
            self.complex = self._place(func)
        return result

    @staticmethod
    def _place(func: Any) -> str:
        return str(Place.outside_libraries(sys._getframe(2)) or func)
