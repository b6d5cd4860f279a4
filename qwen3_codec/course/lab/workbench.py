"""The page of the workbench: the steps as source to change, what a judgement looks and sounds like, edits to try."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch.nn import functional as F

from ...exporting.tracing import EXPORTERS
from ...model.checkpoint import Checkpoint, random_checkpoint
from ...model.checkpoint.config import small_config
from ...runtime.metrics import mse, per_chunk
from ...streaming.exact import ExactStreamingWrapper
from ...streaming.kv_stack import TraceableKVStack, sliding_window_mask
from ...streaming.windowed import StatefulCodecONNXWrapper
from ...verification.report import MAX_MSE
from ...verification.workbench import Judgement, judge
from ...verification.workbench.checks import ALL_AT_ONCE, PAST
from ...verification.workbench.mistakes import known_mistakes
from . import plots
from .display import player

STREAMS = ("chunks", ALL_AT_ONCE, PAST)  # the checks of one stream's audio begin so


def exact_source() -> str:
    """What the editable cell of the exact design holds: mask, cache and step, as the package has them.

    Of each docstring the first line is left. The step takes the cell's own mask and cache.
    """
    update = textwrap.indent(_short(TraceableKVStack.update), "    ")
    step = _short(ExactStreamingWrapper).replace("ExactStreamingWrapper", "MyStep")
    parts = "past_frames=past_frames, **parts"
    if step.count(parts) != 1:
        raise ValueError(f"the step's source has not one {parts!r}, where the cell's own mask and cache go")
    step = step.replace(parts, "past_frames=past_frames, stack_type=MyKVStack, mask=my_mask")
    mask = _short(sliding_window_mask).replace("sliding_window_mask", "my_mask")
    return f"{mask}\n\nclass MyKVStack(TraceableKVStack):\n{update}\n\n{step}"


def windowed_source() -> str:
    """The same of the windowed design: its `forward`, in a subclass."""
    forward = textwrap.indent(_short(StatefulCodecONNXWrapper.forward), "    ")
    return f"class MyWindowedStep(StatefulCodecONNXWrapper):\n{forward}"


def _short(thing: Any) -> str:
    """The source of a class or function, of each docstring the first line, without notes to type checkers."""
    lines = textwrap.dedent(inspect.getsource(thing)).splitlines()
    for node in reversed([*ast.walk(ast.parse("\n".join(lines)))]):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            text = node.body[0]
            first = lines[text.lineno - 1].rstrip().removesuffix('"""')
            lines[text.lineno - 1 : text.end_lineno] = [f'{first}"""']
    return "\n".join(lines) + "\n"


def figure(judged: Judgement) -> Figure:
    """The schedule that is farthest off: both waveforms, their difference, the error of each call, its spectrogram."""
    run = judged.failing
    if run is None:
        raise ValueError(f"{judged.step}: no schedule ran, so there is nothing to draw")
    length = min(run.wanted.size, run.waveform.size)
    wanted, streamed = run.wanted[:length], run.waveform[:length]
    ends = np.minimum(np.cumsum(run.samples), length)
    sizes = np.diff(ends, prepend=0).tolist()
    errors = [0.0 if np.isnan(error) else error for error in per_chunk(mse, wanted, streamed, sizes)]
    title = f"{judged.step}, {judged.design}; {_chunks(run.schedule)} ({judged.weights})"
    return plots.stream_error(wanted, streamed, judged.sample_rate, sizes, errors, title, MAX_MSE)


def players(judged: Judgement, seconds: float = 4.0) -> None:
    """Two audio players under one another, one-shot and streamed, from a second before the first wrong frame."""
    from IPython.display import display

    run = judged.failing
    if run is None:
        return
    per_frame = run.wanted.size / judged.frames
    start = max(0.0, (judged.first_frame or 0) * per_frame / judged.sample_rate - 1)
    for label, waveform in (("what the design must give", run.wanted), (_chunks(run.schedule), run.waveform)):
        print(label)
        display(player(np.nan_to_num(waveform), judged.sample_rate, seconds, start))


def _chunks(schedule: tuple[int, ...]) -> str:
    return f"streamed in chunks of {', '.join(map(str, schedule))}"


def known(checkpoint: Checkpoint) -> int:
    """How many known mistakes the step is compared with."""
    return len([*known_mistakes(ExactStreamingWrapper(checkpoint.decoder))])


# ---- edits to try --------------------------------------------------------------------------------


class OldStateHandedBack(ExactStreamingWrapper):
    def forward(self, audio_codes, past_frames, *states):
        waveform, count, *after = super().forward(audio_codes, past_frames, *states)
        after[2] = states[2]
        return waveform, count, *after


def one_frame_more(positions, past, window, dtype, past_frames=None):
    return sliding_window_mask(positions, past, window + 1, dtype, past_frames)


class MaskOffByOne(ExactStreamingWrapper):
    def transform(self, hidden, keys, values, past_frames):
        return super().transform(hidden, keys, values, past_frames, mask=one_frame_more)


class OneRowsCountForAll(ExactStreamingWrapper):
    def transform(self, hidden, keys, values, past_frames):
        return super().transform(hidden, keys, values, past_frames[:1].expand_as(past_frames))


class LengthAsInteger(ExactStreamingWrapper):
    def forward(self, audio_codes, past_frames, *states):
        waveform, _, *after = super().forward(audio_codes, past_frames, *states)
        count = past_frames + int(audio_codes.size(1))
        return waveform, count.clamp(max=self.decoder.config.sliding_window - 1), *after


class LeftContextTooShort(ExactStreamingWrapper):
    def forward(self, audio_codes, past_frames, *states):
        states = list(states)
        states[2] = F.pad(states[2][:, :, 1:], (1, 0))
        return super().forward(audio_codes, past_frames, *states)


# (what to change, the change)
EDITS: tuple[tuple[str, type], ...] = (
    ("hand one state back as it came in", OldStateHandedBack),
    ("let a query see one frame more than the window", MaskOffByOne),
    ("take the first row's count for all rows", OneRowsCountForAll),
    ("add the number of frames as a Python integer", LengthAsInteger),
    ("read a left context that is one entry too short", LeftContextTooShort),
)


def small() -> Any:
    """A decoder with random weights on which an edit is judged quickly: two layers, a window of eight frames."""
    fields = {"num_hidden_layers": 2, "sliding_window": 8, "upsample_rates": [3, 2], "upsampling_ratios": [2]}
    return random_checkpoint(small_config(**fields), source="a small decoder")


def tried(edits: tuple[tuple[str, type], ...] = EDITS, progress: Callable = iter) -> tuple[Any, list[Judgement]]:
    """(Markdown: each edit, and folded its source and what `judge` says of it on the small decoder; the judgements)."""
    from IPython.display import Markdown

    loaded, texts, judgements = small(), [], []
    for number, (words, step) in enumerate(progress(edits), 1):
        # Exported is what only a graph has wrong.
        judged = judge(step, loaded, exporter=EXPORTERS[0] if step is LengthAsInteger else None)
        judgements.append(judged)
        source = inspect.getsource(step).rstrip()
        body = f"```python\n{source}\n```\n\n{judged._repr_markdown_()}"
        summary = f"Edit {number}: {words}"
        texts.append(f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>")
    return Markdown("\n\n".join(texts)), judgements


def audio_from(judged: Judgement) -> int | str:
    """The first frame of one stream's audio that is wrong, or a dash where it is right."""
    frames = [row.first_frame for row in judged.failures if row.check.startswith(STREAMS)]
    return min((frame for frame in frames if frame is not None), default="–")


def wrong_in(judged: Judgement) -> str:
    """The checks that fail, in a line."""
    return "; ".join(row.check for row in judged.failures) or "nothing"
