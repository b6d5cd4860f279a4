"""A trap on a notebook's page: its code and what it does, as Markdown."""

import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from IPython.display import Markdown

from . import TRAPS
from .trap import Trap


def show_trap(name: str) -> Markdown:
    """The naive code, what is said while it runs, and what it does today."""
    trap = TRAPS[name]
    naive, _ = trap.shown
    run = trap.run_naive()
    parts = [source(naive)]
    if run.said:
        parts += ["What is said while it runs:", _block("\n".join(map(str, run.said)))]
    does = "What it does today:" if trap.reported != "nothing" else "No error and no warning. What it does today:"
    return Markdown("\n\n".join([*parts, does, _block(run.text), *_seen(trap)]))


def show_fix(name: str) -> Markdown:
    """Why, the fix, and what that does."""
    trap = TRAPS[name]
    _, fix = trap.shown
    return Markdown(f"{trap.why}\n\n{source(fix)}\n\nWhat it does:\n\n{_block(trap.run_fix().text)}")


def _seen(trap: Trap) -> list[str]:
    """Links to the public reports. (GitHub leads from an issue's address to a pull request of that number.)"""
    links = [f"[{source}](https://github.com/{source.replace('#', '/issues/')})" for source in trap.sources]
    return [f"Reported in {', '.join(links)}."] if links else []


def code(*parts: Callable) -> Markdown:
    """The code of classes or functions."""
    return Markdown("\n\n".join(map(source, parts)))


def excerpt(part: Callable, first: str, until: str = "") -> Markdown:
    """Lines of a class's or function's code, from the one that begins with `first` to the one before `until` does.

    Comments above a line belong to it. Lines are named by their beginnings and not by numbers, so that a page follows
    the code. Raises ValueError for a line that is not there.
    """
    lines = inspect.getsource(part).splitlines()
    start = _place(lines, first, 0, part)
    end = _place(lines, until, start + 1, part) if until else len(lines)
    return Markdown(f"{_name(part)}, in part:\n\n{_python(lines[start:end])}")


def _place(lines: list[str], first: str, start: int, part: Callable) -> int:
    for place in range(start, len(lines)):
        if lines[place].strip().startswith(first):
            while lines[place - 1].strip().startswith("#"):
                place -= 1
            return place
    raise ValueError(f"no line of {part.__qualname__} begins with {first!r}")


def source(part: Callable) -> str:
    """The code of a class or function as a Markdown block, under its name and file."""
    return f"{_name(part)}:\n\n{_python(inspect.getsource(part).splitlines())}"


def _name(part: Callable) -> str:
    folder = Path(sys.modules[part.__module__.split(".")[0]].__file__).parents[1]
    file = Path(inspect.getsourcefile(inspect.unwrap(part))).relative_to(folder).as_posix()
    return f"`{part.__qualname__}` in `{file}`"


def _python(lines: list[str]) -> str:
    return _block(textwrap.dedent("\n".join(lines)), "python")


def _block(text: str, language: str = "text") -> str:
    """A block of code. nbconvert lets it inherit the text's font, so it stands in an element that has another."""
    return f'<div style="font-family: monospace">\n\n```{language}\n{text.rstrip()}\n```\n\n</div>'
