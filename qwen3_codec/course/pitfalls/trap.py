"""What a trap is: naive code, its fix, and a demonstration that runs either and measures how far it is from right."""

import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ...exporting.diagnostics import STDERR, STDOUT, Diagnostic, captured, is_advice
from ...exporting.diagnostics.wording import gist
from .source import unmarked

# Of one case of a run.
RIGHT, WRONG, STOPS = "right", "wrong", "stops"
# Of a run: RIGHT; right, with more time or memory than it needs; wrong, and something is said; wrong, and nothing is;
# or stopped by an error. Of an export: what the exporter says, whatever the graph does later.
COSTS, WARNS, UNREPORTED, REFUSES = "costs", "warns", "unreported", "refuses"
BOTH_EXPORTERS = ("torchscript", "dynamo")


@dataclass(frozen=True)
class Outcome:
    """What came out of a run: how far it is from right (0 to inf), and the same in words for a reader.

    `first` says where it first shows: at which length, call, frame or row. `cases` says of each case that was run
    whether it was RIGHT, WRONG (without an error) or STOPS. `costs` says that it took more than it needs.
    """

    error: float
    text: str
    first: str = ""
    cases: tuple[str, ...] = ()
    costs: bool = False


@dataclass(frozen=True)
class Run:
    """What a run did, in words, and what was said meanwhile: by the exporter, by the runtime, by a library."""

    verdict: str
    text: str
    said: tuple[str, ...] = ()
    first: str = ""
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trap:
    """One trap. `demonstrate` runs `naive` or `fix` (classes or functions, of one signature) and measures the result.

    `exporters` are those that it is run by: `demonstrate(code, exporter)`; ("",) where none takes part or it makes no
    difference which: `demonstrate(code)`. `within` is the error that counts as right. `symptoms` are keys of
    `symptoms.SYMPTOMS`. `notes` is the section of the notes that started this project that speaks of it, or "".
    `sources` are public reports of it, "owner/repository#number"; with none it was found here. `shown` is the code that
    a page shows of both sides where that is not `naive` and `fix`. In the naive code the guilty line ends in `# trap`.
    `elsewhere` is what other versions say, {message: its cause and its fix}, from those reports: it was not met here.
    """

    name: str
    naive: Callable
    fix: Callable
    demonstrate: Callable[..., Outcome]
    why: str
    symptoms: tuple[str, ...]
    notes: str = ""
    sources: tuple[str, ...] = ()
    exporters: tuple[str, ...] = ("",)
    within: float = 1e-5
    code: tuple[Callable, Callable] | None = None
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> tuple[Callable, Callable]:
        """What a page shows: the naive code and the fix."""
        return self.code or (self.naive, self.fix)

    @property
    def anchor(self) -> str:
        """Where a page has its card."""
        return "trap-" + re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def caught_by(self) -> str:
        """The check that its demonstration is."""
        return self.demonstrate.check

    def run_naive(self, exporter: str = "") -> Run:
        """Run the naive code, whatever comes of it."""
        return self._run(self.naive, exporter)

    def run_fix(self, exporter: str = "") -> Run:
        return self._run(self.fix, exporter)

    def _run(self, part: Callable, exporter: str) -> Run:
        """By `exporter`, one of `exporters`; by the first of them if it is ""."""
        exporter = exporter or self.exporters[0]
        try:
            with captured() as said:
                outcome = self.demonstrate(part, exporter) if exporter else self.demonstrate(part)
        except Exception as error:  # whatever it is, it is what a user meets
            return Run(REFUSES, unmarked(gist(error)), _texts(said), _stage(error))
        if outcome.error <= self.within:  # NaN is wrong
            verdict, first = (COSTS, outcome.first) if outcome.costs else (RIGHT, "")
            return Run(verdict, outcome.text, _texts(said), first, outcome.cases)
        verdict = WARNS if signals(said) else UNREPORTED
        return Run(verdict, outcome.text, _texts(said), outcome.first, outcome.cases)


def caught_by(check: str) -> Callable[[Callable], Callable]:
    """For a demonstration: the check that it is, as anyone would write it, in a few words."""

    def mark(demonstrate: Callable) -> Callable:
        demonstrate.check = check  # type: ignore[attr-defined]
        return demonstrate

    return mark


# Where an error was raised, by a piece of a file's path in its traceback; the first that fits.
STAGES = {
    "torch/onnx/": "at the export",
    "onnxruntime/quantization/": "at the conversion",
    "runtime/session.py": "when the session is made",
    "/copy.py": "when it is copied",
}


def _stage(error: BaseException) -> str:
    files = [frame.filename.replace("\\", "/") for frame in traceback.extract_tb(error.__traceback__)]
    return next((words for piece, words in STAGES.items() if any(piece in file for file in files)), "at the first call")


def _texts(said: Sequence[Diagnostic]) -> tuple[str, ...]:
    """What was said of the graph, without the number of the line and its mark: the line itself stands below."""
    texts = (re.sub(r"^([^\s:]+?)(\.\d+)?:\d+:", r"\1:", unmarked(str(each))) for each in signals(said))
    return tuple(dict.fromkeys(texts))


def signals(said: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """What was said of the graph: each thing once, without advice, and without what ONNX Runtime raises as well."""
    records = [replace(each, text=text) for each in said for text in _records(each)]
    kept = [each for each in records if not (is_advice(each) or re.match(r"\[[EF]:onnxruntime", each.text))]
    return tuple(dict.fromkeys(kept))


def _records(diagnostic: Diagnostic) -> list[str]:
    """The lines of standard output; of standard error each record of ONNX Runtime, without colours and its time."""
    if diagnostic.category == STDOUT:
        text = re.sub(r"(Torch IR graph at exception: ).*", r"\1…", diagnostic.text, flags=re.DOTALL)  # a long dump
        return [line for line in text.splitlines() if line.strip()]
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
