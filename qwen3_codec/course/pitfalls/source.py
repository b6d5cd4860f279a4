"""The code of a record, as it stands in its file."""

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

GUILTY = "  # trap"
MARK = re.compile(f"{GUILTY}$")


def unmarked(text: str) -> str:
    """A text that quotes a guilty line, without its mark."""
    return text.replace(GUILTY, "")


def code_of(part: Callable) -> str:
    """The source of a class or function, without the marks of guilty lines."""
    return "\n".join(MARK.sub("", line) for line in marked_code_of(part).splitlines())


def marked_code_of(part: Callable) -> str:
    return textwrap.dedent(inspect.getsource(part)).rstrip()


def name_and_file(part: Callable) -> tuple[str, str]:
    """What a class or function is called, and its file within the project."""
    folder = Path(sys.modules[part.__module__.split(".")[0]].__file__ or "").parents[1]
    return part.__qualname__, Path(inspect.getsourcefile(inspect.unwrap(part)) or "").relative_to(folder).as_posix()
