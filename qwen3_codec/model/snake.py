"""The decoder's activation, as ONNX Runtime computes it quickly."""

from functools import cache
from math import pi

import numpy as np
import torch
from torch import nn
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeSnakeBeta


class Snake(nn.Module):
    """SnakeBeta, x + sin(a x)^2 / b (arXiv:2006.08195), with the exponentials of its parameters taken once."""

    frequency: torch.Tensor
    scale: torch.Tensor

    def __init__(self, snake: Qwen3OmniMoeSnakeBeta):
        super().__init__()
        self.register_buffer("frequency", snake.alpha.exp()[:, None] / pi, persistent=False)
        self.register_buffer("scale", 1 / (snake.beta.exp()[:, None] + snake.no_div_by_zero), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * sine_squared(x * self.frequency)


def sine_squared(turns: torch.Tensor, degree: int = 6) -> torch.Tensor:
    """sin(pi turns)^2 as a polynomial: ONNX Runtime computes Sin on one thread, some ten times slower than a product.

    It has the period 1, so `turns` are taken less their nearest integer; it is even, so the square of what is left
    is enough. With the degree 6 in that square it is within 7e-9.
    """
    rest = turns - turns.round()
    square = rest * rest
    y: torch.Tensor | float
    *lower, y = sine_coefficients(degree)
    for coefficient in reversed(lower):
        y = y * square + coefficient
    return square * y


@cache
def sine_coefficients(degree: int) -> tuple[float, ...]:
    """c with sin(pi t)^2 = c[0] t^2 + c[1] t^4 + ..., `degree` of them, for t in [-1/2, 1/2]: a least-squares fit."""
    t = np.cos(np.pi * np.arange(1, 1000) / 2000) / 2  # Chebyshev's points, so that the ends are no worse
    fit = np.polynomial.Polynomial.fit(t**2, np.sin(np.pi * t) ** 2 / t**2, degree - 1, w=t**2)
    return tuple(map(float, fit.convert().coef))
