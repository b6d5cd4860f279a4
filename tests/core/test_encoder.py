"""The encoder: upstream's codes in one shot, and the same codes from any cut of the waveform into chunks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint.config import small_config
from qwen3_codec.model.checkpoint.encoder_config import ENCODER_DEFAULTS
from qwen3_codec.runtime.metrics import MAX_ERROR
from qwen3_codec.streaming.encoder import StreamEncoderWrapper

FOLDER = Path(__file__).parents[1] / "upstream_encoder"
# Latents reach 14 here: float32 rounding of some thirty layers, added up in another order.
# The two best entries are that near, in squared distance over its size, where rounding may choose either.
NEAR_TIE = 1e-5


@pytest.fixture(scope="module")
def upstream():
    return checkpoint.load(FOLDER)


@pytest.fixture(scope="module")
def audio():
    return torch.from_numpy(np.load(FOLDER / "audio.npy"))[None]


@pytest.fixture(scope="module")
def wrapper(upstream):
    return StreamEncoderWrapper(upstream.encoder)


def noise(batch, samples, seed=0):
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def run(step, spec, audio, lengths, state=None):
    """Outputs of `step` over `audio` cut at `lengths` samples (the rest at once), joined along the last axis but
    one or two, and the last state."""
    state = [torch.from_numpy(array) for array in (state or spec.zero_state(len(audio))).values()]
    pieces = []
    while audio.shape[1]:
        length = next(lengths, audio.shape[1])
        piece, *state = step(audio[:, :length], *state)
        pieces.append(piece)
        audio = audio[:, length:]
    return pieces, state


def in_frames(wrapper, *frames):
    return iter([frame * wrapper.encoder.samples_per_frame for frame in frames] * 1000)


def latents(wrapper, audio, lengths, state=None):
    pieces, state = run(wrapper.latents, wrapper.spec, audio, lengths, state)
    return torch.cat(pieces, dim=2), state


def assert_close(expected, found):
    error = ((expected - found).abs().max() / max(1.0, expected.abs().max())).item()
    assert error <= MAX_ERROR, error


def test_upstreams_codes_in_one_shot(upstream, audio):
    codes = upstream.encoder(audio)[0].numpy()
    np.testing.assert_array_equal(codes, np.load(FOLDER / "encoded.npy"))


@pytest.mark.parametrize("frames", [(1,), (3,), (7, 1, 2), (1000,)], ids=str)
def test_upstreams_codes_from_any_schedule(wrapper, audio, frames):
    pieces, _ = run(wrapper, wrapper.spec, audio, in_frames(wrapper, *frames))
    np.testing.assert_array_equal(torch.cat(pieces, dim=1)[0].numpy(), np.load(FOLDER / "encoded.npy"))


@pytest.mark.parametrize("samples", [1, 959, 961, 1919, 1920, 1921, 7000])
def test_a_last_call_that_ends_inside_a_frame(upstream, wrapper, audio, samples):
    audio = audio[:, :samples]
    found, _ = latents(wrapper, audio, in_frames(wrapper, 1))
    assert found.shape[2] == -(-samples // upstream.encoder.samples_per_frame)
    assert_close(upstream.encoder.latents(audio), found)


def test_past_the_window_with_rows_at_different_offsets(upstream, wrapper):
    """A row that begins and a row that is older than the window, in the same calls."""
    frame = upstream.encoder.samples_per_frame
    old, young = noise(1, 300 * frame, 1), noise(1, 160 * frame, 2)
    _, warm = latents(wrapper, old[:, : 140 * frame], in_frames(wrapper, 7, 1, 2))
    zero = wrapper.spec.zero_state().values()
    both = [torch.cat([a, torch.from_numpy(b)]) for a, b in zip(warm, zero, strict=True)]
    names = wrapper.spec.zero_state()
    state = {name: array.numpy() for name, array in zip(names, both, strict=True)}
    rest = torch.cat([old[:, 140 * frame :], young])
    found, _ = latents(wrapper, rest, in_frames(wrapper, 5, 1), state)
    assert_close(upstream.encoder.latents(old)[..., 140:], found[:1])
    assert_close(upstream.encoder.latents(young), found[1:])


def test_states_agree_from_a_random_state(wrapper):
    """All at once and cut into chunks end in the same state, from one that is full of normal random values."""
    spec, rng = wrapper.spec, np.random.default_rng(0)
    state = {name: rng.standard_normal(array.shape).astype(array.dtype) for name, array in spec.zero_state(3).items()}
    state["past_frames"] = np.array([[0], [40], [spec.limits["past_frames"]]])
    audio = noise(3, 12 * wrapper.encoder.samples_per_frame)
    whole, expected = latents(wrapper, audio, iter(()), state)
    cut, found = latents(wrapper, audio, in_frames(wrapper, 1, 3), state)
    for before, after in zip([whole, *expected], [cut, *found], strict=True):
        assert_close(before, after)


OTHERS = {
    "one-kv-head": {"num_key_value_heads": 1},
    "eight-of-twelve": {"num_quantizers": 12},
    "two-residual-layers": {"num_residual_layers": 2, "num_filters": 4},
    "shortcut": {"use_conv_shortcut": True},
    "window-7": {"sliding_window": 7, "head_dim": 6},
    "other-rates": {"upsampling_ratios": [5, 3], "kernel_size": 5},
    "bias": {"attention_bias": True},
}


@pytest.fixture(scope="module", params=OTHERS)
def other(request):
    config = small_config()
    config["encoder_config"] = fields = {**ENCODER_DEFAULTS, **config["encoder_config"], **OTHERS[request.param]}
    config["encoder_valid_num_quantizers"] = 8
    config["encode_downsample_rate"] = 2 * int(np.prod(fields["upsampling_ratios"]))
    return checkpoint.random_checkpoint(config, source=request.param).encoder


def test_other_configs(other):
    wrapper = StreamEncoderWrapper(other)
    audio = noise(2, 40 * other.samples_per_frame + other.samples_per_frame // 3)
    codes = other(audio)
    assert codes.shape == (2, 41, 8) and len(codes[..., 0].unique()) > 3
    found, _ = latents(wrapper, audio, in_frames(wrapper, 3, 1, 12))
    assert_close(other.latents(audio), found)
    pieces, _ = run(wrapper, wrapper.spec, audio, in_frames(wrapper, 3, 1, 12))
    assert (torch.cat(pieces, dim=1) == codes).float().mean() >= 0.99


@settings(max_examples=25, deadline=None)
@given(frames=st.lists(st.integers(1, 9), min_size=1, max_size=5), samples=st.integers(1, 40 * 1920))
def test_random_schedules(upstream, wrapper, frames, samples):
    audio = noise(1, samples, seed=samples)
    found, _ = latents(wrapper, audio, in_frames(wrapper, *frames))
    assert_close(upstream.encoder.latents(audio), found)
