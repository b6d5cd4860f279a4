"""The traps of an export, each a record that runs: the naive code, what it does, why, and the fix.

`TRAPS` has them all by name. `TRAPS[name].run_naive()` runs the naive code, `.run_fix()` the fix, and say what came of
it: right, right at a cost, wrong with a warning, wrong and unreported, or stopped by an error. What they did when they
were measured stands in `measured.json` (`record`), from which the catalogue's page is made.
`python -m qwen3_codec.course.pitfalls` runs every one and says which are other now.
"""

from ...runtime.console import importing

with importing(__name__):
    from ...exporting.diagnostics.baked_in_axes import BakedInAxis, axes_of, find_baked_in_axes
    from . import (
        branches,
        caches,
        clients,
        layers,
        lengths,
        modules,
        operators,
        players,
        precision,
        signatures,
        sound_in,
        streams,
        weight_norm,
    )
    from .trap import Outcome, Run, Trap, fails_with, signals

GROUPS = {
    "branches": branches,
    "caches": caches,
    "signatures": signatures,
    "lengths": lengths,
    "streams": streams,
    "layers": layers,
    "weight_norm": weight_norm,
    "operators": operators,
    "precision": precision,
    "modules": modules,
    "clients": clients,
    "players": players,
    "sound_in": sound_in,
}
TRAPS = {trap.name: trap for group in GROUPS.values() for trap in group.TRAPS}
__all__ = [
    "GROUPS",
    "TRAPS",
    "BakedInAxis",
    "Outcome",
    "Run",
    "Trap",
    "axes_of",
    "fails_with",
    "find_baked_in_axes",
    "signals",
]
