"""What the notebooks call: `check` an answer, unfold a `solution`, and see how far one is.

How far one is stands in `exercises.json` in the build folder, and nowhere else.
"""

import hashlib
import html
import inspect
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType

from ...files import CHECKOUT, build_folder, written_whole
from ..lab.display import table
from . import attention, baked_in, block, convolutions, graphs, names, offsets, parity_test, quantization, recurrent
from .exercise import Exercise, Verdict, codes_of, grade

# In the order of the notebooks; in `12_capstones` from small to large.
EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise
    for exercise in (
        attention.HEAD_DIM,
        convolutions.LENGTH,
        graphs.VALID,
        convolutions.LEFT_CONTEXT,
        convolutions.TRANSPOSED,
        attention.KEYS,
        attention.EMPTY,
        offsets.OFFSETS,
        graphs.LENGTHS,
        graphs.IF,
        names.NAMES,
        baked_in.BAKED_IN,
        quantization.TWO_TERMS,
        offsets.UPSAMPLED,
        names.PAIRS,
        recurrent.GATES,
        block.COUNTERPART,
        parity_test.PARITY_TEST,
    )
}
FILE = "exercises.json"
NOTHING = {"tries": 0, "passed": False, "last": ""}


def check(name: str, answer) -> Verdict:
    """Try `answer` on all cases of the exercise `name`, and say what is wrong with it and why; it raises nothing.

    Another wrong answer gets another hint; the same one, run again, is no new try, and the page's own code is none at
    all. Whether it was right, and after how many tries, is kept.
    """
    if name not in EXERCISES:
        return Verdict(str(name), False, off="no exercise of that name", hint=f"there are {', '.join(EXERCISES)}")
    entry = _read().get(name, NOTHING)
    mark = _mark(answer)
    own = not _as_shipped(EXERCISES[name], answer)
    tries = entry["tries"] + (own and mark != entry["last"])
    verdict = grade(EXERCISES[name], answer, 0 if entry["passed"] else max(0, tries - 1))
    if own and not entry["passed"]:
        # Read again: while this answer was tried, another notebook may have written.
        kept = _read() | {name: {"tries": tries, "passed": verdict.passed, "last": mark}}
        verdict = replace(verdict, notes=_write(kept))
    return verdict


def solution(name: str):
    """The solution's code, folded: a click on it shows it."""
    from IPython.display import HTML

    source = html.escape(inspect.getsource(EXERCISES[name].solution))
    # nbconvert's pages let a block of code inherit the text's font, so it stands in an element that has another.
    block = f'<div style="font-family: monospace"><pre>{source}</pre></div>'
    return HTML(f"<details><summary>A solution of “{html.escape(name)}”</summary>{block}</details>")


def progress():
    """A table of all exercises: where each stands, how often it was tried, whether it is solved."""
    kept = _read()
    rows = [
        (
            name,
            f"[{exercise.notebook}]({exercise.notebook}.ipynb)",
            exercise.dots,
            exercise.minutes,
            entry["tries"],
            "✓" if entry["passed"] else "",
        )
        for name, exercise in EXERCISES.items()
        for entry in [kept.get(name, NOTHING)]
    ]
    return table(["exercise", "page", "difficulty", "minutes", "tries", "solved"], rows, most=len(rows))


def _mark(answer) -> str:
    """What tells two answers apart: a hash of what they do, whatever the blanks and comments."""
    return hashlib.sha256(repr([*map(_meaning, codes_of(answer))] or answer).encode()).hexdigest()[:12]


def _meaning(code: CodeType) -> tuple:
    """What compiled code does, without where it stands."""
    return code.co_code, code.co_names, [_meaning(c) if isinstance(c, CodeType) else c for c in code.co_consts]


def _as_shipped(exercise: Exercise, answer) -> bool:
    """Whether the answer is the code that the exercise's page comes with. Without that page, no answer is."""
    try:
        page = (CHECKOUT / "notebooks" / f"{exercise.notebook}.py").read_text(encoding="utf-8")
    except OSError:
        return False
    cells = [cell for cell in page.split("# %%") if f'check("{exercise.name}", ' in cell]
    shipped = [_meaning(code) for cell in cells for code in _compiled(compile(cell.partition("\n")[2], "", "exec"))]
    own = [_meaning(code) for code in codes_of(answer)]
    return bool(own) and all(code in shipped for code in own)


def _compiled(code: CodeType) -> Iterator[CodeType]:
    """The code objects in `code`, however deep: functions, and the methods of classes."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _compiled(constant)


def _path() -> Path:
    return build_folder(os.environ.get("QWEN3_CODEC_BUILD", "")) / FILE


def _read() -> dict:
    """What is kept, or nothing where there is no such file or it cannot be read."""
    try:
        entries = json.loads(_path().read_text(encoding="utf-8"))
        kinds = {"tries": int, "passed": bool, "last": str}
        return {name: {key: kind(entry[key]) for key, kind in kinds.items()} for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(kept: dict) -> list[str]:
    """Keep it; where that cannot be done, say so: an answer is worth more than its record."""
    try:
        with written_whole(_path()) as draft:
            Path(draft).write_text(json.dumps(kept, indent=1), encoding="utf-8")
    except OSError as error:
        return [f"(not kept in {FILE}: {error})"]
    return []
