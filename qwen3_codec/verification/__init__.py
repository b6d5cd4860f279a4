"""Does it agree? Against the one-shot model, for any graph whose states pair by name, and from elsewhere."""

from .. import loaded_when_asked

# The comparison with a waveform from elsewhere needs no torch.
__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "MAX_ERROR": "report",
        "MAX_LATENT_ERROR": "encoder",
        "MAX_MSE": "report",
        "ONE_SHOT": "report",
        "ONNX": "report",
        "WRAPPER": "report",
        "judge": "workbench",
        "random_codes": ".runtime.codes",
        "verify_encoder": "encoder",
        "wrapper_like": "graph",
    },
)
