"""Quantization: to 8 bits by the wrapper's own products, to 16 by a converter."""

from ... import loaded_when_asked

__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "EXAMPLE_FRAMES": "export",
        "IntegerProduct": "integers",
        "PRECISIONS": "export",
        "PRODUCT_OF_KIND": "int8",
        "export_in": "export",
        "sensitivity": "export",
        "treatment": "int8",
        "wrapper_in": "export",
    },
)
