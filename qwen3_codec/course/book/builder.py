"""Sphinx, run in this process."""

import sphinx.locale
from sphinx.cmd.build import build_main


class BookError(RuntimeError):
    """Sphinx stopped, or warned where it must not; it has said of what."""


def run(*arguments: object) -> None:
    sphinx.locale.translators.clear()  # else a run takes what it does not find from the language of the one before
    if build_main([str(each) for each in arguments]):
        raise BookError(f"sphinx-build {' '.join(map(str, arguments))}")
