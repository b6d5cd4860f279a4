"""A specimen on a notebook's page: its code and what came of it, as Markdown."""

import inspect
import textwrap
from collections.abc import Callable

from IPython.display import HTML, Markdown

from . import SPECIMENS


def fall(name: str) -> Markdown:
    """The naive code, and what it does today."""
    specimen = SPECIMENS[name]
    naive, _ = specimen.shown
    return Markdown(f"{source(naive)}\n\nWhat it does today:\n\n{_block(specimen.fall())}")


def mend(name: str) -> Markdown:
    """Why, the fix, and what that does."""
    specimen = SPECIMENS[name]
    _, fix = specimen.shown
    return Markdown(f"{specimen.why}\n\n{source(fix)}\n\nWhat it does:\n\n{_block(specimen.mend())}")


def code(*parts: Callable) -> Markdown:
    """The code of classes or functions."""
    return Markdown("\n\n".join(map(source, parts)))


def source(part: Callable) -> str:
    """The code of a class or function as a Markdown block."""
    return _block(textwrap.dedent(inspect.getsource(part)), "python")


def monospace() -> HTML:
    """nbconvert's pages set code inside a Markdown output in the text's own font: this sets it as code."""
    return HTML("<style>.jp-OutputArea-output .highlight pre { font-family: monospace }</style>")


def _block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.rstrip()}\n```"
