"""Steps with one mistake each, as someone who changes the step might make it: what `judge` is tried on."""

import json
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from qwen3_codec import ExactStreamingWrapper, StatefulCodecONNXWrapper
from qwen3_codec.spec import StateSpec
from qwen3_codec.streaming.kv_stack import TraceableKVStack, keep_last, sliding_window_mask
from qwen3_codec.streaming.layers import ConvStates


def at(outputs, spec, name):
    """The place of an output."""
    return [tensor.name for tensor in spec.all_outputs].index(name)


def replaced(outputs, spec, **changes):
    outputs = list(outputs)
    for name, change in changes.items():
        place = at(outputs, spec, name)
        outputs[place] = change(outputs[place])
    return tuple(outputs)


# ---- what is carried on --------------------------------------------------------------------------


class ContextTooShort(ExactStreamingWrapper):
    """The next left context is one entry too short, filled up with a zero."""

    def forward(self, *inputs):
        return replaced(super().forward(*inputs), self.spec, next_conv_02=lambda x: F.pad(x[:, :, 1:], (1, 0)))


class ContextReadTooShort(ExactStreamingWrapper):
    """The oldest entry of a left context is not read."""

    def forward(self, codes, past_frames, *states):
        states = list(states)
        states[2] = F.pad(states[2][:, :, 1:], (1, 0))
        return super().forward(codes, past_frames, *states)


class OldStateHandedBack(ExactStreamingWrapper):
    def forward(self, codes, past_frames, *states):
        return replaced(super().forward(codes, past_frames, *states), self.spec, next_conv_02=lambda x: states[2])


class OldKeysHandedBack(ExactStreamingWrapper):
    def forward(self, codes, past_frames, *states):
        old = states[len(self.conv_layers) + 1]
        return replaced(super().forward(codes, past_frames, *states), self.spec, next_key_01=lambda x: old)


class StatesSwapped(ExactStreamingWrapper):
    def forward(self, *inputs):
        outputs = list(super().forward(*inputs))
        one, other = (at(outputs, self.spec, name) for name in ("next_key_00", "next_value_00"))
        outputs[one], outputs[other] = outputs[other], outputs[one]
        return tuple(outputs)


class StatesReadSwapped(ExactStreamingWrapper):
    def forward(self, codes, past_frames, *states):
        states, key = list(states), len(self.conv_layers)
        states[key], states[key + 1] = states[key + 1], states[key]
        return super().forward(codes, past_frames, *states)


class StateScaled(ExactStreamingWrapper):
    def forward(self, *inputs):
        return replaced(super().forward(*inputs), self.spec, next_conv_01=lambda x: 1.01 * x)


class StateLost(ExactStreamingWrapper):
    def forward(self, *inputs):
        return replaced(super().forward(*inputs), self.spec, next_value_01=torch.zeros_like)


class StateShifted(ExactStreamingWrapper):
    """The newest entry is left out: what is carried on is one too old."""

    def forward(self, codes, past_frames, *states):
        new = super().forward(codes, past_frames, *states)
        return replaced(new, self.spec, next_conv_02=lambda x: torch.cat([states[2][:, :, -1:], x], 2)[:, :, :-1])


class HalfPrecisionState(ExactStreamingWrapper):
    def forward(self, *inputs):
        return replaced(super().forward(*inputs), self.spec, next_conv_02=lambda x: x.half().float())


class ChannelsFlipped(ExactStreamingWrapper):
    def forward(self, *inputs):
        return replaced(super().forward(*inputs), self.spec, next_conv_03=lambda x: x.flip(1))


class ChannelsReshaped(ExactStreamingWrapper):
    """`reshape` in the place of `transpose`: the values of a state are right, and not where they belong."""

    def forward(self, *inputs):
        return replaced(super().forward(*inputs), self.spec, next_conv_02=lambda x: x.transpose(1, 2).reshape(x.shape))


class CountNotClamped(ExactStreamingWrapper):
    def forward(self, codes, past_frames, *states):
        new = super().forward(codes, past_frames, *states)
        return replaced(new, self.spec, next_past_frames=lambda x: past_frames + codes.size(1))


class CountsCalls(ExactStreamingWrapper):
    """The count goes up by one a call, whatever the call holds."""

    def forward(self, codes, past_frames, *states):
        keep = self.decoder.config.sliding_window - 1
        new = super().forward(codes, past_frames, *states)
        return replaced(new, self.spec, next_past_frames=lambda x: (past_frames + 1).clamp(max=keep))


class CountBackToZero(ExactStreamingWrapper):
    """The count begins anew when the cache is full."""

    def forward(self, *inputs):
        keep = self.decoder.config.sliding_window - 1
        return replaced(super().forward(*inputs), self.spec, next_past_frames=lambda x: x % keep)


# ---- attention -----------------------------------------------------------------------------------


class WithParts(ExactStreamingWrapper):
    parts: ClassVar[dict] = {}

    def transform(self, *inputs, **others):
        return super().transform(*inputs, **others, **self.parts)


def off_by_one(positions, past, window, dtype, past_frames=None):
    return sliding_window_mask(positions, past, window + 1, dtype, past_frames)


def one_too_few(positions, past, window, dtype, past_frames=None):
    return sliding_window_mask(positions, past, window - 1, dtype, past_frames)


def sees_the_next(positions, past, window, dtype, past_frames=None):
    visible = sliding_window_mask(positions, past, window, dtype, past_frames)
    return visible.masked_fill((positions[past:, None] - positions[None, :] == -1)[None, None], 0.0)


def counts_empty_slots(positions, past, window, dtype, past_frames=None):
    return sliding_window_mask(positions, past, window, dtype)


def infinite(positions, past, window, dtype, past_frames=None):
    """-inf in place of the lowest number, and the query's own frame is hidden too."""
    visible = sliding_window_mask(positions, past, window, dtype, past_frames)
    visible = visible.masked_fill(positions[past:, None] == positions[None, :], torch.finfo(dtype).min)
    return torch.where(visible < 0, torch.full_like(visible, -torch.inf), visible)


class PostRope(TraceableKVStack):
    def update(self, keys, values, layer, *args, **kwargs):
        keys = torch.cat([self.keys[layer], keys], dim=2)
        values = torch.cat([self.values[layer], values], dim=2)
        self.keys[layer], self.values[layer] = (keep_last(each, self.keep, dim=2) for each in (keys, values))
        return keys, values


class TrimmedBefore(TraceableKVStack):
    """Old entries are hidden that trimming before attention would have removed."""

    def update(self, keys, values, layer, *args, **kwargs):
        keys, values = super().update(keys, values, layer)
        gone = (torch.arange(keys.size(2)) < keys.size(2) - self.keep)[:, None]
        return keys.masked_fill(gone, 0.0), values.masked_fill(gone, 0.0)


class MaskOffByOne(WithParts):
    parts: ClassVar[dict] = {"mask": off_by_one}


class MaskOneTooFew(WithParts):
    parts: ClassVar[dict] = {"mask": one_too_few}


class MaskSeesTheNext(WithParts):
    parts: ClassVar[dict] = {"mask": sees_the_next}


class EmptySlotsCounted(WithParts):
    parts: ClassVar[dict] = {"mask": counts_empty_slots}


class MaskIsInfinite(WithParts):
    parts: ClassVar[dict] = {"mask": infinite}


class PostRopeKeys(WithParts):
    parts: ClassVar[dict] = {"stack_type": PostRope}


class SaturatingPositions(StatefulCodecONNXWrapper):
    def _transform(self, *inputs):
        return super()._transform(*inputs, stack_type=PostRope)


def of_what_is_left(positions, past, window, dtype, past_frames=None):
    return keep_last(sliding_window_mask(positions, past, window, dtype), window)


class TrimmedToTheWindow(TraceableKVStack):
    def update(self, keys, values, layer, *args, **kwargs):
        keys, values = super().update(keys, values, layer)
        return keep_last(keys, self.keep, dim=2), keep_last(values, self.keep, dim=2)


class TrimmedBeforeAttention(StatefulCodecONNXWrapper):
    def _transform(self, *inputs):
        return super()._transform(*inputs, stack_type=TrimmedToTheWindow, mask=of_what_is_left)


class FirstRowsOffset(ExactStreamingWrapper):
    """One row's count is taken for all."""

    def transform(self, hidden, keys, values, past_frames, **parts):
        return super().transform(hidden, keys, values, past_frames[:1].expand_as(past_frames), **parts)


class OtherScale(ExactStreamingWrapper):
    """A norm with another epsilon."""

    def transform(self, hidden, *others, **parts):
        norm = self.decoder.pre_transformer.norm
        before, norm.variance_epsilon = norm.variance_epsilon, 1e-2
        try:
            return super().transform(hidden, *others, **parts)
        finally:
            norm.variance_epsilon = before


# ---- the convolutional decoder -------------------------------------------------------------------


class ClampTooMany(ExactStreamingWrapper):
    def decode_latents(self, latents, convs):
        return super().decode_latents(latents.clamp(-0.5, 0.5), convs)


class CodesCut(ExactStreamingWrapper):
    """The codebook's last entry is never read."""

    def forward(self, codes, *rest):
        return super().forward(codes.clamp(max=self.decoder.config.codebook_size - 2), *rest)


class FirstCallSilent(ExactStreamingWrapper):
    """The latents of a stream's first call are zeros."""

    def transform(self, hidden, keys, values, past_frames, **parts):
        latents, *states = super().transform(hidden, keys, values, past_frames, **parts)
        return torch.where((past_frames == 0)[:, :, None], torch.zeros_like(latents), latents), *states


class QuietClamp(ExactStreamingWrapper):
    """A clamp that the codes do not reach."""

    def decode_latents(self, latents, convs):
        hidden = latents.transpose(1, 2)
        for stage in self.stages[:-1]:
            hidden = stage(hidden, convs)
        return self.stages[-1](hidden.clamp(-20, 20), convs).squeeze(1).clamp(-1, 1)


class BiasTwice(ExactStreamingWrapper):
    def decode_latents(self, latents, convs):
        hidden = self.stages[0](latents.transpose(1, 2), convs)
        hidden = hidden + self.decoder.upsample[0][0].conv.bias[:, None]
        for stage in self.stages[1:]:
            hidden = stage(hidden, convs)
        return hidden.squeeze(1).clamp(-1, 1)


class HalfPrecision(ExactStreamingWrapper):
    def decode_latents(self, latents, convs):
        return super().decode_latents(latents.half().float(), convs)


class LooksAhead(ExactStreamingWrapper):
    """A convolution padded on both sides in each chunk: it sees samples that have not come."""

    def decode_latents(self, latents, convs):
        hidden = latents.transpose(1, 2)
        for stage in self.stages[:-1]:
            hidden = stage(hidden, convs)
        last = self.stages[-1]
        joined = convs.extend(hidden, last.left_context)
        ahead = last.left_context // 2
        return last.conv(F.pad(joined[:, :, ahead:], (0, ahead))).squeeze(1).clamp(-1, 1)


class Dropout(ExactStreamingWrapper):
    def decode_latents(self, latents, convs):
        return super().decode_latents(F.dropout(latents, 0.1), convs)


class InTrainingMode(ExactStreamingWrapper):
    def __init__(self, decoder):
        super().__init__(decoder)
        self.dropout = nn.Dropout(0.1)

    def decode_latents(self, latents, convs):
        return super().decode_latents(self.dropout(latents), convs)


class SamplesMissing(ExactStreamingWrapper):
    def forward(self, *inputs):
        waveform, *rest = super().forward(*inputs)
        return waveform[:, :-1], *rest


class Louder(ExactStreamingWrapper):
    def forward(self, *inputs):
        waveform, *rest = super().forward(*inputs)
        return 0.9 * waveform, *rest


# ---- Python where tensors belong -----------------------------------------------------------------


class LengthAsInteger(ExactStreamingWrapper):
    def forward(self, codes, past_frames, *states):
        new = super().forward(codes, past_frames, *states)
        keep = self.decoder.config.sliding_window - 1
        frames = int(codes.size(1))
        return replaced(new, self.spec, next_past_frames=lambda x: (past_frames + frames).clamp(max=keep))


class FirstCallBranch(ExactStreamingWrapper):
    """A special case for the first call: right in PyTorch, and a graph has the traced branch alone."""

    def forward(self, codes, past_frames, *states):
        if past_frames.max() == 0:
            states = [torch.zeros_like(state) for state in states]
        else:
            states = [state + 0 for state in states]
            codes = codes * 1
        waveform, *rest = super().forward(codes, past_frames, *states)
        return (waveform if past_frames.max() == 0 else waveform * 1), *rest


class FirstCallFlag(ExactStreamingWrapper):
    """The module remembers whether it was called."""

    def __init__(self, decoder):
        super().__init__(decoder)
        self.called = False

    def forward(self, codes, past_frames, *states):
        if not self.called:
            states = [torch.zeros_like(state) for state in states]
        self.called = True
        return super().forward(codes, past_frames, *states)


class Buffer(ExactStreamingWrapper):
    """A state lies in a buffer of the module: two streams disturb one another."""

    def __init__(self, decoder):
        super().__init__(decoder)
        (before, _) = self.spec.states[2]
        self.register_buffer("kept", torch.zeros(1, *before.shape[1:]), persistent=False)

    def forward(self, codes, past_frames, *states):
        states = list(states)
        states[1] = torch.where(past_frames[:, :, None] > 0, self.kept, states[1])
        outputs = super().forward(codes, past_frames, *states)
        self.kept = outputs[at(outputs, self.spec, "next_conv_01")].clone()
        return outputs


class InPlace(ExactStreamingWrapper):
    def forward(self, codes, past_frames, *states):
        outputs = super().forward(codes, past_frames, *states)
        states[0].copy_(outputs[2])
        return outputs


class StateMissing(ExactStreamingWrapper):
    def forward(self, *inputs):
        return super().forward(*inputs)[:-1]


class DoublePrecision(ExactStreamingWrapper):
    def forward(self, *inputs):
        return replaced(super().forward(*inputs), self.spec, next_conv_00=lambda x: x.double())


class WrongShape(ExactStreamingWrapper):
    def forward(self, *inputs):
        return replaced(super().forward(*inputs), self.spec, next_conv_03=lambda x: x[:, :, 1:])


class BatchSqueezed(ExactStreamingWrapper):
    """Right for one row: the last squeeze has no axis, and is undone for a batch of one."""

    def forward(self, *inputs):
        waveform, *rest = super().forward(*inputs)
        return waveform.reshape(1, -1), *rest


class RowsMixed(ExactStreamingWrapper):
    """Something is averaged over the batch."""

    def decode_latents(self, latents, convs):
        return super().decode_latents(latents - latents.mean() + latents.mean(dim=(1, 2), keepdim=True), convs)


class Raises(ExactStreamingWrapper):
    """Fails where a chunk is shorter than three frames."""

    def forward(self, codes, *rest):
        codes = codes[:, [0, 1, 2]] if codes.size(1) == 3 else codes
        if codes.size(1) == 2:
            codes = codes.view(-1, 7)
        return super().forward(codes, *rest)


class Decoder(ExactStreamingWrapper):
    """Changes weights of the decoder that it was given."""

    def __init__(self, decoder):
        super().__init__(decoder)
        decoder.pre_conv.conv.weight.data.mul_(1.01)


# ---- right ---------------------------------------------------------------------------------------


class Detached(ExactStreamingWrapper):
    def forward(self, *inputs):
        return tuple(output.detach() for output in super().forward(*inputs))


class OwnQuantizer(ExactStreamingWrapper):
    """Another way to the same sums."""

    def forward(self, codes, past_frames, *states):
        hidden = self.decoder.quantizer.decode(codes)
        layers = len(self.decoder.pre_transformer.layers)
        convs = ConvStates(states[: -2 * layers])
        hidden = self.pre_conv(hidden, convs).transpose(1, 2)
        latents, keys, values = self.transform(hidden, states[-2 * layers : -layers], states[-layers:], past_frames)
        waveform = self.decode_latents(latents, convs)
        count = (past_frames + codes.size(1)).clamp(max=self.decoder.config.sliding_window - 1)
        return waveform, count, *convs.after, *keys, *values


# ---- the windowed design -------------------------------------------------------------------------


class HistoryTooShort(StatefulCodecONNXWrapper):
    """The next left context of the convolutional decoder is one frame too short."""

    def forward(self, *inputs):
        return replaced(super().forward(*inputs), self.spec, next_conv_h=lambda x: x[:, :, 1:])


class HistoryFromNewFrames(StatefulCodecONNXWrapper):
    """The next `pre_conv_h` is cut from the new frames alone."""

    def forward(self, codes, *rest):
        new = self.decoder.quantizer.decode(codes)
        context = self.decoder.pre_conv.left_context
        return replaced(super().forward(codes, *rest), self.spec, next_pre_conv_h=lambda x: keep_last(new, context))


class ValidSamplesOfOneFrameMore(StatefulCodecONNXWrapper):
    def forward(self, *inputs):
        per_frame = self.decoder.samples_per_frame
        return replaced(super().forward(*inputs), self.spec, valid_samples=lambda x: x + per_frame)


class WindowedKeysSwapped(StatefulCodecONNXWrapper):
    def forward(self, *inputs):
        outputs = list(super().forward(*inputs))
        one, other = (at(outputs, self.spec, name) for name in ("next_key_0", "next_key_1"))
        outputs[one], outputs[other] = outputs[other], outputs[one]
        return tuple(outputs)


# ---- states that are not the package's -----------------------------------------------------------


class OtherStore(ExactStreamingWrapper):
    """A left context is stored upside down: the states are others, the audio is right."""

    def forward(self, codes, past_frames, *states):
        states = list(states)
        states[2] = -states[2]
        return replaced(super().forward(codes, past_frames, *states), self.spec, next_conv_02=lambda x: -x)


class OtherNames(ExactStreamingWrapper):
    """The states have other names."""

    def __init__(self, decoder):
        super().__init__(decoder)
        renamed = json.loads(self.spec.to_json().replace("conv_", "context_"))
        self.spec = StateSpec.from_json(json.dumps(renamed))

    @property
    def spec(self):
        return self.__dict__["declared"] if "declared" in self.__dict__ else super().spec

    @spec.setter
    def spec(self, value):
        self.__dict__["declared"] = value


class ReturnsNothing(ExactStreamingWrapper):
    def forward(self, *inputs):
        super().forward(*inputs)


class ReturnsArrays(ExactStreamingWrapper):
    def forward(self, *inputs):
        return tuple(output.numpy() for output in super().forward(*inputs))
