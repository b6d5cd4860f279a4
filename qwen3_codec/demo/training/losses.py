"""What the decoder is trained to make small: how far its sound is from the recording, at five window lengths.

Magnitudes alone leave the phases free, which is right for a codec that only has to sound alike. The demo has to give
its recordings back, so the complex spectrum and the waveform itself count too.
"""

import librosa
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

# Window length in samples (hops are a quarter) -> mel bands, about as many as the resolution gives.
WINDOWS = {128: 8, 256: 16, 512: 32, 1024: 64, 2048: 80}
WINDOWS_PER_STEP = 2
# Magnitudes are scaled to the root mean square of white noise; below this (-70 dB) a difference is not heard.
FLOOR = 3e-4
COMPRESSION = 0.3  # exponent for the complex spectrum, as in speech enhancement: quiet parts count too


class SpectralLoss(nn.Module):
    """Weighted sum of L1 distances: linear, log and mel magnitudes, compressed complex spectrum, waveform."""

    def __init__(self, sample_rate: int):
        super().__init__()
        for size, bands in WINDOWS.items():
            window = torch.hann_window(size)
            self.register_buffer(f"window_{size}", window / window.square().sum().sqrt())
            mel = librosa.filters.mel(sr=sample_rate, n_fft=size, n_mels=bands, norm=None)
            # Each band is the mean of its bins: the FLOOR then means the same there.
            self.register_buffer(f"mel_{size}", torch.from_numpy(mel / mel.sum(1, keepdims=True)))

    def forward(self, output: torch.Tensor, target: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
        """Two waveforms [B, T] -> scalar.

        Each call looks through WINDOWS_PER_STEP of the windows, drawn anew: the mean over steps is that of all five, at
        less than half the work. One STFT per window serves all the comparisons.
        """
        total = 20 * F.l1_loss(output, target)
        for size in random.choice(list(WINDOWS), WINDOWS_PER_STEP, replace=False):
            total = total + self._compare(output, target, int(size)) / WINDOWS_PER_STEP
        return total

    def _compare(self, output: torch.Tensor, target: torch.Tensor, size: int) -> torch.Tensor:
        x, y = self._stft(output, size), self._stft(target, size)
        power_x, power_y = (s.square().sum(-1) + FLOOR**2 for s in (x, y))
        size_x, size_y = power_x.sqrt(), power_y.sqrt()
        scale_x, scale_y = (p.pow((COMPRESSION - 1) / 2)[..., None] for p in (power_x, power_y))
        linear = F.l1_loss(size_x, size_y) / size_y.mean()
        log = (power_x / power_y).log().abs().mean() / 2
        complex_ = F.l1_loss(x * scale_x, y * scale_y) / (y * scale_y).abs().mean()
        mel = getattr(self, f"mel_{size}")
        log_mel = ((mel @ size_x) / (mel @ size_y)).log().abs().mean()
        return linear + log + 2 * complex_ + log_mel

    def _stft(self, x: torch.Tensor, size: int) -> torch.Tensor:
        """[B, T] -> [B, bins, frames, 2]. No padding: a crop has no silence around it."""
        window = getattr(self, f"window_{size}")
        return torch.view_as_real(torch.stft(x, size, size // 4, window=window, center=False, return_complex=True))
