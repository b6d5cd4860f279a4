"""What a model would have to remember: its convolutions in the order of the data, and all else that looks along time.

Read off one run: every function of torch that it calls comes by (a `TorchFunctionMode`), and hooks say in which module.
What a convolution needs of its past follows from its arguments and the padding before it. The memory of anything else
does not, so it is named and not guessed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

# The arguments of a convolution in their order, and what they are where they are left out.
ARGUMENTS = {
    "conv1d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "conv_transpose1d": ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
}
DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
KINDS = {"conv1d": "Conv1d", "conv_transpose1d": "ConvTranspose1d"}
# Functions that look at several steps, by what they are. Those of ALONG_AN_AXIS do where that axis is one of time.
NAMED = {
    "a recurrent layer": "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
    "attention over other steps": "scaled_dot_product_attention multi_head_attention_forward",
    "a norm over all steps, later ones too": "group_norm instance_norm",
    "a sum or product of all steps so far": "cumsum cumprod logcumsumexp cummax cummin",
    "a convolution over several axes": "conv2d conv3d conv_transpose2d conv_transpose3d",
    "works on several steps at once": "avg_pool1d max_pool1d lp_pool1d adaptive_avg_pool1d adaptive_max_pool1d unfold "
    "interpolate flip roll diff stft istft fft_fft fft_ifft fft_rfft fft_irfft",
}
REASONS = {function: reason for reason, functions in NAMED.items() for function in functions.split()}
ALONG_AN_AXIS = {"softmax": "attention over other steps"} | dict.fromkeys(
    ("mean", "sum", "var", "std", "amax", "amin", "logsumexp"), "one value for all steps, later ones too"
)


@dataclass(frozen=True)
class FoundState:
    """One part that looks along time, and how much of its own input's past it needs: `left_context` steps.

    `kind` is Conv1d or ConvTranspose1d (so too where weight norm has made another class of it), and for other parts the
    class of the module. An output needs `lookahead` later steps: above 0 it is not causal. A convolution whose padding
    is not seen (zeros that are concatenated) counts as causal. `left_context` is None where it is not known here:
    `why` then says what the part does, and its state is the caller's affair.
    """

    name: str
    kind: str
    left_context: int | None
    channels: int | None = None
    kernel: int | None = None
    stride: int | None = None
    dilation: int | None = None
    groups: int | None = None
    bias: bool | None = None
    steps_per_frame: int | None = None
    lookahead: int = 0
    why: str = ""


def find_states(
    module: nn.Module, example: torch.Tensor, frames: int | None = None, run: Callable | None = None
) -> list[FoundState]:
    """Everything in `run(example)` (default: `module` itself) that looks along time, in the order of the data.

    Not in the order in which `module` registers them: the two differ more often than one thinks. `frames` is how many
    frames `example` holds (default: as many as its last axis is long), more than any left context (what a model pads
    counts among a layer's steps). A convolution that is called twice appears twice: it needs a state for each.

    With a `left_context` of None come recurrent layers, attention, norms and sums over time, convolutions over several
    axes, padding with anything but zeros, and, at the end, modules whose tensors change from run to run and a model
    whose result is another one the second time (`run` is called twice). What is not seen: steps that the model's own
    code brings together by slices or products. `verify` has the last word.
    """
    run, frames = run or module, frames or example.shape[-1]
    watch = _Watch(module, frames)
    with torch.no_grad():
        kept = [_kept_tensors(module)]
        first = run(example)
        kept.append(_kept_tensors(module))
        with watch.hooks(), watch:
            second = run(example)
        kept.append(_kept_tensors(module))
    changed = [key for key in kept[2] if _changes([each.get(key) for each in kept])]
    for name, attribute in changed:
        watch.name_it(f"{attribute} changes from run to run", name)
    if not changed and not _equal(tree_leaves(first), tree_leaves(second)):
        watch.name_it("another result the second time: it is random, or keeps what is not seen here", "")
    return watch.found


class _Watch(TorchFunctionMode):
    """Writes what comes by into `found`."""

    def __init__(self, module: nn.Module, frames: int):
        self.found: list[FoundState] = []
        self._module, self._frames, self._inside = module, frames, [""]
        # By id, so the tensor is kept too: steps that were added in front of it (below 0: cut off), and the place in
        # `found` of the transposed convolution that made it.
        self._shifted: dict[int, tuple[torch.Tensor, int, int | None]] = {}

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """`_inside` follows the calls of modules."""
        handles = []

        def leave(*_: Any) -> None:
            self._inside.pop()

        for name, part in self._module.named_modules():
            handles.append(part.register_forward_pre_hook(lambda *_, name=name: self._inside.append(name)))
            handles.append(part.register_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def name_it(self, why: str, name: str | None = None) -> None:
        """The module `name` (default: that of the call) has a memory that is not known; once is enough."""
        name = self._inside[-1] if name is None else name
        state = FoundState(name, type(self._module.get_submodule(name)).__name__, None, why=why)
        if state not in self.found:
            self.found.append(state)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        result = function(*args, **kwargs)
        if name in ARGUMENTS:
            given = DEFAULTS | dict(zip(ARGUMENTS[name], args, strict=False)) | kwargs
            self._convolution(KINDS[name], given, result)
        elif name == "pad":
            self._pad(result, *args, **kwargs)
        elif name == "__getitem__":
            self._slice(result, *args)
        elif name == "interpolate":
            if {"linear", "bilinear", "bicubic", "trilinear", "area"} & {kwargs.get("mode"), *args[3:4]}:
                self.name_it(REASONS[name])
        elif name == "batch_norm":
            if kwargs.get("training", args[5] if len(args) > 5 else False):
                self.name_it(REASONS["group_norm"])
        elif name in REASONS and has_signal(
            *args, *kwargs.values()
        ):  # a mask is made of integers, and remembers nothing
            self.name_it(REASONS[name])
        elif name in ALONG_AN_AXIS and self._over_time(name, *args, **kwargs):
            self.name_it(ALONG_AN_AXIS[name])
        return result

    def _over_time(self, name: str, x: Any = None, dim: Any = None, *_: Any, **kwargs: Any) -> bool:
        """Does `dim` (None: all) hold every axis of time that `x` has; in a softmax [..., queries, keys], the keys'?"""
        x = kwargs.get("input", x)
        if not isinstance(x, torch.Tensor):
            return False
        time = {axis for axis in range(1, x.ndim) if x.shape[axis] and x.shape[axis] % self._frames == 0}
        dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
        dims = {axis % x.ndim for axis in dims}
        return bool(time) and (time <= dims or (name == "softmax" and max(time) in dims))

    def _convolution(self, kind: str, given: dict, result: torch.Tensor) -> None:
        x, weight = given["input"], given["weight"]
        stride, dilation = _number(given["stride"]), _number(given["dilation"])
        reach = dilation * (weight.shape[-1] - 1)
        _, added, made_by = self._shifted.get(id(x), (x, 0, None))
        seen = id(x) in self._shifted and made_by is None
        state = FoundState(
            name=self._inside[-1],
            kind=kind,
            left_context=None,
            channels=x.shape[-2],
            kernel=weight.shape[-1],
            stride=stride,
            dilation=dilation,
            groups=given["groups"],
            bias=given["bias"] is not None,
            steps_per_frame=x.shape[-1] // self._frames,
        )
        padding = given["padding"]
        padding = {"same": reach // 2, "valid": 0}[padding] if isinstance(padding, str) else _number(padding)
        if kind == "ConvTranspose1d":
            self._shifted[id(result)] = result, -padding, len(self.found)
            self.found.append(_cut(state, padding))
            return
        overlap = max(0, reach + 1 - stride)
        left_context = max(0, min(added * seen + padding, overlap)) if seen or padding else overlap
        self.found.append(replace(state, left_context=left_context, lookahead=overlap - left_context))

    def _pad(
        self, result: torch.Tensor, x: torch.Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None
    ) -> None:
        if not any(pad):
            return
        if mode != "constant" or value:
            self.name_it(f"pads with {'the number ' + str(value) if mode == 'constant' else mode}, not with zeros")
        if any(pad[:2]):
            self._shift(result, x, int(pad[0]))

    def _slice(self, result: torch.Tensor, x: torch.Tensor, index: Any) -> None:
        index = index if isinstance(index, tuple) else (index,)
        whole = len(index) == x.ndim or any(each is Ellipsis for each in index)
        if id(x) in self._shifted and whole and isinstance(index[-1], slice):
            start, _, _ = slice(index[-1].start, None).indices(x.shape[-1])
            self._shift(result, x, -start)

    def _shift(self, result: torch.Tensor, x: torch.Tensor, added: int) -> None:
        """`result` is `x` with `added` steps in front. What is cut off a transposed convolution's result moves that."""
        _, before, made_by = self._shifted.get(id(x), (x, 0, None))
        if made_by is not None and added > 0:  # padding for what comes next
            before, made_by = 0, None
        self._shifted[id(result)] = result, before + added, made_by
        if made_by is not None:
            self.found[made_by] = _cut(self.found[made_by], -before - added)


def _cut(state: FoundState, steps: int) -> FoundState:
    """A transposed convolution with `steps` cut off the beginning of its result, which then stands that much earlier.

    Uncut, output u takes the inputs from (u - reach) / stride on, to u / stride.
    """
    assert state.dilation and state.kernel and state.stride
    reach = state.dilation * (state.kernel - 1)
    return replace(state, left_context=max(0, (reach - steps) // state.stride), lookahead=-(-steps // state.stride))


def has_signal(*values: Any) -> bool:
    return any(isinstance(each, torch.Tensor) and (each.is_floating_point() or each.is_complex()) for each in values)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else value[0]


def _kept_tensors(module: nn.Module) -> dict[tuple[str, str], list[torch.Tensor]]:
    """{(module, attribute): copies of the tensors that it holds}: buffers, and whatever else is no parameter."""
    kept = {}
    for name, part in module.named_modules():
        others = {key: value for key, value in vars(part).items() if key not in ("_parameters", "_modules", "_buffers")}
        for attribute, value in (part._buffers | others).items():
            leaves = tree_leaves(value)
            tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, nn.Parameter)]
            if tensors:
                kept[name, attribute] = [tensor.clone() for tensor in tensors]
    return kept


def _changes(kept: list[list | None]) -> bool:
    """What came with the first run and stays (a table) is no state. What was there before it and changes is one."""
    before, between, after = kept
    return (
        between is None
        or after is None
        or not _equal(between, after)
        or (before is not None and not _equal(before, between))
    )


def _equal(ours: list, theirs: list) -> bool:
    pairs = [pair for pair in zip(ours, theirs, strict=False) if isinstance(pair[0], torch.Tensor)]
    return len(ours) == len(theirs) and all(torch.equal(*pair) for pair in pairs)
