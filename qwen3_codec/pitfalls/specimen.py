"""What a specimen is: naive code, what it does today, why, and the fix; it runs, and notices when its trap has gone."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from tempfile import gettempdir

RIGHT, WRONG, REFUSED = "right", "wrong", "refused"


@dataclass(frozen=True)
class Raises:
    """The naive code fails loudly: `error` with `words` (a regular expression) in its text."""

    error: type[BaseException]
    words: str


@dataclass(frozen=True)
class Silent:
    """The naive code goes through and says nothing; what comes out is wrong by `at_least` this much.

    inf: a wrong shape, or a graph that refuses to run at another length.
    """

    at_least: float


@dataclass(frozen=True)
class Outcome:
    """What came out of a run: how far it is from right (0 to inf), and the same in words for a reader.

    `cases` says of each case that was run whether it was RIGHT, WRONG (without an error) or REFUSED.
    """

    error: float
    text: str
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Specimen:
    """One trap. `demonstrate` runs `naive` or `fix` (classes or functions, of one signature) and measures the result.

    `notes` is the section of the notes that started this project that speaks of it, or "" where none does; `within` is
    the error that the fix may have. `code` is what a page shows of both, where that is not `naive` and `fix`.
    """

    name: str
    notes: str
    naive: Callable
    fix: Callable
    demonstrate: Callable[[Callable], Outcome]
    today: Raises | Silent
    why: str
    within: float = 1e-5
    code: tuple[Callable, Callable] | None = None

    @property
    def shown(self) -> tuple[Callable, Callable]:
        """What a page shows: the naive code and the fix."""
        return self.code or (self.naive, self.fix)

    def fall(self) -> str:
        """Run the naive code and return what it did; AssertionError where it no longer does what `today` says."""
        if isinstance(self.today, Raises):
            with quiet(), fails_with(self.today.error, self.today.words) as caught:
                self.demonstrate(self.naive)
            return caught.text
        with quiet():
            outcome = self.demonstrate(self.naive)
        if not outcome.error >= self.today.at_least:
            raise AssertionError(f"{self.name}: the trap has gone, the naive code is within {outcome.error:.1e}")
        return outcome.text

    def mend(self) -> str:
        """Run the fix and return what it did; raises AssertionError where it is further than `within` from right."""
        with quiet():
            outcome = self.demonstrate(self.fix)
        if not outcome.error <= self.within:
            raise AssertionError(f"{self.name}: the fix is {outcome.error:.1e} from right\n{outcome.text}")
        return outcome.text


@dataclass
class Caught:
    """What `fails_with` caught, in a few lines."""

    text: str = ""


@contextmanager
def fails_with(error: type[BaseException], words: str) -> Iterator[Caught]:
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
        print(caught.text)
    else:
        raise AssertionError(f"nothing failed; expected {error.__name__} with {words!r}")


# Where a report by `torch.export` turns from the error to where to read more.
ADVICE = (
    "For ",
    "If you suspect",
    "The error above",
    "The following call",
    "(Refer to",
    "Caused by:",
    "File ",
    "User Stack",
)


def gist(error: BaseException, lines: int = 4) -> str:
    """Type and first lines of an error. Of a long report by `torch.export`, the part that says what went wrong."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).split("## Exception summary")[-1]
    text = re.sub(re.escape(gettempdir()) + r"/[^/]+/", "", text)  # a page should not depend on the machine
    found = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith(ADVICE)]
    return f"{type(error).__name__}: " + "\n".join(shorten(line) for line in found[:lines])


def shorten(line: str, most: int = 300) -> str:
    return line if len(line) <= most else line[:most] + " …"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' progress, advice and dumps of half a graph off the page."""
    silent, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(silent), redirect_stderr(silent), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
