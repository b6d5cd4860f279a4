"""Traps of an operator that an exporter does not have: a spectrum by `torch.stft`."""

import torch
from torch import nn
from torch.nn import functional as F

from .graphs import in_graph, row
from .trap import BOTH_EXPORTERS, Outcome, Trap, caught_by

N_FFT, HOP = 16, 4
CASES = [{"x": row(length)} for length in (64, 80, 200)]


class SpectrumByStft(nn.Module):
    def forward(self, x):
        window = torch.hann_window(N_FFT)
        return torch.stft(x, N_FFT, HOP, window=window, center=False, return_complex=True).abs()  # trap


class SpectrumByConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        waves = torch.fft.rfft(torch.hann_window(N_FFT).diag())  # one row for each sample of a window
        self.register_buffer("waves", torch.view_as_real(waves).permute(2, 1, 0).flatten(0, 1)[:, None])

    def forward(self, x):
        real, imaginary = F.conv1d(x[:, None], self.waves, stride=HOP).chunk(2, 1)
        return (real**2 + imaginary**2).sqrt()


@caught_by("the export itself")
def at_opset_16(step: type[nn.Module], exporter: str) -> Outcome:
    """A demonstration: `in_graph`, before ONNX had the operator."""
    return in_graph(CASES[0], CASES, opset=16)(step, exporter)


TRAPS = (
    Trap(
        name="torch.stft at an old opset",
        naive=SpectrumByStft,
        fix=SpectrumByConvolution,
        demonstrate=at_opset_16,
        exporters=("torchscript",),
        symptoms=("export",),
        why="An exporter writes what its opset has, and ONNX has an operator for this only since opset 17 (shown here "
        "at 16). A spectrum is a convolution with fixed sines and cosines, which every opset and every runtime has.",
        elsewhere={
            "RuntimeError: Exporting the operator stft to ONNX opset version 9 is not supported. Please feel free to "
            "request support or submit a pull request on PyTorch GitHub.": "The words of an older torch. "
            "The fix is the same."
        },
        sources=("pytorch/pytorch#65666", "pytorch/audio#982", "speechbrain/speechbrain#1455"),
    ),
    Trap(
        name="torch.stft in complex numbers",
        naive=SpectrumByStft,
        fix=SpectrumByConvolution,
        demonstrate=in_graph(CASES[0], CASES),
        exporters=BOTH_EXPORTERS,
        symptoms=("export",),
        why="TorchScript's exporter has no complex tensors, so it refuses a complex spectrum even where the opset has "
        "the operator (shown here at 18). dynamo exports it. The convolution with sines and cosines needs no complex "
        "numbers.",
        sources=("pytorch/pytorch#107677", "pytorch/pytorch#106850"),
    ),
)
