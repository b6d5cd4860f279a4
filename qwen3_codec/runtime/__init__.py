"""All that a client needs. Needs numpy and onnxruntime, which is loaded with the session.

session = CodecSession("decoder.onnx")
stream = session.stream()
for codes in chunks:                 # int64 [N, Q], any N of at least 1
    play(stream.push(codes)[0])      # float32 [1, samples]
play(stream.finish()[0])             # what a graph with look-ahead still held back

In a coroutine: `stream = AsyncStream(session.stream())`, and `await stream.push(codes)`.
"""

from importlib import import_module

# Loaded when asked for, so that what reads codes or compares waveforms needs no runtime.
_HOMES = {
    "AsyncStream": "aio",
    "CodecSession": "session",
    "CodecStream": "stream",
    "CodesError": "codes",
    "EncoderStream": "stream",
    "GraphError": "session",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
