"""Figures of waveforms and codes: what one hears, over time."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import mlab
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import BACKGROUND, FLOOR, TEXT, fitted, integers, panels, styled


@styled
def waveforms(
    reference: np.ndarray,
    test: np.ndarray,
    sample_rate: int,
    title: str,
    borders: Sequence[int] = (),
    labels: tuple[str, str] = ("one-shot", "streamed"),
) -> Figure:
    """`reference` and `test` [samples] one below the other, and their difference; `borders`: chunk starts in samples.

    `labels` say what the two are.
    """
    figure, axes = panels(4.8, 3, sharex=True)
    figure.suptitle(fitted(title, figure))
    _waves(axes, reference, test, sample_rate, labels)
    axes[-1].set(xlabel="time (s)" + ("; dotted: a chunk begins" if len(borders) else ""))
    _borders(axes, np.asarray(borders) / sample_rate)
    return figure


@styled
def differences(
    reference: np.ndarray, streams: Mapping[str, np.ndarray], sample_rate: int, title: str, borders: Sequence[int] = ()
) -> Figure:
    """What several streams do wrong, {label: samples}: the reference, and each one's difference, on one scale."""
    figure, axes = panels(1.1 * (len(streams) + 1) + 0.9, len(streams) + 1, sharex=True, sharey=True)
    figure.suptitle(fitted(title, figure))
    seconds = np.arange(reference.size) / sample_rate
    waves = {"one-shot": reference} | {label: wave - reference for label, wave in streams.items()}
    for panel, (label, wave) in zip(axes, waves.items(), strict=True):
        panel.plot(seconds, wave, linewidth=0.6, color="black")
        panel.margins(x=0)
        panel.set_title(label if wave is reference else f"difference: {label}", fontsize=TEXT, loc="left")
    _borders(axes, np.asarray(borders) / sample_rate)
    axes[-1].set(xlabel="time (s)" + ("; dotted: a chunk begins" if len(borders) else ""))
    axes[len(axes) // 2].set_ylabel("amplitude")
    return figure


@styled
def stream_error(
    reference: np.ndarray,
    streamed: np.ndarray,
    sample_rate: int,
    lengths: Sequence[int],
    chunk_mse: Sequence[float],
    title: str,
    limit: float,
    marks: dict[str, int] | None = None,
) -> Figure:
    """`streamed` against `reference` [samples]: both, the difference, MSE by call, its spectrogram.

    `lengths` are the samples of each call, `marks` {words: sample} what is to be pointed at.
    The scales of the last two panels are fixed, so that figures compare.
    """
    # Margins are given, not found: a constrained layout would double the time of drawing, and the lab draws often.
    margins = {"left": 0.11, "right": 0.88, "top": 0.92, "bottom": 0.07, "hspace": 0.18}
    figure, axes = panels(7.6, 5, sharex=True, gridspec_kw=margins, layout="none")
    *waves, errors, pitch = axes
    figure.suptitle(fitted(title, figure))
    _waves(waves, reference, streamed, sample_rate, ("one-shot", "streamed"))
    waves[-1].set_ylim(waves[0].get_ylim())

    edges = np.cumsum([0, *lengths]) / sample_rate
    heard = np.flatnonzero(lengths)  # a call that buffered everything has no samples to be wrong
    found = np.maximum(chunk_mse, FLOOR)[heard]
    errors.stairs(found, [*edges[heard], edges[-1]], color="black", baseline=None)
    errors.axhline(limit, color="tab:red", linewidth=1, linestyle="--")
    words = {"textcoords": "offset points", "xycoords": ("axes fraction", "data")}
    errors.annotate(f"limit of an exact design, {limit:.0e}", (0, limit), xytext=(4, 5), bbox=BACKGROUND, **words)
    if (found <= FLOOR).any():
        errors.annotate(f"at {FLOOR:.0e}: silent, or equal", (1, FLOOR), xytext=(-4, 3), ha="right", **words)
    errors.set(yscale="log", ylim=(FLOOR / 3, 1), ylabel="MSE\nof a chunk")

    image = pitch.imshow(
        _decibels(streamed - reference, sample_rate),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, reference.size / sample_rate, 0, sample_rate / 2000),
        vmin=-140,
        vmax=-40,
    )
    pitch.set(ylabel="difference\nat (kHz)", xlabel="time (s); dotted: the samples of a call begin")
    figure.colorbar(image, cax=pitch.inset_axes((1.01, 0, 0.015, 1)), label="dB per Hz")
    _borders([*waves, errors], edges[1:-1])
    for name, sample in (marks or {}).items():
        for panel in (*waves, errors):
            panel.axvline(sample / sample_rate, color="black", linewidth=1.4)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        waves[0].annotate(name, (sample / sample_rate, 1), xytext=(4, -3), va="top", bbox=box, **place)
    return figure


@styled
def codes(found: np.ndarray, frame_seconds: float, title: str, wanted: np.ndarray | None = None) -> Figure:
    """Codes [N, Q] as an image, codebook over time; below it the places that differ from `wanted`, if that is given."""
    rows = 1 if wanted is None else 2
    figure, axes = panels(2.2 * rows + 0.6, rows, sharex=True)
    figure.suptitle(fitted(title, figure))
    extent = (0, len(found) * frame_seconds, found.shape[1] - 0.5, -0.5)
    image = axes[0].imshow(found.T, aspect="auto", interpolation="nearest", extent=extent)
    figure.colorbar(image, ax=axes.tolist(), label="code", fraction=0.04, pad=0.01)
    axes[0].set(ylabel="codebook")
    if wanted is not None:
        apart = (found != wanted).T
        axes[1].imshow(apart, aspect="auto", interpolation="nearest", extent=extent, cmap="gray_r", vmin=0, vmax=1)
        axes[1].set(title=f"places that differ (black): {apart.sum()} of {apart.size}", ylabel="codebook")
    for panel in axes:
        integers(panel.yaxis)
    axes[-1].set(xlabel="time (s)")
    return figure


def _waves(axes: Sequence[Axes], reference: np.ndarray, test: np.ndarray, sample_rate: int, labels) -> None:
    """Three panels: both waveforms on one scale, and their difference on its own. One over the other would hide it."""
    seconds = np.arange(reference.size) / sample_rate
    difference = test - reference
    for panel, wave in zip(axes, (reference, test, difference), strict=True):
        panel.plot(seconds, wave, linewidth=0.6, color="black")
        panel.margins(x=0)
    scale = 1.1 * max(1e-9, np.abs(reference).max(), np.abs(test).max())
    for panel, label in zip(axes, labels, strict=False):
        panel.set(ylabel=label, ylim=(-scale, scale))
    axes[2].set(ylabel=f"difference\n(peak {np.abs(difference).max():.1e})")


def _borders(axes: Sequence[Axes], seconds: Sequence[float]) -> None:
    for panel in axes:
        panel.vlines(seconds, 0, 1, transform=panel.get_xaxis_transform(), linewidth=0.7, linestyle=":", color="0.4")


def _decibels(signal: np.ndarray, sample_rate: int, window: int = 512) -> np.ndarray:
    """Power density in dB of a waveform [samples], [frequencies, times]."""
    spectrum, _, _ = mlab.specgram(signal, NFFT=window, Fs=sample_rate, noverlap=0)
    return 10 * np.log10(np.maximum(spectrum, FLOOR))
