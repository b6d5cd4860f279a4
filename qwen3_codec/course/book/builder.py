"""Sphinx, run in this process."""

import gc

import sphinx.locale
from sphinx.cmd.build import build_main


class BookError(RuntimeError):
    """Sphinx stopped, or warned where it must not; it has said of what."""


def run(*arguments: object) -> None:
    sphinx.locale.translators.clear()  # else a run takes what it does not find from the language of the one before
    gc.disable()  # a quarter of the time: it makes millions of nodes, and keeps them to the end
    try:
        failed = build_main([str(each) for each in arguments])
    finally:
        gc.enable()
    if failed:
        raise BookError(f"sphinx-build {' '.join(map(str, arguments))}")
