"""Exercises on names: those that an export has to be given, and those that a server pairs."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..pitfalls.graphs import raw_session
from .exercise import Case, Exercise, Wrong
from .play import normal

# ---- names for *args -----------------------------------------------------------------------------


class Layers(nn.Module):
    """`forward(x, *past)`: x [B, T] and a past [B, P] a layer; gives x plus their sums, and each past joined with x."""

    def forward(self, x, *past):
        return x + sum(part.sum(dim=1, keepdim=True) for part in past), *(torch.cat([part, x], dim=1) for part in past)


def export_names(layers):
    past, after = [f"past_{i}" for i in range(layers)], [f"next_{i}" for i in range(layers)]
    names = {"input_names": ["x", *past], "output_names": ["y", *after]}
    axes = {"x": {1: "length"}, "y": {1: "length"}}
    axes |= {name: {1: "past_length"} for name in past} | {name: {1: "next_length"} for name in after}
    return names | {"dynamic_axes": axes}


def one_name_for_all(layers):
    """One name is given for all of `*past`. Each tensor is an input of its own and needs a name of its own."""
    names = {"input_names": ["x", "past"], "output_names": ["y", "next"]}
    return names | {"dynamic_axes": {"x": {1: "length"}, "y": {1: "length"}, "past": {1: "past"}}}


def past_stays_static(layers):
    """The axes of the pasts stay static: they are not declared, or under a name that no input has (a warning among
    many).
    """
    options = export_names(layers)
    return options | {"dynamic_axes": {"x": {1: "length"}, "y": {1: "length"}}}


def outputs_before(layers):
    """The outputs' names are in another order than the outputs: they are given by place, so the names lie."""
    options = export_names(layers)
    return options | {"output_names": [*options["output_names"][1:], "y"]}


def two_layers(layers):
    """The names are those of two layers, whatever `layers` says."""
    return export_names(2)


def named_cases() -> list[Case]:
    def play(answer, layers):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "named.onnx"
            example = (normal(2, 3), *(normal(2, 4, seed=i) for i in range(layers)))
            options = dict(answer(layers))
            if (many := len(options.get("input_names", ()))) > len(example):
                raise Wrong(f"{many} names for {len(example)} inputs")
            torch.onnx.export(Layers(), example, path, dynamo=False, opset_version=18, **options)
            session = raw_session(path)
        wanted = ["x", *(f"past_{i}" for i in range(layers))], ["y", *(f"next_{i}" for i in range(layers))]
        for found, names in zip((session.get_inputs(), session.get_outputs()), wanted, strict=True):
            if (given := [tensor.name for tensor in found]) != names:
                raise Wrong(f"the graph has {', '.join(given)}; must be {', '.join(names)}")
        feeds = {name: array.numpy() for name, array in zip(wanted[0], other(layers), strict=True)}
        return session.run(wanted[1], feeds)

    def other(layers):
        return (normal(2, 5), *(normal(2, 7, seed=i) for i in range(layers)))

    return [
        Case(f"{layers} layers, at another length", lambda a, n=layers: play(a, n), [*Layers()(*other(layers))])
        for layers in (3, 1, 11)
    ]


NAMES = Exercise(
    name="names and axes",
    notebook="04_export_onnx",
    solution=export_names,
    cases=named_cases,
    mistakes=(one_name_for_all, past_stays_static, outputs_before, two_layers),
    hints=(
        "How many inputs does the graph have with three layers? Each needs a name, and an entry in `dynamic_axes`.",
        "Make lists of names with a loop over `range(layers)`, and build `dynamic_axes` of the same lists.",
    ),
    difficulty=1,
    minutes=10,
)

# ---- names that pair -----------------------------------------------------------------------------


def state_names(convs, layers):
    names = ["past_frames", *(f"conv_{i:02}" for i in range(convs))]
    names += [f"{kind}_{i:02}" for kind in ("key", "value") for i in range(layers)]
    return [(name, f"next_{name}") for name in names]


def names_of_the_notes(convs, layers):
    """`past_value` becomes `next_value`: the one is sorted before `pre_conv`, the other behind it. Put one prefix
    before all.
    """
    pairs = [("frames", "next_frames"), *((f"pre_conv_{i:02}", f"next_pre_conv_{i:02}") for i in range(convs))]
    return pairs + [(f"past_{k}_{i:02}", f"next_{k}_{i:02}") for k in ("key", "value") for i in range(layers)]


def numbers_unpadded(convs, layers):
    """`conv_10` is sorted before `conv_2`: numbers need the same number of digits, or the order is not that of the
    data.
    """
    names = ["past_frames", *(f"conv_{i}" for i in range(convs))]
    names += [f"{kind}_{i}" for kind in ("key", "value") for i in range(layers)]
    return [(name, f"next_{name}") for name in names]


def suffix_unpadded(convs, layers):
    """A suffix behind an unpadded number: `conv_1` is sorted before `conv_10`, but `conv_1_next` behind
    `conv_10_next`.
    """
    return [(before, f"{before}_next") for before, _ in numbers_unpadded(convs, layers)]


def names_twice(convs, layers):
    """A name is used twice: every state needs one of its own."""
    return state_names(convs, 1) + [("key_00", "next_key_00")] * (2 * layers - 2)


def pairing_cases() -> list[Case]:
    def play(answer, convs, layers):
        pairs = [tuple(pair) for pair in answer(convs, layers)]
        if len(pairs) != 1 + convs + 2 * layers:
            raise Wrong(f"{len(pairs)} pairs, must be {1 + convs + 2 * layers}")
        before, after = ([*names] for names in zip(*pairs, strict=True))
        if len({*before, *after}) < 2 * len(pairs):
            raise Wrong("a name is there twice")
        by_rank = dict(zip(sorted(before), sorted(after), strict=True))
        if lost := next((name for name, other in pairs if by_rank[name] != other), None):
            raise Wrong(f"by rank they do not pair: {lost} gets {by_rank[lost]}, must get {dict(pairs)[lost]}")
        return [np.array(sorted(before[1 : 1 + convs]))]

    return [
        Case(
            f"{convs} convolutions, {layers} layers",
            lambda a, c=convs, n=layers: _in_order(a, play(a, c, n), c, n),
            [True],
        )
        for convs, layers in ((3, 2), (12, 2), (30, 12))
    ]


def _in_order(answer, by_name, convs: int, layers: int) -> list[bool]:
    given = [before for before, _ in answer(convs, layers)][1 : 1 + convs]
    if given != by_name[0].tolist():
        raise Wrong(f"sorted, they are not in the order of the data: {', '.join(by_name[0][:4])}, ...")
    return [True]


PAIRS = Exercise(
    name="names that pair",
    notebook="10_many_streams",
    solution=state_names,
    cases=pairing_cases,
    mistakes=(names_of_the_notes, numbers_unpadded, suffix_unpadded, names_twice),
    hints=(
        "Sort the names of the inputs, then those of the outputs, and lay the two lists side by side.",
        'One prefix before every name keeps the order; `f"{i:02}"` keeps the numbers in theirs.',
    ),
    difficulty=1,
    minutes=10,
)
