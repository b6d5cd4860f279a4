"""What a run of any model does, read off as it comes by: what looks along time, how far, what is random, and where."""

from ... import loaded_when_asked

__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__, {"Field": "field", "find_states": "finder", "receptive_field": "field"}
)
