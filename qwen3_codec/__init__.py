"""Stateful ONNX export of the Qwen3-TTS 12 Hz codec: 16 codes per 80 ms frame to 24 kHz audio, and back.

The public names, each loaded when it is asked for, so that a client of an exported graph loads no torch:

    load                          a checkpoint: `demo`, `random`, a folder, a Hub id
    OtherModel                    a model of another kind, to be exported by the same tools
    one_shot                      the reference: a waveform decoded whole, with no state
    find_states                   what a model has to remember, in the order of its data
    ExactStreamingWrapper         the streaming step of the decoder, every layer with its own state
    StatefulCodecONNXWrapper      the windowed step: keys, values and a few frames of left context
    StreamEncoderWrapper          the streaming step of the encoder
    StreamingConv1d               any causal convolution with its past as a state
    StreamingConvTranspose1d      any transposed convolution that is trimmed on the right, likewise
    TorchSession                  a wrapper behind a client's interface
    export                        a wrapper to an ONNX file that describes itself, checked before it has its name
    verify                        one-shot decoder, wrapper and graph over chunk schedules
    judge                         a step that you changed: checks, export, and the likely cause of what is wrong
    parity                        any graph whose states are pairs X and next_X against its one-shot model
    SpeechTokenizer               exported graphs in the place of upstream's tokenizer
    codes_of, speak               codes, or sound, while upstream's talker writes them
    CodecSession, AsyncStream     an exported graph, and a stream of it in a coroutine (see `qwen3_codec.runtime`)

The modules, each of which imports only from those before it:

    files, spec                   files that appear whole or not at all; a graph's whole interface and its zero state
    runtime/                      all that a client needs: sessions, streams, codes, audio; numpy and onnxruntime
    model/                        what is streamed: decoder, encoder, dimensions; `checkpoint/`: where weights come from
    streaming/                    how it is streamed: layers, attention, the designs, the PyTorch session
    exporting/                    trace, check, validate, publish; `precision/`: int8 and float16
    verification/                 does it agree? decoder, encoder, any graph, a waveform from elsewhere
    serving/                      a Triton server and one over WebSocket: model repository, servers, clients
    demo/                         the speech model that ships; `training/`: how it was made
    course/                       the walkthrough's own code: traps, exercises, figures, widgets, the page
    measure/                      what it costs: bench, card, load
    cli/                          the command line, a file a command
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporting.export import export as export
    from .model.checkpoint import OtherModel as OtherModel
    from .model.checkpoint import load as load
    from .model.inspection.finder import find_states as find_states
    from .model.one_shot import one_shot as one_shot
    from .runtime import AsyncStream as AsyncStream
    from .runtime import CodecSession as CodecSession
    from .runtime import SpeechTokenizer as SpeechTokenizer
    from .runtime import codes_of as codes_of
    from .runtime import speak as speak
    from .streaming.encoder import StreamEncoderWrapper as StreamEncoderWrapper
    from .streaming.exact import ExactStreamingWrapper as ExactStreamingWrapper
    from .streaming.layers import StreamingConv1d as StreamingConv1d
    from .streaming.layers import StreamingConvTranspose1d as StreamingConvTranspose1d
    from .streaming.session import TorchSession as TorchSession
    from .streaming.windowed import StatefulCodecONNXWrapper as StatefulCodecONNXWrapper
    from .verification.decoder import verify as verify
    from .verification.parity import parity as parity
    from .verification.workbench import judge as judge

__version__ = "0.1.0"


def loaded_when_asked(package: str, homes: dict[str, str]) -> tuple[Any, Any, list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package (PEP 562); `homes` has the module below it of each name.

    A name that its module does not have is the module itself.
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f".{homes[name]}", package)
        return getattr(module, name, module)

    return get, lambda: sorted({*vars(sys.modules[package]), *homes}), [*homes]


__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "AsyncStream": "runtime",
        "CodecSession": "runtime",
        "ExactStreamingWrapper": "streaming.exact",
        "OtherModel": "model.checkpoint",
        "SpeechTokenizer": "runtime",
        "StatefulCodecONNXWrapper": "streaming.windowed",
        "StreamEncoderWrapper": "streaming.encoder",
        "StreamingConv1d": "streaming.layers",
        "StreamingConvTranspose1d": "streaming.layers",
        "TorchSession": "streaming.session",
        "codes_of": "runtime",
        "export": "exporting.export",
        "find_states": "model.inspection.finder",
        "judge": "verification.workbench",
        "load": "model.checkpoint",
        "one_shot": "model.one_shot",
        "parity": "verification.parity",
        "speak": "runtime",
        "verify": "verification.decoder",
    },
)
