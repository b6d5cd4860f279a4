"""Traps of the encoder: what a strided convolution pads, how a stream begins and ends, which entry is nearest."""

from collections.abc import Callable

import numpy as np
import torch

from ...model.checkpoint import example_audio, load
from ...model.encoder import CodecEncoder
from ...model.quantizers import NearestVector
from ...streaming.encoder import StreamEncoderWrapper
from ...streaming.layers import StreamingConv1d
from ...streaming.session import TorchSession
from .precision import demo
from .trap import Outcome, Trap, caught_by

FRAMES = 30


def sound() -> np.ndarray:
    """The beginning of the demo's passage."""
    return example_audio(demo(), FRAMES)


def compared(wanted: np.ndarray, found: np.ndarray) -> Outcome:
    """Codes [N, Q]: the error is the share that differs."""
    if wanted.shape != found.shape:
        return Outcome(float("inf"), f"{len(found)} frames, must be {len(wanted)}", "the number of frames")
    wrong = wanted != found
    if not wrong.any():
        return Outcome(0.0, f"all {wrong.size} codes are equal")
    first = f"frame {np.flatnonzero(wrong.any(axis=1))[0]}"
    return Outcome(float(wrong.mean()), f"{wrong.sum()} of {wrong.size} codes differ, first in {first}", first)


@caught_by("the encoder in chunks against the encoder at once: are all codes equal?")
def streamed(make: Callable) -> Outcome:
    """The demo's recording in chunks of 3 frames, against one shot."""
    encoder, audio = demo().encoder, sound()
    wanted = encoder(torch.from_numpy(audio)[None])[0].numpy()
    return compared(wanted, TorchSession(make(encoder)).stream().run(audio, [3])[0])


class PadsKernelLessOne(StreamEncoderWrapper):
    """Every convolution keeps `kernel - 1` samples, the strided ones too."""

    def __init__(self, encoder: CodecEncoder):
        super().__init__(encoder)
        for layer in self.seanet.modules():
            if isinstance(layer, StreamingConv1d) and layer.conv.stride[0] > 1:
                layer.left_context, layer.completion = layer.conv.kernel_size[0] - 1, 0  # trap


class BeginsWithZeros(StreamEncoderWrapper):
    """What stands before the downsampling convolution's first input is zeros, as the states are."""

    def edge(self, hidden, past_frames, past_edge):
        return past_edge  # trap


def zeros_after_the_end(audio: torch.Tensor, frame: int) -> torch.Tensor:
    """Audio [M] that ends inside a frame, as it goes into the encoder."""
    return torch.cat([audio, torch.zeros(-len(audio) % frame)])  # trap


def as_it_is(audio: torch.Tensor, frame: int) -> torch.Tensor:
    """Audio [M] that ends inside a frame, as it goes into the encoder: each layer completes its own input."""
    return audio


@caught_by("a recording that ends inside a frame: its last codes")
def a_last_half_frame(prepare: Callable) -> Outcome:
    """The demo's recording up to the middle of frame 20: the codes of that last frame."""
    encoder = demo().encoder
    audio = torch.from_numpy(sound())[: 20 * encoder.samples_per_frame + encoder.samples_per_frame // 2]
    wanted = encoder(audio[None])[0].numpy()
    return compared(wanted[-1:], encoder(prepare(audio, encoder.samples_per_frame)[None])[0].numpy()[-1:])


def largest_product(table: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """The entry of a codebook [codebook_size, dim] for each residual [dim, N]."""
    return (table @ residual).argmax(dim=0)  # trap


def smallest_distance(table: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """The entry of a codebook [codebook_size, dim] for each residual [dim, N]: |x - e|^2 without |x|^2."""
    return (table @ residual - table.square().sum(dim=1, keepdim=True) / 2).argmax(dim=0)


@caught_by("the codes against the encoder's own")
def every_codebook(choose: Callable) -> Outcome:
    """The choices in all codebooks, each of what those before it leave over; noise, with small random weights."""
    loaded, codes = load("random-small"), []
    encoder, audio = loaded.encoder, torch.from_numpy(example_audio(loaded, FRAMES))[None]
    for group, tables in encoder.groups():
        residual = group.input_proj(encoder.latents(audio))[0]
        for table in tables:
            codes.append(choose(table, residual))
            residual = residual - table[codes[-1]].T
    return compared(encoder(audio)[0].numpy(), torch.stack(codes, dim=1).numpy())


TRAPS = (
    Trap(
        name="a strided convolution that keeps kernel - 1 samples",
        naive=PadsKernelLessOne,
        fix=StreamEncoderWrapper,
        demonstrate=streamed,
        symptoms=("codes",),
        why="With stride s the first output belongs to the first s samples, so the past reaches `kernel - s` back "
        "(and dilation counts). With `kernel - 1` every layer is s - 1 samples late: the codes of other audio.",
        within=0.0,
        code=(PadsKernelLessOne, StreamingConv1d),
        sources=("lucidrains/audiolm-pytorch#166", "acids-ircam/cached_conv#10", "apple/axlearn#801"),
    ),
    Trap(
        name="a stream that begins with zeros where the padding copies the edge",
        naive=BeginsWithZeros,
        fix=StreamEncoderWrapper,
        demonstrate=streamed,
        symptoms=("codes",),
        why="The downsampling convolution pads with copies of the edge, not with zeros. A cold row's edge is its own "
        "first step, row by row; all others carry theirs.",
        within=0.0,
        code=(BeginsWithZeros, StreamEncoderWrapper.edge),
    ),
    Trap(
        name="zeros after the end of the audio",
        naive=zeros_after_the_end,
        fix=as_it_is,
        demonstrate=a_last_half_frame,
        symptoms=("codes",),
        why="Zeros at the waveform's end meet biases and ELU on their way and become something else. Upstream's "
        "convolutions each add zeros on the right of *their own* input, up to a whole step. A right pad of "
        "`stride - 1` does so for any length, with no arithmetic on it.",
        within=0.0,
    ),
    Trap(
        name="the codebook entry with the largest product",
        naive=largest_product,
        fix=smallest_distance,
        demonstrate=every_codebook,
        symptoms=("codes",),
        why="Of entries of one length the largest product is the nearest. These are of many lengths: take half of each "
        "one's squared length off.",
        within=0.0,
        code=(largest_product, NearestVector),
        sources=("lucidrains/vector-quantize-pytorch#120",),
    ),
)
