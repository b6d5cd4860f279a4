"""What `judge` found: one row a check, what probably causes it, and the waveforms to see and hear it."""

import json
from dataclasses import asdict, dataclass, field

import numpy as np

from ...runtime.console import printable

SINGLE = "each call from the right state"
MARKS = {True: "✓", False: "✗", None: "–"}
HEADERS = ("check", "", "first wrong frame", "worst error", "found")


@dataclass(frozen=True)
class Row:
    """One check. `passed` is None where it was not judged, and `found` says why.

    `first_frame` is the first wrong frame, `worst` the state or output that is farthest off, by `error` (over its
    largest value where that is above 1).
    """

    check: str
    passed: bool | None
    found: str = ""
    first_frame: int | None = None
    error: float | None = None
    worst: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        frame = "" if self.first_frame is None else str(self.first_frame)
        error = "" if self.error is None else f"{self.error:.1e}"
        where = f"{error} in {self.worst}" if error and self.worst else error
        return self.check, MARKS[self.passed], frame, where, self.found


@dataclass(frozen=True)
class Streamed:
    """The audio of one chunk schedule [samples], what it must be, and the samples of each call."""

    schedule: tuple[int, ...]
    waveform: np.ndarray
    wanted: np.ndarray
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Judgement:
    """What `judge` says of a streaming step. `rows` are the checks; `likely` the causes that fit, the best first.

    `observed` says what the failure looks like: in which calls, after which layer, from which line on. `warnings` is
    what was said about lines of the step. `streamed` holds the schedules that ran, to draw and to hear.
    """

    step: str
    design: str
    weights: str
    frames: int
    rows: tuple[Row, ...]
    observed: tuple[str, ...] = ()
    likely: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    streamed: tuple[Streamed, ...] = field(default=(), repr=False)
    sample_rate: int = 24000

    @property
    def passed(self) -> bool:
        """No check failed. (A check that could not be judged, did not.)"""
        return not self.failures

    @property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if row.passed is False]

    @property
    def first_frame(self) -> int | None:
        """The first wrong frame of a stream; where none is wrong, that of a single call."""
        frames = [(row.check == SINGLE, row.first_frame) for row in self.failures if row.first_frame is not None]
        return min(frames, default=(False, None))[1]

    def row(self, check: str) -> Row:
        """The first row whose name begins with `check`."""
        return next(row for row in self.rows if row.check.startswith(check))

    @property
    def failing(self) -> Streamed | None:
        """The schedule to look at: the one that is farthest off, or None where none ran."""
        runs = [each for each in self.streamed if each.waveform.size]
        return max(runs, key=lambda each: _distance(each), default=None)

    @property
    def verdict(self) -> str:
        untested = [row.check for row in self.rows if row.passed is None]
        if not self.passed:
            failed = self.failures
            return f"✗ {self.step}: {len(failed)} of {len(self.rows)} checks failed"
        note = f"; not judged: {', '.join(untested)}" if untested else ""
        return f"✓ {self.step}: right in {len(self.rows) - len(untested)} checks{note}"

    def to_json(self) -> str:
        names = ("step", "design", "weights", "frames", "passed", "observed", "likely", "warnings")
        entries = {name: getattr(self, name) for name in names} | {"rows": [asdict(row) for row in self.rows]}
        for row in entries["rows"]:
            row["error"] = row["error"] if row["error"] is None or np.isfinite(row["error"]) else str(row["error"])
        return json.dumps(entries, indent=2)

    def _notes(self) -> list[tuple[str, str]]:
        kinds = (("warning", self.warnings), ("observed", self.observed), ("likely", self.likely))
        return [(name, text) for name, texts in kinds for text in texts]

    def __str__(self) -> str:
        table = [HEADERS, *(row.cells for row in self.rows)]
        widths = [max(len(cells[column]) for cells in table) for column in range(len(HEADERS) - 1)]
        lines = [f"{self.design}; {self.weights}; {self.frames} frames"]
        for cells in table:
            fitted = (text.ljust(width) for text, width in zip(cells[:-1], widths, strict=True))
            lines.append("  ".join([*fitted, cells[-1]]).rstrip())
        lines += [f"{name}: {text}" for name, text in self._notes()]
        return printable("\n".join([*lines, self.verdict]))

    def _repr_markdown_(self) -> str:
        lines = [f"**{_plain(self.verdict)}** ({self.design}; {self.weights}; {self.frames} frames)", ""]
        rows = [HEADERS, ("---",) * len(HEADERS), *(row.cells for row in self.rows)]
        lines += ["| " + " | ".join(map(_plain, cells)) + " |" for cells in rows]
        notes = [f"- *{name}*: {_plain(text)}" for name, text in self._notes()]
        return "\n".join([*lines, "", *notes])


def _plain(text: str) -> str:
    """Text for a cell of a Markdown table: one line, in which nothing is a column, a tag or emphasis but code."""
    parts = " ".join(text.replace("|", "∣").split()).split("`")
    for outside in range(0, len(parts), 2):
        for letter in ("\\", "*", "_", "[", "$"):
            parts[outside] = parts[outside].replace(letter, "\\" + letter)
        parts[outside] = parts[outside].replace("<", "&lt;")
    return "`".join(parts)


def _distance(streamed: Streamed) -> float:
    """The largest error of a schedule; what is too short or not finite is farthest off."""
    if streamed.waveform.shape != streamed.wanted.shape or not np.isfinite(streamed.waveform).all():
        return float("inf")
    return float(np.max(np.abs(streamed.waveform - streamed.wanted), initial=0.0))
