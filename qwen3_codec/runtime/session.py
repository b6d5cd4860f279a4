"""An exported graph, loaded and checked against what it says of itself: `CodecSession`. Needs numpy, onnxruntime."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

try:
    import onnxruntime
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "running a graph needs ONNX Runtime: pip install onnxruntime, or onnxruntime-gpu, -directml, ...",
        name="onnxruntime",
    ) from error

from ..spec import DECODER, ENCODER, FORMAT_VERSION, StateSpec, TensorSpec
from .aio import AsyncStream
from .audio import check_audio_rows
from .codes import CodesError, check_rows, padded
from .cpu import sums_overflow, usable_cores
from .progress import Progress, no_progress
from .providers import CPU, provider_name, why_not_loaded
from .stream import CodecStream, EncoderStream, Stream, load_stream, stream_of

__all__ = ["AsyncStream", "CodecSession", "CodecStream", "CodesError", "EncoderStream", "GraphError"]

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}


class GraphError(ValueError):
    """A file that cannot be run as a codec graph; the message says what does not match."""


class CodecSession:
    """One loaded graph, checked against its own metadata. Stream, load_stream, stream_of share it; it keeps no state.

    Any number of threads may use one session at the same time, each with a stream of its own: the results are the same
    to the bit. A session pickles as its path and options, so that a pool of processes can load it anew. Make sessions
    after a `fork`, not before: ONNX Runtime's threads do not live on in the child.

    Attributes: `spec` (the graph's `StateSpec`), `metadata` ({key: text} as written into the file), `path`.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        threads: int = 0,
        providers: Sequence[str] = (CPU,),
        provider_options: Sequence[dict] | None = None,
    ):
        """Load `path`; `threads` is ONNX Runtime's `intra_op_num_threads` (0: one for each core that is ours to use).

        `providers` are ONNX Runtime's execution providers, by full name or as `cuda`, `cpu`, ..., the preferred one
        first; `provider_options` has a dict for each. Raises GraphError for a missing or truncated file, a graph of
        another kind or format version, and a graph whose inputs or outputs are not those that its metadata declares;
        ValueError for a provider that is not there, or that ONNX Runtime leaves out.
        """
        self._arguments = (os.path.abspath(path), threads, tuple(providers), provider_options)
        self.path = Path(path)
        wanted = [provider_name(name) for name in providers]
        if not self.path.is_file():
            raise GraphError(f"{path}: no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.log_severity_level = 3
        # Between two chunks a stream waits. By default the threads then spin, which slows others that need the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if sums_overflow():  # the slower products are exact; where there is no need for them, they cost half the time
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, wanted, provider_options)
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base class
            raise GraphError(f"{path}: ONNX Runtime cannot load it, {why_not_loaded(self.path)} ({error})") from error
        if idle := [name for name in wanted if name not in self.providers]:
            raise ValueError(
                f"ONNX Runtime did not start {', '.join(idle)}: {', '.join(self.providers)} runs in its place"
            )
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.spec = self._read_spec()
        self._check_tensors("input", self._session.get_inputs(), self.spec.all_inputs)
        self._check_tensors("output", self._session.get_outputs(), self.spec.all_outputs)
        self._output_names = [spec.name for spec in self.spec.all_outputs]

    def __reduce__(self) -> tuple[type["CodecSession"], tuple[Any, ...]]:
        return CodecSession, self._arguments

    @property
    def providers(self) -> list[str]:
        """The execution providers that run, the preferred one first."""
        return list(self._session.get_providers())

    @property
    def weights_sha256(self) -> str:
        """Of the weights that the graph was made from; nothing where the file does not say it."""
        return self.metadata.get("weights_sha256", "")

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

    def _check_tensors(self, role: str, found: list[Any], declared: list[TensorSpec]) -> None:
        names, wanted = [tensor.name for tensor in found], [spec.name for spec in declared]
        if names != wanted:
            odd = sorted(set(names) ^ set(wanted)) or names
            raise GraphError(f"{self.path}: its {role}s are not those of its metadata; they differ in {', '.join(odd)}")
        for tensor, spec in zip(found, declared, strict=True):
            for index, (axis, wanted_axis) in enumerate(zip(tensor.shape, spec.shape, strict=False)):
                if isinstance(axis, int) and isinstance(wanted_axis, str):
                    raise GraphError(
                        f"{self.path}: {role} {spec.name}: axis {index} ({wanted_axis}) was frozen at {axis}"
                    )
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

    def stream(self, batch: int | None = None) -> Stream:
        """A new stream of `batch` rows that advance together (default: 1, or what the graph is fixed at)."""
        return stream_of(self, batch)

    def load_stream(self, path: str | os.PathLike) -> Stream:
        """The stream that `stream.save(path)` wrote; ValueError where it is not one of this graph and weights."""
        return load_stream(self, path)

    def decode(
        self,
        codes: Any,
        schedule: Sequence[int] | None = None,
        progress: Progress = no_progress,
        lengths: Sequence[int] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Decode codes chunk by chunk to float32 samples; `decode(...)[i]` is row i's, N_i * samples_per_frame of them.

        `codes` are [N, Q], [B, N, Q], or a list of rows [N_i, Q]; in a batch, frames of -1 or `lengths` (the frames of
        each row) say where the shorter rows end. Returns an array [B, samples] where all rows are equally long, else a
        list of B arrays. `schedule` is the chunk lengths in frames; it repeats to the end (default: 12, or what the
        graph is fixed at). `progress` wraps the loop (tqdm does).
        """
        if self.spec.part == ENCODER:
            raise GraphError(f"{self.path}: is an encoder; encode() gives codes, a decoder's graph decodes them")
        rows = check_rows(codes, self.spec, lengths)
        waveform = self.stream(len(rows)).run(padded(rows), schedule, progress)
        ends = [len(row) * self.spec.samples_per_frame for row in rows]
        # The decoder is causal: what fills up a row behind its end changes nothing before it.
        return waveform if len({*ends}) == 1 else [samples[:end] for samples, end in zip(waveform, ends, strict=True)]

    def encode(
        self,
        audio: Any,
        schedule: Sequence[int] | None = None,
        progress: Progress = no_progress,
        lengths: Sequence[int] | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Encode samples in [-1, 1] at `spec.sample_rate` chunk by chunk; `encode(...)[i]` is row i's codes [N_i, Q].

        `audio` is [M], [B, M], or a list of rows [M_i]; in a batch, `lengths` (the samples of each row) say where the
        shorter rows end. Returns int64 [B, N, Q] where all rows have as many frames, else a list of B arrays. N counts
        a last frame that the samples do not fill. `schedule` is the chunk lengths in frames; it repeats to the end
        (default: 12). Raises ValueError for samples that are none, with their row.
        """
        if self.spec.part == DECODER:
            raise GraphError(f"{self.path}: is a decoder; an encoder's graph makes codes of sound")
        rows = check_audio_rows(audio, lengths)
        if len({row.shape[1] for row in rows}) == 1:
            return self.stream(len(rows)).run(np.concatenate(rows), schedule, progress)
        # What fills up a row behind its end would change the codes of its last frame, so each is encoded alone.
        batch = self.spec.fixed_batch or 1
        codes = [self.stream(batch).run(np.repeat(row, batch, axis=0), schedule, progress)[0] for row in rows]
        return np.stack(codes) if len({*map(len, codes)}) == 1 else codes
