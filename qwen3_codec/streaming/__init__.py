"""How it is streamed: the decoder with its state as inputs and outputs, in two designs."""

from .. import loaded_when_asked

__getattr__, __dir__, __all__ = loaded_when_asked(
    __name__,
    {
        "ConvStates": "states",
        "StreamingGRU": "recurrent",
        "StreamingLSTM": "recurrent",
        "StreamingSequence": "layers",
        "TraceableKVStack": "kv_stack",
        "sliding_window_mask": "kv_stack",
        "split_states": "kv_stack",
        "states_of": "states",
        "stream_layers": "kv_stack",
        "stream_transformer": "kv_stack",
        "to_streaming": "layers",
    },
)
