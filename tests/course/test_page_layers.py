"""The line of layers that the page draws, for any checkpoint: in the order of the data, and nothing of it by hand."""

from math import prod

from qwen3_codec.course.page.layers import parts
from qwen3_codec.model.dimensions import conv_memory
from qwen3_codec.model.dimensions import stages as shapes_along
from qwen3_codec.streaming.exact import ExactStreamingWrapper


def test_the_line_is_the_decoder_in_the_order_of_the_data(everything):
    decoder = everything.decoder
    drawn, wrapper = parts(decoder), ExactStreamingWrapper(decoder)
    layers = [layer for part in drawn for layer in part["layers"]]
    names = [name for layer in layers for name in layer["names"]]
    assert len(set(names)) == len(names) and set(names) <= {name for name, _ in decoder.named_modules()}
    assert names[:2] == ["quantizer", "pre_conv"] and names[-1] == f"decoder.{len(decoder.decoder) - 1}"
    # Each state's module is there, alone in its layer, and its input has the rate that is measured elsewhere.
    frame_rate = wrapper.spec.sample_rate / wrapper.spec.samples_per_frame
    steps = {layer["names"][0]: layer["steps"] for layer in layers if not layer["alone"]}
    rates = {name: steps[name] * frame_rate for name, _, _ in conv_memory(wrapper)}
    assert rates == {name: rate for name, _, rate in conv_memory(wrapper)}
    assert [name for name in steps if name in rates] == [name for name, _ in wrapper.conv_layers]
    assert [name for name in steps if name in decoder.attention_names] == decoder.attention_names
    assert prod(layer["stride"] for layer in layers) == decoder.samples_per_frame
    assert max(stage.samples_per_frame for stage in shapes_along(decoder)) == layers[-1]["steps"]


def test_every_state_has_a_place_on_the_line(everything):
    spec = ExactStreamingWrapper(everything.decoder).spec
    drawn = parts(everything.decoder)
    places = {part["name"] for part in drawn} | {
        name for part in drawn for each in part["layers"] for name in each["names"]
    }
    assert set(spec.modules) == {before.name for before, _ in spec.states} and set(spec.modules.values()) <= places
