"""How far one frame's codes reach in the waveform of any model, which is asked and not read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.overrides import TorchFunctionMode

from .finder import NAMED, has_signal

RECURRENT = {*NAMED["a recurrent layer"].split(), *NAMED["a sum or product of all steps so far"].split()}


@dataclass(frozen=True)
class Field:
    """Samples that move when the codes of one frame change, relative to that frame's start: the first and the last.

    `first_sample` below 0 says that the model looks ahead. `recurrent` names the function that hands on whatever came:
    the field then has no end, however early the change drops below rounding. `cut_off` says that the last frame that
    was tried still moves.
    """

    first_sample: int
    last_sample: int
    samples_per_frame: int
    recurrent: str = ""
    cut_off: bool = False

    @property
    def frames(self) -> int | None:
        """Later frames that move, or None where there is no end of them."""
        return None if self.recurrent or self.cut_off else max(0, self.last_sample // self.samples_per_frame)

    def __str__(self) -> str:
        ahead = f"looks {-self.first_sample} samples ahead" if self.first_sample < 0 else "causal"
        seen = f"the last sample that moves is {self.last_sample}"
        if self.recurrent:
            return f"{ahead}; does not end: recurrent ({self.recurrent}); here {seen}"
        if self.cut_off:
            return f"{ahead}; does not end in the frames that were given"
        return f"{ahead}; {self.frames} later frames, {seen}"


def receptive_field(
    one_shot: Callable[[np.ndarray], np.ndarray], codes: np.ndarray, at: int = 2, tolerance: float = 0.0
) -> Field:
    """Change the codes of frame `at` and see which samples of `one_shot(codes)` move by more than `tolerance`.

    Codes are [B, N, ...], the waveform is [B, M]. `model.receptive_field` knows more of this project's decoder: conv
    stack and attention apart, in float64. Raises ValueError where nothing moves.
    """
    changed = codes.copy()
    changed[:, at] = np.where(codes[:, at] == codes.max(), codes.min(), codes.max())
    with _Functions() as functions:
        whole = one_shot(codes)
    moved = np.flatnonzero((np.abs(one_shot(changed) - whole) > tolerance).any(axis=0))
    if not moved.size:
        raise ValueError(f"the codes of frame {at} change no sample")
    samples_per_frame = whole.shape[-1] // codes.shape[1]
    first, last = (int(place) - at * samples_per_frame for place in (moved[0], moved[-1]))
    cut_off = bool(moved[-1] >= whole.shape[-1] - samples_per_frame)
    return Field(first, last, samples_per_frame, functions.recurrent, cut_off)


class _Functions(TorchFunctionMode):
    """Sees the functions of torch that are called; `recurrent` is the first that hands on whatever came."""

    recurrent = ""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if not self.recurrent and name in RECURRENT and has_signal(*args, *kwargs.values()):
            self.recurrent = name
        return function(*args, **kwargs)
