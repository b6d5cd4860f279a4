"""The book's catalogues in another language: one for each page that is translated, with the page's messages of today.

`make translations` takes them up to date; `make translations BEGIN=00_hear_it` begins one.
"""

import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

from .builder import run
from .sources import NOTEBOOKS, write_sources

LANGUAGE = "zh_CN"
LOCALE = NOTEBOOKS / "locale"
THEME = "sphinx"  # the catalogue of what the theme itself says: Sphinx reads it under this name
WORD = re.compile(r"[^\W\d_]{3}")  # what has none is a number with its unit, which another run gives anew


def catalogues(locale: Path = LOCALE) -> dict[str, Path]:
    """Those that are there: {page: file}."""
    folder = locale / LANGUAGE / "LC_MESSAGES"
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.po"))}
    return {name: path for name, path in found.items() if name != THEME}


def catalogue(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=LANGUAGE)


def write(path: Path, messages: Catalog) -> None:
    with path.open("wb") as file:
        write_po(file, messages, width=0, ignore_obsolete=True)


def write_messages(pages: Path, output: Path, names: Iterable[str]) -> None:
    """What can be translated on the pages `names`, one .pot for each, in `output`."""
    with tempfile.TemporaryDirectory() as work:
        sources = Path(work, "sources")
        write_sources(pages, sources, lab=True)
        for path in [*sources.rglob("*.md"), *sources.rglob("*.ipynb")]:
            if path.relative_to(sources).with_suffix("").as_posix() not in {*names, "index"}:
                path.unlink()
        run("-Q", "-b", "gettext", "-d", f"{work}/read", sources, output)  # silent: links lead to pages left out
    for path in output.rglob("*.pot"):
        messages = catalogue(path)
        for each in [message.id for message in messages if message.id and not WORD.search(message.id)]:
            messages.delete(each)
        write(path, messages)


def refresh(pages: Path = NOTEBOOKS, locale: Path = LOCALE, begun: Iterable[str] = ()) -> None:
    """Each catalogue gets its page's messages; a translation stays where its message does, others are dropped."""
    there = catalogues(locale)
    names = {*there, *begun}
    with tempfile.TemporaryDirectory() as work:
        write_messages(pages, Path(work), names)
        for name in sorted(names):
            path, messages = locale / LANGUAGE / "LC_MESSAGES" / f"{name}.po", Path(work, f"{name}.pot")
            after = catalogue(path if name in there else messages)
            after.update(catalogue(messages), no_fuzzy_matching=True, update_creation_date=False)
            after.obsolete.clear()
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, after)
            left = [message.id for message in after if message.id and not message.string]
            print(f"{name}: {len(left)} of {len(after)} not translated")


if __name__ == "__main__":
    refresh(begun=sys.argv[1:])
