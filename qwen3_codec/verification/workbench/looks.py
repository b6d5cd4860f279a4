"""What a wrong output looks like beside the right one: lost, swapped, late, too short, scaled, rounded."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...runtime.metrics import MAX_ERROR, scaled_error
from ...spec import StateSpec
from .calls import Difference

# Of an error, how much may be left when a look explains it.
SAME = 0.01
LOST = "comes out as zeros: the state is lost"


def handed_on(spec: StateSpec, forced: Sequence[Difference], waveform: str) -> list[str]:
    """What the wrong outputs look like beside the right ones, in calls that began with the right state.

    Where the audio is wrong as well, states behind the fault are wrong in its wake: then the first wrong one alone, in
    the order of the data.
    """
    wrong = [each for each in forced if each.wrong]
    names = [name for name in data_order(spec) if any(name in each.wrong for each in wrong)]
    in_its_wake = waveform in names and len(names) > 1
    before = {after.name: before.name for before, after in spec.states}
    looks: dict[str, list[str]] = {}
    for name in names:
        calls = [each for each in wrong if name in each.wrong]
        words = Counter(_moved(name, before.get(name), each) for each in calls)
        if words.keys() == {""} and (not in_its_wake or name == names[0]):
            words = Counter(_looks(name, each, in_its_wake) for each in calls)
        text = max(words - Counter({"": words[""]}), key=words.__getitem__, default="")
        if text == LOST and any(name not in each.wrong and each.call.outputs[name].any() for each in forced):
            full = spec.frames_to_fill
            late = all(each.call.start + each.call.frames >= full for each in calls)
            text = f"comes out as zeros {f'once every state is full, at frame {full}' if late else 'in some calls'}"
        if not text and calls[0].found[name].dtype == np.int64:
            text = _counted(name, before.get(name), calls)
        if text:
            looks.setdefault(text, []).append(f"`{name}`")
    return [f"{_listed(which)} {text}" for text, which in looks.items()]


def _counted(name: str, before: str | None, calls: Sequence[Difference]) -> str:
    """How a count is wrong; "" if its clamp is missing, which the step's stream says with the line to add."""
    if before and all((each.found[name] == each.call.feeds[before] + each.call.frames).all() for each in calls):
        return ""
    if before and all((each.found[name] == each.call.feeds[before] + 1).all() for each in calls):
        return "counts calls in place of frames"
    frames, by = calls[0].call.frames, int((calls[0].found[name] - calls[0].call.outputs[name]).flat[0])
    return f"counts {abs(by)} too {'many' if by > 0 else 'few'} in a call of {frames_of(frames)}"


def frames_of(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _moved(name: str, before: str | None, difference: Difference) -> str:
    """Is a wrong tensor another one of the right ones, or nothing?"""
    found, call = difference.found[name], difference.call
    if not np.isfinite(found).all():
        return "is not finite"
    if not found.any():  # in the first call the old state is zeros as well: that tells nothing
        return LOST if before and call.feeds[before].any() else ""
    if before and equal(found, call.feeds[before]):
        return "comes out as it went in: the old state is handed back, the new one is not returned"
    for other, array in call.outputs.items():
        if other != name and equal(found, array):
            return f"holds what belongs into `{other}`: states are swapped"
    return ""


def _looks(name: str, difference: Difference, in_its_wake: bool) -> str:
    """How a wrong tensor comes from the right one, or ""; along time, if it is not wrong in another's wake."""
    found, wanted = difference.found[name], difference.call.outputs[name]
    if found.dtype == np.int64 or found.ndim != wanted.ndim:
        return ""
    if found.shape == wanted.shape:
        return ("" if in_its_wake else _along_time(found, wanted)) or _changed(found, wanted)
    by = found.shape[-1] - wanted.shape[-1]
    if by < 0 and equal(found, wanted[..., -by:]):
        if found.shape[-1] == difference.call.frames:
            return (
                "is cut from the new frames alone: after a chunk that is shorter than the left context it is too short"
            )
        return f"lacks its oldest {_entries(-by)}: the left context is too short"
    return f"comes out {abs(by)} too {'long' if by > 0 else 'short'}" if by else "has another shape"


def _along_time(found: np.ndarray, wanted: np.ndarray) -> str:
    """Is a tensor shifted along its time axis, or wrong at one end of it?"""
    axis = 1 if found.ndim == 2 else 2
    found, wanted = np.moveaxis(found, axis, -1), np.moveaxis(wanted, axis, -1)
    length = found.shape[-1]
    for by in range(1, min(length, 9)):
        if wanted[..., :-by].any() and equal(found[..., by:], wanted[..., :-by]):
            return f"is late by {by}: its newest {_entries(by)} are missing".replace("entry are", "entry is")
        if wanted[..., by:].any() and equal(found[..., :-by], wanted[..., by:]):
            return f"is early by {by}: each entry is the one that must come {by} later"
    off = np.abs(found - wanted).max(axis=tuple(range(found.ndim - 1))) > MAX_ERROR * max(1.0, np.abs(wanted).max())
    places = np.flatnonzero(off)
    if not 0 < places.size < length:
        return ""
    if axis == 1 and places[-1] - places[0] < length // 2:  # audio
        end = "first" if places[-1] < length // 2 else "last"
        return f"is wrong in its {end} samples alone: something is done at the border of each call"
    zeros = " (zeros)" if not found[..., off].any() else ""
    if places[-1] == places.size - 1:
        return f"is wrong in its oldest {_entries(places.size)} alone{zeros}: the left context is too short"
    if places[0] == length - places.size:
        return f"is wrong in its newest {_entries(places.size)} alone{zeros}"
    return ""


def _entries(count: int) -> str:
    return "entry" if count == 1 else f"{count} entries"


def _changed(found: np.ndarray, wanted: np.ndarray) -> str:
    """Is a tensor the right one scaled, cut, moved, rounded or in another order?"""
    largest = float(np.abs(found).max())
    if equal(found, np.clip(wanted, -largest, largest)):
        return f"is clamped at {largest:.4g}"
    scale = float((found.astype(np.float64) * wanted).sum() / (wanted.astype(np.float64) ** 2).sum())
    if scale and np.linalg.norm(found - scale * wanted) < SAME * np.linalg.norm(found - wanted):
        return f"is {scale:.5g} times what it must be"
    error = found.astype(np.float64) - wanted
    if error.ndim == 3 and error.shape[2] > 1 and np.abs(error.std(axis=2)).max() < SAME * np.abs(error).max():
        return "is off by a constant for each channel: something like a bias is added too often"
    if np.abs(error).max() > MAX_ERROR and np.array_equal(found, wanted.astype(np.float16).astype(found.dtype)):
        return "is rounded to float16"
    return _reordered(found, wanted)


def _reordered(found: np.ndarray, wanted: np.ndarray) -> str:
    """Has a tensor the right values at other places?"""
    for axis in range(found.ndim - 1, 0, -1):
        if equal(np.flip(found, axis), wanted):
            return f"is flipped along axis {axis}"
    if equal(np.sort(found, axis=None), np.sort(wanted, axis=None)):
        return "has the right values in another order: an axis is permuted, or a `reshape` stands for a `transpose`"
    return ""


def equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(scaled_error(other, one) <= MAX_ERROR)


def data_order(spec: StateSpec) -> list[str]:
    """The outputs of a step in the order in which it computes them: what is behind a fault is wrong in its wake."""
    names = [after.name for _, after in spec.states]
    attention = [name for name in names if "_key_" in name or "_value_" in name]
    attention.sort(key=lambda name: (int(name.rpartition("_")[2]), name))
    counts = [after.name for before, after in spec.states if after.dtype == "int64"]
    convs = [name for name in names if name not in attention and name not in counts]
    return [*counts, *convs[:1], *attention, *convs[1:], *(tensor.name for tensor in spec.outputs)]
