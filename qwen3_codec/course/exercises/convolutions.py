"""Exercises on convolutions that carry their past: the left context, its length, the transposed kind."""

import torch
from torch import nn
from torch.nn import functional as F

from .exercise import Case, Exercise
from .play import REMEMBERS, in_turn, normal, numbers, stream_cases, streamed


def seeded(make, *sizes, **options) -> nn.Module:
    """A layer with seeded weights, whatever was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*sizes, **options).requires_grad_(False)


# ---- the left context of a causal convolution -------------------------------------------------------


def causal_step(conv, x, past):
    joined = torch.cat([past, x], dim=2)
    return conv(joined), joined[:, :, joined.size(2) - past.size(2) :]


def from_the_new_alone(conv, x, past):
    """The next past is cut from the new samples alone. A chunk may be shorter than the left context, and
    then older ones are needed too.
    """
    return conv(torch.cat([past, x], dim=2)), x[:, :, -past.size(2) :] if past.size(2) else past


def zeros_each_time(conv, x, past):
    """Each chunk begins with zeros, as if nothing had come before it. That is right for the first chunk alone."""
    return conv(F.pad(x, (past.size(2), 0))), past


def the_past_stays(conv, x, past):
    """The past that comes out is the one that went in: it has to move on with each chunk."""
    return conv(torch.cat([past, x], dim=2)), past


def keeps_the_output(conv, x, past):
    """What is kept is the convolution's output. It needs the last samples of its own *input*."""
    joined = torch.cat([past, x], dim=2)
    y = conv(joined)
    kept = torch.cat([past, y[:, : past.size(1)]], dim=2)
    return y, kept[:, :, kept.size(2) - past.size(2) :]


def left_context_cases() -> list[Case]:
    cases = []
    for kernel, dilation in ((5, 1), (3, 4), (1, 1)):
        conv = seeded(nn.Conv1d, 3, 3, kernel, dilation=dilation)
        left_context, x = dilation * (kernel - 1), normal(2, 3, 40)
        whole = conv(F.pad(x, (left_context, 0)))
        label = f"kernel {kernel}, dilation {dilation}"

        def step(answer, conv=conv):
            return lambda part, past: answer(conv, part, past)

        cases += stream_cases(label, step, x, [torch.zeros(2, 3, left_context)], whole)
        if left_context:
            words, going = f"{label}, a stream that goes on", [x[:, :, :left_context]]
            rest, wanted = x[:, :, left_context:], whole[:, :, left_context:]
            cases.append(Case(words, lambda a, s=step, r=rest, g=going: [streamed(s(a), r, g, (3,))], [wanted]))
    return cases


LEFT_CONTEXT = Exercise(
    name="left context",
    notebook="03_verify_wrapper",
    solution=causal_step,
    cases=left_context_cases,
    mistakes=(from_the_new_alone, zeros_each_time, the_past_stays, keeps_the_output),
    hints=(
        "Which samples does the next call need if this one brought a single one?",
        "Join the past and the new samples first; then cut the next past from what you joined. `past.size(2)` "
        "may be 0. "
        "",
    ),
    difficulty=1,
    minutes=10,
)

# ---- the length of the left context ---------------------------------------------------------------


def left_context_length(kernel, dilation, stride):
    return dilation * (kernel - 1) + 1 - stride


def without_dilation(kernel, dilation, stride):
    """The dilation is missing: with it the kernel's taps lie that many samples apart."""
    return kernel - stride


def without_stride(kernel, dilation, stride):
    """The stride is missing: a step begins at the first of its `stride` new samples, and these are not past."""
    return dilation * (kernel - 1)


def kernel_less_one(kernel, dilation, stride):
    """That is the left context for dilation 1 and stride 1 alone."""
    return kernel - 1


def with_the_last_tap(kernel, dilation, stride):
    """One tap too many is dilated: between k taps there are k − 1 gaps."""
    return dilation * kernel + 1 - stride


KERNELS = ((3, 1, 1), (7, 9, 1), (4, 1, 2), (8, 1, 4), (5, 2, 3), (1, 1, 1))


def length_cases() -> list[Case]:
    return [
        Case(
            f"kernel {kernel}, dilation {dilation}, stride {stride}",
            lambda a, sizes=(kernel, dilation, stride): numbers(a(*sizes)),
            numbers(_measured_left_context(kernel, dilation, stride)),
        )
        for kernel, dilation, stride in KERNELS
    ]


def _measured_left_context(kernel: int, dilation: int, stride: int) -> int:
    """The zeros in front with which a convolution gives one step for `stride` samples: counted, not computed."""
    conv = seeded(nn.Conv1d, 1, 1, kernel, stride, dilation=dilation)
    return next(
        h
        for h in range(100)
        if h + stride >= dilation * (kernel - 1) + 1 and conv(torch.zeros(1, 1, h + stride)).numel() == 1
    )


LENGTH = Exercise(
    name="length of the left context",
    notebook="02_inspect_dims",
    solution=left_context_length,
    cases=length_cases,
    mistakes=(without_dilation, without_stride, kernel_less_one, with_the_last_tap),
    hints=(
        "How many samples does one output see, from its first tap to its last? How many of them are new?",
        "A kernel spans dilation · (kernel − 1) + 1 samples. `stride` of them are new in each step.",
    ),
    difficulty=1,
    minutes=5,
)

# ---- a transposed convolution --------------------------------------------------------------------


class TransposedStep:
    def __init__(self, conv):
        self.conv, self.stride = conv, conv.stride[0]
        self.left_context = -(-conv.kernel_size[0] // self.stride) - 1

    def start(self, batch):
        return torch.zeros(batch, self.conv.in_channels, self.left_context)

    def __call__(self, x, past):
        joined = torch.cat([past, x], dim=2)
        y = self.conv(joined)[:, :, self.left_context * self.stride : joined.size(2) * self.stride]
        return y, joined[:, :, joined.size(2) - self.left_context :]


class OverlapAdded:
    """The overlap is carried over with its bias, and the next chunk's output brings the bias again."""

    def __init__(self, conv):
        self.conv, self.rest = conv, conv.kernel_size[0] - conv.stride[0]

    def start(self, batch):
        return torch.zeros(batch, self.conv.out_channels, self.rest)

    def __call__(self, x, past):
        y = self.conv(x)
        y = torch.cat([y[:, :, : self.rest] + past, y[:, :, self.rest :]], dim=2)
        end = y.size(2) - self.rest
        return y[:, :, :end], y[:, :, end:]


class OneInputAlways(TransposedStep):
    """One earlier input is enough for kernel = 2 · stride alone. In general it is ⌈kernel / stride⌉ − 1 of them."""

    def __init__(self, conv):
        super().__init__(conv)
        self.left_context = 1


class NotTrimmed(TransposedStep):
    """The samples behind the last step's own `stride` are given too: they are finished only by the inputs that
    follow.
    """

    def __call__(self, x, past):
        _, after = super().__call__(x, past)
        return self.conv(torch.cat([past, x], dim=2))[:, :, self.left_context * self.stride :], after


class ForgetsTheOverlap(TransposedStep):
    """Each chunk is upsampled alone: the samples at its front lack what the inputs before it give."""

    def __call__(self, x, past):
        return super().__call__(x, torch.zeros_like(past))


def transposed_cases() -> list[Case]:
    cases = []
    for kernel, stride in ((6, 3), (4, 4), (7, 2)):
        conv = seeded(nn.ConvTranspose1d, 2, 3, kernel, stride)
        x = normal(2, 2, 40)
        whole = conv(x)[:, :, : 40 * stride]

        def over(answer, cut, play, conv=conv, x=x):
            step = answer(conv)
            return [play(step, x, [step.start(2)], cut)]

        label = f"kernel {kernel}, stride {stride}"
        for cut in ((40,), (3,), (7, 1, 2), (1,)):
            words = f"{label}, chunks of {', '.join(map(str, cut))}"
            cases.append(Case(words, lambda a, over=over, cut=cut: over(a, cut, streamed), [whole]))
        cases.append(
            Case(f"{label}, two streams in turn", lambda a, over=over: over(a, (3,), in_turn), [whole], REMEMBERS)
        )
    return cases


TRANSPOSED = Exercise(
    name="transposed",
    notebook="03_verify_wrapper",
    solution=TransposedStep,
    cases=transposed_cases,
    mistakes=(OverlapAdded, OneInputAlways, NotTrimmed, ForgetsTheOverlap),
    hints=(
        "What would be the state if you kept earlier *inputs* in place of the overlapping output?",
        "Put the last ⌈kernel / stride⌉ − 1 inputs in front, convolve, and cut away what they give alone, and "
        "what is not "
        "finished at the end.",
    ),
    difficulty=3,
    minutes=25,
)
