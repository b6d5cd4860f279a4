"""What an exporter says, what of it counts, and which axes of its graph do not follow."""

from ... import loaded_when_asked

__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "Diagnostic": "capture",
        "STDERR": "capture",
        "STDOUT": "capture",
        "captured": "capture",
        "find_baked_in_axes": "baked_in_axes",
        "is_advice": "capture",
    },
)
