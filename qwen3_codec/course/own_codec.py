"""A template: copy this file, put your codec into the three places that are marked, and run it.

    python own_codec.py

It prints how far a frame reaches, what has to be remembered, and whether PyTorch and both exporters' graphs agree with
the one-shot decoder, each state ablated. As it comes it does all that on a small codec that stands for yours.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from qwen3_codec import OtherModel, StreamingConv1d, StreamingConvTranspose1d, export, find_states, parity, verify
from qwen3_codec.model.inspection import receptive_field
from qwen3_codec.spec import exact_spec
from qwen3_codec.streaming import ConvStates, StreamingSequence, states_of
from qwen3_codec.streaming.layers import Stateless

# --- 1. YOUR MODEL: the one-shot decoder, and how it is called ---


class Causal(nn.Conv1d):
    def forward(self, x):
        return super().forward(F.pad(x, (self.dilation[0] * (self.kernel_size[0] - 1), 0)))


class Upsample(nn.ConvTranspose1d):
    def forward(self, x):
        return super().forward(x)[..., : self.stride[0] * x.size(2)]


class Decoder(nn.Module):
    codebook_size, num_quantizers, samples_per_frame, sample_rate = 64, 4, 6, 8000

    def __init__(self):
        super().__init__()
        self.codebooks = nn.ModuleList(nn.Embedding(64, 16) for _ in range(4))
        layers = [Causal(16, 16, 7), nn.ELU(), nn.GRU(16, 16), Upsample(16, 8, 6, 3), nn.SiLU()]
        self.layers = nn.ModuleList([*layers, Upsample(8, 8, 4, 2), nn.ELU(), Causal(8, 1, 5, dilation=2)])

    def vectors(self, codes):
        """Codes [B, N, Q] -> [B, 16, N]."""
        return sum(book(codes[..., i]) for i, book in enumerate(self.codebooks)).transpose(1, 2)

    def forward(self, codes):
        x = self.vectors(codes)
        for layer in self.layers:
            x = layer(x.permute(2, 0, 1))[0].permute(1, 2, 0) if isinstance(layer, nn.GRU) else layer(x)
        return x.squeeze(1)


def load() -> nn.Module:
    torch.manual_seed(0)
    return Decoder().requires_grad_(False).eval()


# --- 2. YOUR LAYERS: the streaming counterpart of each class that `to_streaming` does not know ---

COUNTERPARTS = {Causal: StreamingConv1d, Upsample: StreamingConvTranspose1d, nn.SiLU: Stateless}

# --- 3. YOUR STEP: `forward` of the decoder, line by line, with states handed in and out ---


class Step(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.layers = StreamingSequence(model.layers, counterparts=COUNTERPARTS)
        self.spec = exact_spec(model, model.samples_per_frame, states_of(self.layers), sample_rate=model.sample_rate)

    def forward(self, audio_codes, *states):
        convs = ConvStates(states)
        return self.layers(self.model.vectors(audio_codes), convs).squeeze(1), *convs.after


# --- The rest stays as it is ---


def main(folder: Path, frames: int = 60, exporters: tuple[str, ...] = ("torchscript", "dynamo")) -> bool:
    """Whether all of it agrees; the graphs are in `folder`."""
    model = load()
    step, named = Step(model).eval(), OtherModel("my codec", model, {})

    def one_shot(codes: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(codes)).numpy()

    codes = np.random.default_rng(0).integers(model.codebook_size, size=(2, frames, model.num_quantizers))
    print(receptive_field(one_shot, codes))
    for state in find_states(model, torch.from_numpy(codes[:1]), frames):
        print(f"  {state.name}: {state.kind}, left context {state.left_context} {state.why}")
    schedules = [[1], [3], [7, 1, 2], [frames]]
    report = verify(named, step, codes, schedules, reference=one_shot)
    print(report)
    passed = report.passed
    for exporter in exporters:
        done = export(named, step, folder / f"{exporter}.onnx", exporter)
        check = parity(done.path, one_shot, codes, schedules)
        print(f"{done.path.name}: {check}")
        passed &= check.passed and not check.unnoticed
    return passed


if __name__ == "__main__":
    sys.exit(not main(Path.cwd()))
