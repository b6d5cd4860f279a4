"""An exported graph, loaded and checked against what it says of itself: `CodecSession`.

Needs numpy and a runtime, onnxruntime or openvino, which is loaded with the file.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..spec import DECODER, ENCODER
from .aio import AsyncStream
from .audio import check_audio_rows
from .codes import CodesError, check_rows, padded
from .cpu import usable_cores
from .engines import F32, ONNX_RUNTIME, starter
from .graph_file import GraphError, read_graph
from .progress import Progress, no_progress
from .providers import CPU
from .stream import CodecStream, EncoderStream, Stream, load_stream, stream_of

__all__ = ["AsyncStream", "CodecSession", "CodecStream", "CodesError", "EncoderStream", "GraphError"]


class CodecSession:
    """One loaded graph, checked against its own metadata. Stream, load_stream, stream_of share it; it keeps no state.

    Any number of threads may use one session at the same time, each with a stream of its own: the results are the same
    to the bit. A session pickles as its path and options, so that a pool of processes can load it anew. Make sessions
    after a `fork`, not before: a runtime's threads do not live on in the child.

    Attributes: `spec` (the graph's `StateSpec`), `metadata` ({key: text} as written into the file), `path`; `title` and
    `precision`, the runtime and what its products run in, which is said by the runtime and not by who asked; `asked`,
    the precision that was asked for.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        threads: int = 0,
        providers: Sequence[str] = (CPU,),
        provider_options: Sequence[dict] | None = None,
        runtime: str = ONNX_RUNTIME,
        precision: str = F32,
    ):
        """Load `path`; `threads` is how many a call may use (0: one for each core that is ours to use).

        `providers` are ONNX Runtime's execution providers, by full name or as `cuda`, `cpu`, ..., the preferred one
        first; `provider_options` has a dict for each. `runtime` is `onnxruntime` or `openvino`, which may be asked to
        compute in `precision` `f32`, `bf16` or `f16`. Raises GraphError for a missing or truncated file, a graph of
        another kind or format version, and a graph whose inputs or outputs are not those that its metadata declares;
        ValueError for a provider that is not there, or that ONNX Runtime leaves out.
        """
        self._arguments = (os.path.abspath(path), threads, tuple(providers), provider_options, runtime, precision)
        self.path = Path(path)
        start = starter(runtime, precision)
        self.metadata, self.spec = read_graph(self.path)
        options = list(provider_options) if provider_options else None
        cores = threads or usable_cores()
        self._engine = start(self.path, self.metadata, self.spec, cores, precision, tuple(providers), options)
        self.title, self.precision = self._engine.title, self._engine.precision
        self.asked = precision
        self._output_names = [spec.name for spec in self.spec.all_outputs]

    def __reduce__(self) -> tuple[type["CodecSession"], tuple[Any, ...]]:
        return CodecSession, self._arguments

    @property
    def providers(self) -> list[str]:
        """ONNX Runtime's execution providers that run, the preferred one first; OpenVINO's device."""
        return self._engine.providers

    @property
    def note(self) -> str:
        """A sentence for the user where another precision runs than was asked for, else nothing."""
        if self.precision == self.asked:
            return ""
        return f"{self.asked} was asked for; on this processor it runs as {self.title}"

    @property
    def weights_sha256(self) -> str:
        """Of the weights that the graph was made from; nothing where the file does not say it."""
        return self.metadata.get("weights_sha256", "")

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call of the graph, {input name: array} -> {output name: array}."""
        return dict(zip(self._output_names, self._engine.run(feeds), strict=True))

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
