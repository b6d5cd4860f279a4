"""One place knows which design is which wrapper, and a spec says what it was made with."""

import pytest

from qwen3_codec.exporting.precision.int8 import Int8StreamingWrapper
from qwen3_codec.spec import StateSpec
from qwen3_codec.streaming.designs import WRAPPERS, wrapper_of
from qwen3_codec.streaming.fixed import FixedAxes


@pytest.mark.parametrize("key", WRAPPERS, ids=" ".join)
def test_a_wrapper_is_made_again_from_what_its_spec_says(small, key):
    part, design, precision = key
    settings = {"conv_history_frames": 3, "lookahead_frames": 2} if design == "windowed" else {}
    wrapper = wrapper_of(small, design, part, precision, **settings)
    spec = StateSpec.from_json(wrapper.spec.to_json())
    assert (spec.part, spec.design, spec.settings) == (part, design, settings) and spec is not wrapper.spec
    assert spec == wrapper.spec is wrapper.spec and spec.cut_is_exact == (design == "exact")
    assert wrapper_of(small, spec.design, spec.part, precision, **spec.settings).spec == spec
    assert type(wrapper) is WRAPPERS[key]


def test_what_there_is_not_is_refused(small):
    with pytest.raises(ValueError, match="there is no windowed encoder in float32"):
        wrapper_of(small, "windowed", "encoder")
    with pytest.raises(ValueError, match="there is no windowed decoder in int8"):
        wrapper_of(small, "windowed", precision="int8")
    with pytest.raises(ValueError, match="the exact design has no lookahead_frames"):
        wrapper_of(small, lookahead_frames=4)


def test_fixed_axes_bring_what_the_wrapper_within_brings(small):
    fixed = FixedAxes(wrapper_of(small, precision="int8"), 2)
    assert fixed.translations is Int8StreamingWrapper.translations and fixed.decoder is small.decoder
    assert not hasattr(fixed, "output_error")
