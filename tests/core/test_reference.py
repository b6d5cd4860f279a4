"""The one-shot decoder against upstream's own output, and on configs that are not the official one."""

import numpy as np
import pytest
import torch
from conftest import UPSTREAM, random_codes

from qwen3_codec.model.dimensions import dimensions, stages, state_table
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.model.receptive_field import receptive_field
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper


def test_equals_upstreams_own_decode(upstream):
    codes, waveform = np.load(UPSTREAM / "codes.npy"), np.load(UPSTREAM / "waveform.npy")
    # Another order of the same float32 additions: 5e-6 where it was measured. The limit leaves room for other CPUs.
    assert np.abs(one_shot(upstream.decoder, codes) - waveform).max() < 5e-5


def test_other_configs_decode_causally(other):
    decoder = other.decoder
    codes = random_codes(decoder, 30)
    waveform = one_shot(decoder, codes)
    assert waveform.shape == (1, 30 * decoder.samples_per_frame)
    changed = codes.copy()
    changed[:, 20] = (changed[:, 20] + 1) % decoder.config.codebook_size
    moved = np.abs(one_shot(decoder, changed) - waveform)[0]
    start = 20 * decoder.samples_per_frame
    assert moved[:start].max() < 1e-5 and moved[start : start + decoder.samples_per_frame].max() > 1e-3


def test_rows_of_a_batch_are_independent(small):
    codes = random_codes(small.decoder, 20, batch=3)
    together = one_shot(small.decoder, codes)
    for row in range(3):
        np.testing.assert_allclose(together[row], one_shot(small.decoder, codes[row : row + 1])[0], atol=1e-5)


def test_upstream_quantizer_by_hand(upstream):
    """One frame of the quantizer, written out: sums over clamped counts, two projections, added up."""
    decoder, codes = upstream.decoder, torch.randint(64, (1, 1, 16))
    groups = []
    for rvq, part in ((decoder.quantizer.rvq_first, codes[0, 0, :1]), (decoder.quantizer.rvq_rest, codes[0, 0, 1:])):
        total = torch.zeros(decoder.config.codebook_dim // 2)
        for layer, code in zip(rvq.vq.layers, part, strict=True):
            book = layer._codebook
            total += book.embedding_sum[code] / max(book.cluster_usage[code].item(), 1e-5)
        groups.append(rvq.output_proj.weight[..., 0] @ total)
    torch.testing.assert_close(decoder.quantizer.decode(codes)[0, :, 0], sum(groups), atol=1e-5, rtol=1e-5)


def test_dimensions_agree_and_the_formula_does_not(small):
    rows = {row.name: row for row in dimensions(small.decoder)}
    assert all(row.config == row.weights for row in rows.values())
    assert (rows["head_dim"].config, rows["head_dim"].formula, rows["head_dim"].trap) == (16, 8, True)
    assert rows["codebook_size"].trap and not rows["hidden_size"].trap


def test_dimensions_of_other_configs(other):
    assert all(row.config == row.weights for row in dimensions(other.decoder))


def test_stages_end_at_the_sample_rate(other):
    table = stages(other.decoder)
    assert table[0].rate == pytest.approx(other.sample_rate / other.decoder.samples_per_frame)
    assert (table[-1].channels, table[-1].rate) == (1, other.sample_rate)
    assert table[-1].samples_per_frame == other.decoder.samples_per_frame


def test_receptive_field_at_the_official_rates(small):
    field = receptive_field(small.decoder)
    assert (field.conv_frames, field.first_sample) == (10, 0)
    # 8 layers that each look 71 frames back, and pre_conv 2. What is left of a change after them all is some 1e-16,
    # which float64 just holds: a cast to float32 anywhere would lose some 70 frames of it.
    assert 8 * 71 + 2 - 10 < field.attention_frames <= 8 * 71 + 2


def test_receptive_field_follows_the_rates(other):
    """The convolutional decoder's receptive field, from kernels and rates: another path to the number measured."""
    decoder = other.decoder
    reach, rate = 0.0, 1  # in frames; samples per frame so far
    for ratio in decoder.config.upsampling_ratios:
        rate *= ratio
        reach += 6 / rate
    reach += 6 / rate
    for ratio in decoder.config.upsample_rates:
        reach += 1 / rate
        rate *= ratio
        reach += 6 * (1 + 3 + 9) / rate
    reach += 6 / rate
    measured = receptive_field(decoder)
    # The reach is counted to the last sample that moves; a transposed conv spreads one sample over a whole stride.
    assert abs(measured.conv_samples / rate - (reach + 1)) < 1
    assert measured.attention_frames <= decoder.config.num_hidden_layers * (decoder.config.sliding_window - 1) + 2
    assert decoder.pre_conv.conv.weight.dtype == torch.float32


def test_state_table_adds_up(small):
    spec = StatefulCodecONNXWrapper(small.decoder).spec
    rows = state_table(spec)
    assert len(rows) == 19 and sum(size for _, _, size in rows) == spec.bytes_per_stream()
    assert rows[3][:2] == ("past_key_0", "[batch, 4, 0..72, 16]")
