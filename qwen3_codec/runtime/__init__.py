"""All that a client needs. Needs numpy and onnxruntime, which is loaded with the session.

session = CodecSession("decoder.onnx")
stream = session.stream()
for codes in chunks:                 # int64 [N, Q], any N of at least 1
    play(stream.push(codes)[0])      # float32 [1, samples]
play(stream.finish()[0])             # what a graph with look-ahead still buffers

In a coroutine: `stream = AsyncStream(session.stream())`, and `await stream.push(codes)`.
"""

from typing import TYPE_CHECKING

from .. import loaded_when_asked

if TYPE_CHECKING:
    from .aio import AsyncStream as AsyncStream
    from .codes import CodesError as CodesError
    from .measured_snr import measured_snr_of as measured_snr_of
    from .metrics import chunks as chunks
    from .metrics import max_error as max_error
    from .metrics import mse as mse
    from .metrics import per_chunk as per_chunk
    from .metrics import scaled_error as scaled_error
    from .metrics import snr_db as snr_db
    from .session import CodecSession as CodecSession
    from .session import GraphError as GraphError
    from .stream import CodecStream as CodecStream
    from .stream import EncoderStream as EncoderStream
    from .stream import stream_of as stream_of
    from .talker import codes_of as codes_of
    from .talker import speak as speak
    from .tokenizer import SpeechTokenizer as SpeechTokenizer

# So that what reads codes or compares waveforms needs no ONNX Runtime.
__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "AsyncStream": "aio",
        "CodecSession": "session",
        "CodecStream": "stream",
        "CodesError": "codes",
        "EncoderStream": "stream",
        "GraphError": "session",
        "SpeechTokenizer": "tokenizer",
        "chunks": "metrics",
        "codes_of": "talker",
        "max_error": "metrics",
        "measured_snr_of": "measured_snr",
        "mse": "metrics",
        "per_chunk": "metrics",
        "scaled_error": "metrics",
        "snr_db": "metrics",
        "speak": "talker",
        "stream_of": "stream",
    },
)
