"""The notebooks as a course: titles, exercises and times, read off the files themselves."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...files import CHECKOUT

WORDS_A_MINUTE = 200
# What nbclient notes at each cell.
START, END = "iopub.execute_input", "shell.execute_reply"


@dataclass(frozen=True)
class Page:
    """A notebook: its title, the minutes that its words take, the seconds that it ran, exercises in it."""

    name: str
    title: str
    minutes: float
    seconds: float | None
    exercises: int


def pages(folder: Path = CHECKOUT / "notebooks") -> list[Page]:
    """Every notebook of `folder`, in order. How long one ran is what its executed file says, on whichever machine."""
    return [_page(path) for path in sorted(folder.glob("[0-9]*.ipynb"))]


def _page(path: Path) -> Page:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    words = sum(len(text.split()) for text in [*sources, *_printed_texts(cells)])
    return Page(
        name=path.stem,
        title=re.search(r"^# (.*)$", sources[0], re.MULTILINE)[1],
        minutes=max(1.0, words / WORDS_A_MINUTE),
        seconds=_seconds(cells),
        exercises=sum("exercise" in cell["metadata"].get("tags", []) for cell in cells),
    )


def _printed_texts(cells: list[dict]) -> list[str]:
    """What cells show as Markdown: code, explanations, tables. On the page of the traps it is most of the text."""
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return ["".join(output.get("data", {}).get("text/markdown", "")) for output in outputs]


def _seconds(cells: list[dict]) -> float | None:
    """From the first cell's start to the last one's end, or None where the file was never executed."""
    times = [cell["metadata"].get("execution", {}) for cell in cells if cell["cell_type"] == "code"]
    marks = [datetime.fromisoformat(entry[key]) for entry in times for key in entry if key in (START, END)]
    return (max(marks) - min(marks)).total_seconds() if marks else None
