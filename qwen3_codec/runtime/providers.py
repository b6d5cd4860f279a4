"""ONNX Runtime's execution providers."""

CPU = "CPUExecutionProvider"


def provider_name(name: str) -> str:
    """ONNX Runtime's name for a provider given as that or as `cuda`, `cpu`, ...; ValueError where it is not there."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    for provider in there:
        if name.lower() in (provider.lower(), provider.removesuffix("ExecutionProvider").lower()):
            return provider
    raise ValueError(f"the provider {name!r} is not in this ONNX Runtime {onnxruntime.__version__}: {', '.join(there)}")
