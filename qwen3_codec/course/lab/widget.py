"""The interactive lab: choose weights, a design, a cut into chunks and a trap; see and hear what it does to a stream.

`Lab` is the widget; what it runs is `experiment.run`, which needs no front end.
"""

import html
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ipywidgets as widgets

from ...model.checkpoint import Checkpoint, load
from . import plots
from .experiment import (
    DESIGNS,
    EQUAL,
    RANDOM,
    TRAPS,
    WINDOWED,
    WRITTEN,
    Result,
    Settings,
    describe,
    figure,
    run,
    utterances,
)

_LATE = {"continuous_update": False}
_WIDE = {"style": {"description_width": "150px"}, "layout": {"width": "98%"}}


class Lab(widgets.VBox):
    """The widget. `checkpoints` are loaded ones by name; `controls` has one control for each field of `Settings`.

    A change runs at once. What cannot be run leaves the last good `result` and its picture, and says why in `message`.
    """

    def __init__(self, checkpoints: dict[str, Checkpoint], settings: Settings | None = None):
        self.checkpoints = dict(checkpoints)
        self.result: Result | None = None
        self._adjusting = False
        self._one_at_a_time = threading.RLock()  # JupyterLab lets each control speak to a thread of its own
        self.weights = widgets.Dropdown(options=list(self.checkpoints), description="weights", **_WIDE)
        self.other = widgets.Text(
            description="load other weights", placeholder="a folder or a Hub id, then Enter", **_LATE, **_WIDE
        )
        self.controls = _controls(settings or Settings())
        self.explanation, self.message, self.table, self.players, self.picture = (widgets.HTML() for _ in range(5))
        self.bar = widgets.IntProgress(description="streaming", layout={"width": "98%", "height": "14px"})
        c = self.controls
        left = [self.weights, self.other, c["utterance"], c["frames"], c["design"], c["left_context"], c["lookahead"]]
        right = [c["trap"], c["cut"], c["chunk"], c["seed"], c["written"], self.table]
        columns = [widgets.VBox(column, layout={"width": "49%", "min_width": "400px"}) for column in (left, right)]
        super().__init__(
            [
                widgets.HBox(columns, layout={"flex_flow": "row wrap"}),
                *(self.explanation, self.message, self.bar, self.players, self.picture),
            ]
        )
        self.other.observe(self._load, "value")
        for control in (self.weights, *self.controls.values()):
            control.observe(self._changed, "value")
        self._changed()

    @property
    def checkpoint(self) -> Checkpoint:
        return self.checkpoints[self.weights.value]

    @property
    def settings(self) -> Settings:
        return Settings(**{name: control.value for name, control in self.controls.items()})

    def _load(self, change) -> None:
        source = change.new.strip()
        with self._one_at_a_time, self._failures_shown():
            if source and source not in self.checkpoints:
                self.checkpoints[source] = load(source)
                with self._adjusting_controls():
                    _offer(self.weights, list(self.checkpoints))
            self.weights.value = source or self.weights.value

    def _changed(self, _change=None) -> None:
        with self._one_at_a_time:
            if self._adjusting:  # a control that was only made to fit another one
                return
            with self._failures_shown():
                with self._adjusting_controls():
                    self._adjust()
                self._show(run(self.checkpoint, self.settings, self._progress))

    @contextmanager
    def _adjusting_controls(self) -> Iterator[None]:
        self._adjusting = True
        try:
            yield
        finally:
            self._adjusting = False

    def _adjust(self) -> None:
        """Offer what the chosen weights and design have; switch off what means nothing there."""
        c, design = self.controls, self.controls["design"].value
        available = utterances(self.checkpoint)
        _offer(c["utterance"], list(available))
        _limit(c["frames"], available[c["utterance"].value].shape[1])
        _offer(c["trap"], list(TRAPS[design]))
        c["trap"].disabled = len(TRAPS[design]) == 1
        c["left_context"].disabled = c["lookahead"].disabled = design != WINDOWED
        for name, cut in (("chunk", EQUAL), ("seed", RANDOM), ("written", WRITTEN)):
            c[name].disabled = c["cut"].value != cut
        self.explanation.value = f"<p style='line-height: 1.4'>{html.escape(self._explain())}</p>"

    def _explain(self) -> str:
        settings, decoder = self.settings, self.checkpoint.decoder
        trap = TRAPS[settings.design][settings.trap]
        words = [DESIGNS[settings.design], trap.look_for]
        if trap.needs_full_window:
            window = decoder.config.sliding_window
            seconds = window * decoder.samples_per_frame / self.checkpoint.sample_rate
            words.append(f"Nothing is wrong before the window's {window} frames ({seconds:.1f} s) have passed.")
            if settings.frames <= window:
                words.append(f"These {settings.frames} frames do not fill it: take more.")
        return " ".join(filter(None, words))

    @contextmanager
    def _failures_shown(self) -> Iterator[None]:
        """Whatever fails inside becomes the message: JupyterLab shows a callback's traceback nowhere."""
        self.message.value, self.bar.value, self.bar.layout.visibility = "", 0, "visible"
        try:
            yield
        except Exception as error:
            kept = " What you see is still the last stream that ran." if self.result else ""
            self.message.value = (
                f"<p role='alert' style='color: #b00020'>✗ {html.escape(str(error).rstrip('.'))}.{kept}</p>"
            )
        finally:
            self.bar.layout.visibility = "hidden"

    def _progress(self, parts: list, **_) -> Iterator:
        self.bar.max = len(parts)
        for done, part in enumerate(parts, 1):
            yield part
            self.bar.value = done

    def _show(self, result: Result) -> None:
        """All of a result or, where drawing it fails, nothing of it."""
        picture, table, players = _picture_html(result), _table_html(result), _players_html(result)
        self.result, self.picture.value, self.table.value, self.players.value = result, picture, table, players


def _controls(settings: Settings) -> dict[str, widgets.Widget]:
    """One control for each field of `Settings`, at its value there; `Lab` fills in what depends on the weights."""

    def of(kind, name: str, label: str, **options):
        return kind(value=getattr(settings, name), description=label, **options, **_WIDE)

    slider = widgets.IntSlider
    return {
        "utterance": of(widgets.Dropdown, "utterance", "utterance", options=[settings.utterance]),
        "frames": of(slider, "frames", "frames of it", min=1, max=settings.frames, **_LATE),
        "design": of(widgets.Dropdown, "design", "design", options=list(DESIGNS)),
        "left_context": of(slider, "left_context", "frames of left context", min=0, max=16, **_LATE),
        "lookahead": of(slider, "lookahead", "frames of look-ahead", min=0, max=16, **_LATE),
        "trap": of(widgets.Dropdown, "trap", "trap", options=list(TRAPS[settings.design])),
        "cut": of(widgets.Dropdown, "cut", "chunk schedule", options=[EQUAL, RANDOM, WRITTEN]),
        "chunk": of(slider, "chunk", "frames in a chunk", min=1, max=48, **_LATE),
        "seed": of(widgets.BoundedIntText, "seed", "seed", min=0, max=9999),
        "written": of(widgets.Text, "written", "schedule", **_LATE),
    }


def _offer(dropdown: widgets.Dropdown, options: list[str]) -> None:
    """New options; the chosen one stays where it is among them, else the first is taken."""
    chosen = dropdown.value
    if list(dropdown.options) != options:
        dropdown.options = options
        dropdown.value = chosen if chosen in options else options[0]


def _limit(slider: widgets.IntSlider, most: int) -> None:
    """A new `max`. In the browser the End key would keep the old one until the slider is drawn anew, so it is."""
    if slider.max != most:
        slider.max = most
        slider.orientation = "vertical"
        slider.orientation = "horizontal"


def _picture_html(result: Result) -> str:
    return plots.as_html(figure(result), f"{describe(result.settings)}: SNR {result.numbers()['SNR']} against one-shot")


def _table_html(result: Result) -> str:
    label = "width: 142px; text-align: right; padding-right: 8px"  # where the controls have theirs
    rows = "".join(
        f"<tr><th style='{label}'>{name}</th><td>{html.escape(value)}</td></tr>"
        for name, value in result.numbers().items()
    )
    return f"<table style='line-height: 1.4'>{rows}</table>"


def _players_html(result: Result, seconds: float = 5.0) -> str:
    """A player of each, of the `seconds` around the worst chunk."""
    total = result.reference.size / result.sample_rate
    worst = sum(result.samples[: result.worst_chunk]) / result.sample_rate
    start = max(0.0, min(worst - seconds / 2, total - seconds))
    span = f"{start:.1f} to {min(start + seconds, total):.1f} s"
    parts = [
        f"<div>{name}, {span}<br>{plots.player(waveform, result.sample_rate, seconds, start)._repr_html_()}</div>"
        for name, waveform in (("one-shot", result.reference), ("streamed", result.streamed))
    ]
    return f"<div style='display: flex; gap: 2em; flex-wrap: wrap'>{''.join(parts)}</div>"
