"""What every check of `judge` works on: the step, the package's step of its design, codes, what must come out."""

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ...exporting.diagnostics import STDERR, STDOUT, Diagnostic, captured, is_advice
from ...exporting.diagnostics.wording import described
from ...model.checkpoint import Checkpoint, OtherModel, example_codes
from ...model.one_shot import one_shot
from ...runtime.codes import check_codes
from ...runtime.measured_snr import FLOAT32
from ...runtime.metrics import MAX_ERROR
from ...spec import DECODER, StateSpec
from ...streaming.designs import WRAPPERS, wrapper_of
from ...streaming.session import TorchSession
from ..report import MAX_MSE, frame_errors
from .calls import Run, in_words, is_theirs, stream_run

# Frames past the window: in chunks of 7, 1, 2 two calls of one frame begin there, so that rows at two offsets share
# a call.
PAST_THE_WINDOW = 24
MIXED = (7, 1, 2)
# Single calls: short ones come before the long one, so that with a window of a few frames too some begin and end before
# every state is full.
SINGLE_CALLS = (1, 2, 2, 7)


class Bench:
    """A step to be judged, and all that it is held against.

    `right` is the package's step of the same design and settings, or None where there is none; `declared` is the step's
    own spec, or None where `problem` says why nothing can be run.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | OtherModel,
        step: Any,
        settings: dict[str, int],
        codes: np.ndarray | None,
        reference: np.ndarray | None,
    ):
        self.checkpoint, self.settings, self._given, self._reference = checkpoint, settings, step, reference
        self.name = step.__name__ if inspect.isclass(step) else type(step).__name__
        self.said: list[Diagnostic] = []
        self.runs: dict[tuple[int, ...], Run] = {}
        self._errors: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray, str]] = {}
        self.kept: list[str] = []  # what the module changes of its own in a call
        self.right: Any = None
        self.declared: StateSpec | None = None
        self.problem = self._build()
        if self.declared is None:
            return
        if codes is None and not isinstance(checkpoint, Checkpoint):
            raise ValueError(f"{checkpoint.source}: give codes and a reference: its decoder is not known here")
        spec = self.right.spec if self.right else self.spec
        if codes is None:
            codes = example_codes(checkpoint, spec.frames_to_fill + PAST_THE_WINDOW)
        self.codes: np.ndarray = check_codes(codes, spec)
        if reference is None and not isinstance(checkpoint, Checkpoint):
            raise ValueError(f"{checkpoint.source}: give a reference: its decoder is not known here")

    def _build(self) -> str:
        """Why there is no step to run, in words, or ""."""
        weights = self.checkpoint.fingerprint(DECODER)
        try:
            self.step = self.make()
            spec = self.step.spec
        except AttributeError as error:
            if "'spec'" not in str(error):
                return in_words(error)
            return f"{self.name} has no `spec`: it declares the tensors that go in and come out"
        except (Exception, SystemExit) as error:
            return in_words(error)
        if not isinstance(spec, StateSpec):
            return f"{self.name}.spec is a {type(spec).__name__}, must be a StateSpec (see `exact_spec`)"
        self.checkpoint.check_unchanged()
        if self.checkpoint.fingerprint(DECODER) != weights:
            return "building the step changes weights of the decoder that it was given: work on a copy of them"
        self.declared = spec
        if isinstance(self.checkpoint, Checkpoint) and any(key[:2] == (DECODER, spec.design) for key in WRAPPERS):
            self.right = wrapper_of(self.checkpoint, spec.design, DECODER, FLOAT32, **spec.settings)
        return ""

    @property
    def spec(self) -> StateSpec:
        """What the step declares; only what could be built has a spec."""
        if self.declared is None:
            raise ValueError(f"{self.name}: {self.problem}")
        return self.declared

    def make(self) -> Any:
        """A step that has run nothing yet."""
        if inspect.isclass(self._given):
            return self._given(getattr(self.checkpoint, DECODER), **self.settings)
        if not isinstance(self._given, torch.nn.Module):
            raise TypeError(f"{self.name} is no streaming step: give a class, or an nn.Module with a `spec`")
        shared = {id(tensor): tensor for tensor in self._given.parameters()}
        return copy.deepcopy(self._given, shared)

    @property
    def full(self) -> int:
        """Frames after which all states are full."""
        return (self.right or self.step).spec.frames_to_fill

    @property
    def waveform(self) -> str:
        """The name of the output that is heard."""
        return self.spec.outputs[0].name

    @cached_property
    def spec_differences(self) -> list[str]:
        """What the step declares otherwise than the package's step of its design."""
        if self.right is None:
            return ["the package has no step of this design"]
        pairs = ((t.name, t) for t in (*self.spec.all_inputs, *self.spec.all_outputs))
        mine = {tensor.name: tensor for tensor in (*self.right.spec.all_inputs, *self.right.spec.all_outputs)}
        theirs = dict(pairs)
        found = [f"`{name}` is missing" for name in mine if name not in theirs]
        found += [f"`{name}` is new" for name in theirs if name not in mine]
        for name in mine.keys() & theirs.keys():
            for what in ("shape", "dtype"):
                one, other = getattr(mine[name], what), getattr(theirs[name], what)
                if one != other:
                    found.append(f"`{name}` has the {what} {other}, in the package's step {one}")
        return found or (["the order of its tensors"] if self.spec != self.right.spec else [])

    @property
    def comparable(self) -> bool:
        """Whether the package's step takes and gives the same tensors, so that single calls can be compared."""
        return not self.spec_differences

    @cached_property
    def one_shot(self) -> np.ndarray:
        return one_shot(self.checkpoint.decoder, self.codes) if self._reference is None else self._reference

    def wanted(self, schedule: Sequence[int]) -> np.ndarray:
        """What the design must give over a schedule."""
        oracle = getattr(self.right, "oracle", None)
        if self._reference is not None or oracle is None:
            return self.one_shot
        wanted = oracle(self.checkpoint.decoder, self.codes, schedule)
        return self.one_shot if wanted is None else wanted

    def run(self, schedule: Sequence[int]) -> Run:
        """The step over a schedule, from an instance of its own; once for each."""
        if tuple(schedule) not in self.runs:
            session = TorchSession(self.make())
            self.runs[tuple(schedule)] = stream_run(session, self.codes, schedule, keep=tuple(schedule) == MIXED)
        return self.runs[tuple(schedule)]

    @cached_property
    def right_calls(self) -> list:
        """The calls of the package's step over `SINGLE_CALLS`: each begins with a state that is right."""
        return stream_run(TorchSession(self.right), self.codes, SINGLE_CALLS, keep=True).calls

    def errors(self, schedule: Sequence[int]) -> tuple[np.ndarray, np.ndarray, str]:
        """(largest error of each frame, which frames are wrong, what is wrong with the length or ended the stream)."""
        if tuple(schedule) not in self._errors:
            self._errors[tuple(schedule)] = self._measured(schedule)
        return self._errors[tuple(schedule)]

    def _measured(self, schedule: Sequence[int]) -> tuple[np.ndarray, np.ndarray, str]:
        run, wanted = self.run(schedule), self.wanted(schedule)
        per_frame, total = self.spec.samples_per_frame, self.codes.shape[1]
        sizes, wrong, trouble = np.zeros(total), np.zeros(total, bool), ""
        done = seen = 0
        for frames, piece in zip(run.frames, run.pieces, strict=False):
            seen += frames
            until = seen if seen == total else max(done, seen - self.spec.lookahead_frames)
            samples = slice(done * per_frame, until * per_frame)
            must = wanted[:, samples]
            common = min(must.shape[1], piece.shape[1])
            error, square = frame_errors(must[:, :common], piece[:, :common], per_frame)
            place = slice(done, done + len(error))
            sizes[place], wrong[place] = error, ~((error <= MAX_ERROR) & (square <= MAX_MSE))
            if piece.shape[1] != must.shape[1]:
                wrong[done : until or 1] = True
                off = piece.shape[1] - must.shape[1]
                kind = f"too {'many' if off > 0 else 'few'}"
                trouble = (
                    trouble or f"the call at frame {seen - frames} gives {abs(off)} sample{'s' * (abs(off) > 1)} {kind}"
                )
            done = until
        if run.error:
            wrong[run.until :], sizes[run.until :] = True, np.inf
            trouble = trouble or f"the call at frame {run.until}: {run.error}"
        return sizes, wrong, trouble

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect what is said in the block."""
        with captured() as said:
            yield
        self.said += said

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was said about lines of the step, each once; and what the step prints, the first lines of it."""
        texts = [each for each in self.said if each.category not in (STDOUT, STDERR) and _of_the_step(each)]
        prints = [each for each in self.said if each.category == STDOUT and not is_advice(each)]
        return (*described(texts), *described(prints[:1]))


def _of_the_step(said: Diagnostic) -> bool:
    place = said.called_from
    return is_theirs(said.source) if said.line and is_theirs(said.source) else bool(place and is_theirs(place.source))


def attributes(step: torch.nn.Module) -> dict[str, Any]:
    """{module.attribute: a picture of its value} of all that a module could keep from call to call."""
    found: dict[str, Any] = {}
    for prefix, module in step.named_modules():
        own = {name: value for name, value in vars(module).items() if not name.startswith("_") or name[1:2] != "_"}
        for name, value in {**own, **module._buffers}.items():
            if (picture := _picture(value)) is not None:
                found[".".join(filter(None, (prefix, name)))] = picture
    return found


def _picture(value: Any) -> Any:
    """Something that is equal for equal values; None for what is no data."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(map(_picture, value))
    return None
