"""A stream: the states that go from call to call, and what one listener has heard. Needs numpy alone."""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import numpy as np

from ..spec import ENCODER
from . import stream_file as saved
from .atomic import Atomic
from .audio import check_audio
from .codes import CodesError, check_codes
from .metrics import chunks
from .progress import Progress, no_progress
from .protocols import Session

# A longer push is cut into pieces of so many frames: exact, and what one call needs stays bounded. On the demo, with
# one thread, a push of 4,000 frames took 2.6 GB and 12 s whole, 0.28 GB and 3.7 s so; pieces of 64 are no faster.
PIECE_FRAMES = 128
CHUNK_FRAMES = 12  # where nobody says otherwise


class Stream(Atomic):
    """The state of `batch` rows that advance together, over any graph with a `StateSpec`.

    `session` is anything with a `spec` and a `run`. `frames` holds the number of frames that each row has seen, int64
    [batch]. Each method, copying and pickling too, does all or nothing: a call that fails leaves the stream as it was,
    and until a call returns every attribute has the value from before it. One thread at a time may use the stream; a
    second one gets a RuntimeError, and the stream goes on for the first.
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
        # Samples at the front of what is held back that nobody is to hear: the end of what `prime` was given.
        self._suppressed = 0

    def _check_batch(self) -> None:
        if (fixed := self.session.spec.fixed_batch) not in (None, self.batch):
            raise ValueError(f"this graph takes {fixed} rows in a call, not {self.batch}")

    @property
    def batch(self) -> int:
        """Rows of the stream."""
        return len(self.frames)

    def push(self, data: np.ndarray, last: bool = False) -> np.ndarray:
        """One chunk [B, n, ...] in, what it finished out, [B, m, ...]; `last` says that no more will come."""
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
        """Back to the start: nothing seen, nothing held back."""
        with self._changed() as stream:
            stream._start(self.batch)

    def fork(self, rows: Sequence[int] | None = None) -> Self:
        """An independent copy, of all rows or of `rows` in that order (a row may be named twice, or left out).

        What either does later, the other does not see: states are never written in place.
        """
        rows = list(range(self.batch) if rows is None else rows)
        if not rows:
            raise ValueError("a stream needs at least one row")
        stream = copy.copy(self)
        return stream._with(lambda get: get(stream)[rows])

    def move_to(self, session: Session) -> Self:
        """An independent copy that goes on with `session`: another graph of the same weights and states.

        So a stream goes from float32 to 8 bits in mid-sentence, or back. Raises ValueError where the two do not fit.
        """
        if odd := saved.differences(self.session, session.spec, saved.weights_of(session)):
            raise ValueError(f"this stream cannot go on with that graph, which has another {' and another '.join(odd)}")
        moved = self.fork()
        moved.session = session
        return moved

    def join(self, *others: "Stream") -> Self:
        """A new stream with the rows of this one and of `others`, to be decoded in one call from here on.

        With an exact graph the rows may be at any offset. A windowed graph's states grow, so there the rows must
        have states of the same lengths; raises ValueError where they do not, where a stream is finished, or where one
        is of other weights or another interface.
        """
        streams: list[Stream] = [copy.copy(self), *map(copy.copy, others)]
        for session in {stream.session for stream in others} - {self.session}:
            if odd := saved.differences(self.session, session.spec, saved.weights_of(session)):
                raise ValueError(f"the streams cannot share a call: a graph has another {' and another '.join(odd)}")
        if any(stream.finished for stream in streams):
            raise ValueError("a finished stream cannot be joined; reset() starts a new one")
        for name in self.state:
            if len({stream.state[name].shape[1:] for stream in streams}) > 1:
                shapes = ", ".join(str(list(stream.state[name].shape)) for stream in streams)
                raise ValueError(
                    f"the streams' {name} have the shapes {shapes}: this graph joins streams at one offset only"
                )
        if len({stream._suppressed for stream in streams}) > 1:
            raise ValueError(
                "a stream that was just primed cannot be joined with one that was not: this graph holds back"
            )
        if len({stream._pending.shape[1] for stream in streams}) > 1:
            raise ValueError("the streams hold back different numbers of samples, so they cannot share a call")
        return self._with(lambda get: np.concatenate([get(stream) for stream in streams]))

    def _with(self, rows: Callable[[Callable[["Stream"], np.ndarray]], np.ndarray]) -> Self:
        """A copy whose arrays are what `rows` makes of a getter: every array of a stream has the rows first."""

        def of_state(name: str) -> np.ndarray:
            return rows(lambda stream: stream.state[name])

        other = copy.copy(self)
        other.state = {name: of_state(name) for name in self.state}
        other.frames = rows(lambda stream: stream.frames)
        other._pending = rows(lambda stream: stream._pending)
        other._check_batch()
        return other

    def _check_going(self) -> None:
        if self.finished:
            raise RuntimeError("the stream is finished; reset() starts a new one")

    def save(self, path: str | os.PathLike) -> None:
        """Write the stream to a .npz file; `session.load_stream(path)` goes on from it. See `saved`."""
        saved.write(copy.copy(self), path)


class CodecStream(Stream):
    """A stream of a decoder: codes in, sound out."""

    def push(self, codes: np.ndarray, last: bool = False) -> np.ndarray:
        """Decode codes [N, Q] or [B, N, Q] and return the samples finished by them, float32 [B, n].

        n is N * samples_per_frame, less what a graph with look-ahead still holds back (n may be 0 at the start).
        `last` says that no more will come: nothing is held back. An exact graph is given many frames in pieces. A graph
        whose number of frames is fixed wants a multiple of it; the last push alone may have fewer, they are filled up
        and the sound is cut. Raises CodesError for codes that do not fit, RuntimeError after the last chunk.
        """
        with self._changed() as stream:
            return stream._push(codes, last)

    def _push(self, codes: np.ndarray, last: bool) -> np.ndarray:
        self._check_going()
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
        with self._changed() as stream:
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
        """End the stream and return the samples still held back, float32 [B, n]; a stream that has ended gives none.

        For a producer that learns only afterwards that a chunk was the last. The graph had already decoded the frames
        that it held back, and being causal it would give the same samples again, so nothing is run.
        """
        with self._changed() as stream:
            tail, stream._pending = stream._pending, stream._pending[:, :0]
            stream.finished = True
            return tail


class EncoderStream(Stream):
    """A stream of an encoder: sound in, codes out."""

    def push(self, audio: np.ndarray, last: bool = False) -> np.ndarray:
        """Encode samples [M] or [B, M] and return the codes of the frames that they complete, int64 [B, n, Q].

        Any number of samples: what does not fill a frame waits for the next push, or for `finish`. n may be 0. `last`
        says that no more will come: a last frame that the samples do not fill is encoded too. Many samples are encoded
        in pieces. Raises ValueError for samples that are none, RuntimeError after the last ones.
        """
        audio = check_audio(audio, self.batch)
        with self._changed() as stream:
            stream._check_going()
            return stream._push(audio, last)

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
        audio = np.concatenate([self._pending, audio], axis=1)
        whole = audio.shape[1] - (0 if last else audio.shape[1] % self.session.spec.samples_per_frame)
        self._pending, self.finished = audio[:, whole:], last
        return self._encode(audio[:, :whole])

    def _encode(self, audio: np.ndarray) -> np.ndarray:
        spec = self.session.spec
        made = [np.zeros((self.batch, 0, spec.num_quantizers), np.int64)]
        for part in chunks(audio, [PIECE_FRAMES * spec.samples_per_frame]):
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
