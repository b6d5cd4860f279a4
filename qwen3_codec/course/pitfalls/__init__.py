"""The traps of an export, each a record that runs: the naive code, what it does today, why, and the fix.

`TRAPS` has them all by name, those of the notes in their order, then those seen elsewhere.
`TRAPS[name].run_naive()` runs the naive code, `.run_fix()` the fix; both raise if they do not find what the record
says of the result and of what is reported on the way: warnings, log records, and what is written to the screen. So
`.reported` (by an error, by a warning, by nothing) is measured. `python -m qwen3_codec.course.pitfalls` runs every one.
"""

from ...runtime.console import importing

with importing(__name__):
    from ...exporting.diagnostics.frozen_axes import FrozenAxis, axes_of, find_frozen_axes
    from . import branches, caches, clients, lengths, modules, precision, signatures, sound_in, streams
    from .trap import Outcome, Raises, Run, Says, Trap, Wrong, fails_with, signals

TRAPS = {
    trap.name: trap
    for group in (branches, caches, signatures, lengths, streams, precision, modules, clients, sound_in)
    for trap in group.TRAPS
}
__all__ = [
    "TRAPS",
    "FrozenAxis",
    "Outcome",
    "Raises",
    "Run",
    "Says",
    "Trap",
    "Wrong",
    "axes_of",
    "fails_with",
    "find_frozen_axes",
    "signals",
]
