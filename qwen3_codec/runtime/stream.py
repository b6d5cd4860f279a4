"""A stream: the states that go from call to call, and what one listener has heard. Needs numpy alone."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from ..spec import ENCODER
from . import stream_file as saved
from .audio import check_audio
from .codes import CodesError, check_codes
from .metrics import chunks
from .progress import Progress, no_progress
from .protocols import Session
from .rows import Rows

# A longer push is cut into pieces of so many frames: exact, and what one call needs stays bounded. On the demo, with
# one thread, a push of 4,000 frames took 2.6 GB and 12 s whole, 0.28 GB and 3.7 s so; pieces of 64 are no faster.
PIECE_FRAMES = 128
CHUNK_FRAMES = 12  # where nobody says otherwise


class Stream(Rows):
    """The state of `batch` rows that advance together, over any `session` with a `spec` and a `run`.

    `Rows` says what it carries. Each method does all or nothing, and one thread at a time may use the stream; see
    `Atomic`.
    """

    def __init__(self, session: Session, batch: int | None = None):
        fixed = session.spec.fixed_batch
        batch = fixed or 1 if batch is None else batch
        if batch < 1:
            raise ValueError(f"batch is {batch}, must be at least 1")
        super().__init__()
        self.session = session
        self._start(batch)
        self._check_batch()

    def _start(self, batch: int) -> None:
        self.state = self.session.spec.zero_state(batch)
        self.frames = np.zeros(batch, np.int64)
        self.finished = False
        self._pending = np.zeros((batch, 0), np.float32)
        self._suppressed = 0

    def push(self, data: np.ndarray, last: bool = False) -> np.ndarray:
        """One chunk in, of one row or [B, n, ...]; what it finished out, [B, m, ...] (m may be 0).

        `last` says that no more will come: nothing stays buffered. Raises ValueError for data that do not fit (codes:
        CodesError, which is one), RuntimeError after the last chunk.
        """
        with self._changed(going=True) as stream:
            return stream._push(data, last)

    def _push(self, data: np.ndarray, last: bool) -> np.ndarray:
        raise NotImplementedError

    def parts(self, data: np.ndarray, schedule: Sequence[int] | None = None) -> list[tuple[np.ndarray, bool]]:
        """What `pushes` gives to `push`, one after the other: (a chunk [B, n, ...], whether it is the last)."""
        raise NotImplementedError

    def pushes(
        self, data: np.ndarray, schedule: Sequence[int] | None = None, progress: Progress = no_progress
    ) -> Iterator[np.ndarray]:
        """`push` codes or samples, of one row or [B, ...], chunk by chunk, the last as the last; yields each result.

        `schedule` is the chunk lengths in frames; it repeats to the end (default: 12, or what the graph is fixed at).
        `progress` wraps the loop (tqdm does). Who stops listening leaves the stream as it is after the chunk that was
        heard last. Raises ValueError for a length that is no multiple of what a graph is fixed at, and for codes or
        samples that do not fit, before anything is computed.
        """
        for part, last in progress(self.parts(data, schedule), unit="chunk"):
            yield self.push(part, last)

    def run(
        self, data: np.ndarray, schedule: Sequence[int] | None = None, progress: Progress = no_progress
    ) -> np.ndarray:
        """All of `pushes` as one array [B, m, ...]."""
        return np.concatenate([*self.pushes(data, schedule, progress)], axis=1)

    def reset(self) -> None:
        """Back to the start: nothing seen, nothing buffered."""
        with self._changed() as stream:
            stream._start(self.batch)


class CodecStream(Stream):
    """A stream of a decoder: codes [N, Q] or [B, N, Q] in, the samples that they finish out, float32 [B, n].

    n is N * samples_per_frame, less what a graph with look-ahead still buffers. An exact graph is given many frames
    in pieces. A graph whose number of frames is fixed wants a multiple of it; the last push alone may have fewer, they
    are filled up and the waveform is cut.
    """

    def _push(self, codes: np.ndarray, last: bool) -> np.ndarray:
        spec = self.session.spec
        codes = check_codes(codes, spec, self.batch)
        most = spec.fixed_frames or (PIECE_FRAMES if spec.cut_is_exact else codes.shape[1])
        over = -codes.shape[1] % spec.fixed_frames if spec.fixed_frames else 0
        if over and not last:
            raise CodesError(
                f"{codes.shape[1]} frames are no multiple of {most}, which this graph takes in a call; "
                "the last push alone may have fewer"
            )
        parts = [*chunks(np.pad(codes, ((0, 0), (0, over), (0, 0))), [most])]
        finished = [self._step(part, last and part is parts[-1]) for part in parts]
        self.frames = self.frames - over
        samples = np.concatenate(finished, axis=1) if parts[1:] else finished[0]
        return samples[:, : samples.shape[1] - over * spec.samples_per_frame]

    def _step(self, codes: np.ndarray, last: bool) -> np.ndarray:
        """One call of the graph."""
        spec = self.session.spec
        inputs = {"audio_codes": codes, "is_last": np.array([last], np.float32)}
        outputs = self.session.run({tensor.name: inputs[tensor.name] for tensor in spec.inputs} | self.state)
        waveform = outputs[spec.outputs[0].name]
        valid = int(outputs["valid_samples"][0]) if "valid_samples" in outputs else waveform.shape[1]

        self.state = {before.name: outputs[after.name] for before, after in spec.states}
        self.frames = self.frames + codes.shape[1]
        self.finished = last
        heard = min(self._suppressed, valid)
        self._pending = waveform[:, max(self._suppressed, valid) :]
        self._suppressed -= heard
        return waveform[:, heard:valid]

    def prime(self, codes: np.ndarray) -> None:
        """Start warm: `codes` come first and nobody hears them, as a voice clone's reference; shapes as in `push`.

        What is heard after it is what would follow them in one stream, to the sample, also where a graph holds frames
        back. To speak many times with one voice, prime once and fork for each: `voice.fork().push(...)`.
        """
        with self._changed(going=True) as stream:
            stream._push(codes, last=False)
            stream._suppressed += stream._pending.shape[1]
            stream._pending = stream._pending[:, :0]

    def parts(self, codes: np.ndarray, schedule: Sequence[int] | None = None) -> list[tuple[np.ndarray, bool]]:
        spec = self.session.spec
        schedule = schedule or [spec.fixed_frames or CHUNK_FRAMES]
        if odd := next((length for length in schedule if length % (spec.fixed_frames or 1)), None):
            raise ValueError(
                f"a chunk of {odd} frames is no multiple of {spec.fixed_frames}, which this graph takes in a call"
            )
        return _and_last(chunks(check_codes(codes, spec, self.batch), schedule))

    def finish(self) -> np.ndarray:
        """End the stream and return the samples still buffered, float32 [B, n]; a stream that has ended gives none.

        For a producer that learns only afterwards that a chunk was the last. The graph had already decoded the frames
        that it buffered, and being causal it would give the same samples again, so nothing is run.
        """
        with self._changed() as stream:
            tail, stream._pending = stream._pending, stream._pending[:, :0]
            stream.finished = True
            return tail


class EncoderStream(Stream):
    """A stream of an encoder: samples [M] or [B, M] in, codes of the frames that they complete out, int64 [B, n, Q].

    What does not fill a frame waits for the next push, or for `finish`; the last push encodes it too. Many samples are
    encoded in pieces.
    """

    def finish(self) -> np.ndarray:
        """End the stream, and return the codes of a last frame that the samples did not fill, int64 [B, 0 or 1, Q].

        A stream that has ended gives none.
        """
        with self._changed() as stream:
            return stream._push(np.zeros((self.batch, 0), np.float32), last=True)

    def parts(self, audio: np.ndarray, schedule: Sequence[int] | None = None) -> list[tuple[np.ndarray, bool]]:
        lengths = [frames * self.session.spec.samples_per_frame for frames in schedule or [CHUNK_FRAMES]]
        audio = check_audio(audio, self.batch)
        return _and_last(chunks(audio, lengths)) or [(audio, True)]

    def _push(self, audio: np.ndarray, last: bool) -> np.ndarray:
        spec = self.session.spec
        audio = np.concatenate([self._pending, check_audio(audio, self.batch)], axis=1)
        whole = audio.shape[1] - (0 if last else audio.shape[1] % spec.samples_per_frame)
        self._pending, self.finished = audio[:, whole:], last
        made = [np.zeros((self.batch, 0, spec.num_quantizers), np.int64)]
        for part in chunks(audio[:, :whole], [PIECE_FRAMES * spec.samples_per_frame]):
            outputs = self.session.run({"audio": np.ascontiguousarray(part)} | self.state)
            self.state = {before.name: outputs[after.name] for before, after in spec.states}
            made.append(outputs["audio_codes"])
        codes = np.concatenate(made, axis=1)
        self.frames = self.frames + codes.shape[1]
        return codes


def _and_last(parts: Iterator[np.ndarray]) -> list[tuple[np.ndarray, bool]]:
    every = [*parts]
    return [(part, index == len(every)) for index, part in enumerate(every, 1)]


def stream_of(session: Session, batch: int | None = None) -> Stream:
    """A new stream of what `session` runs."""
    return (EncoderStream if session.spec.part == ENCODER else CodecStream)(session, batch)


def load_stream(session: Session, path: str | os.PathLike) -> Stream:
    """The stream that `stream.save(path)` wrote; ValueError where it is not one of this interface and weights."""
    stream = stream_of(session)
    saved.read_into(stream, path)
    return stream
