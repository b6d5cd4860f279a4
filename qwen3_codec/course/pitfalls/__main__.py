"""Run every trap and say which are as described: for anyone trying a new torch, transformers or onnxruntime.

python -m qwen3_codec.course.pitfalls            # all of them, about two minutes
python -m qwen3_codec.course.pitfalls head_dim   # those with the word in their name

As described means: the result is as wrong as recorded, and what is said on the way (warnings, log, what is printed) is
what is recorded. Behind a trap stands how it is reported: by an error, by a warning, or by nothing.
"""

import sys

from ...runtime.console import importing, run_module

with importing(__name__):
    from tqdm import tqdm

from ...exporting.diagnostics.wording import gist
from . import TRAPS

ABOUT = "run every trap and say which are as described, about two minutes; exit 1 where one is not"
EXAMPLE = "head_dim"


def add_options(parser) -> None:
    parser.add_argument("word", nargs="?", default="", help="run the traps with this word in their name")


def run(args) -> int:
    chosen = [trap for name, trap in TRAPS.items() if args.word in name]
    if not chosen:
        raise ValueError(f"no trap has {args.word!r} in its name; there are: {', '.join(TRAPS)}")
    changed = 0
    for trap in tqdm(chosen, unit="trap"):
        for role, run, well in (
            ("naive", trap.run_naive, f"as described, reported by: {trap.reported}"),
            ("fix", trap.run_fix, "as described"),
        ):
            try:
                verdict = well
                run()
            except Exception as error:  # whatever it is, it is not what the record says
                verdict, changed = f"CHANGED: {gist(error, lines=1)}", changed + 1
            tqdm.write(f"{trap.name} ({role}): {verdict}")
    return min(changed, 1)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 where each trap and each fix is as described, else 1; 2 where no trap has the word."""
    return run_module(sys.modules[__name__], "qwen3_codec.course.pitfalls", arguments)


if __name__ == "__main__":
    sys.exit(main())
