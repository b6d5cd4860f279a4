"""A step's interface as a table of one row for each kind of tensor."""

from qwen3_codec.course.lab.interface import interface
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper


def test_every_tensor_is_counted_and_states_say_whether_they_grow(small):
    decoder, window = small.decoder, small.decoder.config.sliding_window
    for wrapper in (ExactStreamingWrapper(decoder), StatefulCodecONNXWrapper(decoder)):
        spec, rows = wrapper.spec, interface(wrapper.spec)
        assert sum(count for count, name, *_ in rows if name) == len(spec.all_inputs)
        assert sum(count for count, *_, after in rows if after) == len(spec.all_outputs)
        keys = next(shape for _, name, shape, _ in rows if "key_" in name)
        fixed = spec.design == "exact"
        assert (f", {window - 1}," in keys) if fixed else (f", 0–{window}," in keys)
        assert next(after for _, name, _, after in rows if "value_" in name).startswith("next_value_")
