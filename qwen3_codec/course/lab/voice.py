"""Sound to codes and back: one recording through both halves, chunk by chunk, and the widget that takes yours.

`round_trip` is the loop itself and needs no front end; `Voice` is the widget.
"""

import html
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import traitlets

from ...model.checkpoint import Checkpoint
from ...runtime.audio import read_sound
from ...runtime.metrics import snr_db
from ...runtime.resampling import resample
from ...streaming.encoder import StreamEncoderWrapper
from ...streaming.exact import ExactStreamingWrapper
from ...streaming.session import TorchSession
from . import plots


@dataclass(frozen=True)
class RoundTrip:
    """A recording [M], its codes [N, Q], and what the decoder makes of them [M], with the time of each chunk.

    `encode_ms` and `decode_ms` are those of each call; `chunk_ms` is how long a chunk's sound lasts.
    """

    audio: np.ndarray
    codes: np.ndarray
    decoded: np.ndarray
    sample_rate: int
    chunk_ms: float
    encode_ms: list[float]
    decode_ms: list[float]

    @property
    def first_sound_ms(self) -> float:
        """From the first sample that is spoken to the first that is heard: a chunk's length, and both calls."""
        return self.chunk_ms + self.encode_ms[0] + self.decode_ms[0]


def sessions(checkpoint: Checkpoint):
    """Both halves in PyTorch, behind the client's interface: (encoder, decoder)."""
    wrappers = StreamEncoderWrapper(checkpoint.encoder), ExactStreamingWrapper(checkpoint.decoder)
    return tuple(map(TorchSession, wrappers))


def round_trip(
    encoder, decoder, audio: np.ndarray, chunk: int = 3, progress: Callable = lambda parts, **_: parts
) -> RoundTrip:
    """Encode `audio` [M] in chunks of `chunk` frames, and decode each chunk's codes at once.

    `encoder` and `decoder` are sessions, of PyTorch or of ONNX Runtime. A last frame that is not full is decoded in
    full, and cut. Raises ValueError for sound that cannot be encoded.
    """
    spec = encoder.spec
    step, speaking, listening = chunk * spec.samples_per_frame, encoder.stream(), decoder.stream()
    codes, pieces, encode_ms, decode_ms = [], [], [], []
    starts = range(0, len(audio), step)
    for start in progress(starts, unit="chunk"):
        begun = time.perf_counter()
        part = speaking.push(audio[start : start + step])
        if start + step >= len(audio):
            part = np.concatenate([part, speaking.finish()], axis=1)
        encoded = time.perf_counter()
        pieces.append(listening.push(part))
        codes.append(part)
        encode_ms.append(1000 * (encoded - begun))
        decode_ms.append(1000 * (time.perf_counter() - encoded))
    return RoundTrip(
        audio=audio,
        codes=np.concatenate(codes, axis=1)[0],
        decoded=np.concatenate(pieces, axis=1)[0, : len(audio)],
        sample_rate=spec.sample_rate,
        chunk_ms=1000 * step / spec.sample_rate,
        encode_ms=encode_ms,
        decode_ms=decode_ms,
    )


def read_upload(
    content: bytes, sample_rate: int, name: str = "this file", tell: Callable[[str], None] = warnings.warn
) -> np.ndarray:
    """The samples [M] of an uploaded sound file: channels mixed to one, another rate changed to `sample_rate`.

    `name` and `tell` as in `audio.read_sound`. Raises ValueError for bytes that are no sound, and for silence of no
    length.
    """
    audio, rate = read_sound(content, Path(name), sample_rate, tell)
    mono = audio.mean(axis=1) if audio.ndim == 2 else audio
    if not mono.size:
        raise ValueError(f"{name}: holds no sample")
    return mono if rate == sample_rate else resample(mono, rate, sample_rate)


# What a message from a page to Python may have: tornado's `websocket_max_message_size`, which Jupyter leaves at 10 MB.
# A larger one ends the connection, and Python never hears of it. A file's message has some words beside the file.
MESSAGE_BYTES = 10 * 2**20
FILE_BYTES = MESSAGE_BYTES - 2**14


class _Message(widgets.HTML):
    """Words about the chosen file. `coming` names it before it is here, {name, size}: the page links it to the upload.

    The link copies the upload's value as JSON, in which the bytes are left out: a small message, sent ahead.
    """

    coming = traitlets.List().tag(sync=True)


class Voice(widgets.VBox):
    """Choose a sound file, and hear what the codes keep of it. `result` is the last `RoundTrip`.

    `seconds` is the most that is taken. A file that cannot be encoded, or that is too large for Jupyter, leaves no
    result, and `message` says why.
    """

    def __init__(self, checkpoint: Checkpoint, seconds: float = 10.0):
        self.checkpoint, self.seconds, self.result, self._chosen = checkpoint, seconds, None, None
        self._encoder, self._decoder = sessions(checkpoint)
        self.chunk = widgets.IntSlider(3, 1, 24, description="frames in a chunk", continuous_update=False)
        self.bar = widgets.IntProgress(layout={"width": "98%", "height": "14px"})
        self.message, self.players, self.picture = _Message(), widgets.HTML(), widgets.HTML()
        self.controls = widgets.HBox()
        super().__init__([self.controls, self.bar, self.message, self.players, self.picture])
        self._one_at_a_time = threading.RLock()  # JupyterLab lets each widget speak to a thread of its own
        self._offer_upload()
        self.message.observe(self._announced, "coming")
        self.chunk.observe(self._changed, "value")

    def _offer_upload(self) -> None:
        """A new button: on the page, one whose message was lost waits for the answer and sends no other."""
        kinds = "audio/*,.m4a,.opus,.webm"  # what cannot be read is named when it is chosen
        label = f"a sound file of at most {MESSAGE_BYTES // 2**20} MB"
        self.upload = widgets.FileUpload(accept=kinds, description=label, layout={"width": "auto"})
        self.upload.observe(self._arrived, "value")
        self._link = widgets.jsdlink((self.upload, "value"), (self.message, "coming"))
        self.controls.children = self.upload, self.chunk

    def _announced(self, change) -> None:
        with self._one_at_a_time:
            for file in change.new:
                name, size = file["name"], file["size"]
                if size <= FILE_BYTES or (self._chosen and self._chosen[0] == name and len(self._chosen[1]) == size):
                    continue  # it comes, or is here already
                self._chosen = None
                limit = f"Jupyter takes at most {MESSAGE_BYTES // 2**20} MB from a page"
                part = f"choose a part of it ({self.seconds:g} s are heard)"
                self._complain(f"{name} has {size / 2**20:.1f} MB, and {limit}: {part}")
                self._offer_upload()

    def _arrived(self, change) -> None:
        with self._one_at_a_time:
            for file in change.new:
                self._chosen = file["name"], bytes(file["content"])
                change.owner.value = ()  # kept here alone: a page that is opened again would announce it again
                self._changed()

    def _changed(self, _change=None) -> None:
        with self._one_at_a_time:
            if not self._chosen:
                return
            name, content = self._chosen
            self._clear()
            try:
                rate, notes = self._encoder.spec.sample_rate, []
                audio = read_upload(content, rate, name, notes.append)
                heard = audio[: int(self.seconds * rate)]
                part = f", the first {self.seconds:g} of {len(audio) / rate:.1f} s" if len(heard) < len(audio) else ""
                trip = round_trip(self._encoder, self._decoder, heard, self.chunk.value, self._progress)
                self.show(trip, f"{name}{part}: ", notes)
            except Exception as error:  # a callback's traceback is shown nowhere
                words = str(error)
                self._complain(words if words.startswith(name) else f"{name}: {words}")

    def _clear(self) -> None:
        """Nothing is shown, so that no result stands under another file's name."""
        self.result, self.bar.value = None, 0
        self.message.value = self.players.value = self.picture.value = ""

    def _complain(self, words: str) -> None:
        self._clear()
        self.message.value = f"<p role='alert' style='color: #b00020'>✗ {html.escape(words)}</p>"

    def _progress(self, parts, **_):
        self.bar.max = len(parts)
        for done, part in enumerate(parts, 1):
            yield part
            self.bar.value = done

    def show(self, result: RoundTrip, title: str = "", notes: Sequence[str] = ()) -> None:
        """Numbers, players and the codes of a result, and above them what is to be said of its file."""
        self.result = result
        self.message.value = "".join(f"<p role='status'>{html.escape(note)}</p>" for note in notes) + (
            f"<p>{html.escape(title)}{len(result.codes)} frames of {result.codes.shape[1]} codes; first sound after "
            f"{result.first_sound_ms:.0f} ms; SNR {snr_db(result.audio, result.decoded):.1f} dB</p>"
        )
        parts = [
            f"<div>{name}<br>{plots.player(wave, result.sample_rate, 5.0)._repr_html_()}</div>"
            for name, wave in (("before", result.audio), ("after", result.decoded))
        ]
        self.players.value = f"<div style='display: flex; gap: 2em; flex-wrap: wrap'>{''.join(parts)}</div>"
        drawn = plots.codes(result.codes, result.chunk_ms / 1000 / self.chunk.value, "the codes of this sound")
        self.picture.value = plots.as_html(drawn, f"codes of {len(result.codes)} frames")
