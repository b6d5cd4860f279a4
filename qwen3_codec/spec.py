"""What goes into a graph and what comes out: every tensor's name, order, shape, axis names, dtype and zero value.

This is the only list. The exporter names the graph's inputs and outputs from it, the ONNX file carries it as JSON, and
the runtime, the verifier, the tests and the notebooks' tables read it back.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil, prod
from typing import Any

import numpy as np

# Written into every graph; raised when a client that reads one version could misread the other.
FORMAT_VERSION = "1"
BATCH, FRAMES, SAMPLES = "batch", "frames", "samples"
DECODER, ENCODER = "decoder", "encoder"  # the parts of a checkpoint
EXACT, WINDOWED, ONE_SHOT = "exact", "windowed", "one-shot"  # the designs, see `streaming.designs`
WINDOWED_FRAMES = 4  # of left context and of look-ahead, where nobody says otherwise
LEFT_CONTEXT = "left_context_frames"  # the axis of what the windowed design's convolutions recompute


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. In `shape` a number is a fixed length and a text is the name of an axis that may vary."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """{axis index: axis name} of the axes that may vary, as `torch.onnx.export` takes them."""
        return {index: axis for index, axis in enumerate(self.shape) if isinstance(axis, str)}

    def with_lengths(self, lengths: dict[str, int]) -> tuple[int, ...]:
        """The shape with a number for each axis; raises KeyError for an axis that `lengths` does not have."""
        return tuple(lengths[axis] if isinstance(axis, str) else axis for axis in self.shape)

    def problem(self, array: np.ndarray, limits: dict[str, int]) -> str | None:
        """What is wrong with `array` as this tensor (dtype, rank, a length), or None."""
        if array.dtype != self.dtype:
            return f"{self.name} is {array.dtype}, must be {self.dtype}"
        if array.ndim != len(self.shape):
            return f"{self.name} has the shape {array.shape}, must be [{', '.join(map(str, self.shape))}]"
        for index, (length, axis) in enumerate(zip(array.shape, self.shape, strict=True)):
            if isinstance(axis, str):
                if length > limits.get(axis, length):
                    return f"{self.name}: axis {index} ({axis}) is {length} long, at most {limits[axis]} is allowed"
            elif length != axis:
                return f"{self.name}: axis {index} is {length} long, must be {axis}"
        return None


@dataclass(frozen=True)
class StateSpec:
    """One graph's whole interface.

    `inputs` and `outputs` are the tensors of one call; `states` are (input, output) pairs: what comes out under the
    second name goes in under the first at the next call. In the graph, inputs come before states, outputs likewise.
    `limits` holds the longest length of each axis that has one, and the largest value of each integer state; `settings`
    what the design's wrapper was made with, under its own names. `modules` says which module of the model each state
    belongs to; two graphs that differ in it alone have the same interface.
    """

    design: str
    sample_rate: int
    samples_per_frame: int
    codebook_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[tuple[TensorSpec, TensorSpec], ...]
    limits: dict[str, int] = field(default_factory=dict)
    settings: dict[str, int] = field(default_factory=dict)
    part: str = DECODER
    modules: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def all_inputs(self) -> list[TensorSpec]:
        return [*self.inputs, *(before for before, _ in self.states)]

    @property
    def all_outputs(self) -> list[TensorSpec]:
        return [*self.outputs, *(after for _, after in self.states)]

    @property
    def title(self) -> str:
        """The design in a few words."""
        return ", ".join([self.design, *(f"{name.replace('_', ' ')} {n}" for name, n in self.settings.items())])

    @property
    def lookahead_frames(self) -> int:
        """Frames that a stream buffers until later ones have come."""
        return self.settings.get("lookahead_frames", 0)

    @property
    def cut_is_exact(self) -> bool:
        """Whether frames in one call and in several give the same, so that a client may cut a long call."""
        return self.design == EXACT

    @property
    def num_quantizers(self) -> int:
        """Codes per frame, the last axis of `audio_codes`."""
        return int(self._codes.shape[-1])

    @property
    def fixed_frames(self) -> int | None:
        """Frames in a call, where the graph takes one number of them alone."""
        return self._fixed_axis(1)

    @property
    def fixed_batch(self) -> int | None:
        """Rows in a call, where the graph takes one number of them alone."""
        return self._fixed_axis(0)

    @property
    def frames_to_fill(self) -> int:
        """Frames after which every state has its full length: a shorter stream does not show what goes wrong then."""
        return max(self.limits.values(), default=0)

    @property
    def _codes(self) -> TensorSpec:
        """`audio_codes`: what a decoder takes and an encoder gives."""
        return next(tensor for tensor in (*self.inputs, *self.outputs) if tensor.name == "audio_codes")

    def _fixed_axis(self, index: int) -> int | None:
        length = self._codes.shape[index]
        return length if isinstance(length, int) else None

    def with_modules(self, names: Sequence[str]) -> "StateSpec":
        """The same with `modules`: a name for each state, in their order."""
        return replace(self, modules={before.name: name for (before, _), name in zip(self.states, names, strict=True)})

    def zero_state(self, batch: int = 1) -> dict[str, np.ndarray]:
        """The state of `batch` streams that have seen nothing: zeros, with every axis that grows at length 0."""
        return {spec.name: np.zeros(shape, spec.dtype) for spec, shape in self._state_shapes(batch, full=False)}

    def bytes_per_stream(self) -> int:
        """Bytes that one stream carries once every state has its full length."""
        return sum(prod(shape) * np.dtype(spec.dtype).itemsize for spec, shape in self._state_shapes(1, full=True))

    def _state_shapes(self, batch: int, full: bool) -> Iterator[tuple[TensorSpec, tuple[int, ...]]]:
        lengths = {axis: limit if full else 0 for axis, limit in self.limits.items()} | {BATCH: batch}
        for spec, _ in self.states:
            yield spec, spec.with_lengths(lengths)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "StateSpec":
        """Read back `to_json`, of 0.1.0 too; raises ValueError where the text is not one."""

        def tensor(entry: dict[str, Any]) -> TensorSpec:
            return TensorSpec(entry["name"], tuple(entry["shape"]), entry["dtype"])

        try:
            entries = json.loads(re.sub(r'"(next_)?history_frames"', rf'"\1{LEFT_CONTEXT}"', text))
            if "kind" in entries:
                entries |= _design_of_kind(entries.pop("kind"), entries.pop("lookahead_frames"), entries["limits"])
            entries["inputs"] = tuple(map(tensor, entries["inputs"]))
            entries["outputs"] = tuple(map(tensor, entries["outputs"]))
            entries["states"] = tuple((tensor(before), tensor(after)) for before, after in entries["states"])
            return cls(**entries)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a state specification: {error!r}") from error


def _design_of_kind(kind: str, lookahead_frames: int, limits: dict[str, int]) -> dict[str, Any]:
    """What stands for the `kind` of 0.1.0, which said ENCODER or a decoder's design."""
    settings = {"lookahead_frames": lookahead_frames} if lookahead_frames else {}
    if kind == WINDOWED:
        settings = {"conv_history_frames": limits[LEFT_CONTEXT], "lookahead_frames": lookahead_frames}
    return {"design": EXACT, "part": ENCODER} if kind == ENCODER else {"design": kind, "settings": settings}


def audio_codes_spec(num_quantizers: int) -> TensorSpec:
    """The codes of one call, [B, N, Q]."""
    return TensorSpec("audio_codes", (BATCH, FRAMES, num_quantizers), "int64")


def exact_spec(
    config: Any,
    samples_per_frame: int,
    states: Iterable[tuple[str, tuple[int, ...]]],
    attention: Any = None,
    part: str = DECODER,
    steps_per_frame: int = 1,
    sample_rate: int | None = None,
    num_quantizers: int | None = None,
) -> StateSpec:
    """The exact graph's interface. A state NAME comes out as `next_NAME`.

    `states` lists (kind, shape without the rows) of what the layers carry, in the order of the data: `layers.states_of`
    gives it. Each is called by its kind and number, of two digits, so that servers which pair states by sorted name
    (Triton does) pair them right. `attention` is the config of a transformer; its window counts its own steps, of which
    a frame has `steps_per_frame`. Then a count of each row's past frames, which stops where they fill the window, comes
    before the layers' states, and the keys and values that the next step may look at come behind them.

    Another codec's `config` serves too; what it calls otherwise is given: `sample_rate`, `num_quantizers`.
    """
    limits, pairs, numbers = {}, [], Counter[str]()
    if attention:
        limits["past_frames"] = ceil((attention.sliding_window - 1) / steps_per_frame)
        pairs.append(_fixed("past_frames", (1,), "int64"))
        past = attention.num_key_value_heads, attention.sliding_window - 1, attention.head_dim
        states = [*states, *[(kind, past) for kind in ("key", "value") for _ in range(attention.num_hidden_layers)]]
    for kind, shape in states:
        pairs.append(_fixed(f"{kind}_{numbers[kind]:02}", shape))
        numbers[kind] += 1
    codes, encoder = audio_codes_spec(num_quantizers or config.num_quantizers), part == ENCODER
    return StateSpec(
        design=EXACT,
        part=part,
        sample_rate=sample_rate or config.output_sample_rate,
        samples_per_frame=samples_per_frame,
        codebook_size=config.codebook_size,
        inputs=(TensorSpec("audio", (BATCH, SAMPLES)) if encoder else codes,),
        outputs=(codes if encoder else TensorSpec("waveform", (BATCH, SAMPLES)),),
        states=tuple(pairs),
        limits=limits,
    )


def _fixed(name: str, shape: tuple[int, ...], dtype: str = "float32") -> tuple[TensorSpec, TensorSpec]:
    """A state of one shape, before and after the call."""
    return TensorSpec(name, (BATCH, *shape), dtype), TensorSpec(f"next_{name}", (BATCH, *shape), dtype)


def windowed_spec(
    config: Any, samples_per_frame: int, pre_conv_left_context: int, conv_history_frames: int, lookahead_frames: int
) -> StateSpec:
    """The windowed graph's interface: at 8 layers, 21 inputs and 23 outputs, under the names that its users know.

    `config` has upstream's `decoder_config` fields and `output_sample_rate`. All lengths are in frames.
    """
    limits = {
        "pre_conv_frames": pre_conv_left_context,
        "latent_frames": lookahead_frames,
        LEFT_CONTEXT: conv_history_frames,
    }
    states = [
        _grown("pre_conv_h", "next_pre_conv_h", (config.codebook_dim, "pre_conv_frames"), limits),
        _grown("latent_buf", "next_latent_buf", (config.latent_dim, "latent_frames"), limits),
        _grown("conv_h", "next_conv_h", (config.latent_dim, LEFT_CONTEXT), limits),
    ]
    for kind in ("key", "value"):
        for layer in range(config.num_hidden_layers):
            limits[axis := f"past_seq_{layer}"] = config.sliding_window
            shape = config.num_key_value_heads, axis, config.head_dim
            states.append(_grown(f"past_{kind}_{layer}", f"next_{kind}_{layer}", shape, limits))
    return StateSpec(
        design=WINDOWED,
        sample_rate=config.output_sample_rate,
        samples_per_frame=samples_per_frame,
        codebook_size=config.codebook_size,
        inputs=(audio_codes_spec(config.num_quantizers), TensorSpec("is_last", (1,))),
        outputs=(
            TensorSpec("final_wav", (BATCH, SAMPLES)),
            *(TensorSpec(name, (1,), "int64") for name in ("valid_samples", "start_samples", "num_finalize")),
        ),
        states=tuple(states),
        limits=limits,
        settings={"conv_history_frames": conv_history_frames, "lookahead_frames": lookahead_frames},
    )


def _grown(
    name: str, next_name: str, shape: tuple[int | str, ...], limits: dict[str, int]
) -> tuple[TensorSpec, TensorSpec]:
    """A state whose length changes in the call: its output has an axis name of its own, or is always empty."""
    after = ((f"next_{axis}" if limits[axis] else 0) if isinstance(axis, str) else axis for axis in shape)
    return TensorSpec(name, (BATCH, *shape)), TensorSpec(next_name, (BATCH, *after))


def one_shot_spec(exact: StateSpec) -> StateSpec:
    """The interface of a graph without state: the exact one's codes and waveform alone."""
    return replace(exact, design=ONE_SHOT, states=(), limits={}, modules={})


def with_fixed_axes(spec: StateSpec, frames: int | None = None, batch: int | None = None) -> StateSpec:
    """`spec` with numbers on the axes of frames and of rows, for compilers that want fixed shapes.

    The states of a windowed graph keep axes that grow. Raises ValueError for an encoder's frames: its last call may end
    inside a frame, which nothing can fill up without changing it.
    """
    if frames and spec.part == ENCODER:
        raise ValueError("an encoder's number of frames cannot be fixed: sound may end anywhere")
    lengths: dict[int | str, int | None] = {BATCH: batch, FRAMES: frames}
    if frames and not spec.lookahead_frames:  # what is buffered makes the first waveforms shorter
        lengths[SAMPLES] = frames * spec.samples_per_frame

    def fixed(tensor: TensorSpec) -> TensorSpec:
        return replace(tensor, shape=tuple(lengths.get(axis) or axis for axis in tensor.shape))

    return replace(
        spec,
        inputs=tuple(map(fixed, spec.inputs)),
        outputs=tuple(map(fixed, spec.outputs)),
        states=tuple((fixed(before), fixed(after)) for before, after in spec.states),
    )
