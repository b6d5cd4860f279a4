"""What a trap is: naive code, what it does today, why, and the fix. It runs, and fails when the trap has gone."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ...exporting.diagnostics import STDERR, STDOUT, Diagnostic, captured, is_advice
from ...exporting.diagnostics.wording import gist

RIGHT, WRONG, REFUSED = "right", "wrong", "refused"


@dataclass(frozen=True)
class Raises:
    """The naive code stops with an error: `error` with `words` (a regular expression) in its text."""

    error: type[BaseException]
    words: str


@dataclass(frozen=True)
class Wrong:
    """The naive code goes through without an error; what comes out is wrong by `at_least` this much.

    inf: a wrong shape, or a graph that refuses to run at another length.
    """

    at_least: float


@dataclass(frozen=True)
class Says:
    """What is said while the naive code runs: a `Diagnostic` of `category` whose text begins with `words`.

    `words` are a regular expression.
    """

    category: str
    words: str

    def fits(self, diagnostic: Diagnostic) -> bool:
        return diagnostic.category == self.category and bool(re.match(self.words, diagnostic.text.lstrip()))


@dataclass(frozen=True)
class Outcome:
    """What came out of a run: how far it is from right (0 to inf), and the same in words for a reader.

    `cases` says of each case that was run whether it was RIGHT, WRONG (without an error) or REFUSED.
    """

    error: float
    text: str
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """What a run did, in words, and what was said meanwhile: by the exporter, by the runtime, by a library."""

    text: str
    said: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True)
class Trap:
    """One trap. `demonstrate` runs `naive` or `fix` (classes or functions, of one signature) and measures the result.

    `warns` has each kind of thing that is said while the naive code runs; the fix causes none of them. What any
    export says (`is_advice`) is left out, and so are errors that ONNX Runtime logs, which it raises too. `notes` is the
    section of the notes that started this project that speaks of it, or "" where none does; `sources` are public
    reports of it, "owner/repository#number". `within` is the error that the fix may have. `code` is what a page shows
    of both, where that is not `naive` and `fix`.
    """

    name: str
    notes: str
    naive: Callable
    fix: Callable
    demonstrate: Callable[[Callable], Outcome]
    today: Raises | Wrong
    why: str
    warns: tuple[Says, ...] = ()
    within: float = 1e-5
    code: tuple[Callable, Callable] | None = None
    sources: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[Callable, Callable]:
        """What a page shows: the naive code and the fix."""
        return self.code or (self.naive, self.fix)

    @property
    def reported(self) -> str:
        """What tells of it before anyone looks at the result: an "error", a "warning", or "nothing"."""
        if isinstance(self.today, Raises):
            return "error"
        return "warning" if self.warns else "nothing"

    def run_naive(self) -> Run:
        """Run the naive code; AssertionError where it does not do what `today` says, or what is said is not `warns`."""
        if isinstance(self.today, Raises):
            with captured() as said, fails_with(self.today.error, self.today.words, show=False) as caught:
                self.demonstrate(self.naive)
            text = caught.text
        else:
            with captured() as said:
                outcome = self.demonstrate(self.naive)
            if not outcome.error >= self.today.at_least:
                raise AssertionError(f"{self.name}: the trap has gone, the naive code is within {outcome.error:.1e}")
            text = outcome.text
        run = Run(text, signals(said))
        for diagnostic in run.said:
            if not any(each.fits(diagnostic) for each in self.warns):
                raise AssertionError(f"{self.name}: said and not in its record: {diagnostic}")
        for each in self.warns:
            if not any(map(each.fits, run.said)):
                raise AssertionError(f"{self.name}: in its record and not said: {each.category}: {each.words}")
        return run

    def run_fix(self) -> Run:
        """Run the fix; AssertionError where it is further than `within` from right, or where anything is said."""
        with captured() as said:
            outcome = self.demonstrate(self.fix)
        if not outcome.error <= self.within:
            raise AssertionError(f"{self.name}: the fix is {outcome.error:.1e} from right\n{outcome.text}")
        if found := signals(said):
            raise AssertionError(f"{self.name}: the fix is right, yet this is said: {found[0]}")
        return Run(outcome.text)


def signals(said: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """What was said of the graph: each thing once, without advice, and without what ONNX Runtime raises as well."""
    records = [replace(each, text=text) for each in said for text in _records(each)]
    kept = [each for each in records if not (is_advice(each) or re.match(r"\[[EF]:onnxruntime", each.text))]
    return tuple(dict.fromkeys(kept))


def _records(diagnostic: Diagnostic) -> list[str]:
    """The lines of standard output; of standard error each record of ONNX Runtime, without colours and its time."""
    if diagnostic.category == STDOUT:
        return [line for line in diagnostic.text.splitlines() if line.strip()]
    if diagnostic.category != STDERR:
        return [diagnostic.text]
    text = re.sub(r"\x1b\[[\d;]*m", "", diagnostic.text)
    return [record for record in re.split(r"\d{4}-\d\d-\d\d [\d:.]+ (?=\[[VIWEF]:onnxruntime)", text) if record.strip()]


@dataclass
class Caught:
    """What `fails_with` caught, in a few lines."""

    text: str = ""


@contextmanager
def fails_with(error: type[BaseException], words: str, show: bool = True) -> Iterator[Caught]:
    """Run a block that must raise `error` with `words` (a regular expression) in its text, and print the gist of it.

    Raises AssertionError where nothing failed: a trap that has gone should be noticed. Another error passes through.
    """
    caught = Caught()
    try:
        yield caught
    except error as raised:
        if not re.search(words, f"{type(raised).__name__}: {raised}"):
            raise
        caught.text = gist(raised)
        if show:
            print(caught.text)
    else:
        raise AssertionError(f"nothing failed; expected {error.__name__} with {words!r}")
