"""How every figure looks, and the parts that several have: lines, log axes, labels beside points.

A figure is 800 pixels wide, as wide as a page shows it, so that text keeps its size there: nothing is below 9 points.
The background is white and the text black, so that a figure reads on a dark page too.
"""

import base64
import html
import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

WIDTH = 8.0  # inches
TITLE, TEXT, SMALL = 11, 10, 9  # points
STYLE = {
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.titlesize": TITLE,
    "axes.facecolor": "white",
    "axes.titlesize": TITLE,
    "axes.labelsize": TEXT,
    "axes.edgecolor": "black",
    "axes.labelcolor": "black",
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "font.size": SMALL,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "text.color": "black",
    "xtick.color": "black",
    "ytick.color": "black",
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "hatch.linewidth": 0.6,
}
# Lines are told apart by marker and dash as well as by colour: 7 markers and 4 dashes make 28 pairs.
MARKERS = "os^Dvx*"
DASHES = ("-", "--", ":", "-.")
# Below this an error says nothing: both waveforms are silent there, or they are equal. It has no place on a log axis.
FLOOR = 1e-16
# Behind words that may lie on a curve.
BACKGROUND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """`draw` under STYLE. Text takes its size when it is made, so all of it has to be made in here."""

    @wraps(draw)
    def inside(*args, **options) -> Figure:
        # Not `rc_context`: it would also take back that figures show themselves, which a notebook's backend sets when
        # the first figure is made.
        before = {key: plt.rcParams[key] for key in STYLE}
        plt.rcParams.update(STYLE)
        try:
            return draw(*args, **options)
        finally:
            plt.rcParams.update(before)

    return inside


def panels(height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure of the usual width and its axes, in the order in which one reads them."""
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, **options)
    return figure, axes.ravel()


def one_panel(height: float, title: str, **labels) -> tuple[Figure, Axes]:
    """A figure with one panel, its title and its axes' labels."""
    figure, (axes,) = panels(height)
    figure.suptitle(fitted(title, figure))
    axes.set(**labels)
    axes.grid()
    return figure, axes


def fitted(title: str, figure: Figure, size: int = TITLE) -> str:
    """A title in as many lines as it needs: a letter is about half as wide as its size in points."""
    return textwrap.fill(title, int(figure.get_figwidth() * 72 / (0.55 * size)))


def lines(series: Mapping[str, object] | Iterable[tuple[str, object]]) -> Iterator[tuple[str, object, dict]]:
    """Each series with its label and its style. A label that was there before gets a number: each line has its own."""
    pairs = series.items() if isinstance(series, Mapping) else series
    seen: dict[str, int] = {}
    for (label, value), marker, dash in zip(pairs, cycle(MARKERS), cycle(DASHES), strict=False):
        seen[label] = seen.get(label, 0) + 1
        name = label if seen[label] == 1 else f"{label} ({seen[label]})"
        yield name, value, {"marker": marker, "linestyle": dash, "fillstyle": "none", "linewidth": 1.2}


def error_lines(
    axes: Axes, series: Iterable[tuple[str, tuple[Sequence, Sequence]]], limit: float | None = None
) -> None:
    """Errors on a log axis over frames, (label, (places, errors)) each, with a legend below.

    Errors below FLOOR are marked at the lower edge and not drawn as if they had that value.
    """
    below: list = []
    for label, (places, errors), style in lines(series):
        errors = np.asarray(errors, float)
        axes.semilogy(places, np.where(errors < FLOOR, np.nan, errors), label=label, markersize=5, **style)
        below += [place for place, error in zip(places, errors, strict=True) if error < FLOOR]
    if below:
        edge = {"transform": axes.get_xaxis_transform(), "clip_on": False, "linestyle": "none", "color": "black"}
        words = f"below {FLOOR:.0e}: both are silent, or equal"
        axes.plot(below, np.zeros(len(below)), marker="|", markersize=9, label=words, **edge)
    axes.margins(y=0.1)
    if limit:
        limit_line(axes, limit, f"limit {limit:.0e}")
    integers(axes.xaxis)
    legend_below(axes)


def limit_line(axes: Axes, value: float, words: str) -> None:
    """A line across at `value`, with its words at the left end, above it."""
    axes.axhline(value, color="black", linewidth=1)
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(words, (0, value), xytext=(4, 5), bbox=BACKGROUND, **place)


def mark(axes: Axes, place: float, words: str, height: float = 1.0, side: str = "right") -> None:
    """A dotted line down at `place`, with words beside it at a share `height` of the panel."""
    axes.axvline(place, color="black", linewidth=1, linestyle=":")
    offset, align = ((4, -3), "left") if side == "right" else ((-4, -3), "right")
    place_of = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axes.annotate(words, (place, height), xytext=offset, ha=align, va="top", bbox=BACKGROUND, **place_of)


def legend_below(axes: Axes, columns: int = 2, handles: Sequence | None = None) -> None:
    """The legend under the panel, so that it covers no data."""
    handles = axes.get_legend_handles_labels()[0] if handles is None else handles
    if handles:
        figure = axes.get_figure()
        figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


def integers(axis: Axis) -> None:
    """Ticks at integers: there is no frame 2.5."""
    axis.set_major_locator(MaxNLocator(integer=True))


def plain_log(axis: Axis, values: Iterable[float]) -> None:
    """A log axis over `values`, over a decade at least, with ticks at 1, 2 and 5 (or 1 alone) in plain numbers."""
    values = [value for value in values if value > 0]
    low, high = min(values) / 1.4, max(values) * 1.4
    wider = max(1.0, (10 * low / high) ** 0.5)
    name = axis.axis_name
    axis.axes.set(**{f"{name}scale": "log", f"{name}lim": (low / wider, high * wider)})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Words beside points, (x, y, words) each, at the place around the point where least is covered already.

    To be called last: where things are is known when scales and limits are.
    """
    figure = axes.get_figure()
    figure.draw_without_rendering()
    frame, scale = axes.get_window_extent(), figure.dpi / 72
    places = [tuple(axes.transData.transform((x, y))) for x, y, _ in points]
    taken = [Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale) for x, y in places]
    around = [(6, 3), (6, -12), (-6, 3), (-6, -12), (0, 8), (0, -18), (16, 12), (16, -22), (-16, 12), (-16, -22)]
    for (x, y, words), (left, bottom) in zip(points, places, strict=True):
        width, height = 0.55 * SMALL * len(words) * scale, 1.2 * SMALL * scale

        def box(offset, left=left, bottom=bottom, width=width, height=height):
            start = left + offset[0] * scale - (0 if offset[0] > 0 else width if offset[0] < 0 else width / 2)
            return Bbox.from_bounds(start, bottom + offset[1] * scale, width, height)

        def covered(offset, box=box):
            found = box(offset)
            outside = found.width * found.height - _area(found, frame)
            return sum(_area(found, other) for other in taken) + 3 * outside

        offset = min(around, key=covered)
        taken.append(box(offset))
        align = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
        axes.annotate(words, (x, y), textcoords="offset points", xytext=offset, ha=align)


def _area(one: Bbox, other: Bbox) -> float:
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else both.width * both.height


def as_html(figure: Figure, alt: str) -> str:
    """A figure as an <img> with its picture inside; the figure is closed."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    plt.close(figure)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{html.escape(alt, quote=True)}" style="max-width: 100%" src="data:image/png;base64,{data}">'
