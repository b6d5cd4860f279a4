"""The decoder's activation, as ONNX Runtime computes it quickly."""

from math import pi
from typing import NamedTuple

import torch
from torch import nn
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeSnakeBeta


class Doubled(NamedTuple):
    """factor * y (y + offset) = sin(pi t)^2, with the polynomial y = t^2 (t^2n + ... + below[1] t^2 + below[0])."""

    below: tuple[float, ...]
    offset: float
    factor: float


# sin(2 a)^2 = 4 sin(a)^2 (1 - sin(a)^2): a polynomial for half the angle, doubled by two operations, needs fewer terms.
# ONNX Runtime passes over the whole tensor for each operation, so they are what counts. With a leading coefficient of 1,
# which `factor` makes up for, these are 7 on t^2 (for float32) and 3 (for 8 bits), and 2 for the doubling.
# All coefficients are fitted together: the largest error for |t| <= 1/2 is the least there is.
FINE = Doubled((-22.103908245910084, 18.1792106023932, -5.972210220812474), 8.958380777751069, -0.04984263166796735)
COARSE = Doubled((-1.3041959504642036,), 0.5302072305862208, -14.233757668781921)


class Snake(nn.Module):
    """SnakeBeta, x + sin(a x)^2 / b (arXiv:2006.08195), with the exponentials of its parameters taken once."""

    frequency: torch.Tensor
    scale: torch.Tensor

    def __init__(self, snake: Qwen3OmniMoeSnakeBeta):
        super().__init__()
        self.register_buffer("frequency", snake.alpha.exp()[:, None] / pi, persistent=False)
        scale = FINE.factor / (snake.beta.exp()[:, None] + snake.no_div_by_zero)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * sine_squared(x * self.frequency, FINE)


def sine_squared(turns: torch.Tensor, form: Doubled) -> torch.Tensor:
    """sin(pi turns)^2 over `form.factor`: ONNX Runtime computes Sin on one thread, some ten times slower than a product.

    It has the period 1, so `turns` are taken less their nearest integer; it is even, so the square of what is left
    is enough.
    """
    rest = turns - turns.round()
    square = rest * rest
    y = square
    for coefficient in reversed(form.below):
        y = (y + coefficient) * square
    return y * (y + form.offset)
