"""A stream: the states that go from call to call, and what one listener has heard. Needs numpy alone."""

import copy
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from . import saved
from .audio import check_audio
from .codes import CodesError, check_codes
from .metrics import chunks
from .states import ENCODER

# A longer push is cut into pieces of so many frames: exact, and what one call needs stays bounded. On the demo, with
# one thread, a push of 4,000 frames took 2.6 GB and 12 s whole, 0.28 GB and 3.7 s so; pieces of 64 are no faster.
PIECE_FRAMES = 128
CHUNK_FRAMES = 12  # where nobody says otherwise


class Stream:
    """The state of `batch` rows that advance together, over any graph with a `StateSpec`.

    `session` is anything with a `spec` and a `run`. A call that fails leaves the stream as it was. `frames` holds the
    number of frames that each row has seen, int64 [batch]. One thread at a time may use it; a second one gets a
    RuntimeError, and the stream goes on for the first.
    """

    def __init__(self, session, batch: int | None = None):
        fixed = session.spec.fixed_batch
        batch = fixed or 1 if batch is None else batch
        if batch < 1:
            raise ValueError(f"batch is {batch}, must be at least 1")
        self.session = session
        self._busy = threading.Lock()
        self._start(batch)
        self._check_batch()

    def _start(self, batch: int) -> None:
        self.state = self.session.spec.zero_state(batch)
        self.frames = np.zeros(batch, np.int64)
        self.finished = False
        self._held_back = np.zeros((batch, 0), np.float32)
        # Samples at the front of what is held back that nobody is to hear: the end of what `prime` was given.
        self._unheard = 0

    def _check_batch(self) -> None:
        if (fixed := self.session.spec.fixed_batch) not in (None, self.batch):
            raise ValueError(f"this graph takes {fixed} rows in a call, not {self.batch}")

    @property
    def batch(self) -> int:
        """Rows of the stream."""
        return len(self.frames)

    def reset(self) -> None:
        """Back to the start: nothing seen, nothing held back."""
        self._start(self.batch)

    def fork(self, rows: Sequence[int] | None = None):
        """An independent copy, of all rows or of `rows` in that order (a row may be named twice, or left out).

        What either does later, the other does not see: states are never written in place.
        """
        rows = list(range(self.batch) if rows is None else rows)
        if not rows:
            raise ValueError("a stream needs at least one row")
        return self._with(lambda get: get(self)[rows])

    def onto(self, session):
        """An independent copy that goes on with `session`: another graph of the same weights and states.

        So a stream goes from float32 to 8 bits in mid-sentence, or back. Raises ValueError where the two do not fit.
        """
        mine, other = saved.identity(self.session), saved.identity(session)
        if odd := [key.replace("_", " ") for key in mine if mine[key] != other[key]]:
            raise ValueError(f"this stream cannot go on with that graph, which has another {' and another '.join(odd)}")
        moved = self.fork()
        moved.session = session
        return moved

    def join(self, *others: "Stream"):
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
        if len({stream._unheard for stream in streams}) > 1:
            raise ValueError(
                "a stream that was just primed cannot be joined with one that was not: this graph holds back"
            )
        if len({stream._held_back.shape[1] for stream in streams}) > 1:
            raise ValueError("the streams hold back different numbers of samples, so they cannot share a call")
        return self._with(lambda get: np.concatenate([get(stream) for stream in streams]))

    def _with(self, rows):
        """A copy whose arrays are what `rows` makes of a getter: every array of a stream has the rows first."""
        other = copy.copy(self)
        other.state = {name: rows(lambda stream, name=name: stream.state[name]) for name in self.state}
        other.frames = rows(lambda stream: stream.frames)
        other._held_back = rows(lambda stream: stream._held_back)
        other._check_batch()
        return other

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_busy"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._busy = threading.Lock()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One caller at a time, and all or nothing: after an error everything is as it was."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("another thread is in a call of this stream; fork() gives each its own")
        before = self.__getstate__()
        try:
            if self.finished:
                raise RuntimeError("the stream is finished; reset() starts a new one")
            yield
        except BaseException:
            vars(self).update(before)
            raise
        finally:
            self._busy.release()

    def save(self, path: str | os.PathLike) -> None:
        """Write the stream to a .npz file; `session.load_stream(path)` goes on from it. See `saved`."""
        saved.write(self, path)


class CodecStream(Stream):
    """A stream of a decoder: codes in, sound out."""

    def push(self, codes: np.ndarray, last: bool = False) -> np.ndarray:
        """Decode codes [N, Q] or [B, N, Q] and return the samples finished by them, float32 [B, n].

        n is N * samples_per_frame, less what a graph with look-ahead still holds back (n may be 0 at the start).
        `last` says that no more will come: nothing is held back. An exact graph is given many frames in pieces. A graph
        whose number of frames is fixed wants a multiple of it; the last push alone may have fewer, they are filled up
        and the sound is cut. Raises CodesError for codes that do not fit, RuntimeError after the last chunk.
        """
        spec = self.session.spec
        with self._alone():
            codes = check_codes(codes, spec, self.batch)
            most = spec.fixed_frames or (PIECE_FRAMES if spec.kind == "exact" else codes.shape[1])
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
        heard = min(self._unheard, valid)
        self._held_back = waveform[:, max(self._unheard, valid) :]
        self._unheard -= heard
        return waveform[:, heard:valid]

    def prime(self, codes: np.ndarray) -> None:
        """Start warm: `codes` come first and nobody hears them, as a voice clone's reference; shapes as in `push`.

        What is heard after it is what would follow them in one stream, to the sample, also where a graph holds frames
        back. To speak many times with one voice, prime once and fork for each: `voice.fork().push(...)`.
        """
        self.push(codes)
        with self._alone():
            self._unheard += self._held_back.shape[1]
            self._held_back = self._held_back[:, :0]

    def pushes(
        self, codes: np.ndarray, schedule: Sequence[int] | None = None, progress=lambda iterable, **_: iterable
    ) -> Iterator[np.ndarray]:
        """`push` codes [B, N, Q] chunk by chunk, the last one as the last; yields what each call finished.

        `schedule` is the chunk lengths in frames; it repeats to the end (default: 12, or what the graph is fixed at).
        `progress` wraps the loop (tqdm does). Raises ValueError for a length that is no multiple of what a graph is
        fixed at.
        """
        fixed = self.session.spec.fixed_frames or 1
        schedule = schedule or [self.session.spec.fixed_frames or CHUNK_FRAMES]
        if odd := next((length for length in schedule if length % fixed), None):
            raise ValueError(f"a chunk of {odd} frames is no multiple of {fixed}, which this graph takes in a call")
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


class EncoderStream(Stream):
    """A stream of an encoder: sound in, codes out."""

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Encode samples [M] or [B, M] and return the codes of the frames that they complete, int64 [B, n, Q].

        Any number of samples: what does not fill a frame waits for the next push, or for `finish`. n may be 0. Many
        samples are encoded in pieces. Raises ValueError for samples that are none, RuntimeError after `finish`.
        """
        spec = self.session.spec
        with self._alone():
            audio = np.concatenate([self._held_back, check_audio(audio, self.batch)], axis=1)
            whole = audio.shape[1] - audio.shape[1] % spec.samples_per_frame
            self._held_back = audio[:, whole:]
            return self._encode(audio[:, :whole])

    def finish(self) -> np.ndarray:
        """End the stream, and return the codes of a last frame that the samples did not fill, int64 [B, 0 or 1, Q]."""
        with self._alone():
            rest, self._held_back = self._held_back, self._held_back[:, :0]
            codes = self._encode(rest)
            self.finished = True
            return codes

    def pushes(
        self, audio: np.ndarray, schedule: Sequence[int] | None = None, progress=lambda iterable, **_: iterable
    ) -> Iterator[np.ndarray]:
        """`push` samples [M] or [B, M] in chunks of `schedule` frames, and finish; yields the codes of each chunk."""
        audio, spec = check_audio(audio, self.batch), self.session.spec
        lengths = [frames * spec.samples_per_frame for frames in schedule or [CHUNK_FRAMES]]
        parts = list(chunks(audio, lengths))
        for part in progress(parts, unit="chunk"):
            codes = self.push(part)
            yield codes if part is not parts[-1] else np.concatenate([codes, self.finish()], axis=1)

    def _encode(self, audio: np.ndarray) -> np.ndarray:
        spec = self.session.spec
        codes = [np.zeros((self.batch, 0, spec.num_quantizers), np.int64)]
        for part in chunks(audio, [PIECE_FRAMES * spec.samples_per_frame]):
            outputs = self.session.run({"audio": np.ascontiguousarray(part)} | self.state)
            self.state = {before.name: outputs[after.name] for before, after in spec.states}
            codes.append(outputs["audio_codes"])
        codes = np.concatenate(codes, axis=1)
        self.frames = self.frames + codes.shape[1]
        return codes


def stream_of(session, batch: int | None = None) -> Stream:
    """A new stream of what `session` runs."""
    return (EncoderStream if session.spec.part == ENCODER else CodecStream)(session, batch)
