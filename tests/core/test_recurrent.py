"""Layers of one's own in a stream: recurrent ones, other counterparts, weight norm, and a spec without attention."""

import copy
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qwen3_codec.exporting.export import export
from qwen3_codec.exporting.tracing import EXPORTERS
from qwen3_codec.model.checkpoint import OtherModel
from qwen3_codec.model.inspection import receptive_field
from qwen3_codec.model.receptive_field import receptive_field as decoders_own
from qwen3_codec.runtime import CodecSession, max_error
from qwen3_codec.spec import exact_spec
from qwen3_codec.streaming import ConvStates, StreamingSequence, states_of, to_streaming
from qwen3_codec.streaming.layers import Stateless, StreamingConv1d, StreamingConvTranspose1d
from qwen3_codec.streaming.recurrent import StreamingGRU, StreamingLSTM
from qwen3_codec.streaming.session import TorchSession
from qwen3_codec.verification.decoder import verify

ATOL = 1e-6
SIZES = st.integers(1, 4)
KINDS = {nn.LSTM: ("lstm_hidden", "lstm_cell"), nn.GRU: ("gru_hidden",)}


def through(layer, x, lengths, states):
    """`x` [B, C, T] in chunks, and the states at the end."""
    pieces = []
    for part in x.split(lengths, dim=2):
        convs = ConvStates(states)
        pieces.append(layer(part, convs))
        states = convs.after
    return torch.cat(pieces, dim=2), states


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_recurrent_layer(kind, data):
    torch.manual_seed(0)
    width, hidden, layers, rows = (data.draw(SIZES) for _ in range(4))
    options = {"bias": data.draw(st.booleans()), "batch_first": data.draw(st.booleans())}
    plain = kind(width, hidden, layers, **options).requires_grad_(False)
    layer = to_streaming(plain)
    assert states_of(layer) == [(name, (layers, hidden)) for name in KINDS[kind]]
    lengths = data.draw(st.lists(SIZES, min_size=1, max_size=6))
    x = torch.randn(rows, width, sum(lengths))
    begin = [torch.randn(layers, rows, hidden) for _ in KINDS[kind]]  # a stream in its middle
    given = x.permute(0, 2, 1) if options["batch_first"] else x.permute(2, 0, 1)
    whole, ends = plain(given, tuple(begin) if len(begin) > 1 else begin[0])
    whole = whole.permute(0, 2, 1) if options["batch_first"] else whole.permute(1, 2, 0)
    found, states = through(layer, x, lengths, [state.transpose(0, 1) for state in begin])
    torch.testing.assert_close(found, whole, atol=ATOL, rtol=0)
    for state, end in zip(states, ends if len(begin) > 1 else [ends], strict=True):
        torch.testing.assert_close(state.transpose(0, 1), end, atol=ATOL, rtol=0)


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"proj_size": 2}])
def test_what_needs_the_future_or_projects_is_refused(options):
    with pytest.raises(ValueError, match="bidirectional, or projects"):
        StreamingLSTM(nn.LSTM(3, 4, **options))


class Config:
    codebook_size, num_quantizers, output_sample_rate = 16, 2, 8000


class Recurrent(nn.Module):
    """Codes -> vectors -> two recurrent layers and what goes around them -> two samples a frame. The reference."""

    def __init__(self, kind):
        super().__init__()
        self.codebook = nn.Embedding(Config.codebook_size, 6)
        self.recurrent = kind(6, 6, 2)
        self.up = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(6, 1, 4, 2))

    def forward(self, codes):
        x = self.codebook(codes).sum(dim=2)
        x = x + self.recurrent(x.transpose(0, 1))[0].transpose(0, 1)
        return torch.tanh(self.up(x.transpose(1, 2))[..., : 2 * codes.size(1)]).squeeze(1)


class Step(nn.Module):
    """Its streaming step, of the parts that are there; it has no attention, so no count of past frames."""

    def __init__(self, model):
        super().__init__()
        self.codebook = model.codebook
        up = StreamingConvTranspose1d(model.up)
        self.residual = StreamingSequence([model.recurrent], shortcut=nn.Identity())
        self.head = StreamingSequence([up, nn.Tanh()], counterparts={nn.Tanh: Stateless})
        self.spec = exact_spec(Config, 2, states_of(self))

    def forward(self, audio_codes, *states):
        convs = ConvStates(states)
        x = self.residual(self.codebook(audio_codes).sum(dim=2).transpose(1, 2), convs)
        return self.head(x, convs)[:, 0], *convs.after


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def model(request):
    torch.manual_seed(0)
    return Recurrent(request.param).requires_grad_(False).eval()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_recurrent_codec_in_both_exporters(model, exporter, tmp_path):
    """Whole against chunks, PyTorch against ONNX Runtime, one frame and many, rows at different offsets."""
    step, other = Step(model).eval(), OtherModel("a recurrent codec", model, {})
    names = [before.name for before, _ in step.spec.states]
    assert names == [f"{kind}_00" for kind in KINDS[type(model.recurrent)]] + ["conv_00"]
    done = export(other, step, tmp_path / "step.onnx", exporter)
    assert done.warnings == () and done.nodes[type(model.recurrent).__name__] == 2
    assert not {"Loop", "Scan", "Sqrt", "ReduceL2"} & {*done.nodes}  # no unrolled layer, no norm left in the graph
    session = CodecSession(done.path, 1)
    codes = np.random.default_rng(0).integers(16, size=(3, 40, 2))
    one_shot = model(torch.from_numpy(codes)).numpy()
    schedules = [[1], [3], [7, 1, 2], [40]]
    report = verify(
        other, step, codes, schedules, session, reference=lambda codes: model(torch.from_numpy(codes)).numpy()
    )
    assert report.passed, str(report)
    old, young = session.stream(), session.stream()
    old.push(codes[:1, :17])
    both = old.join(young).push(np.concatenate([codes[:1, 17:30], codes[1:2, :13]]))
    assert max_error(np.concatenate([one_shot[:1, 34:60], one_shot[1:2, :26]]), both) < 1e-5


class PadsItself(nn.Conv1d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (self.kernel_size[0] - 1, 0)))


class TestCounterparts:
    def test_a_convolution_whose_own_forward_pads_is_padded_once(self):
        conv, x = PadsItself(2, 2, 3).requires_grad_(False), torch.randn(1, 2, 7)
        found, _ = through(to_streaming(conv, {PadsItself: StreamingConv1d}), x, [3, 1, 3], [torch.zeros(1, 2, 2)])
        torch.testing.assert_close(found, conv(x), atol=ATOL, rtol=0)

    def test_a_part_that_takes_states_passes_and_ones_own_come_first(self):
        class Own(nn.Module):
            def forward(self, x, states):
                return x

        own, conv = Own(), StreamingConv1d(nn.Conv1d(1, 1, 3))
        assert to_streaming(own) is own and to_streaming(conv, {StreamingConv1d: lambda _: own}) is own
        with pytest.raises(TypeError, match="no streaming counterpart for Tanh"):
            to_streaming(nn.Tanh())

    def test_inside_a_sequence_and_its_shortcut(self):
        tanh, made = nn.Tanh(), []
        StreamingSequence(
            [tanh, nn.ELU()], shortcut=tanh, counterparts={nn.Tanh: lambda m: made.append(m) or Stateless(m)}
        )
        assert made == [tanh, tanh]


def normalized(conv, old):
    if old:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, and in use
            return nn.utils.weight_norm(conv)
    return nn.utils.parametrizations.weight_norm(conv)


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("conv", "streaming"),
    [
        (nn.Conv1d(4, 6, 3, dilation=2, groups=2), StreamingConv1d),
        (nn.ConvTranspose1d(4, 6, 4, 2, bias=False), StreamingConvTranspose1d),
    ],
)
def test_weight_norm_is_folded_and_the_original_stays(conv, streaming, old):
    x, original = torch.randn(2, 4, 9), normalized(copy.deepcopy(conv), old)
    gain = original.weight_g if old else original.parametrizations.weight.original0
    gain.data.mul_(2)  # as a checkpoint that is loaded: what was computed before is of no use
    model = copy.deepcopy(original) if not old else original
    layer = streaming(model)
    convs = ConvStates(torch.zeros(2, *shape) for _, shape in states_of(layer))
    with torch.no_grad():
        whole = original(nn.functional.pad(x, (4, 0)) if streaming is StreamingConv1d else x)[
            ..., : x.size(2) * (1 if streaming is StreamingConv1d else 2)
        ]
        torch.testing.assert_close(layer(x, convs), whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(model(x), original(x))
    assert not [name for name, _ in layer.named_parameters() if "original" in name or "_g" in name]


def test_a_state_that_is_no_left_context_can_be_lost_or_left_over():
    layer = StreamingGRU(nn.GRU(2, 2))
    with pytest.raises(ValueError, match="there are 0 states, and one more layer"):
        layer(torch.zeros(1, 2, 3), ConvStates([]))


def test_a_recurrent_step_is_random_in_nothing(model):
    assert TorchSession(Step(model)).spec.frames_to_fill == 0


class TestReceptiveField:
    def one_shot(self, model):
        return lambda codes: model(torch.from_numpy(codes)).numpy()

    def test_a_recurrent_model_has_no_end(self, model):
        codes = np.random.default_rng(1).integers(16, size=(1, 60, 2))
        field = receptive_field(self.one_shot(model), codes)
        assert field.first_sample == 0 and field.frames is None
        assert str(field).startswith(f"causal; does not end: recurrent ({type(model.recurrent).__name__.lower()})")

    @torch.no_grad()
    def test_it_agrees_with_the_decoders_own(self, shallow):
        """That one measures convolutional decoder and attention apart; here both count, as a listener has them."""
        decoder, own = shallow.decoder, decoders_own(shallow.decoder)
        frames = own.attention_frames + own.conv_frames + 6
        codes = np.random.default_rng(1).integers(
            decoder.config.codebook_size, size=(1, frames, decoder.config.num_quantizers)
        )
        one_shot = torch.no_grad()(self.one_shot(decoder))
        field = receptive_field(one_shot, codes)
        assert field.first_sample == own.first_sample == 0 and not field.recurrent and not field.cut_off
        assert own.conv_frames <= field.frames <= own.attention_frames + own.conv_frames
        short = receptive_field(one_shot, codes[:, : own.conv_frames])
        assert short.cut_off and short.frames is None and "in the frames that were given" in str(short)

    def test_one_that_looks_ahead_and_one_that_hears_nothing(self):
        def shifted(codes):
            return np.roll(np.repeat(codes[..., 0].astype(float), 2, axis=1), -3, axis=1)

        codes = np.arange(20).reshape(1, 20, 1)
        field = receptive_field(shifted, codes, at=5)
        assert (field.first_sample, field.last_sample, field.frames) == (-3, -2, 0)
        assert str(field) == "looks 3 samples ahead; 0 later frames, the last sample that moves is -2"
        with pytest.raises(ValueError, match="change no sample"):
            receptive_field(lambda codes: np.zeros((1, 40)), codes)
