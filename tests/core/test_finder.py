"""What a model has to remember: contexts against measured influence, and every other memory by name."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from qwen3_codec.model.inspection.finder import find_states

STEPS = 40


class Then(nn.Module):
    """`part`, and a function before it or after it."""

    def __init__(self, part, before=lambda x: x, after=lambda x: x):
        super().__init__()
        self.part, self.before, self.after = part, before, after

    def forward(self, x):
        return self.after(self.part(self.before(x)))


def measured(model, part):
    """(history, lookahead) read off the Jacobian: which inputs an output depends on, away from both ends.

    Output i of a convolution stands for the inputs from i * s to i * s + s - 1, the outputs t * s to t * s + s - 1 of a
    transposed one for input t.
    """
    x = torch.randn(1, part.in_channels, STEPS)
    influence = torch.autograd.functional.jacobian(model, x).abs().sum(dim=(0, 1, 3, 4))
    stride, history, lookahead = part.stride[0], 0, 0
    transposed = isinstance(part, nn.ConvTranspose1d)
    for i in range(len(influence) // 3, len(influence) // 2):
        first, last = (i // stride, i // stride) if transposed else (i * stride, i * stride + stride - 1)
        inputs = influence[i].nonzero()
        history = max(history, first - int(inputs.min()))
        lookahead = max(lookahead, int(inputs.max()) - last)
    return history, lookahead


def conv(kernel, **options):
    return nn.Conv1d(2, 3, kernel, **options)


def transposed(kernel, stride, **options):
    return nn.ConvTranspose1d(2, 3, kernel, stride, **options)


@pytest.mark.parametrize(
    "model",
    [
        Then(conv(5), lambda x: F.pad(x, (4, 0))),
        Then(conv(5, dilation=3), lambda x: F.pad(x, (12, 0))),
        Then(conv(7, stride=2), lambda x: F.pad(x, (5, 0))),
        Then(conv(5, padding=2)),
        Then(conv(5, padding=1, dilation=2)),
        Then(conv(4, padding="same")),
        Then(conv(8, stride=2, padding=3)),
        Then(conv(5), nn.ZeroPad1d((1, 3))),
        Then(conv(5), nn.ReflectionPad1d(2)),
        Then(conv(5, padding=2, padding_mode="circular")),
        Then(conv(5, padding=1), lambda x: F.pad(x, (2, 0))),
        Then(conv(5), lambda x: F.pad(x, (4, 3))[..., :-3]),
        Then(conv(5), lambda x: F.pad(x, (6, 0))[:, :, 3:]),
        Then(conv(5, padding=4), after=lambda y: y[..., :-4]),
        Then(conv(1)),
        Then(transposed(6, 3), after=lambda y: y[..., :-3]),
        Then(transposed(7, 3), after=lambda y: y[..., :-4]),
        Then(transposed(3, 3)),
        Then(transposed(6, 3, padding=1)),
        Then(transposed(8, 4, padding=2)),
        Then(transposed(6, 3), after=lambda y: y[..., 1:-2]),
        Then(transposed(8, 4, padding=1), after=lambda y: y[..., 1:-1]),
        Then(transposed(3, 1, dilation=2)),
    ],
    ids=lambda model: f"{model.part.kernel_size}-{model.part.stride}-{model.part.padding}",
)
def test_contexts_are_those_that_are_measured(model):
    torch.manual_seed(0)
    found = next(state for state in find_states(model, torch.randn(1, 2, STEPS)) if state.left_context is not None)
    assert (found.left_context, found.lookahead) == measured(model, model.part)
    assert (
        found.name == "part" and found.kind == type(model.part).__name__ and found.steps_per_frame in (1, STEPS // 40)
    )


def test_a_causal_model_has_no_lookahead_and_one_without_seen_padding_counts_as_causal():
    joined = Then(conv(5), lambda x: torch.cat([torch.zeros(1, 2, 4), x], dim=2))
    (found,) = find_states(joined, torch.randn(1, 2, STEPS))
    assert (found.left_context, found.lookahead) == measured(joined, joined.part) == (4, 0)
    # What a transposed convolution gives is not padded because its end was cut off.
    pair = nn.Sequential(Then(transposed(6, 3), after=lambda y: y[..., :-3]), nn.Conv1d(3, 2, 5))
    assert [state.left_context for state in find_states(pair, torch.randn(1, 2, STEPS))] == [1, 4]


@pytest.mark.parametrize("normed", [parametrizations.weight_norm, nn.utils.weight_norm], ids=["new", "old"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weight_norm_does_not_change_the_kind(normed):
    model = nn.Sequential(normed(conv(3)), normed(nn.ConvTranspose1d(3, 2, 4, 2)))
    found = find_states(model, torch.randn(1, 2, STEPS))
    assert [(state.name, state.kind, state.left_context) for state in found] == [
        ("0", "Conv1d", 2),
        ("1", "ConvTranspose1d", 1),
    ]


class Kept(nn.Module):
    """A causal filter that keeps its past itself."""

    def __init__(self):
        super().__init__()
        self.register_buffer("past", torch.zeros(1, 2, 1))

    def forward(self, x):
        joined = torch.cat([self.past, x], dim=2)
        self.past = joined[..., -1:]
        return joined[..., 1:] + joined[..., :-1]


class KeptInAList(nn.Module):
    def __init__(self):
        super().__init__()
        self.cache = []

    def forward(self, x):
        self.cache.append(x[..., -1:])
        return x


class Counts(nn.Module):
    """A number of Python's: no tensor changes."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class TableAtFirstCall(nn.Module):
    """Not a state: it is made once."""

    table = None

    def forward(self, x):
        self.table = torch.ones(2, 1) if self.table is None else self.table
        return x * self.table


class Attention(nn.Module):
    """As eager attention is written out."""

    def forward(self, x):
        weights = (x.transpose(1, 2) @ x).softmax(dim=-1)
        return x @ weights.transpose(1, 2)


def last(part):
    """`part` on [B, T, C]."""
    return Then(part, lambda x: x.transpose(1, 2), lambda y: (y[0] if isinstance(y, tuple) else y).transpose(1, 2))


class AttendsToItself(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x)[0]


class CellInALoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(2, 2)

    def forward(self, x):
        h, steps = None, []
        for step in x.unbind(dim=2):
            steps.append(h := self.cell(step, h))
        return torch.stack(steps, dim=2)


RECURRENT = "a recurrent layer"


@pytest.mark.parametrize(
    ("part", "name", "kind", "words"),
    [
        (last(nn.LSTM(2, 2, batch_first=True)), "0.part", "LSTM", RECURRENT),
        (last(nn.GRU(2, 2, batch_first=True)), "0.part", "GRU", RECURRENT),
        (last(nn.RNN(2, 2, batch_first=True)), "0.part", "RNN", RECURRENT),
        (CellInALoop(), "0.cell", "GRUCell", RECURRENT),
        (last(AttendsToItself(2, 1, batch_first=True)), "0.part", "AttendsToItself", "attention"),
        (last(nn.TransformerEncoderLayer(2, 1, 4)), "0.part.self_attn", "MultiheadAttention", "attention"),
        (Attention(), "0", "Attention", "attention"),
        (Then(nn.Identity(), lambda x: F.scaled_dot_product_attention(x, x, x)), "0", "Then", "attention"),
        (nn.ReflectionPad1d((2, 0)), "0", "ReflectionPad1d", "pads with reflect"),
        (nn.ReplicationPad1d((2, 0)), "0", "ReplicationPad1d", "pads with replicate"),
        (nn.ConstantPad1d((2, 0), 0.5), "0", "ConstantPad1d", "pads with the number 0.5"),
        (nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), "0", "Conv1d", "pads with circular"),
        (Then(nn.Identity(), lambda x: F.pad(x, (3, 0), "reflect")), "0", "Then", "pads with reflect"),
        (Then(nn.Conv2d(1, 1, (1, 3)), lambda x: x[:, None], lambda y: y[:, 0]), "0.part", "Conv2d", "several axes"),
        (nn.GroupNorm(1, 2), "0", "GroupNorm", "later ones too"),
        (nn.InstanceNorm1d(2), "0", "InstanceNorm1d", "later ones too"),
        (nn.BatchNorm1d(2, track_running_stats=False), "0", "BatchNorm1d", "later ones too"),
        (Then(nn.Identity(), lambda x: x - x.mean(dim=-1, keepdim=True)), "0", "Then", "one value for all steps"),
        (Then(nn.Identity(), lambda x: x.cumsum(dim=-1)), "0", "Then", "so far"),
        (nn.AvgPool1d(2), "0", "AvgPool1d", "several steps"),
        (nn.Upsample(scale_factor=2, mode="linear"), "0", "Upsample", "several steps"),
        (Kept(), "0", "Kept", "past changes from run to run"),
        (KeptInAList(), "0", "KeptInAList", "cache changes from run to run"),
        (Counts(), "", "Sequential", "another result the second time"),
        (nn.Dropout(0.5).train(), "", "Sequential", "another result the second time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_every_other_memory_is_named(part, name, kind, words):
    torch.manual_seed(0)
    model = nn.Sequential(part)
    if not isinstance(part, nn.Dropout):
        model.eval()
    found = [state for state in find_states(model, torch.randn(1, 2, STEPS)) if state.left_context is None]
    assert [(state.name, state.kind) for state in found] == [(name, kind)]
    assert words in found[0].why


@pytest.mark.parametrize(
    "part",
    [
        nn.Linear(STEPS, STEPS),
        last(nn.LayerNorm(2)),
        nn.BatchNorm1d(2).eval(),
        nn.Upsample(scale_factor=2),
        nn.Dropout(0.5).eval(),
        TableAtFirstCall(),
        Then(nn.ELU(), lambda x: F.pad(x, (0, 0), "reflect")),
        last(Then(nn.Identity(), lambda x: x / x.pow(2).mean(dim=-1, keepdim=True).sqrt())),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_works_on_each_step_alone_is_not_named(part):
    assert find_states(part.eval(), torch.randn(1, 2, STEPS)) == []


def test_a_foreign_decoder_with_a_recurrent_layer():
    """EnCodec's, as transformers has it: an LSTM, mirrored padding, weight norm; and the one that looks ahead."""
    from transformers import EncodecConfig, EncodecModel

    sizes = {"hidden_size": 8, "num_filters": 2, "codebook_size": 4, "codebook_dim": 8, "upsampling_ratios": [4, 2]}
    for causal, contexts in ((True, (6, 0)), (False, (3, 3))):
        model = EncodecModel(EncodecConfig(**sizes, use_causal_conv=causal)).eval()
        found = find_states(model.decoder, torch.randn(1, 8, 31))
        by_name = {state.name: state for state in found}
        assert by_name["layers.1.lstm"].kind == "LSTM" and by_name["layers.1.lstm"].left_context is None
        assert by_name["layers.0"].why == "pads with reflect, not with zeros"
        first = by_name["layers.0.conv"]
        assert (first.kind, first.left_context, first.lookahead) == ("Conv1d", *contexts)
        assert {state.kind for state in found if state.left_context is not None} == {"Conv1d", "ConvTranspose1d"}


def test_nothing_is_left_behind():
    """No hook stays, also after an error."""
    model = nn.Sequential(conv(3))
    find_states(model, torch.randn(1, 2, STEPS))

    def fails(x):
        model(x)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        find_states(model, torch.randn(1, 2, STEPS), run=fails)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
