"""A specimen on a notebook's page: its code and what came of it, as Markdown."""

import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from IPython.display import Markdown

from . import TRAPS
from .specimen import Specimen


def fall(name: str) -> Markdown:
    """The naive code, what is said while it runs, and what it does today."""
    specimen = TRAPS[name]
    naive, _ = specimen.shown
    run = specimen.fall()
    parts = [source(naive)]
    if run.said:
        parts += ["What is said while it runs:", _block("\n".join(map(str, run.said)))]
    does = "What it does today:" if specimen.reported != "nothing" else "No error and no warning. What it does today:"
    return Markdown("\n\n".join([*parts, does, _block(run.text), *_seen(specimen)]))


def mend(name: str) -> Markdown:
    """Why, the fix, and what that does."""
    specimen = TRAPS[name]
    _, fix = specimen.shown
    return Markdown(f"{specimen.why}\n\n{source(fix)}\n\nWhat it does:\n\n{_block(specimen.mend().text)}")


def _seen(specimen: Specimen) -> list[str]:
    """Links to the public reports. (GitHub leads from an issue's address to a pull request of that number.)"""
    links = [f"[{source}](https://github.com/{source.replace('#', '/issues/')})" for source in specimen.sources]
    return [f"Reported in {', '.join(links)}."] if links else []


def code(*parts: Callable) -> Markdown:
    """The code of classes or functions."""
    return Markdown("\n\n".join(map(source, parts)))


def source(part: Callable) -> str:
    """The code of a class or function as a Markdown block, under its name and file."""
    folder = Path(sys.modules[part.__module__.split(".")[0]].__file__).parents[1]
    file = Path(inspect.getsourcefile(inspect.unwrap(part))).relative_to(folder).as_posix()
    return f"`{part.__qualname__}` in `{file}`:\n\n{_block(textwrap.dedent(inspect.getsource(part)), 'python')}"


def _block(text: str, language: str = "text") -> str:
    """A block of code. nbconvert lets it inherit the text's font, so it stands in an element that has another."""
    return f'<div style="font-family: monospace">\n\n```{language}\n{text.rstrip()}\n```\n\n</div>'
