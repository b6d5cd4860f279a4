"""The training curve: numbers that a run adds to, and a picture for the model card."""

import csv
import io
from pathlib import Path

from ...files import written_whole
from .evaluate import ESTOI_LIMIT, STOI_LIMIT


def write_curve(curve: list[dict], folder: Path) -> None:
    """`curve.csv`: mean loss since the last measurement, STOI and ESTOI of the worst utterance, mean SNR."""
    text = io.StringIO()
    writer = csv.DictWriter(text, curve[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: value if name == "step" else f"{value:.4f}" for name, value in row.items()} for row in curve
    )
    with written_whole(folder / "curve.csv") as draft:
        draft.write_bytes(text.getvalue().encode())


def plot_curve(curve: list[dict], folder: Path) -> None:
    """`curve.png`: the same, with the limits that `evaluate` asks for."""
    from matplotlib.figure import Figure

    steps = [row["step"] for row in curve]
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, limit, style in (("stoi", STOI_LIMIT, "o-"), ("estoi", ESTOI_LIMIT, "s--")):
        (line,) = left.plot(steps, [row[name] for row in curve], style, label=name.upper(), markersize=3)
        left.axhline(limit, color=line.get_color(), linestyle=":", label=f"limit {limit}")
    left.set(title="Worst utterance", xlabel="training step", ylabel="intelligibility, 1 = recording", ylim=(0.5, 1))
    left.legend()
    right.plot(steps, [row["snr_db"] for row in curve], "o-", markersize=3)
    right.set(title="Mean over utterances", xlabel="training step", ylabel="waveform SNR, dB")
    with written_whole(folder / "curve.png") as draft:
        figure.savefig(draft, format="png", dpi=100)
