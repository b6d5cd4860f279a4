"""The checks of `judge`, a function each: what it runs, and the row that says what came of it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...exporting.diagnostics.causes import baked_in_axes
from ...exporting.diagnostics.wording import described, tells_of_a_loss
from ...exporting.export import write_draft
from ...exporting.tracing import ExportError, example_inputs, random_inputs
from ...exporting.validate import VALIDATION_FRAMES, validate_graph
from ...runtime import CodecSession, GraphError
from ...runtime.metrics import MAX_ERROR
from ...runtime.stream import CodecStream
from ...spec import BATCH, FRAMES
from ...streaming.session import StreamingModule, TorchSession
from .bench import MIXED, Bench, attributes
from .calls import Call, Difference, differences, in_words, joined, off_alone, same_shapes, stream_run
from .judgement import ROWS, SINGLE, Row
from .mistakes import run_of

CONTRACT, ALL_AT_ONCE, PAST = "one call", "all at once", "past the window"
RANDOM, IN_TURN = "calls from random states", "two streams in turn"
GRAPH, ABLATION = "graph against step", "state ablation"
# Two streams in turn make calls of so many frames.
TURN = 3
# Random states are so large: a clamp that the codes do not reach shows with the larger ones.
LOUDNESS = (np.float32(1), np.float32(10))
# States that are farther off than this may hold something else on purpose, if the audio is right.
SOMETHING_ELSE = 0.5


def contract(bench: Bench) -> Row:
    """Does the step take what its spec declares, and give that, twice the same, without writing into its inputs?"""
    if bench.problem:
        return Row(CONTRACT, False, bench.problem)
    try:
        step = bench.make()
        session = TorchSession(step)
    except ValueError as error:
        return Row(CONTRACT, False, str(error))
    before = attributes(step)
    run = stream_run(session, bench.codes[:, :4], (3, 1), keep=True)
    bench.kept = [name for name, value in attributes(step).items() if before.get(name) != value]
    if run.error:
        return Row(CONTRACT, False, run.error, first_frame=(0, 3)[len(run.pieces)])
    if run.overwritten:
        return Row(CONTRACT, False, f"writes into its input {', '.join(sorted(run.overwritten))}", first_frame=0)
    inputs, outputs = len(bench.spec.all_inputs), len(bench.spec.all_outputs)
    return Row(CONTRACT, True, f"{inputs} inputs, {outputs} outputs as its spec declares")


def schedule(bench: Bench, lengths: Sequence[int]) -> Row:
    """One chunk schedule against what the design must give, up to the frame where all states are full."""
    return _frames(bench, titled(lengths, bench), [lengths], slice(0, bench.full or None))


def past_window(bench: Bench, schedules: Sequence[Sequence[int]]) -> Row:
    """The same from there on, all schedules together."""
    last_call = bench.codes.shape[1] - bench.run(schedules[0]).frames[-1]
    if not bench.full:
        return Row(PAST, None, "no state grows")
    if last_call <= bench.full:
        words = f"{bench.codes.shape[1]} frames do not go past the window: all states are full after {bench.full}"
        return Row(PAST, None, words)
    return _frames(bench, PAST, schedules, slice(bench.full, None))


def _frames(bench: Bench, check: str, schedules: Sequence[Sequence[int]], frames: slice) -> Row:
    """The row of some frames over some schedules."""
    places, largest, found, troubles = [], 0.0, [], []
    for lengths in schedules:
        sizes, wrong, trouble = bench.errors(lengths)
        sizes, wrong = sizes[frames], wrong[frames]
        largest = max(largest, float(np.where(np.isnan(sizes), np.inf, sizes).max(initial=0.0)))
        if wrong.any():
            places.append(int(wrong.argmax()) + (frames.start or 0))
            found.append(titled(lengths, bench))
            troubles.append(trouble or "not finite" * bool(np.isnan(sizes).any()))
    where = (
        ""
        if not schedules[1:] or not found
        else f"in {'every schedule' if len(found) == len(schedules) else few(found)}"
    )
    words = "; ".join(filter(None, (where, next(filter(None, troubles), ""))))
    return Row(check, not found, words, min(places, default=None), largest)


def titled(lengths: Sequence[int], bench: Bench) -> str:
    return ALL_AT_ONCE if lengths[0] >= bench.codes.shape[1] else f"chunks of {', '.join(map(str, lengths))}"


def single_calls(bench: Bench, streams_right: bool) -> tuple[Row, list[Difference]]:
    """Every call of a stream by itself, beginning with the state of the package's step."""
    if not bench.comparable:
        return Row(SINGLE, None, f"states are not the package's: {few(bench.spec_differences)}"), []
    forced = differences(run_of(bench.make(), bench.spec), bench.right_calls)
    wrong = [each for each in forced if each.wrong or each.raised]
    if not wrong:
        return Row(SINGLE, True, error=max(max(each.errors.values()) for each in forced)), forced
    start = wrong[0].call.start
    if all(each.raised for each in wrong):
        return Row(SINGLE, False, wrong[0].raised, start), forced
    worst = max((each for each in wrong if each.errors), key=lambda each: each.errors[each.worst])
    size = worst.errors[worst.worst]
    if streams_right and not size <= SOMETHING_ELSE:
        words = f"the audio is right, so `{worst.worst}` may hold something else on purpose"
        return Row(SINGLE, None, words, start, size, worst.worst), forced
    unheard = "these codes do not make it audible" if streams_right else ""
    return Row(SINGLE, False, unheard, start, size, worst.worst), forced


def random_states(bench: Bench) -> tuple[Row, list[Difference]]:
    """Calls from random states, soft and loud, beside the package's step: what the codes do not reach."""
    calls, right = [], run_of(bench.right, bench.spec)
    for seed, loudness in enumerate(LOUDNESS):
        for frames in (1, 2, 5):
            lengths = dict(bench.spec.limits) | {BATCH: 1, FRAMES: frames}
            feeds = random_inputs(bench.spec, lengths, seed=seed)
            for before, _ in bench.spec.states:  # counts are full: with fewer frames, not every state can be
                full = before.dtype == "int64"
                feeds[before.name] = feeds[before.name] * 0 + bench.full if full else feeds[before.name] * loudness
            calls.append(Call(0, feeds, right(feeds)))
    found = differences(run_of(bench.make(), bench.spec), calls)
    wrong = [each for each in found if each.wrong or each.raised]
    if not wrong:
        return Row(RANDOM, True, error=max(max(each.errors.values()) for each in found)), found
    if wrong[0].raised:
        return Row(RANDOM, False, wrong[0].raised), found
    words = "the codes do not reach what is wrong"
    return Row(RANDOM, False, words, error=wrong[0].errors[wrong[0].worst], worst=wrong[0].worst), found


def two_streams(bench: Bench) -> Row:
    """Two streams through one step, a call each in turn: the first must give what it gives alone."""
    session, alone = TorchSession(bench.make()), bench.run((TURN,))
    streams = [CodecStream(session, len(codes)) for codes in (bench.codes, bench.codes)]
    pairs = zip(streams[0].parts(bench.codes, [TURN]), streams[1].parts(bench.codes[:, ::-1], [TURN]), strict=True)
    start = 0
    try:
        for (mine, last), (other, _) in pairs:
            index = start // TURN
            if index >= len(alone.pieces):
                break
            piece = streams[0].push(mine, last)
            streams[1].push(other, last)
            if not (error := off_alone(alone.pieces[index], piece)) <= MAX_ERROR:
                return Row(IN_TURN, False, "a stream hears the other one", start, error)
            start += mine.shape[1]
    except (Exception, SystemExit) as error:
        return Row(IN_TURN, False, in_words(error), start)
    if not start:
        return Row(IN_TURN, None, "one stream alone does not run")
    return Row(IN_TURN, True)


def rows_together(bench: Bench) -> tuple[Row, list[Call]]:
    """Several calls of one stream as the rows of one call: each row must give what it gives alone."""
    calls = _rows(bench.run(MIXED).calls, bench.full)
    if len(calls) < 2:
        return Row(ROWS, None, _stopped(bench) or "no two calls have states of one shape"), []
    try:
        outputs = run_of(bench.make(), bench.spec)(joined(calls, bench.spec))
    except (Exception, SystemExit) as error:
        return Row(ROWS, False, in_words(error)), calls
    worst = Row(ROWS, True, f"at frames {', '.join(str(call.start) for call in calls)}")
    for index, call in enumerate(calls):
        for tensor in bench.spec.all_outputs:
            if tensor.shape[0] != BATCH:
                continue
            off = off_alone(call.outputs[tensor.name], outputs[tensor.name][index : index + 1])
            if not off <= max(MAX_ERROR, worst.error or 0.0):
                words = f"the row at frame {call.start} gives something else than alone"
                worst = Row(ROWS, False, words, call.start, off, tensor.name)
    return worst, calls


def _stopped(bench: Bench) -> str:
    """Why there are too few calls of the step's own, if an error ended its stream; else ""."""
    run = bench.run(MIXED)
    return f"not run: the step's own stream stops at frame {run.until}" if run.error else ""


def _rows(calls: Sequence[Call], full: int) -> list[Call]:
    """Up to three calls of one shape as far apart as there are: in the exact design one before all states are full."""
    groups: list[list[Call]] = []
    for call in calls[:-1]:  # the last one has another `is_last`
        group = next((group for group in groups if same_shapes(group[0], call)), None)
        if group is None:
            groups.append([call])
        else:
            group.append(call)
    largest = max(groups, key=len, default=[])
    return [largest[0], largest[len(largest) // 2], largest[-1]] if len(largest) > 2 else largest


def exported(bench: Bench, exporter: str) -> tuple[list[Row], list[str]]:
    """(the rows of the export and of the graph beside the step, what these tell of a cause)."""
    names = f"export, {exporter}", f"{GRAPH}, {exporter}"
    with tempfile.TemporaryDirectory() as folder:
        path, step = Path(folder) / "step.onnx", bench.make()
        try:
            said = write_draft(bench.checkpoint, step, path, exporter)
            session = CodecSession(path, threads=1)
        except (Exception, SystemExit) as error:
            words = str(error) if isinstance(error, ExportError | ValueError | GraphError) else in_words(error)
            words = words.replace(f"{path}: ", "")
            return [Row(names[0], False, words), Row(names[1], None, "there is no graph")], []
        bench.said += said
        losses = described([each for each in said if tells_of_a_loss(each)])
        warned = f"the exporter warns, so `export` would refuse it: {'; '.join(losses)}" if losses else ""
        rows = [Row(names[0], not losses, warned), _graph(bench, names[1], step, session)]
        causes = []
        if rows[1].passed is False:
            causes = baked_in_axes(step, path, example_inputs(bench.spec), VALIDATION_FRAMES)
        return rows, [*(f"the graph lost something that was decided while tracing: {loss}" for loss in losses), *causes]


def _graph(bench: Bench, name: str, step: StreamingModule, session: CodecSession) -> Row:
    """The graph beside the step: each call of the step's own stream, then other lengths, rows and random states."""
    found = differences(session.run, bench.run(MIXED).calls)
    wrong = [each for each in found if each.wrong or each.raised]
    if wrong and wrong[0].raised:
        return Row(name, False, f"the graph fails: {wrong[0].raised}", wrong[0].call.start)
    if wrong:
        first = wrong[0]
        words = f"wrong in {len(first.wrong)} outputs of the call at frame {first.call.start}"
        return Row(name, False, words, first.call.start, first.errors[first.worst], first.worst)
    try:
        largest = max(validate_graph(step, session))
    except (ExportError, ValueError) as error:
        return Row(name, False, f"right on these codes, and not on random states: {error}")
    largest = max([largest, *(max(each.errors.values()) for each in found)])
    return Row(name, True, f"{len(found)} calls and 8 from random states", error=largest)


def ablation(bench: Bench) -> Row:
    """Each state zeroed before a call, early and past the window: does the audio of that call change?"""
    calls = [call for call in bench.run(MIXED).calls if call.frames == max(MIXED)]
    calls = [call for call in (calls[len(calls) // 2 :][:1] + calls[-1:]) if call.start]
    if not calls or not bench.spec.states:
        return Row(ABLATION, None, _stopped(bench) or "there is no state to lose")
    run, lost = run_of(bench.make(), bench.spec), {}
    for before, _ in bench.spec.states:
        if not any(call.feeds[before.name].size for call in calls):
            continue
        without = [
            Call(call.start, call.feeds | {before.name: np.zeros_like(call.feeds[before.name])}, call.outputs)
            for call in calls
            if call.feeds[before.name].any()
        ]
        found = differences(run, without)
        lost[before.name] = max((each.errors.get(bench.waveform, np.inf) for each in found), default=0.0)
    if not all(np.isfinite(call.outputs[bench.waveform]).all() for call in calls):
        return Row(ABLATION, None, "the audio is not finite without a loss, too")
    unnoticed = [name for name, error in lost.items() if not error > MAX_ERROR]
    if not unnoticed:
        return Row(ABLATION, True, f"the loss of each of {len(lost)} states shows", error=min(lost.values()))
    unread = [name for name in unnoticed if not lost[name]]
    if unread and bench.comparable and not _unread_too(bench, calls, unread):
        return Row(ABLATION, False, f"changes nothing, to the bit, so it is not read: {few(unread)}", worst=unread[0])
    return Row(ABLATION, None, f"on these codes the loss does not show, so it is not tested: {few(unnoticed)}")


def _unread_too(bench: Bench, calls: Sequence[Call], names: Sequence[str]) -> bool:
    """Whether the package's step too gives the same without these states."""
    run = run_of(bench.right, bench.spec)
    for call in calls:
        without = run(call.feeds | {name: np.zeros_like(call.feeds[name]) for name in names})[bench.waveform]
        if not np.array_equal(without, run(call.feeds)[bench.waveform]):
            return False
    return True


def few(texts: Sequence[str], most: int = 4) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if texts[most:] else "")
