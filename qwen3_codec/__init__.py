"""Stateful ONNX export of the Qwen3-TTS 12 Hz codec decoder (16 codes per 80 ms frame in, 24 kHz audio out)."""

__version__ = "0.1.0"
