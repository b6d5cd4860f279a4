"""The training crops: a few frames of some utterance, with everything before them that their sound depends on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ... import demo
from ...model.decoder import CodecDecoder

LENGTH = 40  # frames that the loss compares
# Frames before them that the convolutional decoder gets too: more than its receptive field (about 9 frames). The
# transformer reads the utterance from its first frame: attention, eight windows deep, reaches that far.
CONTEXT = 10


@dataclass(frozen=True)
class Crop:
    """`LENGTH` frames of utterance number `index` from frame `start`. The convolutions begin at frame `first`."""

    index: int
    start: int

    @property
    def first(self) -> int:
        # At the start of an utterance there is less context, and the convolutions pad as they will when they are used.
        return max(0, self.start - CONTEXT)


class Corpus:
    """All codes and recordings of a demo folder as tensors."""

    def __init__(self, folder: Path, samples_per_frame: int):
        self.frame = samples_per_frame
        utterances = demo.utterances(folder)
        self.codes = [torch.from_numpy(utterance.codes) for utterance in utterances]
        self.recordings = [torch.from_numpy(demo.recording(utterance.name, folder)[0]) for utterance in utterances]

    def draw(self, random: np.random.Generator, count: int, weights: Sequence[float] = ()) -> list[Crop]:
        """Random crops: each frame about as likely as any other, times its utterance's weight if there are any."""
        lengths = np.array([len(codes) for codes in self.codes])
        share = lengths * weights if len(weights) else lengths
        crops = []
        for index in random.choice(len(lengths), count, p=share / share.sum()):
            # Half a crop may hang over at both ends and is pushed back in: the ends get their share.
            start = random.integers(-LENGTH // 2, lengths[index] - LENGTH // 2)
            crops.append(Crop(int(index), int(np.clip(start, 0, max(0, lengths[index] - LENGTH)))))
        return crops

    def latents(self, decoder: CodecDecoder, crops: list[Crop]) -> torch.Tensor:
        """What the convolutions read for each crop, [B, latent_dim, CONTEXT + LENGTH]; zeros after the end."""
        ends = {}
        for crop in crops:
            ends[crop.index] = max(ends.get(crop.index, 0), crop.first + CONTEXT + LENGTH)
        whole = {}
        for index, end in ends.items():
            hidden = decoder.pre_conv(decoder.quantizer.decode(self.codes[index][None, :end]))
            whole[index] = decoder.pre_transformer(hidden.transpose(1, 2))[0].T
        parts = [whole[crop.index][:, crop.first : crop.first + CONTEXT + LENGTH] for crop in crops]
        return torch.stack([F.pad(part, (0, CONTEXT + LENGTH - part.shape[1])) for part in parts])

    def cut(self, output: torch.Tensor, crops: list[Crop]) -> torch.Tensor:
        """The part of [B, (CONTEXT + LENGTH) * frame] samples that the loss compares, [B, LENGTH * frame]."""
        parts = []
        for row, crop in zip(output, crops, strict=True):
            offset = (crop.start - crop.first) * self.frame
            valid = min(LENGTH, len(self.codes[crop.index]) - crop.start) * self.frame
            # Beyond the end both sides are zero, so nothing is learned there.
            parts.append(F.pad(row[offset : offset + valid], (0, LENGTH * self.frame - valid)))
        return torch.stack(parts)

    def targets(self, crops: list[Crop]) -> torch.Tensor:
        """The recording of each crop, [B, LENGTH * frame]; zeros after the end."""
        begins = [crop.start * self.frame for crop in crops]
        size = LENGTH * self.frame
        parts = [self.recordings[crop.index][begin : begin + size] for crop, begin in zip(crops, begins, strict=True)]
        return torch.stack([F.pad(part, (0, size - len(part))) for part in parts])
