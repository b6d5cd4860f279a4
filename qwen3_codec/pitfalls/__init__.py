"""Each trap of an export as a specimen that runs: the naive code, what it does today, the fix."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fails_with(error: type[BaseException], words: str) -> Iterator[None]:
    """Run a block that must raise `error` with `words` (a regular expression) in its text, and print the first lines.

    Raises AssertionError where nothing failed: a trap that has gone should be noticed. Another error passes through.
    """
    try:
        yield
    except error as caught:
        text = f"{type(caught).__name__}: {caught}"
        if not re.search(words, text):
            raise
        print("\n".join(line for line in text.splitlines() if line.strip())[:600])
    else:
        raise AssertionError(f"nothing failed; expected {error.__name__} with {words!r}")
