"""Calls of a streaming step: a stream's calls with all that goes in and comes out, and single calls compared.

What is wrong in one call that begins with the right state was done in that call: a stream's later errors do not hide
where the first one came from.
"""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType

import numpy as np

from ...model.inspection.places import LIBRARY, PACKAGE, Place, is_machinery, short
from ...runtime.metrics import MAX_ERROR, chunk_lengths, scaled_error
from ...runtime.protocols import Session
from ...runtime.stream import CodecStream
from ...spec import StateSpec

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Call:
    """One call of a step on the frames from `start` on: `feeds` in, `outputs` out, by name."""

    start: int
    feeds: Arrays
    outputs: Arrays

    @property
    def frames(self) -> int:
        return self.feeds["audio_codes"].shape[1]


@dataclass
class Run:
    """A stream over one schedule: its calls, the pieces that a client got, and in words the error that ended it.

    `overwritten` names the inputs that the step wrote into.
    """

    schedule: tuple[int, ...]
    frames: tuple[int, ...]
    calls: list[Call] = field(default_factory=list)
    pieces: list[np.ndarray] = field(default_factory=list)
    error: str = ""
    overwritten: set[str] = field(default_factory=set)

    @property
    def until(self) -> int:
        """The frame where the stream ended, or an error ended it."""
        return sum(self.frames[: len(self.pieces)])


class _Recorder:
    """A session that notes what it was given, and with `keep` what came out."""

    def __init__(self, session: Session, run: Run, keep: bool):
        self.spec, self._session, self._run, self._keep = session.spec, session, run, keep
        self._start = 0

    def run(self, feeds: Arrays) -> Arrays:
        given = {name: array.copy() for name, array in feeds.items()}
        outputs = self._session.run(feeds)
        self._run.overwritten |= {name for name, array in given.items() if array.tobytes() != feeds[name].tobytes()}
        if self._keep:
            self._run.calls.append(Call(self._start, given, {name: array.copy() for name, array in outputs.items()}))
        self._start += given["audio_codes"].shape[1]
        return outputs


def stream_run(session: Session, codes: np.ndarray, schedule: Sequence[int], keep: bool = False) -> Run:
    """Stream `codes` [B, N, Q] over `schedule`; an error of the step ends it and is in the result. `keep` the calls."""
    run = Run(tuple(schedule), tuple(chunk_lengths(codes.shape[1], schedule)))
    try:
        stream = CodecStream(_Recorder(session, run, keep), len(codes))
        for piece in stream.pushes(codes, schedule):
            run.pieces.append(piece)
    except (Exception, SystemExit) as error:
        run.error = in_words(error)
    return run


@dataclass(frozen=True)
class Difference:
    """One call of a step against the right outputs: how far each output is off, or the error in words."""

    call: Call
    found: Arrays
    errors: dict[str, float]
    raised: str = ""

    @property
    def wrong(self) -> list[str]:
        """The outputs that are off by more than rounding. (A NaN is.)"""
        return [name for name, error in self.errors.items() if not error <= MAX_ERROR]

    @property
    def worst(self) -> str:
        return max(
            self.errors, key=lambda name: self.errors[name] if self.errors[name] == self.errors[name] else np.inf
        )


def differences(run: Callable[[Arrays], Arrays], calls: Sequence[Call]) -> list[Difference]:
    """`run` each of `calls` on what it was given, and compare what comes out with what came out there."""
    found = []
    for call in calls:
        try:
            outputs = run({name: array.copy() for name, array in call.feeds.items()})
            errors = {name: scaled_error(wanted, outputs[name]) for name, wanted in call.outputs.items()}
            found.append(Difference(call, outputs, errors))
        except (Exception, SystemExit) as error:
            found.append(Difference(call, {}, {}, in_words(error)))
    return found


def off_alone(alone: np.ndarray, found: np.ndarray) -> float:
    """`scaled_error` of a step against itself: a NaN that it gives alone too is no difference."""
    if alone.shape == found.shape:
        alone, found = np.nan_to_num(alone), np.nan_to_num(found)
    return scaled_error(alone, found)


def joined(calls: Sequence[Call], spec: StateSpec) -> Arrays:
    """The feeds of several calls as the rows of one. What has no batch axis is the first one's."""
    together = dict(calls[0].feeds)
    for tensor in spec.all_inputs:
        if tensor.shape[0] == "batch":
            together[tensor.name] = np.concatenate([call.feeds[tensor.name] for call in calls])
    return together


def same_shapes(one: Call, other: Call) -> bool:
    return all(array.shape == other.feeds[name].shape for name, array in one.feeds.items())


def is_theirs(source: str) -> bool:
    """Whether a file is the user's: no library's, and none of this package."""
    return not LIBRARY.match(source) and not source.startswith(str(PACKAGE))


def their_place(frame: FrameType | None) -> Place | None:
    """The nearest line of the user's code, from `frame` outwards to where a check began; else of the package's."""
    inner = frame
    while frame and not is_theirs(frame.f_code.co_filename):
        frame = None if is_machinery(frame.f_code.co_filename) and _is_ours(frame) else frame.f_back
    return Place.of(frame) if frame else Place.outside_libraries(inner)


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(str(PACKAGE))


def in_words(error: BaseException) -> str:
    """Kind and first line of an error, and the line of the user's code that it came from."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    places = [each for each in traceback.extract_tb(error.__traceback__) if is_theirs(each.filename)]
    where = f", at {short(places[-1].filename)}:{places[-1].lineno}: {places[-1].line}" if places else ""
    return f"{type(error).__name__}: {first}{where}" if where or not _ours(error) else first


def _ours(error: BaseException) -> bool:
    """Whether our own check raised it, whose words need no Python name before them."""
    frames = traceback.extract_tb(error.__traceback__)
    return (
        isinstance(error, ValueError | RuntimeError) and bool(frames) and frames[-1].filename.startswith(str(PACKAGE))
    )
