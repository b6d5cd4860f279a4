"""To ONNX: trace, check, compare with the wrapper, publish; `precision` quantizes."""

from .. import loaded_when_asked

__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "ExportError": "tracing",
        "OPSET": "tracing",
        "captured": "diagnostics.capture",
        "compare_once": "validate",
        "example_inputs": "tracing",
        "exported": "export",
        "is_advice": "diagnostics.capture",
        "random_inputs": "tracing",
        "trace": "tracing",
        "validation_cases": "validate",
    },
)
