"""Build the book.

python -m qwen3_codec.course.book --pages notebooks --output build/book --lab build/page
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from ..page import site
from .builder import BookError, run
from .sources import NOTEBOOKS, write_sources

# Languages, and where each stands in the book.
LANGUAGES = {"en": ".", "zh_CN": "zh"}


def build(pages: Path, output: Path, lab: Path | None = None) -> None:
    """The book of the executed notebooks in `pages`, in `output`; with the lab where `lab` has it."""
    with tempfile.TemporaryDirectory() as work:
        sources, html = Path(work, "sources"), Path(work, "html")
        write_sources(pages, sources, lab is not None)
        for language, place in LANGUAGES.items():
            options = ["-q", "-W", "--keep-going", "-D", f"language={language}", "-d", Path(work, language)]
            run(*options, sources, html / place)
        shutil.copytree(html, output, ignore=shutil.ignore_patterns(".buildinfo", "_sources"), dirs_exist_ok=True)
    if lab:
        shutil.copytree(lab, output / "lab", dirs_exist_ok=True)
        (output / "lab" / "pages.json").write_text(json.dumps(sorted(path.name for path in output.glob("[0-9]*.html"))))


def lab_at(folder: Path) -> Path | None:
    """The lab, built in `folder`; None, and a line that says so, where npm is missing."""
    try:
        site.build(folder)
    except site.PageError as error:
        return print(f"The book is without the lab: {error}")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pages", type=Path, default=NOTEBOOKS, help="the executed notebooks; default: the committed ones"
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder for the book")
    parser.add_argument("--lab", type=Path, help="the folder for the lab in a browser, which the book takes in")
    arguments = parser.parse_args()
    try:
        build(arguments.pages, arguments.output, arguments.lab and lab_at(arguments.lab))
    except BookError as error:
        raise SystemExit(str(error)) from None
