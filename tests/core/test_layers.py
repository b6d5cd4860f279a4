"""Convolutions of any model with their state, and attention with a window or none, against what they stand for."""

from math import ceil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from transformers.models.mimi.configuration_mimi import MimiConfig
from transformers.models.mimi.modeling_mimi import MimiConvTranspose1d, MimiTransformerModel

from qwen3_codec.model.dimensions import conv_memory
from qwen3_codec.model.inspection.finder import find_states
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.kv_stack import keep_last, stream_layers
from qwen3_codec.streaming.layers import (
    ConvStates,
    StreamingConv1d,
    StreamingConvTranspose1d,
    StreamingSequence,
    to_streaming,
)
from qwen3_codec.streaming.session import TorchSession

ATOL = 1e-5  # some tens of float32 products in another order, of values about 1
SIZES = st.integers(1, 4)


def in_chunks(layer, x, lengths):
    """`x` [B, C, T] through `layer` in chunks, from a state of zeros."""
    state, pieces = torch.zeros(len(x), layer.channels, layer.left_context), []
    for part in x.split(lengths, dim=2):
        convs = ConvStates([state] if layer.left_context else [])
        pieces.append(layer(part, convs))
        (state,) = convs.after or [state]
        assert state.shape == (len(x), layer.channels, layer.left_context)
    return torch.cat(pieces, dim=2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_causal_convolution(data):
    groups, stride, dilation = data.draw(SIZES), data.draw(SIZES), data.draw(SIZES)
    least = max(1, ceil((stride - 1) / dilation) + 1)
    kernel = data.draw(st.integers(least, least + 4))
    bias = data.draw(st.booleans())
    conv = nn.Conv1d(2 * groups, 3 * groups, kernel, stride, dilation=dilation, groups=groups, bias=bias)
    lengths = [stride * steps for steps in data.draw(st.lists(SIZES, min_size=1, max_size=6))]
    x = torch.randn(2, 2 * groups, sum(lengths))
    layer = StreamingConv1d(conv)
    with torch.no_grad():
        # Each output stands at the first of its `stride` new inputs; behind the end only what does nothing is added.
        whole = conv(F.pad(x, (layer.left_context, stride - 1)))
        torch.testing.assert_close(in_chunks(layer, x, lengths), whole, atol=ATOL, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_transposed_convolution_that_is_trimmed_on_the_right(data):
    groups, stride, kernel = data.draw(SIZES), data.draw(SIZES), data.draw(st.integers(1, 11))
    conv = nn.ConvTranspose1d(2 * groups, 3 * groups, kernel, stride, groups=groups, bias=data.draw(st.booleans()))
    lengths = data.draw(st.lists(SIZES, min_size=1, max_size=6))
    x = torch.randn(2, 2 * groups, sum(lengths))
    layer = StreamingConvTranspose1d(conv)
    assert layer.left_context == ceil(kernel / stride) - 1
    with torch.no_grad():
        whole = conv(x)[..., : stride * x.size(2)]
        if kernel < stride:  # the samples behind the last tap are the bias alone
            gap = torch.zeros(3 * groups) if conv.bias is None else conv.bias
            whole = torch.cat([whole, gap[None, :, None].expand(2, -1, stride - kernel)], dim=2)
        torch.testing.assert_close(in_chunks(layer, x, lengths), whole, atol=ATOL, rtol=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: StreamingConv1d(nn.Conv1d(1, 1, 3, padding=1)), "padding"),
        (lambda: StreamingConv1d(nn.Conv1d(1, 1, 3, padding="same")), "padding=same"),
        (lambda: StreamingConv1d(nn.Conv1d(1, 1, 2, stride=3)), "skips samples"),
        (lambda: StreamingConvTranspose1d(nn.ConvTranspose1d(1, 1, 4, 2, padding=1)), "padding or dilation"),
        (lambda: StreamingConvTranspose1d(nn.ConvTranspose1d(1, 1, 4, 2, output_padding=1)), "padding or dilation"),
        (lambda: StreamingConvTranspose1d(nn.ConvTranspose1d(1, 1, 4, 2, dilation=2)), "padding or dilation"),
    ],
)
def test_what_has_no_such_state_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_transposed_convolution_that_cuts_on_the_left_has_no_counterpart():
    cut = MimiConvTranspose1d(MimiConfig(trim_right_ratio=0.5), 2, 2, kernel_size=4, stride=2)
    with pytest.raises(TypeError, match="no streaming counterpart for MimiConvTranspose1d"):
        to_streaming(cut)


def transformer(window, **fields):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = MimiConfig(**sizes, head_dim=8, num_hidden_layers=2, sliding_window=window, **fields)
    config._attn_implementation = "eager"
    model = MimiTransformerModel(config).eval()
    for layer in model.layers:
        layer.self_attn.q_proj.weight.data.mul_(8)  # so that it matters where attention looks
        layer.self_attn_layer_scale.scale.data.fill_(0.5)
    return model


@pytest.mark.parametrize("window", [5, None])
def test_attention_with_a_window_and_with_none(window):
    # Where there is no window, transformers is given one that is longer than anything here.
    model = transformer(window or 1000)
    hidden, keep = torch.randn(2, 23, 32), window and window - 1
    with torch.no_grad():
        whole = model(hidden).last_hidden_state
        model.config = SimpleNamespace(sliding_window=window)
        empty = [torch.zeros(2, 2, 0, 8)] * 2
        keys, values, pieces = empty, empty, []
        for part in hidden.split([1, 7, 1, 2, 12], dim=1):
            made, keys, values = stream_layers(model, part, keys, values, keep)
            pieces.append(made)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=ATOL, rtol=0)
    assert keys[0].shape == (2, 2, keep or 23, 8)


def test_a_rotary_embedding_that_scales_is_refused():
    model = transformer(5)
    model.rotary_emb.attention_scaling = 1.2
    with pytest.raises(ValueError, match=r"scales by 1\.2"):
        stream_layers(model, torch.randn(1, 2, 32), [torch.zeros(1, 2, 4, 8)] * 2, [torch.zeros(1, 2, 4, 8)] * 2, 4)


def test_keeping_all_none_or_some():
    x = torch.arange(5)
    assert [len(keep_last(x, count)) for count in (None, 0, 3, 9)] == [5, 0, 3, 5]


class OutOfOrder(nn.Module):
    """Its parts are registered in another order than the data take, and one of them is used twice."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv1d(4, 2, 5, dilation=3)
        self.up = nn.ConvTranspose1d(4, 4, 7, 3, groups=2, bias=False)
        self.first = nn.Conv1d(4, 4, 1)

    def forward(self, x):
        x = self.first(self.first(x))
        return self.last(self.up(x)[..., : 3 * x.size(-1)])


def test_states_are_found_in_the_order_of_the_data():
    found = find_states(OutOfOrder(), torch.randn(1, 4, 20))
    assert [state.name for state in found] == ["first", "first", "up", "last"]
    assert [state.left_context for state in found] == [0, 0, 2, 12]
    assert [state.steps_per_frame for state in found] == [1, 1, 1, 3]
    assert (found[2].kind, found[2].groups, found[2].bias, found[3].dilation) == ("ConvTranspose1d", 2, False, 3)


def test_the_finder_agrees_with_the_exact_wrapper(small):
    """An independent path to the declaration: hooks on the one-shot decoder against the layers' own left contexts."""
    decoder = small.decoder
    codes = torch.zeros(1, 60, decoder.config.num_quantizers, dtype=torch.int64)
    found = [state for state in find_states(decoder, codes, 60) if state.left_context]
    wrapper = ExactStreamingWrapper(decoder)
    rate = small.sample_rate / decoder.samples_per_frame
    assert [(s.name.removesuffix(".conv"), s.left_context, s.steps_per_frame * rate) for s in found] == conv_memory(
        wrapper
    )


def test_a_streaming_part_stays_as_it_is():
    part = StreamingConv1d(nn.Conv1d(2, 2, 3))
    assert to_streaming(part) is part
    sequence = StreamingSequence([part, nn.ELU()])
    assert sequence.parts[0] is part and to_streaming(sequence) is sequence


def test_a_count_beyond_its_limit_is_refused(small):
    """A codec with several steps a frame, whose count is clamped in steps: the audio is right, the state is not."""

    class CountsTooFar(ExactStreamingWrapper):
        def forward(self, *inputs):
            waveform, count, *rest = super().forward(*inputs)
            return waveform, count + self.spec.limits["past_frames"], *rest

    session = TorchSession(CountsTooFar(small.decoder))
    codes = np.zeros((1, 1, session.spec.num_quantizers), np.int64)
    with pytest.raises(ValueError, match="output next_past_frames is 72, its spec's limit is 71"):
        session.stream().push(codes)


class TestStatesAreHandedOut:
    def test_a_state_that_is_missing_or_left_over_is_named(self):
        conv, x = StreamingConv1d(nn.Conv1d(1, 1, 3)), torch.zeros(1, 1, 4)
        with pytest.raises(ValueError, match="there are 0 states, and one more layer"):
            conv(x, ConvStates([]))
        states = ConvStates(2 * [torch.zeros(1, 1, 2)])
        conv(x, states)
        with pytest.raises(ValueError, match="1 of 2 states were not used"):
            _ = states.after
