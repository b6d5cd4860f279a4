"""Each trap of an export as a specimen that runs: the naive code, what it does today, why, and the fix.

`TRAPS` has them all by name, those of the notes in their order, then those seen elsewhere.
`TRAPS[name].fall()` runs the naive code, `.mend()` the fix; both raise where they do not find what the specimen
says, be it of the result or of what is said on the way: warnings, log records, and what is written to the screen. So
`.reported` (by an error, by a warning, by nothing) is measured. `python -m qwen3_codec.course.pitfalls` runs every one.
"""

from ...runtime.console import importing

with importing(__name__):
    from ...exporting.frozen_axes import FrozenAxis, axes_of, find_frozen_axes
    from . import branches, caches, clients, lengths, modules, precision, signatures, sound_in, streams
    from .specimen import Outcome, Raises, Run, Says, Specimen, Wrong, fails_with, signals

TRAPS = {
    specimen.name: specimen
    for group in (branches, caches, signatures, lengths, streams, precision, modules, clients, sound_in)
    for specimen in group.TRAPS
}
__all__ = [
    "TRAPS",
    "FrozenAxis",
    "Outcome",
    "Raises",
    "Run",
    "Says",
    "Specimen",
    "Wrong",
    "axes_of",
    "fails_with",
    "find_frozen_axes",
    "signals",
]
