"""`judge`: a streaming step that someone changed, checked in PyTorch, exported, compared; and the likely cause."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...exporting.tracing import EXPORTERS
from ...model.checkpoint import Checkpoint, OtherModel, load
from ...runtime.progress import Progress, no_progress
from . import causes, checks, looks
from .bench import MIXED, Bench
from .calls import Call, Difference, differences, joined
from .judgement import ROWS, SINGLE, Judgement, Row, Streamed
from .mistakes import batch_mistakes, run_of

SCHEDULES = ((1,), (3,), MIXED)
MEMORY = (checks.IN_TURN, ROWS, SINGLE, checks.RANDOM, "export")
NOT_CAUSAL = (
    "it is not causal: a convolution is padded on both sides or cut off at the wrong end, a mask shows later frames, "
    "or a norm or a mean is taken over the time of a chunk"
)
# A batch of another size rounds otherwise, and a step that is wrong may make more of that.
MORE_ROUNDING = 1e-3
STOPS = "the step's own code stops, so there is nothing to compare; the table has the line"
NO_KNOWN = "no mistake that is known here does just that; what is observed says where to look"


def judge(
    step: Any,
    checkpoint: Checkpoint | OtherModel | str = "demo",
    codes: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    exporter: str | None = EXPORTERS[0],
    progress: Progress = no_progress,
    **settings: int,
) -> Judgement:
    """Is a streaming step right, and if not, what is it?

    `step` is a class, built as `step(decoder, **settings)`, or an instance: a subclass or a changed copy of
    `ExactStreamingWrapper` or `StatefulCodecONNXWrapper`, or any with a `spec` and a `forward`. It streams `codes`
    [B, N, Q] (the checkpoint's example, past the attention window), and must give `reference` [B, samples] (what its
    design must give). `exporter` is `torchscript`, `dynamo`, or None for no export.

    What the step's code raises becomes a row of the result. ValueError is for a checkpoint, codes or an exporter that
    cannot be used.
    """
    if exporter not in (None, *EXPORTERS):
        raise ValueError(f"exporter is {exporter!r}, must be one of {', '.join(EXPORTERS)}, or None")
    checkpoint = load(checkpoint) if isinstance(checkpoint, str) else checkpoint
    bench = Bench(checkpoint, step, settings, codes, reference)
    with bench.listening():
        first = checks.contract(bench)
    trial = _Trial(bench, [first])
    if first.passed or (bench.declared and "writes into" in first.found):
        for check in progress(trial.checks(exporter), unit="check"):
            with bench.listening():
                check()
    with bench.listening():
        observed, likely = trial.diagnosis()
    return Judgement(
        step=bench.name,
        design=bench.spec.title if bench.declared else "no design",
        weights=checkpoint.weights,
        frames=bench.codes.shape[1] if bench.declared else 0,
        rows=tuple(trial.rows),
        observed=tuple(observed),
        likely=tuple(likely),
        warnings=bench.warnings,
        streamed=tuple(trial.streamed()),
        sample_rate=bench.spec.sample_rate if bench.declared else 0,
    )


class _Trial:
    """The checks in order, and what they leave for the diagnosis."""

    def __init__(self, bench: Bench, rows: list[Row]):
        self.bench, self.rows = bench, rows
        self.forced: list[Difference] = []
        self.random: list[Difference] = []
        self.together: list[Call] = []
        self.told: list[str] = []

    @property
    def schedules(self) -> list[tuple[int, ...]]:
        return [*SCHEDULES, (self.bench.codes.shape[1],)]

    def checks(self, exporter: str | None) -> list[Callable[[], None]]:
        """What is to be run, in order; each adds its rows."""
        each = [partial(self._add, checks.schedule, lengths) for lengths in self.schedules]
        each += [partial(self._add, checks.past_window, self.schedules), partial(self._single)]
        each += [partial(self._add, checks.two_streams), partial(self._rows)]
        each += [partial(self._export, exporter)] if exporter else []
        return [*each, partial(self._add, checks.ablation)]

    def _add(self, check: Callable[..., Row], *options: Any) -> None:
        self.rows.append(check(self.bench, *options))

    def _single(self) -> None:
        streams_right = all(row.passed is not False for row in self.rows)
        row, self.forced = checks.single_calls(self.bench, streams_right)
        self.rows.append(row)
        if row.passed:
            row, self.random = checks.random_states(self.bench)
            self.rows.append(row)

    def _rows(self) -> None:
        row, self.together = checks.rows_together(self.bench)
        self.rows.append(row)

    def _export(self, exporter: str) -> None:
        rows, self.told = checks.exported(self.bench, exporter)
        self.rows += rows

    def failed(self, *names: str) -> bool:
        return any(row.passed is False and row.check.startswith(names) for row in self.rows)

    def streamed(self) -> list[Streamed]:
        """The first row of the batch of every schedule that ran."""
        found = []
        for lengths, run in self.bench.runs.items():
            if run.pieces:
                sizes = tuple(piece.shape[1] for piece in run.pieces)
                waveform = np.concatenate(run.pieces, axis=1)[0]
                found.append(Streamed(lengths, waveform, self.bench.wanted(lengths)[0], sizes))
        return found

    # ---- what it looks like, and what it may be -----------------------------------------------------

    def diagnosis(self) -> tuple[list[str], list[str]]:
        """(what is observed, the likely causes), both empty where all is right."""
        if not self.failed(""):
            return [], []
        observed: list[str] = []
        likely = [*self._of_words(), *self._of_memory(), *self.told]
        if self.failed(SINGLE, checks.RANDOM):
            where, found = self._of_calls()
            observed += where
            likely = found + likely
        # float16 rounds otherwise in another batch, and what a module keeps, rows and streams share.
        if not self.bench.kept and not any(causes.HALF_WORDS in text for text in likely):
            likely += self._of_rows()
        if self.failed("chunks", checks.ALL_AT_ONCE, checks.PAST):
            ahead = self._look_ahead()
            observed += filter(None, [self._growth(), ahead])
            likely += [NOT_CAUSAL] if ahead and not any("attention mask" in text for text in likely) else []
            likely += self._declared()
        return observed, [*dict.fromkeys(likely)] or [STOPS if self._stops() else NO_KNOWN]

    def _stops(self) -> bool:
        return any(row.passed is False and ("Error: " in row.found or "SystemExit" in row.found) for row in self.rows)

    def _of_words(self) -> list[str]:
        """What the words mean in which a check failed."""
        found = "; ".join(row.found for row in self.rows if row.passed is False)
        return [meaning for words, meaning in MEANINGS if words in found]

    def _of_calls(self) -> tuple[list[str], list[str]]:
        """What single calls show: those from the package's states, or those from random ones."""
        bench = self.bench
        differences_ = self.forced if any(each.wrong or each.raised for each in self.forced) else self.random
        wrong = [each for each in differences_ if each.wrong or each.raised]
        observed, likely = [], []
        if differences_ is self.forced:
            observed.append(causes.which_calls(differences_, bench.full))
        where, computed = causes.computed(bench.right, bench.make(), wrong[0].call.feeds)
        observed += [causes.where_in_the_layers(bench.right, differences_), where]
        likely += computed
        judged = [each for each in differences_ if not each.raised]
        likely += looks.handed_on(bench.spec, judged, bench.waveform)
        likely += causes.recognised(bench.right, judged)
        others_right = differences_ is self.forced and len(wrong) < len(differences_)
        if not likely and others_right and causes.is_the_first([each.call for each in wrong]):
            likely.append("a call that begins a stream is computed in another way than the package's step does it")
        return [*filter(None, observed)], likely

    def _of_memory(self) -> list[str]:
        """What the module keeps, if anything that shows it failed."""
        if not (self.bench.kept or self.failed(checks.IN_TURN)) or not self.failed(*MEMORY):
            return []
        names = ", ".join(f"`{name}`" for name in self.bench.kept)
        which = f": {names} changes from call to call" if names else ""
        return [f"the module keeps something from call to call that belongs into the state{which}"]

    def _of_rows(self) -> list[str]:
        """Why rows of one call are other than alone: by known mistakes, and by whether equal rows are right."""
        row = next((row for row in self.rows if row.check == ROWS), None)
        if self.failed(SINGLE) and row and row.error is not None and row.error < MORE_ROUNDING:
            return []
        if not self.failed(ROWS) or len(self.together) < 2:
            return []
        bench = self.bench
        feeds, run = joined(self.together, bench.spec), run_of(bench.make(), bench.spec)
        if bench.comparable:
            right = Call(0, feeds, run_of(bench.right, bench.spec)(feeds))
            found = differences(run, [right])
            known = [
                m.words for m in batch_mistakes(bench.right) if causes.unexplained(m.run, found[0]) <= causes.ALIKE
            ]
            if known:
                return known
        twice = joined([self.together[0]] * 2, bench.spec)
        alike = differences(run, [Call(0, twice, {})])[0]
        if alike.raised:
            return [f"the code is right for one row alone: {alike.raised}"]
        rows = alike.found[bench.waveform]
        alone = self.together[0].outputs[bench.waveform]
        if rows.shape == (2, alone.shape[1]) and all(looks.equal(row[None], alone) for row in rows):
            return [
                "rows influence one another, or one row's offset is used for all: equal rows are right, others are not"
            ]
        return ["the batch axis is lost or mixed up: two equal rows give something else than one row alone"]

    def _growth(self) -> str:
        sizes, _, trouble = self.bench.errors((1,))
        return "" if trouble else causes.growth(sizes)

    def _look_ahead(self) -> str:
        return causes.look_ahead(self.bench.make(), self.bench.spec, self.bench.codes[:1])

    def _declared(self) -> list[str]:
        if not self.bench.right or self.bench.comparable:
            return []
        return [f"its spec differs from the package's: {checks.few(self.bench.spec_differences)}"]


# (words of a check that failed, what they mean)
MEANINGS = (
    ("is random", "a dropout is left on, or noise is added: `F.dropout` drops unless it is told `training=False`"),
    ("in training mode", "a dropout is left on: a new module is in training mode, so call `eval()` in `__init__`"),
    ("tensors, its spec declares", "an output or a state is missing from what `forward` returns, or one is too many"),
    (
        "writes into",
        "an operation in place (`+=`, `copy_`, `x[...] =`) works on a state that came in; others still hold it",
    ),
    ("changes weights", "weights of the decoder are changed in place; the one-shot decoder shares them"),
    ("must be int64, as", "the dtype of a count changed: a tensor was divided, or made from a float"),
    (
        "must be float32, as",
        "the dtype changed on the way: a `.half()`, `.double()`, or a float64 array among the inputs",
    ),
    (
        "its spec's limit is",
        "the count of past frames does not stop at the window: `clamp(max=sliding_window - 1)` is missing",
    ),
    ("'NoneType' has no len()", "`forward` returns nothing: is a `return` missing?"),
    ("has no attribute 'numpy'", "`forward` returns something that is no tensor"),
    (
        "was frozen at",
        "a length became a constant: an `int()`, `min()` or `range()` of a size, or an index by a number",
    ),
    ("the graph lost the input", "nothing depends on that input: the step does not read it, or read it while tracing"),
    ("Python branch or loop", "an `if` or a loop over a tensor was recorded: `torch.where` says the same without it"),
    ("long, must be", "a state comes out longer or shorter than it went in: it is trimmed by another length"),
)
