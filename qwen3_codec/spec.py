"""What goes into a graph and what comes out: every tensor's name, order, shape, axis names, dtype and zero value.

This is the only list. The exporter names the graph's inputs and outputs from it, the ONNX file carries it as JSON, and
the runtime, the verifier, the tests and the notebooks' tables read it back.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil, prod
from typing import Any

import numpy as np

# Written into every graph; raised when a client that reads one version could misread the other.
FORMAT_VERSION = "1"
BATCH, FRAMES, SAMPLES = "batch", "frames", "samples"
DECODER, ENCODER = "decoder", "encoder"  # the parts of a checkpoint
EXACT, WINDOWED, ONE_SHOT = "exact", "windowed", "one-shot"  # the designs, see `streaming.designs`
WINDOWED_FRAMES = 4  # of history and of look-ahead, where nobody says otherwise


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
    what the design's wrapper was made with, under its own names. `modules` says of each state which module of the model
    it belongs to: for whoever shows them. Two graphs that differ in it alone are the same interface.
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
        """Frames that a stream holds back until later ones have come."""
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

    def state_problem(self, state: dict[str, np.ndarray], batch: int) -> str | None:
        """What is wrong with `state` as that of `batch` rows (a name, shape, dtype or count), or None."""
        wanted = {before.name: before for before, _ in self.states}
        if odd := sorted(set(state) ^ set(wanted)):
            return f"its states are not those of the graph; they differ in {', '.join(odd)}"
        lengths = {BATCH: batch}  # of each axis, where it was seen first
        for name, tensor in wanted.items():
            if problem := tensor.problem(state[name], self.limits):
                return problem
            if len(state[name]) != batch:
                return f"{name} has {len(state[name])} rows, must have {batch}"
            for index, axis in tensor.dynamic_axes.items():
                if (length := state[name].shape[index]) != lengths.setdefault(axis, length):
                    return f"{name}: axis {index} ({axis}) is {length} long, in another state {lengths[axis]}"
            if tensor.dtype == "int64" and ((state[name] < 0) | (state[name] > self.limits.get(name, np.inf))).any():
                return f"{name} is outside 0..{self.limits.get(name, '')}"
        return None

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
            entries = json.loads(text)
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
        settings = {"conv_history_frames": limits["history_frames"], "lookahead_frames": lookahead_frames}
    return {"design": EXACT, "part": ENCODER} if kind == ENCODER else {"design": kind, "settings": settings}


def random_codes(dims: Any, frames: int, batch: int = 1, seed: int = 0) -> np.ndarray:
    """Seeded int64 codes [batch, frames, Q] for `dims`: a spec, or a decoder's config."""
    return np.random.default_rng(seed).integers(dims.codebook_size, size=(batch, frames, dims.num_quantizers))


def audio_codes_spec(num_quantizers: int) -> TensorSpec:
    """The codes of one call, [B, N, Q]."""
    return TensorSpec("audio_codes", (BATCH, FRAMES, num_quantizers), "int64")


def windowed_spec(
    config: Any, samples_per_frame: int, pre_conv_history: int, conv_history_frames: int, lookahead_frames: int
) -> StateSpec:
    """The windowed graph's interface: at 8 layers, 21 inputs and 23 outputs, under the names that its users know.

    `config` has upstream's `decoder_config` fields and `output_sample_rate`; `pre_conv_history` is the number of frames
    that `pre_conv` looks back. All lengths are in frames.
    """
    limits = {
        "pre_conv_frames": pre_conv_history,
        "latent_frames": lookahead_frames,
        "history_frames": conv_history_frames,
    }
    states = [
        _grown("pre_conv_h", "next_pre_conv_h", (BATCH, config.codebook_dim, "pre_conv_frames"), limits),
        _grown("latent_buf", "next_latent_buf", (BATCH, config.latent_dim, "latent_frames"), limits),
        _grown("conv_h", "next_conv_h", (BATCH, config.latent_dim, "history_frames"), limits),
    ]
    for kind in ("key", "value"):
        for layer in range(config.num_hidden_layers):
            axis = f"past_seq_{layer}"
            limits[axis] = config.sliding_window
            shape = (BATCH, config.num_key_value_heads, axis, config.head_dim)
            states.append(_grown(f"past_{kind}_{layer}", f"next_{kind}_{layer}", shape, limits))
    return StateSpec(
        design=WINDOWED,
        sample_rate=config.output_sample_rate,
        samples_per_frame=samples_per_frame,
        codebook_size=config.codebook_size,
        inputs=(audio_codes_spec(config.num_quantizers), TensorSpec("is_last", (1,))),
        outputs=(
            TensorSpec("final_wav", (BATCH, SAMPLES)),
            TensorSpec("valid_samples", (1,), "int64"),
            TensorSpec("start_samples", (1,), "int64"),
            TensorSpec("num_finalize", (1,), "int64"),
        ),
        states=tuple(states),
        limits=limits,
        settings={"conv_history_frames": conv_history_frames, "lookahead_frames": lookahead_frames},
    )


def exact_spec(
    config: Any,
    samples_per_frame: int,
    convs: Sequence[tuple[int, int]],
    sample_rate: int | None = None,
    steps_per_frame: int = 1,
) -> StateSpec:
    """The exact graph's interface. A state NAME comes out as `next_NAME`.

    Numbers have two digits, so that servers which pair states by sorted name (Triton does) pair them right.

    `convs` lists (channels, history in samples) of every convolution with a state, in the order of the data. Another
    codec's `config` serves where it has the same words; what it calls otherwise is given: `sample_rate`, and
    `steps_per_frame` where its transformer makes several steps for a frame.
    """
    return StateSpec(
        design=EXACT,
        sample_rate=sample_rate or config.output_sample_rate,
        samples_per_frame=samples_per_frame,
        codebook_size=config.codebook_size,
        inputs=(audio_codes_spec(config.num_quantizers),),
        outputs=(TensorSpec("waveform", (BATCH, SAMPLES)),),
        states=_exact_states(config, convs),
        limits={"past_frames": _frames_that_fill(config, steps_per_frame)},
    )


def with_fixed_axes(spec: StateSpec, frames: int | None = None, batch: int | None = None) -> StateSpec:
    """`spec` with numbers on the axes of frames and of rows, for compilers that want fixed shapes.

    The states of a windowed graph keep axes that grow. Raises ValueError for an encoder's frames: its last call may end
    inside a frame, which nothing can fill up without changing it.
    """
    if frames and spec.part == ENCODER:
        raise ValueError("an encoder's number of frames cannot be fixed: sound may end anywhere")
    lengths: dict[int | str, int | None] = {BATCH: batch, FRAMES: frames}
    if frames and not spec.lookahead_frames:  # what is held back makes the first waveforms shorter
        lengths[SAMPLES] = frames * spec.samples_per_frame

    def fixed(tensor: TensorSpec) -> TensorSpec:
        return replace(tensor, shape=tuple(lengths.get(axis) or axis for axis in tensor.shape))

    return replace(
        spec,
        inputs=tuple(map(fixed, spec.inputs)),
        outputs=tuple(map(fixed, spec.outputs)),
        states=tuple((fixed(before), fixed(after)) for before, after in spec.states),
    )


def encoder_spec(
    config: Any, samples_per_frame: int, steps_per_frame: int, num_quantizers: int, convs: Sequence[tuple[int, int]]
) -> StateSpec:
    """The encoder graph's interface, with states like the exact decoder's.

    `config` has upstream's `encoder_config` fields. Keys and values are counted in the transformer's steps, of which a
    frame has `steps_per_frame`; `past_frames` stops where they fill the window.
    """
    return StateSpec(
        design=EXACT,
        part=ENCODER,
        sample_rate=config.sampling_rate,
        samples_per_frame=samples_per_frame,
        codebook_size=config.codebook_size,
        inputs=(TensorSpec("audio", (BATCH, SAMPLES)),),
        outputs=(audio_codes_spec(num_quantizers),),
        states=_exact_states(config, convs),
        limits={"past_frames": _frames_that_fill(config, steps_per_frame)},
    )


def _frames_that_fill(config: Any, steps_per_frame: int) -> int:
    """Where the count of a row's past frames may stop: keys and values are all real from there on."""
    return ceil((config.sliding_window - 1) / steps_per_frame)


def _exact_states(config: Any, convs: Sequence[tuple[int, int]]) -> tuple[tuple[TensorSpec, TensorSpec], ...]:
    """A counter, the history of each convolution, keys and values of all positions that the next one may look at."""
    states = [_fixed("past_frames", (BATCH, 1), "int64")]
    states += [_fixed(f"conv_{i:02}", (BATCH, channels, history)) for i, (channels, history) in enumerate(convs)]
    shape = (BATCH, config.num_key_value_heads, config.sliding_window - 1, config.head_dim)
    for kind in ("key", "value"):
        states += [_fixed(f"{kind}_{layer:02}", shape) for layer in range(config.num_hidden_layers)]
    return tuple(states)


def one_shot_spec(exact: StateSpec) -> StateSpec:
    """The interface of a graph without state: the exact one's codes and waveform alone."""
    return replace(exact, design=ONE_SHOT, states=(), limits={}, modules={})


def _fixed(name: str, shape: tuple[int | str, ...], dtype: str = "float32") -> tuple[TensorSpec, TensorSpec]:
    """A state of one shape, before and after the call."""
    return TensorSpec(name, shape, dtype), TensorSpec(f"next_{name}", shape, dtype)


def _grown(
    name: str, next_name: str, shape: tuple[int | str, ...], limits: dict[str, int]
) -> tuple[TensorSpec, TensorSpec]:
    """A state whose length changes in the call: its output has an axis name of its own, or is always empty."""

    def grown(axis: int | str) -> int | str:
        if isinstance(axis, int) or axis == BATCH:
            return axis
        return f"next_{axis}" if limits[axis] else 0

    return TensorSpec(name, shape), TensorSpec(next_name, tuple(map(grown, shape)))
