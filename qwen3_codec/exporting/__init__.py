"""To ONNX: trace, check, compare with the wrapper, publish; `precision` has fewer bits."""

from .. import loaded_when_asked

__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "ExportError": "export",
        "OPSET": "export",
        "captured": "diagnostics.capture",
        "compare_once": "export",
        "example_inputs": "export",
        "exported": "export",
        "is_advice": "diagnostics.capture",
        "random_inputs": "export",
        "trace": "export",
        "validation_cases": "export",
    },
)
