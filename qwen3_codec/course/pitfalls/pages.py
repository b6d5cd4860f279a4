"""A trap on a notebook's page, run there and then; and code, under its name and file."""

import inspect
import textwrap
from collections.abc import Callable

from IPython.display import HTML, Markdown

from . import TRAPS, card, record
from .source import code_of, name_and_file


def show_trap(name: str) -> HTML:
    """The trap's card with what both sides do now. A trap that is other than recorded says so, and is no error."""
    trap = TRAPS[name]
    runs: dict[str, dict[str, record.Run]] = {"naive": {}, "fix": {}}
    for exporter, side, run in record.measured(trap):
        runs[side][exporter] = run
    changes = [
        f"{card.exporter_name(exporter)} {side}: {change}".strip()
        for side, by_exporter in runs.items()
        for exporter, run in by_exporter.items()
        if (change := record.changed(record.recorded(trap, side).get(exporter), run))
    ]
    return HTML(card.STYLE + card.card(trap, runs["naive"], runs["fix"], anchor=False, changes=changes))


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
    name, file = name_and_file(part)
    text = textwrap.dedent("\n".join(lines[start:end]))
    return Markdown(f"`{name}` in `{file}`, in part:\n\n{_block(text, 'python')}")


def _place(lines: list[str], first: str, start: int, part: Callable) -> int:
    for place in range(start, len(lines)):
        if lines[place].strip().startswith(first):
            while lines[place - 1].strip().startswith("#"):
                place -= 1
            return place
    raise ValueError(f"no line of {part.__qualname__} begins with {first!r}")


def source(part: Callable) -> str:
    """The code of a class or function as a Markdown block, under its name and file."""
    name, file = name_and_file(part)
    return f"`{name}` in `{file}`:\n\n{_block(code_of(part), 'python')}"


def _block(text: str, language: str = "text") -> str:
    """A block of code. nbconvert lets it inherit the text's font, so it stands in an element that has another."""
    return f'<div style="font-family: monospace">\n\n```{language}\n{text.rstrip()}\n```\n\n</div>'
