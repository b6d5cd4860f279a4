"""What an exercise is, and how an answer is judged: case by case, against what is right, and against known mistakes."""

import inspect
import linecache
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import CodeType

import numpy as np
import torch

from ...exporting.diagnostics import Diagnostic, captured
from ...runtime.console import printable
from ...runtime.metrics import max_error
from ..pitfalls.trap import signals

# A few float32 operations on values about 1, in another order.
LIMIT = 1e-5


class Wrong(Exception):
    """What a case says of an answer that is wrong in a way that no number tells."""


@dataclass(frozen=True)
class Case:
    """One way to try an answer. `play(answer)` gives arrays, which must be `wanted`'s.

    `means` says what a failure here tells, whatever the answer looks like. A `slow` case is played last, and only for
    an answer that passed all others.
    """

    label: str
    play: Callable[[Callable], Sequence]
    wanted: Sequence
    means: str = ""
    slow: bool = False


@dataclass(frozen=True)
class Exercise:
    """A task of the notebooks: `solution` solves it, `cases()` try an answer, `mistakes` are answers that many give.

    Each mistake is runnable; its docstring says to the reader what is wrong. `notebook` is where the task stands;
    `difficulty` is 1 to 3, and `minutes` what somebody needs who has read the page up to there.
    """

    name: str
    notebook: str
    solution: Callable
    cases: Callable[[], list[Case]]
    mistakes: tuple[Callable, ...]
    hints: tuple[str, str]
    difficulty: int
    minutes: int

    @property
    def dots(self) -> str:
        """The difficulty as pages show it."""
        return "●" * self.difficulty + "○" * (3 - self.difficulty)

    def __post_init__(self):
        if missing := [mistake.__name__ for mistake in self.mistakes if not inspect.getdoc(mistake)]:
            raise ValueError(f"{self.name}: {', '.join(missing)} does not say what is wrong")


@dataclass(frozen=True)
class Attempt:
    """What came of one case: arrays, or an error in words; and the warnings about lines of the answer."""

    arrays: tuple[np.ndarray, ...] = ()
    error: str = ""
    said: tuple[str, ...] = ()

    def off(self, wanted: Sequence) -> str:
        """How far from `wanted`, in words; "" where it is right."""
        if self.error:
            return self.error
        if len(self.arrays) != len(wanted):
            return f"{len(self.arrays)} results, must be {len(wanted)}"
        for index, (found, right) in enumerate(zip(self.arrays, map(np.asarray, wanted), strict=True)):
            which = f"result {index}: " if len(wanted) > 1 else ""
            if "U" in found.dtype.kind + right.dtype.kind:
                if found.tolist() != right.tolist():
                    return f"{which}{found.tolist()}, must be {right.tolist()}"
            elif found.shape != right.shape:
                return f"{which}the shape is {list(found.shape)}, must be {list(right.shape)}"
            elif found.dtype == bool == right.dtype:
                if (found != right).any():
                    place = tuple(np.argwhere(found != right)[0].tolist())
                    return f"{which}at {list(place)} it is {found[place]}, must be {right[place]}"
            elif not (error := max_error(right, found)) <= LIMIT:
                few_numbers = found.dtype.kind == "i" and found.size <= 8
                return which + (f"{found.tolist()}, must be {right.tolist()}" if few_numbers else f"off by {error:.2g}")
        return ""

    def like(self, other: "Attempt") -> bool:
        """The same result, to rounding; of two errors, the same kind of error."""
        if self.error or other.error:
            return self.error.split(":")[0] == other.error.split(":")[0] and bool(self.error) == bool(other.error)
        return not self.off(other.arrays)


@dataclass(frozen=True)
class Verdict:
    """What `check` found: in which case, how far off, what was said of it, the likely mistake, and a hint."""

    name: str
    passed: bool
    cases: int = 0
    case: str = ""
    off: str = ""
    said: str = ""
    likely: str = ""
    hint: str = ""
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return printable(self._text())

    def _text(self) -> str:
        if self.passed:
            return "\n".join([f"✓ {self.name}: right in all {self.cases} cases.", *self.notes])
        rows = {"case": self.case, "found": self.off, "said": self.said, "likely": self.likely, "hint": self.hint}
        lines = [f"- {key}: {text}" for key, text in rows.items() if text]
        return "\n".join([f"✗ {self.name}: not yet.", *lines, *self.notes])

    def _repr_markdown_(self) -> str:
        first, *lines = self._text().splitlines()
        return "\n".join([f"**{first}**", "", *lines])


def grade(exercise: Exercise, answer: Callable, tries: int = 0) -> Verdict:
    """Judge an answer; `tries` is how often it was wrong before, which decides the hint. Raises nothing of the
    answer's.
    """
    if not callable(answer):
        found = f"a {type(answer).__name__}, must be a function or a class (give it without calling it)"
        return Verdict(exercise.name, False, off=found, hint=exercise.hints[0])
    cases = _cases(exercise)
    quick = [case for case in cases if not case.slow]
    tried: list[Attempt] = []
    for case in cases:
        tried.append(_attempt(case, answer))
        if off := tried[-1].off(case.wanted):
            if not case.slow:
                tried += [_attempt(other, answer) for other in quick[len(tried) :]]
            likely = ("" if case.slow else _recognised(exercise, quick, tried)) or case.means
            hint = exercise.hints[min(tries, len(exercise.hints) - 1)]
            said = "; ".join(dict.fromkeys(words for attempt in tried for words in attempt.said))
            return Verdict(exercise.name, False, len(cases), case.label, off, said, likely, hint)
    return Verdict(exercise.name, True, len(cases))


def _cases(exercise: Exercise) -> list[Case]:
    """The exercise's cases, the slow ones last."""
    with captured():
        return sorted(exercise.cases(), key=lambda case: case.slow)


def _recognised(exercise: Exercise, quick: Sequence[Case], tried: Sequence[Attempt]) -> str:
    """What to say to an answer that is wrong as a known mistake is, or "".

    It need not be so in every case, since an answer may have a second fault: in the first one where the answer is
    wrong, and in most of those where either is.
    """
    alike, best = 0.5, ""
    for mistake in exercise.mistakes:
        same, first = [], None
        for case, mine, other in zip(quick, tried, _attempts(exercise, mistake), strict=True):
            if (wrong := bool(mine.off(case.wanted))) or other.off(case.wanted):
                same.append(mine.like(other))
                first = same[-1] if wrong and first is None else first
        if first and sum(same) / len(same) > alike:
            alike, best = sum(same) / len(same), " ".join(inspect.getdoc(mistake).split())
    return best


@cache
def _attempts(exercise: Exercise, mistake: Callable) -> list[Attempt]:
    """What a known mistake does in the quick cases. It is the same each time: nothing in a case is drawn by chance."""
    return [_attempt(case, mistake) for case in _cases(exercise) if not case.slow]


def _attempt(case: Case, answer: Callable) -> Attempt:
    try:
        with captured() as said, torch.no_grad():
            arrays = tuple(np.asarray(array) for array in case.play(answer))
        if odd := [array for array in arrays if array.dtype.kind not in "biufU"]:
            return Attempt(error=f"a {type(odd[0].item()).__name__} came back, must be numbers")
        return Attempt(arrays, said=_of_their_lines(said, answer))
    except Wrong as wrong:
        return Attempt(error=str(wrong))
    except (Exception, SystemExit) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        return Attempt(error=f"{type(error).__name__}: {first}{_their_line(error, answer)}")


def _of_their_lines(said: Sequence[Diagnostic], answer: Callable) -> tuple[str, ...]:
    """Warnings about lines of the answer, such as those of a trace: the first sentence, and the line."""
    files = {code.co_filename for code in codes_of(answer)}
    lines = [
        (each, linecache.getline(each.source, each.line).strip()) for each in signals(said) if each.source in files
    ]
    first = ((f"{each.category}: {each.text.split('. ')[0]}", line) for each, line in lines)
    return tuple(words + (f", of your line `{line}`" if line else "") for words, line in first)


def _their_line(error: Exception, answer: Callable) -> str:
    """The line of the answer in which an error came up: the checker's own lines would help nobody."""
    files = {code.co_filename for code in codes_of(answer)}
    lines = [
        frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files and frame.line
    ]
    return f", in your line `{lines[-1]}`" if lines else ""


def codes_of(answer: Callable) -> list[CodeType]:
    """The compiled code of a function, or of all methods of a class."""
    parts = vars(answer).values() if inspect.isclass(answer) else [answer]
    return [part.__code__ for part in parts if inspect.isfunction(part)]
