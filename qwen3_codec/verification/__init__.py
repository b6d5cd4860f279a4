"""Does it agree? Against the one-shot model, for any graph whose states pair by name, and from elsewhere."""

from .. import loaded_when_asked

# The comparison with a waveform from elsewhere needs no torch.
__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "MAX_ERROR": "decoder",
        "MAX_LATENT_ERROR": "encoder",
        "MAX_MSE": "decoder",
        "ONE_SHOT": "decoder",
        "ONNX": "decoder",
        "WRAPPER": "decoder",
        "random_codes": ".spec",
        "verify_encoder": "encoder",
        "wrapper_like": "decoder",
    },
)
