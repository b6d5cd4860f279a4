"""Exported graphs behind the interface of upstream's `Qwen3TTSTokenizer`: `SpeechTokenizer`. Needs numpy, onnxruntime.

The interface is that of qwen-tts 0.1.1, https://pypi.org/project/qwen-tts/0.1.1/ (`inference/qwen3_tts_tokenizer.py`),
as upstream's own package and its examples call it.
"""

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..spec import DECODER, ENCODER
from .audio import check_audio_rows, read_waveform
from .codes import check_rows
from .providers import CPU
from .resampling import resample
from .session import CodecSession, GraphError
from .stream import CodecStream

Source = str | os.PathLike | CodecSession

MODEL_TYPE = "qwen3_tts_tokenizer_12hz"  # what upstream's config.json calls this codec


class Encoded(NamedTuple):
    """What `encode` gives: `audio_codes` has a row of codes, int64 [N_i, Q], for each row of sound."""

    audio_codes: list[Any]


class SpeechTokenizer:
    """Upstream's `Qwen3TTSTokenizer` on an exported decoder, an encoder, or both; PyTorch is not needed.

    `tts.model.speech_tokenizer = SpeechTokenizer("FOLDER")` puts it into upstream's `Qwen3TTSModel`. It keeps no state:
    any number of threads may use it. `decoder` and `encoder` are its sessions, None where there is none.

    Torch tensors are taken from any device. Where torch is loaded, `encode` gives its codes as torch's int64 tensors on
    the CPU, as upstream's callers want them; in a process without torch they are numpy arrays. Torch is never imported.
    """

    decoder: CodecSession | None
    encoder: CodecSession | None

    def __init__(
        self,
        decoder: Source | None = None,
        encoder: Source | None = None,
        threads: int = 0,
        providers: Sequence[str] = (CPU,),
    ):
        """`decoder` and `encoder` are .onnx files or sessions; a folder in `decoder`'s place holds decoder.onnx,
        encoder.onnx or both, as `export --part both` writes them. `threads`, `providers` as in `CodecSession`.

        Raises GraphError for a file that is no such graph, and where the two are of codecs with other codes; ValueError
        for neither.
        """
        if isinstance(decoder, str | os.PathLike) and os.path.isdir(decoder):
            folder, decoder = Path(decoder), None
            there = {part: folder / f"{part}.onnx" for part in (DECODER, ENCODER)}
            there = {part: path for part, path in there.items() if path.is_file()}
            if not there:
                raise GraphError(f"{folder}: holds neither decoder.onnx nor encoder.onnx")
            decoder, encoder = there.get(DECODER), encoder or there.get(ENCODER)
        if decoder is None and encoder is None:
            raise ValueError("a SpeechTokenizer needs a decoder, an encoder, or a folder that holds them")
        self.decoder, self.encoder = (
            None if source is None else _session(source, part, threads, providers)
            for source, part in ((decoder, DECODER), (encoder, ENCODER))
        )
        if self.decoder and self.encoder:
            _check_fit(self.decoder, self.encoder)

    def encode(self, audios: Any, sr: int | None = None, return_dict: bool = True) -> Encoded:
        """The codes of sound: of one array [M], one path, or a list of either, of any lengths and each at any rate.

        `sr` is the rate of arrays and of .npy files, in Hz; another rate than the encoder's goes through soxr. An array
        may be a torch tensor, and be [M, channels], which are mixed to one, as those of a file are. `audio_codes[i]` is
        row i's, int64 [N_i, Q], with a last frame that the sound does not fill; a row's codes do not depend on the
        others. The result is a tuple of one, so `return_dict` changes nothing.

        Raises ValueError for samples that are no floats, arrays without `sr`, and where there is no encoder.
        """
        session = self._part(ENCODER)
        several = isinstance(audios, list | tuple)
        rows = [_samples(audio, sr, session.spec.sample_rate) for audio in (audios if several else [audios])]
        return Encoded([_as_callers_have_it(_run(session, row)) for row in check_audio_rows(rows)])

    def decode(self, encoded: Any) -> tuple[list[np.ndarray], int]:
        """The sound of codes: (a float32 array [N_i * samples_per_frame] for each row, the rate in Hz).

        `encoded` is what `encode` gave (or anything with `audio_codes`), a dict {"audio_codes": codes}, or a list of
        such dicts, one a row. Codes are [N, Q], a batch [B, N, Q] whose shorter rows end in frames of -1, or a list of
        rows of any lengths. Each row is one exact stream from its first frame to its last, run in chunks, so that
        memory is bounded by a chunk and there is no seam.

        Raises CodesError, which is a ValueError, for codes that cannot be looked up, with their place; TypeError for
        anything else than these; ValueError where there is no decoder.
        """
        session = self._part(DECODER)
        rows = check_rows(_codes(encoded), session.spec)
        return [_run(session, row[None]) for row in rows], session.spec.sample_rate

    def stream(self) -> CodecStream:
        """A new stream of the decoder, for sound while the codes come; ValueError where there is no decoder."""
        stream = self._part(DECODER).stream()
        assert isinstance(stream, CodecStream)  # a decoder's is one
        return stream

    def get_model_type(self) -> str:
        """As upstream calls this codec."""
        return MODEL_TYPE

    def get_input_sample_rate(self) -> int:
        """Hz of the sound that `encode` works on."""
        return self._part(ENCODER).spec.sample_rate

    def get_output_sample_rate(self) -> int:
        """Hz of the sound that `decode` gives."""
        return self._part(DECODER).spec.sample_rate

    def get_encode_downsample_rate(self) -> int:
        """Samples that become a frame of codes."""
        return self._part(ENCODER).spec.samples_per_frame

    def get_decode_upsample_rate(self) -> int:
        """Samples that a frame of codes becomes."""
        return self._part(DECODER).spec.samples_per_frame

    def _part(self, part: str) -> CodecSession:
        session: CodecSession | None = getattr(self, part)
        if session is None:
            raise ValueError(f"this SpeechTokenizer has no {part}: SpeechTokenizer({part}=...) gives it one")
        return session


def _session(source: Source, part: str, threads: int, providers: Sequence[str]) -> CodecSession:
    session = source if isinstance(source, CodecSession) else CodecSession(source, threads, providers)
    if session.spec.part != part:
        raise GraphError(f"{session.path}: is an {session.spec.part}'s graph, given as the {part}")
    return session


def _check_fit(decoder: CodecSession, encoder: CodecSession) -> None:
    for name in ("num_quantizers", "codebook_size"):
        theirs, ours = getattr(encoder.spec, name), getattr(decoder.spec, name)
        if theirs != ours:
            raise GraphError(f"{encoder.path} has {name} {theirs}, {decoder.path} has {ours}: they are of two codecs")


def _run(session: CodecSession, row: np.ndarray) -> np.ndarray:
    """A row [1, ...] as a stream of its own: joining rows saves no time from 12 frames a call on."""
    batch = session.spec.fixed_batch or 1
    return session.stream(batch).run(np.repeat(row, batch, axis=0))[0]


def _codes(encoded: Any) -> Any:
    """The codes that `decode` was given, in numpy's arrays."""
    if hasattr(encoded, "audio_codes"):
        codes = encoded.audio_codes
    elif isinstance(encoded, Mapping):
        codes = encoded["audio_codes"]
    elif isinstance(encoded, list) and all(isinstance(row, Mapping) for row in encoded):
        codes = [row["audio_codes"] for row in encoded]
    else:
        what = type(encoded).__name__
        raise TypeError(f"decode takes what encode gives, a dict with audio_codes, or a list of such dicts, not {what}")
    return [*map(array_of, codes)] if isinstance(codes, list | tuple) else array_of(codes)


def _samples(audio: Any, sr: int | None, wanted: int) -> np.ndarray:
    """One row of sound as [M] at the rate `wanted`."""
    rate = sr
    if isinstance(audio, str | os.PathLike):
        if str(audio).startswith(("http://", "https://", "data:")):
            raise ValueError("encode takes arrays and files; what is behind a URL is for the caller to fetch")
        audio, rate = read_waveform(Path(audio), wanted, warnings.warn, mix=True)
        rate = rate or sr
    audio = array_of(audio)
    if rate is None:
        raise ValueError("an array does not say its rate: encode(audio, sr=24000)")
    if audio.ndim == 2:
        if audio.shape[0] < audio.shape[1]:
            raise ValueError(f"audio has the shape {list(audio.shape)}, must be [M] or [M, channels]; transposed?")
        audio = audio.mean(axis=1)
    return audio if rate == wanted or audio.dtype.kind != "f" else resample(audio, rate, wanted)


def array_of(data: Any) -> np.ndarray:
    """Numpy's array of anything that it takes, or of torch's tensor, which may be on a GPU or carry a gradient."""
    return data.detach().cpu().numpy() if hasattr(data, "detach") else np.asarray(data)


def _as_callers_have_it(codes: np.ndarray) -> Any:
    torch = sys.modules.get("torch")
    return torch.from_numpy(codes) if torch else codes
