"""An exercise on finding the axes that are baked in, in a graph that somebody else exported."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from .exercise import Case, Exercise
from .play import graph_of, normal

# ---- what is baked in a file ---------------------------------------------------------------------


def stuck_axes(graph, module, example):
    found = set()
    for name, array in example.items():
        for axis in range(array.ndim):
            for length in (1, 2, 5, 12):
                feeds = dict(example) | {name: np.take(array, np.arange(length) % array.shape[axis], axis)}
                wanted = module(feeds)
                try:
                    right = all(
                        a.shape == b.shape and np.allclose(a, b, atol=1e-5)
                        for a, b in zip(graph(feeds), wanted, strict=True)
                    )
                except Exception:
                    right = False
                if not right:
                    found.add((name, axis))
    return found


def asks_for_errors(graph, module, example):
    """It waits for an error. A baked-in axis may also give another shape, or the right shape and wrong numbers, without
    one.
    """
    return _found(graph, module, example, lambda found, wanted: True)


def asks_for_shapes(graph, module, example):
    """It compares shapes alone. A length that is baked in can leave the shape right and the numbers wrong."""
    return _found(
        graph,
        module,
        example,
        lambda found, wanted: all(a.shape == b.shape for a, b in zip(found, wanted, strict=True)),
    )


def tries_shorter_alone(graph, module, example):
    """It tries shorter lengths than the example's alone. A baked-in length may cut off longer inputs."""
    return _found(graph, module, example, _all_close, lengths=(1, 2))


def names_every_axis(graph, module, example):
    """It names axes that follow at every length: a check that always cries says nothing."""
    return {(name, axis) for name, array in example.items() for axis in range(array.ndim)}


def _all_close(found, wanted) -> bool:
    return all(a.shape == b.shape and np.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))


def _found(graph, module, example, good: Callable, lengths=(1, 2, 5, 12)) -> set:
    found = set()
    for name, array in example.items():
        for axis, length in ((axis, length) for axis in range(array.ndim) for length in lengths):
            feeds = dict(example) | {name: np.take(array, np.arange(length) % array.shape[axis], axis)}
            try:
                outputs = graph(feeds)
            except Exception:
                found.add((name, axis))
                continue
            if not good(outputs, module(feeds)):
                found.add((name, axis))
    return found


def _follows(x, scale):
    return x * 2 + torch.arange(x.size(1)), scale.mean(dim=1)


def _refuses(x, scale):
    return x * 2 + torch.tensor([float(i) for i in range(x.size(1))]), scale.mean(dim=1)


def _cuts(x, scale):
    return (x * 2 + torch.arange(x.size(1)))[:, : int(x.size(1))], scale.mean(dim=1)


def _divides(x, scale):
    return x * 2 + torch.arange(x.size(1)), scale.sum(dim=1) / int(scale.size(1))


@cache
def _files() -> dict[str, tuple[Callable, set]]:
    """Graphs of the four functions, and the axes that do not follow. (An answer sees their inputs without the
    batch.)
    """
    example = {"x": normal(1, 4), "scale": normal(1, 3, seed=1)}
    found = {"a graph that follows": (_follows, set()), "a graph that refuses": (_refuses, {("x", 0)})}
    found |= {"a graph that cuts": (_cuts, {("x", 0)}), "a graph that divides": (_divides, {("scale", 0)})}
    return {label: (graph_of(function, example), axes) for label, (function, axes) in found.items()}


def finder_cases() -> list[Case]:
    example = {"x": normal(1, 4)[0].numpy(), "scale": normal(1, 3, seed=1)[0].numpy()}

    def right(feeds):
        results = _follows(*(torch.from_numpy(array)[None] for array in feeds.values()))
        return [array.numpy()[0] for array in results]

    def play(answer, run):
        def graph(feeds):
            return [array[0] for array in run({name: torch.from_numpy(array)[None] for name, array in feeds.items()})]

        found = {(str(name), int(axis)) for name, axis in answer(graph, right, example)}
        return [np.array(sorted(f"{name}, axis {axis}" for name, axis in found), dtype=str)]

    return [
        Case(label, lambda a, run=run: play(a, run), [np.array(sorted(f"{n}, axis {i}" for n, i in axes), dtype=str)])
        for label, (run, axes) in _files().items()
    ]


BAKED_IN = Exercise(
    name="axis baked in",
    notebook="05_verify_onnxruntime",
    solution=stuck_axes,
    cases=finder_cases,
    mistakes=(asks_for_errors, asks_for_shapes, tries_shorter_alone, names_every_axis),
    hints=(
        "There are three ways to go wrong: an error, another shape, the right shape with other numbers.",
        "Change the length of one axis at a time, also to more than the example has; run both; compare the "
        "shapes, then "
        "the numbers.",
    ),
    difficulty=2,
    minutes=15,
)
