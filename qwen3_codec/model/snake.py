"""The decoder's activation, as ONNX Runtime computes it quickly."""

from math import pi
from typing import NamedTuple

import torch
from torch import nn
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeSnakeBeta


class Doubling(NamedTuple):
    """factor * y (y + offset) is sin(pi t)^2, where y = s (... (s + inner[0]) s + inner[1] ...) and s = t^2."""

    inner: tuple[float, ...]
    offset: float
    factor: float


# ONNX Runtime goes through the whole tensor once for each operation, so it is operations that count. As
# sin(2a)^2 = 4 sin(a)^2 (1 - sin(a)^2), a polynomial for half the angle will do: it has fewer terms, and two operations
# double the angle. Its leading coefficient is 1, which saves a product; `factor` makes up for that, with the scale. All
# numbers of a line are fitted together, so that the largest error for |t| <= 1/2 is least: 2.4e-8, less than float32
# rounds, in 14 operations for the whole activation (a power series that is as good: 17), and 3.2e-4, less than 8 bits
# round, in 10.
PRECISE = Doubling((-5.972210220812474, 18.1792106023932, -22.103908245910084), 8.958380777751069, -0.04984263166796735)
COARSE = Doubling((-1.3041959504642036,), 0.5302072305862208, -14.233757668781921)


class Snake(nn.Module):
    """SnakeBeta, x + sin(a x)^2 / b (arXiv:2006.08195), with the exponentials of its parameters taken once."""

    frequency: torch.Tensor
    scale: torch.Tensor

    def __init__(self, snake: Qwen3OmniMoeSnakeBeta):
        super().__init__()
        self.register_buffer("frequency", snake.alpha.exp()[:, None] / pi, persistent=False)
        self.register_buffer("scale", 1 / (snake.beta.exp()[:, None] + snake.no_div_by_zero), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + sine_squared(x * self.frequency, PRECISE, self.scale)


def sine_squared(turns: torch.Tensor, form: Doubling, scale: torch.Tensor | float = 1.0) -> torch.Tensor:
    """scale * sin(pi turns)^2, as a polynomial: ONNX Runtime computes Sin on one thread, as slowly as ten products.

    It has the period 1, so `turns` are taken less their nearest integer; it is even, so the square of what is left
    is enough.
    """
    rest = turns - turns.round()
    square = y = rest * rest
    for coefficient in form.inner:
        y = (y + coefficient) * square
    return scale * form.factor * (y * (y + form.offset))
