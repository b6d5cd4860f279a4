"""Does any streaming graph agree with its one-shot model? Needs numpy, ONNX Runtime, and of the file its names alone.

A state is an input X that comes out as next_X and starts as zeros; its first axis is the batch. No metadata are read,
so that the graph may come from any exporter. `parity` also loses each state in turn: what the comparison does not
notice, it does not test.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ..runtime import GraphError
from ..runtime.metrics import MAX_ERROR, chunk_lengths, chunks, max_error
from ..runtime.progress import Progress, no_progress
from ..runtime.providers import CPU

NEXT = "next_"


@dataclass(frozen=True)
class Parity:
    """`errors` {schedule: largest error against one shot}; `lost` {state: the largest difference that its loss makes}.

    A state is lost by zeroing it after each call, and that stream is held against the graph's *own* without the loss:
    against one shot a graph that is wrong already would lend its error to states that do nothing. `unfilled` names the
    states that still hold some of their first zeros where the last calls begin: what goes wrong once they are full is
    not tested. `peak` is the reference's largest magnitude: a clamp that it never reaches is not tested.
    """

    errors: dict[tuple[int, ...], float]
    lost: dict[str, float]
    peak: float
    limit: float
    unfilled: tuple[str, ...] = ()

    @property
    def unnoticed(self) -> list[str]:
        """The states whose loss did not show: longer codes or other schedules would have to. (A NaN shows nothing.)"""
        return [name for name, error in self.lost.items() if not error > self.limit]

    @property
    def passed(self) -> bool:
        """Every schedule is within the limit. (A NaN is not.)"""
        return all(error <= self.limit for error in self.errors.values())

    def __str__(self) -> str:
        lines = [f"against one shot, which peaks at {self.peak:.2g} (limit {self.limit:.0e}):"]
        lines += [
            f"  chunks {','.join(map(str, schedule)):>12}: {error:.1e}" for schedule, error in self.errors.items()
        ]
        lines.append(f"each of {len(self.lost)} states lost in turn, against the graph's own stream:")
        if noticed := [error for error in self.lost.values() if error > self.limit]:
            lines.append(f"  {len(noticed)} losses show, from {min(noticed):.1e} to {max(noticed):.1e}")
        lines += [f"  {name}: its loss does not show, so it is NOT tested" for name in self.unnoticed]
        if not self.passed:
            return "\n".join([*lines, "FAILED"])
        short = f", but these frames do not fill {', '.join(self.unfilled)}: no call began after they were full"
        return "\n".join([*lines, "passed" + short * bool(self.unfilled)])


class PairedGraph:
    """Any graph whose states are X and next_X: `inputs` and `outputs` of a call by name, `states` their zeros."""

    def __init__(self, path: str | Path, batch: int = 1):
        """Raises GraphError for a file that does not load, and a state whose shape is not known but for its batch."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[CPU])
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base class
            raise GraphError(f"{path}: ONNX Runtime cannot load it ({error})") from error
        taken, given = self._session.get_inputs(), [tensor.name for tensor in self._session.get_outputs()]
        paired = [tensor for tensor in taken if NEXT + tensor.name in given]
        self.inputs = [tensor.name for tensor in taken if tensor not in paired]
        self.outputs = [name for name in given if name not in {NEXT + tensor.name for tensor in paired}]
        if stray := [name for name in self.outputs if name.startswith(NEXT)]:
            raise GraphError(
                f"{path}: {', '.join(stray)} comes out, and no input {stray[0].removeprefix(NEXT)} takes it"
            )
        if len(self.inputs) != 1 or not self.outputs:
            raise GraphError(f"{path}: wants one input beside the states, has {', '.join(self.inputs) or 'none'}")
        self.states = {tensor.name: _zeros(path, tensor, batch) for tensor in paired}
        self._path = path
        # As many layers as rows look like rows.
        self._like_rows = [tensor for tensor in paired if isinstance(tensor.shape[0], int)]

    def call(self, x: np.ndarray, states: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The main output for the main input `x`, and the next states; GraphError if it does not run."""
        names = [self.outputs[0], *(NEXT + name for name in states)]
        try:
            first, *after = self._session.run(names, {self.inputs[0]: x, **states})
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base class
            why = f"{self._path}: the graph does not run with {len(x)} rows"
            if self._like_rows:
                why = f"{_not_the_batch(self._path, self._like_rows[0], len(x))}; so it does not run"
            raise GraphError(f"{why} ({error})") from error
        return first, dict(zip(states, after, strict=True))

    def stream(
        self,
        x: np.ndarray,
        schedule: Sequence[int],
        lose: str = "",
        watch: Callable[[dict[str, np.ndarray]], None] = lambda states: None,
    ) -> np.ndarray:
        """`x` [B, N, ...] in chunks -> the outputs joined along the last axis; `lose` is zeroed after each call.

        `watch` sees the states that each call is given.
        """
        states, pieces = dict(self.states), []
        for part in chunks(x, schedule):
            watch(states)
            piece, states = self.call(part, states)
            pieces.append(piece)
            if lose:
                states[lose] = np.zeros_like(states[lose])
        return np.concatenate(pieces, axis=-1)


def parity(
    graph: str | Path,
    one_shot: Callable[[np.ndarray], np.ndarray],
    codes: np.ndarray,
    schedules: Sequence[Sequence[int]] = ((1,), (3,), (7, 1, 2)),
    limit: float = MAX_ERROR,
    progress: Progress = no_progress,
) -> Parity:
    """Stream `codes` [B, N, ...] through the ONNX file `graph` over each schedule, against `one_shot(codes)` [..., M].

    A graph's states are its inputs X that come out as next_X. They start as zeros, in the shape that the file gives
    them, and their first axis is the batch, as everywhere in this package: streams are forked and joined along it. A
    step around a torch LSTM therefore transposes its [layers, B, hidden]. Then each state is lost in turn, over the
    schedule that gives most calls. Raises GraphError for a graph that cannot be streamed so: it names the tensor.
    """
    paired = PairedGraph(graph, len(codes))
    wanted = one_shot(codes)

    def error(schedule: Sequence[int]) -> float:
        return _difference(wanted, paired.stream(codes, schedule))

    errors = {tuple(schedule): error(schedule) for schedule in progress(schedules, unit="schedule")}
    most_calls = max(errors, key=lambda schedule: len([*chunk_lengths(codes.shape[1], schedule)]))
    places: list[dict[tuple[str, int], int]] = []
    own = paired.stream(codes, most_calls, watch=lambda states: places.append(_zero_places(states)))
    lost = {
        name: _difference(own, paired.stream(codes, most_calls, lose=name))
        for name in progress(paired.states, unit="state")
    }
    return Parity(errors, lost, float(np.max(np.abs(wanted), initial=0.0)), limit, tuple(_unfilled(places)))


def _difference(wanted: np.ndarray, found: np.ndarray) -> float:
    """The largest error; inf where the shapes differ, and where `found` alone is not finite."""
    if found.shape != wanted.shape or (np.isfinite(wanted).all() and not np.isfinite(found).all()):
        return float("inf")
    return max_error(wanted, found)


def _zero_places(states: dict[str, np.ndarray]) -> dict[tuple[str, int], int]:
    """{(state, axis): places along that axis that hold zeros and nothing else}, for every axis but the batch."""
    return {
        (name, axis): int((~state.any(axis=tuple(other for other in range(state.ndim) if other != axis))).sum())
        for name, state in states.items()
        for axis in range(1, state.ndim)
    }


def _unfilled(places: list[dict[tuple[str, int], int]]) -> list[str]:
    """The states that were not yet full when the last call but one began, by what each call was given.

    A state fills where the zeros along an axis become fewer from call to call; a channel that is always zero stays so.
    """
    if len(places) < 3:
        return [*dict.fromkeys(name for name, _ in places[0])]
    first, before, last = places[1], places[-2], places[-1]
    filling = (key for key in first if last[key] < first[key] and (last[key] or last[key] < before[key]))
    return [*dict.fromkeys(name for name, _ in filling)]


def _zeros(path: str | Path, tensor: Any, batch: int) -> np.ndarray:
    """The state's start. Its first axis is the batch; an axis beyond that without a number is not ours to guess."""
    first, *rest = tensor.shape or [None]
    if first is None or (isinstance(first, int) and (first != batch or "batch" in rest)):
        raise GraphError(_not_the_batch(path, tensor, batch))
    shape = [batch, *rest]
    if odd := [axis for axis in shape if not isinstance(axis, int)]:
        raise GraphError(f"{path}: the state {tensor.name} is {tensor.shape}: how long is {odd[0]} at the start?")
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(float16)": np.float16}
    return np.zeros(shape, kinds[tensor.type])


def _not_the_batch(path: str | Path, tensor: Any, batch: int) -> str:
    return (
        f"{path}: the state {tensor.name} is {tensor.shape}, and its first axis must be the batch, here {batch}: "
        "transpose the state inside the step (an LSTM's [layers, B, hidden] to [B, layers, hidden]), "
        "or give as many rows of codes as the graph was made for"
    )
