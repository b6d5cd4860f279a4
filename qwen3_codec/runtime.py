"""Run an exported graph: a `CodecSession` for the file, a `CodecStream` for each stream. Needs numpy, onnxruntime.

session = CodecSession("decoder.onnx")
stream = session.stream()
for codes in chunks:                 # int64 [N, Q], any N of at least 1
    play(stream.push(codes)[0])      # float32 [1, samples]
play(stream.finish()[0])             # what a graph with look-ahead still held back
"""

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from .codes import CodesError, check_codes, check_rows, padded
from .metrics import chunks
from .states import FORMAT_VERSION, StateSpec, TensorSpec

__all__ = ["CodecSession", "CodecStream", "CodesError", "GraphError"]

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}


class GraphError(ValueError):
    """A file that cannot be run as a codec graph; the message says what does not match."""


class CodecSession:
    """One loaded graph, checked against its own metadata. Streams share it; it keeps no state.

    Attributes: `spec` (the graph's `StateSpec`), `metadata` ({key: text} as written into the file), `path`.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 0, providers=("CPUExecutionProvider",)):
        """Load `path`; `threads` is ONNX Runtime's `intra_op_num_threads` (0: one for each core).

        Raises GraphError for a missing or truncated file, a graph of another kind or format version, and a graph whose
        inputs or outputs are not those that its metadata declares.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise GraphError(f"{path}: no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Between two chunks a stream waits. By default the threads then spin, which slows whoever else needs the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=list(providers))
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base class
            raise GraphError(
                f"{path}: ONNX Runtime cannot load it, truncated or not an ONNX graph? ({error})"
            ) from error
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.spec = self._read_spec()
        self._check_tensors("input", self._session.get_inputs(), self.spec.all_inputs)
        self._check_tensors("output", self._session.get_outputs(), self.spec.all_outputs)
        self._output_names = [spec.name for spec in self.spec.all_outputs]

    def _read_spec(self) -> StateSpec:
        version = self.metadata.get("format_version")
        if version is None:
            raise GraphError(f"{self.path}: not written by qwen3_codec (its metadata has no format_version)")
        if version != FORMAT_VERSION:
            raise GraphError(f"{self.path}: has format version {version}, this package reads {FORMAT_VERSION}")
        try:
            return StateSpec.from_json(self.metadata.get("state_spec", ""))
        except ValueError as error:
            raise GraphError(f"{self.path}: its state_spec cannot be read ({error})") from error

    def _check_tensors(self, role: str, found, declared: list[TensorSpec]) -> None:
        names, wanted = [tensor.name for tensor in found], [spec.name for spec in declared]
        if names != wanted:
            odd = sorted(set(names) ^ set(wanted)) or names
            raise GraphError(f"{self.path}: its {role}s are not those of its metadata; they differ in {', '.join(odd)}")
        for tensor, spec in zip(found, declared, strict=True):
            for index, (axis, declared) in enumerate(zip(tensor.shape, spec.shape, strict=False)):
                if isinstance(axis, int) and isinstance(declared, str):
                    raise GraphError(f"{self.path}: {role} {spec.name}: axis {index} ({declared}) was frozen at {axis}")
            # A named axis comes as text, one without a name as None.
            shape = tuple(axis if isinstance(axis, int) else "*" for axis in tensor.shape)
            expected = tuple(axis if isinstance(axis, int) else "*" for axis in spec.shape)
            if shape != expected or _DTYPES.get(tensor.type) != spec.dtype:
                raise GraphError(
                    f"{self.path}: {role} {spec.name} is {tensor.type} {list(tensor.shape)}, "
                    f"its metadata declares {spec.dtype} {list(spec.shape)}"
                )

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call of the graph, {input name: array} -> {output name: array}."""
        return dict(zip(self._output_names, self._session.run(self._output_names, feeds), strict=True))

    def stream(self, batch: int = 1) -> "CodecStream":
        """A new stream of `batch` rows that advance together."""
        return CodecStream(self, batch)

    def decode(
        self, codes, schedule=(12,), progress=lambda iterable, **_: iterable, lengths: Sequence[int] | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Decode codes chunk by chunk to float32 samples; `decode(...)[i]` is row i's, N_i * samples_per_frame of them.

        `codes` are [N, Q], [B, N, Q], or a list of rows [N_i, Q]; in a batch, frames of -1 or `lengths` (the frames of
        each row) say where the shorter rows end. Returns an array [B, samples] where all rows are equally long, else a
        list of B arrays. `schedule` is the chunk lengths in frames; it repeats to the end. `progress` wraps the loop
        (tqdm does).
        """
        rows = check_rows(codes, self.spec, lengths)
        pieces = self.stream(len(rows)).pushes(padded(rows), schedule, progress)
        waveform = np.concatenate([*pieces], axis=1)
        ends = [len(row) * self.spec.samples_per_frame for row in rows]
        # The decoder is causal: what fills up a row behind its end changes nothing before it.
        return waveform if len({*ends}) == 1 else [samples[:end] for samples, end in zip(waveform, ends, strict=True)]


class CodecStream:
    """One stream's state, or that of `batch` rows that advance together.

    `session` is anything with a `spec` and a `run`. A call that fails leaves the stream as it was. `frames` holds the
    number of frames that each row has seen, int64 [batch].
    """

    def __init__(self, session, batch: int = 1):
        if batch < 1:
            raise ValueError(f"batch is {batch}, must be at least 1")
        self.session = session
        self._start(batch)

    def _start(self, batch: int) -> None:
        self.state = self.session.spec.zero_state(batch)
        self.frames = np.zeros(batch, np.int64)
        self.finished = False
        self._held_back = np.zeros((batch, 0), np.float32)

    @property
    def batch(self) -> int:
        """Rows of the stream."""
        return len(self.frames)

    def reset(self) -> None:
        """Back to the start: nothing seen, nothing held back."""
        self._start(self.batch)

    def fork(self, rows: Sequence[int] | None = None) -> "CodecStream":
        """An independent copy, of all rows or of `rows` in that order (a row may be named twice, or left out).

        What either does later, the other does not see: states are never written in place.
        """
        rows = list(range(self.batch) if rows is None else rows)
        if not rows:
            raise ValueError("a stream needs at least one row")
        return self._with(lambda get: get(self)[rows])

    def join(self, *others: "CodecStream") -> "CodecStream":
        """A new stream with the rows of this one and of `others`, to be decoded in one call from here on.

        With an exact graph the rows may be of any age. A windowed graph's states grow with age, so there the rows must
        have states of the same lengths; raises ValueError where they do not, or where a stream is finished.
        """
        streams = [self, *others]
        if any(stream.finished for stream in streams):
            raise ValueError("a finished stream cannot be joined; reset() starts a new one")
        for name in self.state:
            if len({stream.state[name].shape[1:] for stream in streams}) > 1:
                shapes = ", ".join(str(list(stream.state[name].shape)) for stream in streams)
                raise ValueError(
                    f"the streams' {name} have the shapes {shapes}: this graph joins streams of one age only"
                )
        return self._with(lambda get: np.concatenate([get(stream) for stream in streams]))

    def _with(self, rows) -> "CodecStream":
        """A copy whose arrays are what `rows` makes of a getter: every array of a stream has the rows first."""
        other = copy.copy(self)
        other.state = {name: rows(lambda stream, name=name: stream.state[name]) for name in self.state}
        other.frames = rows(lambda stream: stream.frames)
        other._held_back = rows(lambda stream: stream._held_back)
        return other

    def push(self, codes: np.ndarray, last: bool = False) -> np.ndarray:
        """Decode codes [N, Q] or [B, N, Q] and return the samples finished by them, float32 [B, n].

        n is N * samples_per_frame, less what a graph with look-ahead still holds back (n may be 0 at the start).
        `last` says that no more will come: nothing is held back. Raises CodesError for codes that do not fit, and
        RuntimeError after the last chunk.
        """
        if self.finished:
            raise RuntimeError("the stream is finished; reset() starts a new one")
        spec = self.session.spec
        codes = check_codes(codes, spec, self.batch)
        inputs = {"audio_codes": codes, "is_last": np.array([last], np.float32)}
        outputs = self.session.run({tensor.name: inputs[tensor.name] for tensor in spec.inputs} | self.state)
        waveform = outputs[spec.outputs[0].name]
        valid = int(outputs["valid_samples"][0]) if "valid_samples" in outputs else waveform.shape[1]

        self.state = {before.name: outputs[after.name] for before, after in spec.states}
        self.frames = self.frames + codes.shape[1]
        self.finished = last
        self._held_back = waveform[:, valid:]
        return waveform[:, :valid]

    def pushes(
        self, codes: np.ndarray, schedule: Sequence[int], progress=lambda iterable, **_: iterable
    ) -> Iterator[np.ndarray]:
        """`push` codes [B, N, Q] chunk by chunk, the last one as the last; yields what each call finished.

        `schedule` is the chunk lengths in frames; it repeats to the end. `progress` wraps the loop (tqdm does).
        """
        parts = list(chunks(codes, schedule))
        for index, part in enumerate(progress(parts, unit="chunk")):
            yield self.push(part, last=index == len(parts) - 1)

    def finish(self) -> np.ndarray:
        """End the stream and return the samples still held back, float32 [B, n].

        For a producer that learns only afterwards that a chunk was the last. The graph had already decoded the frames
        that it held back, and being causal it would give the same samples again, so nothing is run.
        """
        tail, self._held_back = self._held_back, self._held_back[:, :0]
        self.finished = True
        return tail
