"""Codes for recorded speech: features of each 80 ms frame, then residual k-means.

This stands where a neural encoder stands in the official tokenizer. It sees one frame at a time, so its codes say
what a frame sounds like; which waveform that is (the phases above all) is left to the decoder to learn.
"""

import librosa
import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

SUBFRAMES = 4  # log-mel spectra per frame, 20 ms each at the official rates
MEL_BANDS = 40
FLOOR_DB = -80.0  # below full scale; digital silence would be -inf
PITCH_RANGE = 60.0, 400.0  # Hz
# The pitch is 2 numbers among 160 mel bands, and the ear hears it before anything else. In dB per octave and dB for
# voiced against unvoiced, so that it weighs as much as a clear change of the spectrum.
PITCH_WEIGHT = 60.0
# Each stage takes this share of what it has found off the residual, which leaves the later stages a little more to
# code. On the shipped sentences the difference is small: 7.0 % of the size is left after nine stages, undamped 6.3 %.
DAMPING = 0.65


def frame_features(samples: np.ndarray, sample_rate: int, samples_per_frame: int) -> np.ndarray:
    """Float32 samples [N * samples_per_frame] -> features [N, SUBFRAMES * MEL_BANDS + 2] in dB."""
    count, rest = divmod(len(samples), samples_per_frame)
    if rest:
        raise ValueError(f"{len(samples)} samples are not a whole number of frames of {samples_per_frame}")
    hop = samples_per_frame // SUBFRAMES
    centred = {"hop_length": hop, "n_fft": 2 * hop, "center": False}
    # One spectrum per hop, each centred on its own 20 ms.
    padded = np.pad(samples, hop // 2)
    mel = librosa.feature.melspectrogram(y=padded, sr=sample_rate, n_mels=MEL_BANDS, norm=None, **centred)
    level = 10 * np.log10(mel / hop**2 + 10 ** (FLOOR_DB / 10))
    return np.hstack([level.T.reshape(count, -1), PITCH_WEIGHT * _pitch_cue(samples, sample_rate, hop, count)])


def _pitch_cue(samples: np.ndarray, sample_rate: int, hop: int, count: int) -> np.ndarray:
    """[count, 2]: octaves above the middle of PITCH_RANGE (0 where unvoiced), and the voiced share of the frame."""
    low, high = PITCH_RANGE
    length = 4 * hop
    padded = np.pad(samples, (length - hop) // 2)
    pitch, voiced, _ = librosa.pyin(
        padded, fmin=low, fmax=high, sr=sample_rate, frame_length=length, hop_length=hop, center=False
    )
    octaves = np.where(voiced, np.log2(np.nan_to_num(pitch, nan=1.0) / np.sqrt(low * high)), 0.0)
    octaves, voiced = octaves.reshape(count, SUBFRAMES), voiced.reshape(count, SUBFRAMES)
    return np.stack([octaves.sum(1) / np.maximum(voiced.sum(1), 1), voiced.mean(1)], axis=1)


def quantize(
    features: np.ndarray, stages: int, codebook_size: int, dim: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, F] -> int64 codes [N, stages] and the tables [stages, codebook_size, dim] that they index.

    The tables are scaled so that the sum of a frame's entries is near its features after PCA, divided by their
    overall standard deviation: sensible starting values for the decoder's own codebooks.
    """
    points = PCA(dim, svd_solver="full", random_state=seed).fit_transform(features)
    residual = points / points.std()
    codes, tables = [], []
    for stage in range(stages):
        means = KMeans(codebook_size, n_init=4, random_state=seed + stage).fit(residual)
        codes.append(means.labels_)
        tables.append(DAMPING * means.cluster_centers_)
        residual = residual - tables[-1][means.labels_]
    return np.stack(codes, axis=1).astype(np.int64), np.stack(tables).astype(np.float32)
