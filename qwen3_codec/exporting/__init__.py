"""To ONNX: trace, check, compare with the wrapper, publish; `precision` has fewer bits."""
