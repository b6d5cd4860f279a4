"""What a graph is and how to call it, for people and for clients that cannot read a file's metadata.

The JSON (`python -m qwen3_codec describe FILE.onnx --json`) has:

    file           the file's name and its bytes
    spec           the `StateSpec`: part, design, its settings, rates, codebook_size, inputs, outputs, states (pairs:
                   what comes out under the second name goes in under the first at the next call), limits
    metadata       where it came from: config, weights_sha256, source, exporter, versions, format_version
    first_call     `feeds`: name, shape, dtype and the value that fills it; `outputs`: name, shape, dtype, as they came
    next_call      {output name: input name}, what to carry
    runtime        what made the first call, and in which precision
    notes          what to mind, in words
"""

import json

import numpy as np

from ..spec import ENCODER, StateSpec
from . import CodecSession
from .cpu import processor
from .measured_snr import measured_snr_of
from .self_test import KEY

_IN_SPEC = ("state_kind", "state_spec", "sample_rate", "samples_per_frame")
_AS_JSON = ("config", "versions", KEY)


def description(session: CodecSession) -> dict:
    """Everything about a graph, as JSON takes it. The first call is made, so its shapes are those that came."""
    spec = session.spec
    stream = session.stream()
    codes = np.zeros((stream.batch, spec.fixed_frames or 1, spec.num_quantizers), np.int64)
    audio = np.zeros((stream.batch, spec.samples_per_frame), np.float32)
    inputs: dict[str, np.ndarray] = {"audio_codes": codes, "is_last": np.zeros(1, np.float32), "audio": audio}
    feeds = {tensor.name: inputs[tensor.name] for tensor in spec.inputs} | stream.state
    outputs = session.run(feeds)
    metadata = {name: value for name, value in session.metadata.items() if name not in _IN_SPEC}
    return {
        "file": {"name": session.path.name, "bytes": session.path.stat().st_size},
        "spec": json.loads(spec.to_json()),
        "metadata": {name: json.loads(value) if name in _AS_JSON else value for name, value in metadata.items()},
        "first_call": {
            "feeds": {name: _tensor(array) | {"fill": 0} for name, array in feeds.items()},
            "outputs": {name: _tensor(array) for name, array in outputs.items()},
        },
        "next_call": {after.name: before.name for before, after in spec.states},
        "runtime": {"title": session.title, "precision": session.precision},
        "notes": _notes(spec, [name for name, array in stream.state.items() if not array.size]),
    }


def text(about: dict) -> str:
    """A `description` for people."""
    spec, source = about["spec"], about["metadata"]
    rate, step = spec["sample_rate"], spec["samples_per_frame"]
    lines = [
        f"{about['file']['name']}: {spec['design']} {spec['part']} graph, {about['file']['bytes'] / 2**20:.1f} MiB",
        f"{step} samples for a frame at {rate} Hz ({1000 * step / rate:g} ms), codes 0 to {spec['codebook_size'] - 1}",
        f"made from {source['source']} by {source['exporter']}, weights {source['weights_sha256'][:16]}",
        "with " + ", ".join(f"{name} {version}" for name, version in source["versions"].items()),
        f"self-test: {'yes' if KEY in source else 'none'}",
    ]
    lines += [f"precision: {measured}"] if (measured := measured_snr_of(source)) else []
    lines += [f"run here by {about['runtime']['title']}, on {processor()}"]
    for role, tensors in (("inputs", spec["inputs"]), ("outputs", spec["outputs"])):
        lines += ["", role, *(f"  {_line(tensor)}" for tensor in tensors)]
    lines += ["", "states: in, then the name under which the next one comes out"]
    lines += [f"  {_line(before):50} {after['name']}" for before, after in spec["states"]]
    call = about["first_call"]
    for title, tensors in (
        ("first call: feed zeros, codes or sound of your own", call["feeds"]),
        ("what comes", call["outputs"]),
    ):
        lines += ["", title, *(f"  {name:16} {t['dtype']:8} {t['shape']}" for name, t in tensors.items())]
    return "\n".join([*lines, "", *about["notes"]])


def _notes(spec: StateSpec, empty: list[str]) -> list[str]:
    notes = []
    if spec.states:
        notes.append("Carry every state from call to call, each stream its own; start each stream with zeros.")
    if empty:
        notes.append(
            f"At the start {len(empty)} states are empty (length 0): {', '.join(empty)}. Zeros of full length in their "
            "place are taken without an error and give another beginning (the demo's weights: 4 frames too many, and "
            "its sentences off by 0.08 to 0.23 after them). Where a client cannot make empty tensors, use an exact "
            "graph: its states have one shape."
        )
    if spec.lookahead_frames:
        notes.append(
            f"Of the waveform, the first valid_samples are finished; {spec.lookahead_frames} frames are buffered "
            "until later ones have come, or until is_last is 1."
        )
    if spec.part == ENCODER:
        notes.append(
            f"A call takes whole frames of {spec.samples_per_frame} samples, and the last one any number of samples."
        )
    if spec.fixed_frames:
        notes.append(
            f"A call takes {spec.fixed_frames} frames. Fill up a short last one with any codes, and cut its samples."
        )
    return notes


def _tensor(array: np.ndarray) -> dict:
    return {"shape": list(array.shape), "dtype": str(array.dtype)}


def _line(tensor: dict) -> str:
    return f"{tensor['name']:16} {tensor['dtype']:8} [{', '.join(map(str, tensor['shape']))}]"
