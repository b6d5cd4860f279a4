"""Which mistakes a failure comes from: by comparison with mistakes that run, by what the step computes, and when."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ...runtime.metrics import MAX_ERROR, scaled_error
from ...spec import StateSpec
from .bench import SINGLE_CALLS
from .calls import Arrays, Call, Difference
from .departure import Result, departure, results
from .looks import data_order, frames_of
from .mistakes import known_mistakes, run_of

# Of a call's error, how much a mistake may leave unexplained: two float32 computations of one mistake leave 1e-3.
ALIKE = 0.1
# A mistake that explains so much of an error is named as a part of it.
MOSTLY = 0.5
HALF = (torch.float16, torch.bfloat16)
LOOKS_AHEAD = "it looks ahead"
HALF_WORDS = "the computation goes through"
ARITHMETIC = ("add", "sub", "rsub", "mul", "div", "pow", "add_", "sub_", "mul_", "div_")
CLAMPS = ("clamp", "clamp_min", "clamp_max", "hardtanh", "relu", "clamp_", "relu_")


# ---- by comparison with mistakes that run ---------------------------------------------------------


def recognised(right: Any, forced: Sequence[Difference]) -> list[str]:
    """The known mistakes that give what the step gave in the calls `forced`: each began with the right state.

    A mistake has to be alike in the first call that is wrong, in the last one, and in one that is right where there is
    one. Where none is, the one that explains most of the first call's error.
    """
    wrong = [each for each in forced if each.wrong]
    if not wrong:
        return []
    others = [wrong[-1], max(wrong, key=lambda each: each.call.frames)]
    others += [each for each in forced if not each.wrong and not each.raised][-1:]
    found, partly = [], []
    for mistake in known_mistakes(right):
        left = unexplained(mistake.run, wrong[0])
        if left <= ALIKE and all(unexplained(mistake.run, each) <= ALIKE for each in others):
            found.append(mistake.words)
        elif left < MOSTLY:
            partly.append((left, f"{mistake.words}; that explains {1 - left:.0%} of the first wrong call's error"))
    return [*dict.fromkeys(found or [words for _, words in sorted(partly)[:1]])]


def unexplained(run: Callable[[Arrays], Arrays], difference: Difference) -> float:
    """The share of a call's error that is left when the mistake `run` is taken for right, at the worst output.

    inf where the mistake fails, or is wrong where the step is not.
    """
    try:
        mistaken = run(difference.call.feeds)
    except Exception:  # a mistake need not run on every interface
        return np.inf
    shares = [0.0]
    for name, wanted in difference.call.outputs.items():
        found, other = difference.found[name], mistaken[name]
        off, others_off = scaled_error(wanted, found), scaled_error(wanted, other)
        if off <= MAX_ERROR and others_off <= MAX_ERROR:
            continue
        if found.shape != other.shape or found.shape != wanted.shape or off <= MAX_ERROR or not np.isfinite(off):
            return np.inf
        left, all_of_it = (np.linalg.norm((found - each).astype(np.float64)) for each in (other, wanted))
        shares.append(float(left / all_of_it))
    return max(shares)


# ---- by what the step computes --------------------------------------------------------------------


def computed(right: Any, step: Any, feeds: Arrays) -> tuple[str, list[str]]:
    """(where the step departs from the right one, in words; the causes that this shows), in one call."""
    mine, theirs = (results(partial(run_of(each, right.spec), feeds)) for each in (right, step))
    constants = {tensor.data_ptr(): name for name, tensor in [*step.named_parameters(), *step.named_buffers()]}
    made = [result for result in theirs if not result.inputs or {*result.inputs} - {*constants}]
    found = departure(mine, made)
    causes = [*_not_finite(mine, theirs), *_half(mine, theirs), *_constants(mine, theirs)]
    if found is None:
        return "", causes
    first, beside = found
    # A clamp of as many numbers by the same bounds is the package's own, of something that was wrong before.
    if first.operator in CLAMPS and not (beside and (beside.numbers, beside.key[0]) == (first.numbers, first.key[0])):
        causes.insert(0, f"a clamp that the package's step does not have: {first.place}")
    taken = [constants[place] for place in first.inputs if place in constants]
    if first.operator in ("add", "add_") and taken:
        causes.insert(
            0, f"`{taken[0]}` is added twice: its layer has added it already, and {first.place} does so again"
        )
    where = f"the first result that the package's step does not have is that of `{first.operator}` at {first.place}"
    return where, causes


def _not_finite(mine: Sequence[Result], theirs: Sequence[Result]) -> Iterator[str]:
    if any(np.isnan(result.key[1]) for result in mine):
        return
    first = next((result for result in theirs if np.isnan(result.key[1])), None)
    if first and "softmax" in first.operator:
        yield (
            f"a softmax over a row that is -inf everywhere gives NaN: a query sees no key at all ({first.place}); mask "
            "with the dtype's lowest number, and let each query see its own frame"
        )
    elif first:
        yield f"`{first.operator}` gives the first NaN: {first.place}"


def _half(mine: Sequence[Result], theirs: Sequence[Result]) -> Iterator[str]:
    if any(result.dtype in HALF for result in mine):
        return
    if first := next((result for result in theirs if result.dtype in HALF), None):
        yield f"{HALF_WORDS} {str(first.dtype).removeprefix('torch.')}: {first.place}"


def _constants(mine: Sequence[Result], theirs: Sequence[Result]) -> Iterator[str]:
    """Constants of the arithmetic that one of the two takes more often than the other."""

    def of(found: Sequence[Result]) -> Counter[tuple[str, float]]:
        return Counter(
            (each.operator, number) for each in found if each.operator in ARITHMETIC for number in each.numbers
        )

    more, fewer = of(theirs) - of(mine), of(mine) - of(theirs)
    for operator, number in more:
        place = next(each.place for each in theirs if each.operator == operator and number in each.numbers)
        instead = [f"{value:g}" for name, value in fewer if name == operator]
        text = (
            f"where the package's step takes {', '.join(instead)}" if instead else "which the package's step does not"
        )
        yield f"`{operator}` takes the constant {number:g}, {text}: {place}"


# ---- where in the data's order, and when ----------------------------------------------------------


def layers_of(right: Any) -> dict[str, str]:
    """{a next state: the module whose input or keys it holds}, as far as the design tells."""
    spec = right.spec
    convs = [after.name for _, after in spec.states if after.name.startswith("next_conv_") and after.name[-1].isdigit()]
    found = {name: module for name, (module, _) in zip(convs, getattr(right, "conv_layers", []), strict=False)}
    for name in data_order(spec):
        if "_key_" in name or "_value_" in name:
            found[name] = f"pre_transformer.layers.{int(name.rpartition('_')[2])}"
    return found


def where_in_the_layers(right: Any, forced: Sequence[Difference]) -> str:
    """Between which two states a fault lies, by the calls that began with the right state."""
    wrong = {name for each in forced for name in each.wrong}
    order, layers = [name for name in data_order(right.spec) if name not in ("valid_samples",)], layers_of(right)
    first = next((name for name in order if name in wrong), None)
    if first is None:
        return ""
    main = right.spec.outputs[0].name
    named = f"`{first}`" + (f" ({layers[first]})" if first in layers else "")
    if main not in wrong:
        return (
            f"in calls that begin with the package's state the audio is right, and what is handed on is wrong: {named}"
            + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "")
        )
    earlier = order[: order.index(first)]
    after = f", and `{earlier[-1]}`" + (f" ({layers[earlier[-1]]})" if earlier[-1] in layers else "") if earlier else ""
    right_before = f"{after} before it is right" if earlier else ""
    return f"in the order of the data {named} is the first that is wrong{right_before}"


def which_calls(forced: Sequence[Difference], full: int) -> str:
    """Which of the single calls are wrong, if a rule shows: what is true of these, not of calls in a stream."""
    wrong = [each.call for each in forced if each.wrong or each.raised]
    right = [each.call for each in forced if not (each.wrong or each.raised)]
    rule = _rule(wrong, right, full) if wrong else ""
    return rule and f"of the single calls (in chunks of {', '.join(map(str, SINGLE_CALLS))}), {rule}"


def is_the_first(calls: Sequence[Call]) -> bool:
    """Whether these calls are one, and it begins the stream."""
    return [call.start for call in calls] == [0]


def _rule(wrong: Sequence[Call], right: Sequence[Call], full: int) -> str:
    if not right:
        return "each is wrong, the one at frame 0 too"
    if is_the_first(wrong):
        return "the one at frame 0 alone is wrong"
    if is_the_first(right):
        return "each but the one at frame 0 is wrong: what goes wrong needs a state"
    lengths, others = ({call.frames for call in calls} for calls in (wrong, right))
    if not lengths & others:
        if min(lengths) > max(others):
            return f"those of {min(lengths)} frames and more are wrong, shorter ones are right"
        if max(lengths) < min(others):
            return f"those of up to {frames_of(max(lengths))} are wrong, longer ones are right"
        return f"those of {' and '.join(map(frames_of, sorted(lengths)))} are wrong, others are right"
    last_right = max(call.start for call in right)
    if all(call.start + call.frames > full for call in wrong):
        return f"all that are wrong reach frame {full}, where every state is full"
    if all(call.start > last_right for call in wrong):
        return f"those from frame {wrong[0].start} on are wrong"
    if all(call.start < full for call in wrong):
        return f"all that are wrong begin before frame {full}, where every state is full"
    return ""


def look_ahead(step: Any, spec: StateSpec, codes: np.ndarray, frames: int = 8) -> str:
    """How far before a frame samples move with its codes, in one call from zeros; "" if none does."""
    codes = np.ascontiguousarray(codes[:, :frames])
    changed, last = codes.copy(), codes.shape[1] - 1
    changed[:, last] = (changed[:, last] + 1) % spec.codebook_size
    inputs = {"is_last": np.zeros(1, np.float32), **spec.zero_state()}
    run, main = run_of(step, spec), spec.outputs[0].name
    try:
        one, other = (run({**inputs, "audio_codes": each})[main] for each in (codes, changed))
    except (Exception, SystemExit):
        return ""
    if one.shape != other.shape or not np.isfinite(one).all():
        return ""
    per_frame = spec.samples_per_frame
    early = np.flatnonzero((one != other).any(axis=0)[: last * per_frame])
    if not early.size:
        return ""
    ahead = last * per_frame - int(early[0])
    if ahead > (last - 1) * per_frame:
        return f"{LOOKS_AHEAD}: a frame's codes move all samples of its chunk"
    return f"{LOOKS_AHEAD}: a frame's codes move samples up to {ahead} before it ({ahead / per_frame:.2g} frames)"


def growth(errors: np.ndarray) -> str:
    """Does the error of each frame grow along the stream, or die away?"""
    if not (errors > MAX_ERROR).any():
        return ""
    wrong = errors[int((errors > MAX_ERROR).argmax()) :]
    if len(wrong) < 8 or not np.isfinite(wrong).all():
        return ""
    quarter = len(wrong) // 4
    begin, end = (float(np.sqrt(np.mean(part**2))) for part in (wrong[:quarter], wrong[-quarter:]))
    if end > 10 * begin:
        return f"the error grows along the stream, from {begin:.1e} to {end:.1e}"
    if end <= MAX_ERROR:
        return f"the error dies away: {begin:.1e} at first, {end:.1e} at the end"
    return ""
