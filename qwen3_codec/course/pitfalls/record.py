"""What every trap does, as it was measured: the file that the pages are made from, and what is other today.

`measured.json` is written whole by `python -m qwen3_codec.course.pitfalls --record`, with the versions it was measured
on. With those versions the tests hold it true, trap by trap. With others a trap may have gone: that is reported, and
is no fault.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ...files import written_whole
from .source import unmarked
from .trap import Run, Trap

FILE = Path(__file__).with_name("measured.json")
PACKAGES = "torch", "transformers", "onnx", "onnxscript", "onnxruntime"
SIDES = "naive", "fix"


def versions() -> dict[str, str]:
    """Of what is installed: what the traps depend on."""
    return {name: version(name).split("+")[0] for name in PACKAGES}


@cache
def _file() -> dict:
    return json.loads(FILE.read_text(encoding="utf-8"))


def recorded_versions() -> dict[str, str]:
    return _file()["versions"]


def recorded(trap: Trap, side: str) -> dict[str, Run]:
    """What that side of the trap did when it was measured, {exporter: run}; nothing where it never was."""
    runs = _file()["traps"].get(trap.name, {})
    return {
        exporter: Run(**{k: tuple(v) if isinstance(v, list) else v for k, v in sides[side].items()})
        for exporter, sides in runs.items()
    }


def measured(trap: Trap) -> Iterator[tuple[str, str, Run]]:
    """(exporter, side, run) of both sides, run now by each of the trap's exporters."""
    for exporter in trap.exporters:
        yield exporter, "naive", trap.run_naive(exporter)
        yield exporter, "fix", trap.run_fix(exporter)


def changes(trap: Trap) -> list[str]:
    """What the trap does now that is not what is recorded, a line each."""
    found = []
    for exporter, side, run in measured(trap):
        if change := changed(recorded(trap, side).get(exporter), run):
            found.append(f"{trap.name}{exporter and f', {exporter}'} ({side}): {change}")
    return found


def changed(before: Run | None, now: Run) -> str:
    """What is other than before, in words, or ""; numbers in texts may be, since they vary from machine to machine."""
    if before is None:
        return "not in the record"
    if before.verdict != now.verdict:
        return f"was {before.verdict}, is {now.verdict}: {now.text.splitlines()[0]}"
    if before.first != now.first:
        return f"was first seen {before.first!r}, is at {now.first!r}"
    if without_numbers(*before.said) != without_numbers(*now.said):
        return f"what is said was {without_numbers(*before.said)!r}, is {without_numbers(*now.said)!r}"
    return "" if without_numbers(before.text) == without_numbers(now.text) else f"was {before.text!r}, is {now.text!r}"


def without_numbers(*texts: str) -> str:
    """Without numbers, memory addresses, and the marks of guilty lines that a text may quote."""
    return re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?", "#", re.sub(r"0x[0-9a-f]+", "#", unmarked("\n".join(texts))))


def write(traps: dict[str, dict[str, dict[str, Run]]]) -> None:
    """The whole file, {name: {exporter: {side: run}}}."""
    tidy = {
        name: {
            e: {s: {k: v for k, v in asdict(run).items() if v} for s, run in sides.items()} for e, sides in by.items()
        }
        for name, by in traps.items()
    }
    text = json.dumps({"versions": versions(), "traps": tidy}, indent=1, ensure_ascii=False)
    with written_whole(FILE) as path:
        path.write_text(text + "\n", encoding="utf-8")
    _file.cache_clear()
