"""The walkthrough's own code: traps, exercises, figures and widgets, and the lab in a browser."""

from .. import loaded_when_asked

__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "EXERCISES": "exercises",
        "TRAPS": "pitfalls",
        "build_folder": ".files",
        "check": "exercises",
        "code": "pitfalls.pages",
        "excerpt": "pitfalls.pages",
        "fails_with": "pitfalls",
        "interface": "lab.interface",
        "plots": "lab.plots",
        "progress": "exercises",
        "ruler": "lab.ruler",
        "schematics": "lab.schematics",
        "show_trap": "pitfalls.pages",
        "solution": "exercises",
        "to_int8": "pitfalls.precision",
    },
)
