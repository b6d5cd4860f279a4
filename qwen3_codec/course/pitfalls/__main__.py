"""Run every trap and say which are as recorded: for anyone trying a new torch, transformers or onnxruntime.

python -m qwen3_codec.course.pitfalls            # all of them, about a minute
python -m qwen3_codec.course.pitfalls head_dim   # those with the word in their name
python -m qwen3_codec.course.pitfalls --record   # write measured.json anew, whole

As recorded means: each side is as right or wrong as before, first seen at the same place, and what is said on the way
(warnings, log, what is printed) is the same. After a trap stands how it is reported by each exporter.
"""

import sys

from ...runtime.console import importing, run_module

with importing(__name__):
    from tqdm import tqdm

from . import TRAPS, record

ABOUT = "run every trap and say which are as recorded, about a minute; exit 1 if one is not"
EXAMPLE = "head_dim"


def add_options(parser) -> None:
    parser.add_argument("word", nargs="?", default="", help="run the traps with this word in their name")
    parser.add_argument("--record", action="store_true", help=f"write {record.FILE.name}, which the page is made from")


def run(args) -> int:
    if args.record:
        return _record()
    chosen = [trap for name, trap in TRAPS.items() if args.word in name]
    if not chosen:
        raise ValueError(f"no trap has {args.word!r} in its name; there are: {', '.join(TRAPS)}")
    changed = 0
    for trap in tqdm(chosen, unit="trap"):
        changes = record.changes(trap)
        changed += len(changes)
        naive = record.recorded(trap, "naive")
        reported = ", ".join(f"{exporter} {run.verdict}".strip() for exporter, run in naive.items())
        for line in changes or [f"{trap.name}: as recorded: {reported}"]:
            tqdm.write(f"CHANGED: {line}" if changes else line)
    if changed and record.recorded_versions() != record.versions():
        tqdm.write(f"recorded with {record.recorded_versions()}, this is {record.versions()}")
    return min(changed, 1)


def _record() -> int:
    found: dict[str, dict[str, dict]] = {}
    for trap in tqdm(TRAPS.values(), unit="trap"):
        for exporter, side, run in record.measured(trap):
            found.setdefault(trap.name, {}).setdefault(exporter, {})[side] = run
    record.write(found)
    print(f"written: {record.FILE.name}, {len(found)} traps")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 if each trap and each fix is as recorded, else 1; 2 if no trap has the word."""
    return run_module(sys.modules[__name__], "qwen3_codec.course.pitfalls", arguments)


if __name__ == "__main__":
    sys.exit(main())
