"""An exercise on a block that nobody described: which of its parts have a state, and what each needs."""

import torch
from torch import nn
from torch.nn import functional as F

from .convolutions import seeded
from .exercise import Case, Exercise
from .play import REMEMBERS, in_turn, normal, streamed

# ---- a block that nobody described ---------------------------------------------------------------


class Block(nn.Module):
    """A causal convolution, a nonlinearity, a transposed one, and a shortcut that repeats each step."""

    def __init__(self, channels: int = 3, kernel: int = 4, dilation: int = 2, stride: int = 2):
        super().__init__()
        self.up = nn.ConvTranspose1d(channels, channels, 2 * stride, stride)
        self.conv = nn.Conv1d(channels, channels, kernel, dilation=dilation)
        self.requires_grad_(False)

    def forward(self, x):
        (kernel,), (dilation,), (stride,) = self.conv.kernel_size, self.conv.dilation, self.up.stride
        y = F.gelu(self.conv(F.pad(x, (dilation * (kernel - 1), 0))))
        return self.up(y)[:, :, : stride * x.size(2)] + x.repeat_interleave(stride, dim=2)


class StreamingBlock:
    def __init__(self, block):
        self.block = block
        self.left_context = block.conv.dilation[0] * (block.conv.kernel_size[0] - 1)

    def start(self, batch):
        channels = self.block.conv.in_channels
        return torch.zeros(batch, channels, self.left_context), torch.zeros(batch, channels, 1)

    def __call__(self, x, past, before):
        up, stride = self.block.up, self.block.up.stride[0]
        joined = torch.cat([past, x], dim=2)
        y = torch.cat([before, F.gelu(self.block.conv(joined))], dim=2)
        made = up(y)[:, :, stride : stride * y.size(2)]
        return made + x.repeat_interleave(stride, dim=2), joined[:, :, x.size(2) :], y[:, :, -1:]


class ConvAlone(StreamingBlock):
    """The transposed convolution begins anew with each chunk: its state does not come out as it should go in."""

    def __call__(self, x, past, before):
        y, past, _ = super().__call__(x, past, torch.zeros_like(before))
        return y, past, before


class TransposedAlone(StreamingBlock):
    """The first convolution begins with zeros in each chunk: its state does not come out as it should go in."""

    def __call__(self, x, past, before):
        y, _, before = super().__call__(x, torch.zeros_like(past), before)
        return y, past, before


class KeepsTheBlocksInput(StreamingBlock):
    """The transposed convolution's state is the last step of *its own* input, behind the nonlinearity, not of the
    block's.
    """

    def __call__(self, x, past, before):
        y, past, _ = super().__call__(x, past, before)
        return y, past, x[:, :, -1:]


class KeepsBeforeTheNonlinearity(StreamingBlock):
    """What is kept for the transposed convolution was taken before the nonlinearity: it sees what comes out
    behind it.
    """

    def __call__(self, x, past, before):
        joined = torch.cat([past, x], dim=2)
        y, past, _ = super().__call__(x, past, before)
        return y, past, self.block.conv(joined)[:, :, -1:]


def block_cases() -> list[Case]:
    block, x = seeded(Block), normal(2, 3, 40)
    block.conv.bias.add_(1.0)  # so that a zero is nothing that the nonlinearity would ever give
    whole = block(x)

    def over(answer, cut, play=streamed):
        counterpart = answer(block)
        return [play(counterpart, x, counterpart.start(2), cut)]

    def lost(answer, which):
        """The stream with one state zeroed after each call; the array says that it was noticed."""
        counterpart = answer(block)

        def step(part, *states):
            y, *after = counterpart(part, *states)
            return y, *(torch.zeros_like(s) if i == which else s for i, s in enumerate(after))

        return [(streamed(step, x, counterpart.start(2), (3,)) - whole).abs().max() > 1e-3]

    schedules = ((40,), (3,), (7, 1, 2), (1,))
    cases = [
        Case(f"chunks of {', '.join(map(str, cut))}", lambda a, cut=cut: over(a, cut), [whole]) for cut in schedules
    ]
    cases += [
        Case(
            f"state {i} lost after each call",
            lambda a, i=i: lost(a, i),
            [True],
            "That state does nothing: leave it out.",
        )
        for i in range(2)
    ]
    return [*cases, Case("two streams in turn", lambda a: over(a, (3,), in_turn), [whole], REMEMBERS)]


COUNTERPART = Exercise(
    name="streaming counterpart",
    notebook="12_capstones",
    solution=StreamingBlock,
    cases=block_cases,
    mistakes=(ConvAlone, TransposedAlone, KeepsTheBlocksInput, KeepsBeforeTheNonlinearity),
    hints=(
        "Go through `forward` line by line: which lines look at more than one step? `find_states` names them.",
        "Two: the convolution needs dilation · (kernel − 1) steps of the block's input, the transposed one "
        "the last step "
        "of what comes out of the nonlinearity.",
    ),
    difficulty=3,
    minutes=25,
)
