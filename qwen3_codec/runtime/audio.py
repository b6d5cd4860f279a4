"""Waveforms in files: `.npy` (float32), `.wav` and `.flac` (16 bit). WAV needs the standard library alone."""

import io
import re
import shlex
import warnings
import wave
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..files import written_whole
from . import riff
from .codes import cut_rows
from .versions import brief

# What -1 becomes in 16 bits. +1 has no number there: it is the one value that is clipped, to 32767.
FULL_SCALE = 32768
SUFFIXES = (".npy", ".wav", ".flac")
HOW_TO_GET_IT = "pip install soundfile"
HOW_TO_MEND_IT = "install libsndfile, in Debian apt-get install libsndfile1"
NPY = b"\x93NUMPY"
WAV = "WAV"
# The kinds of files that a recording comes in, and how each begins; the first that fits counts. Those that soundfile
# does not read, and what of the others is broken, are called by these names.
KINDS = {
    WAV: rb"(RIFF|RF64|BW64)....WAVE",
    "WAV of big-endian numbers": rb"RIFX....WAVE",
    "AVI (video)": rb"RIFF....AVI ",
    "AIFF": rb"FORM....AIF[FC]",
    "FLAC": rb"fLaC",
    "Opus in Ogg": rb"OggS.{24}OpusHead",
    "Ogg": rb"OggS",
    "MPEG-4 (.m4a, .mp4)": rb"....ftyp",
    "WebM or Matroska": rb"\x1aE\xdf\xa3",
    "AAC": rb"\xff[\xf0\xf1\xf8\xf9]",
    "MP3": rb"ID3|\xff[\xe2\xe3\xf2-\xf5\xfa-\xfd]",
    "WMA or WMV": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "AMR": rb"#!AMR",
    "Core Audio (.caf)": rb"caff",
    "Sun audio (.au)": rb"\.snd",
    "Wave64": rb"riff\x2e\x91\xcf\x11",
    "WavPack": rb"wvpk",
    "Monkey's Audio": rb"MAC ",
}


def pcm16(waveform: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] as int16, rounded to the nearest step of 1/32768; what lies outside is clipped.

    Raises ValueError naming the first sample that is NaN or infinite.
    """
    finite = np.isfinite(waveform)
    if not finite.all():
        place = np.argwhere(~finite)[0]
        raise ValueError(f"sample {place.tolist()} is {waveform[tuple(place)]}; 16 bits hold numbers alone")
    return np.clip(np.rint(waveform * np.float32(FULL_SCALE)), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def check_audio(audio: np.ndarray, batch: int, of_row: int | None = None) -> np.ndarray:
    """Samples [M] or [B, M] as float32 [B, M]. Values beyond [-1, 1] are taken, with a warning that says the peak.

    Raises ValueError for integers, for what is no number, and for another number of rows, which may be channels;
    it names `of_row` where the samples are one of many rows.
    """
    audio = np.asarray(audio)
    if audio.dtype.kind != "f":
        what = "audio" if of_row is None else f"row {of_row} of the audio"
        raise ValueError(
            f"{what} is {audio.dtype}, must be floats in [-1, 1]; 16-bit samples are to be divided by 32768"
        )
    rows = audio[None] if audio.ndim == 1 else audio
    if rows.ndim != 2 or len(rows) != batch:
        hint = "; several channels? mix them to one" if rows.ndim == 2 and 2 in rows.shape else ""
        raise ValueError(f"audio has the shape {list(audio.shape)}, must be [M] or [B, M] with {batch} rows{hint}")
    if not np.isfinite(rows).all():
        row, place = map(int, np.argwhere(~np.isfinite(rows))[0])
        raise ValueError(f"audio at row {row + (of_row or 0)}, sample {place} is {rows[row, place]}")
    if (peak := float(np.abs(rows).max(initial=0.0))) > 1:
        warnings.warn(f"audio reaches {peak:.3g}, beyond [-1, 1]; the encoder was trained within", stacklevel=3)
    return rows.astype(np.float32)


def check_audio_rows(audio: Any, lengths: Sequence[int] | None = None) -> list[np.ndarray]:
    """The rows of `audio`, each float32 [1, M_i]; ValueError as from `check_audio`, or where a row holds no sample.

    `audio` is one row [M], a batch [B, M], or a list of rows [M_i] of any lengths. In a batch the shorter rows are
    filled up behind their end with anything at all, and `lengths` counts each row's samples.
    """
    listed = isinstance(audio, list | tuple) and any(np.ndim(row) for row in audio)
    batch = audio if listed else np.atleast_2d(audio)
    if not listed and batch.ndim == 2 and len(batch) > batch.shape[1] > 0:
        raise ValueError(f"audio has the shape {list(batch.shape)}: more rows than samples; channels? mix them")
    rows = [*map(np.asarray, batch)]
    if not rows:
        raise ValueError("audio holds no row (B is 0)")
    for index, row in enumerate(rows):
        if row.ndim != 1:
            hint = "; several channels? mix them to one" if 2 in row.shape else ""
            raise ValueError(f"row {index} of the audio has the shape {list(row.shape)}, must be [M]{hint}")
        if not row.size:
            raise ValueError(f"row {index} of the audio holds no sample")
    rows = rows if lengths is None else cut_rows(rows, lengths, ValueError)
    return [check_audio(row, 1, index) for index, row in enumerate(rows)]


def row_paths(path: Path, rows: int, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Where each of `rows` rows goes: `path` alone, or speech_0.wav, speech_1.wav, ... for speech.wav.

    The numbers are as wide as the last one, so that sorted names keep the order. Raises ValueError for a suffix that is
    none of `suffixes`, a place that is a folder, and .flac where soundfile is missing: before anything is decoded.
    """
    if path.suffix not in suffixes:
        raise ValueError(f"{path}: must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}")
    if path.suffix == ".flac":
        _needed_soundfile(path)
    width = len(str(rows - 1))
    paths = [path.with_stem(f"{path.stem}_{row:0{width}}") for row in range(rows)] if rows > 1 else [path]
    for place in paths:
        if place.is_dir():
            raise ValueError(f"{place}: is a folder, must be a file")
    return paths


def write_waveforms(paths: Iterable[Path], waveforms: Iterable[np.ndarray], sample_rate: int) -> None:
    """Each waveform [1, samples] into a file of its own. They are taken one by one; all files appear, or none."""
    with ExitStack() as until_all_are_written:
        for path, waveform in zip(paths, waveforms, strict=True):
            draft = until_all_are_written.enter_context(written_whole(path))
            with open(draft, "wb") as file:
                _write(file, path, waveform, sample_rate)


def _write(file: Any, path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    if path.suffix == ".npy":
        np.save(file, waveform)
    elif path.suffix == ".flac":
        _needed_soundfile(path).write(file, pcm16(waveform[0]), sample_rate, format="FLAC", subtype="PCM_16")
    else:
        with wave.open(file, "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(sample_rate)
            wav.writeframes(pcm16(waveform[0]).tobytes())


def read_waveform(
    path: Path,
    wanted_rate: int | None = None,
    tell: Callable[[str], None] = warnings.warn,
    mix: bool = False,
) -> tuple[np.ndarray, int | None]:
    """Samples [samples] in [-1, 1] as float32 and their rate, None for a .npy, which has none.

    A .npy holds [samples] or [1, samples], of floats or of int16. Other files are what soundfile reads; without it,
    WAV of 16 bits. What a file is, its first bytes say, not its name. Where a WAV's header is wrong about its length,
    the samples that are there are given, and `tell` gets a line that says so. Several channels become one with `mix`.
    Raises ValueError for several channels without it, no sample, or one that is no number; where ffmpeg would help,
    with the line that makes a WAV at `wanted_rate`.
    """
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, must be a file with sound")
    content = path.read_bytes()
    if content.startswith(NPY) or (path.suffix == ".npy" and not kind_of(content)):
        samples, rate = _read_npy(path), None
    else:
        samples, rate = read_sound(content, path, wanted_rate, tell)
    if samples.ndim == 2 and 1 in samples.shape:
        samples = samples.reshape(-1)
    if mix and samples.ndim == 2 and rate:
        samples = (samples / np.float32(FULL_SCALE) if samples.dtype == np.int16 else samples).mean(axis=1)
    if samples.ndim != 1:
        hint = f"; {how_to_convert(path, wanted_rate)}" if rate else ""
        raise ValueError(f"{path}: has the shape {list(samples.shape)}, must hold one channel{hint}")
    if not samples.size:
        raise ValueError(f"{path}: holds no sample")
    if samples.dtype == np.int16:
        samples = samples / np.float32(FULL_SCALE)
    if samples.dtype.kind != "f":
        raise ValueError(f"{path}: holds {samples.dtype}, must be floats or int16")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: sample {np.flatnonzero(~np.isfinite(samples))[0]} is not a number")
    return samples.astype(np.float32), rate


def how_to_convert(path: Path, rate: int | None) -> str:
    """The line that makes a WAV of one channel at `rate` of whatever ffmpeg reads, and is not `path` itself."""
    target = path.with_suffix(".wav") if path.suffix.lower() != ".wav" else path.with_stem(f"{path.stem}_mended")
    at_rate = ["-ar", str(rate)] if rate else []
    return "ffmpeg makes a WAV of it: " + shlex.join(["ffmpeg", "-i", str(path), *at_rate, "-ac", "1", str(target)])


def kind_of(content: bytes) -> str:
    """The kind of a file, by its first bytes; "" where they are of none that is known here."""
    return next((kind for kind, pattern in KINDS.items() if re.match(pattern, content, re.DOTALL)), "")


def read_sound(
    content: bytes, path: Path, wanted_rate: int | None, tell: Callable[[str], None]
) -> tuple[np.ndarray, int]:
    """Samples [samples] or [samples, channels] of a sound file's bytes, float32 or int16, and their rate.

    `path` is what messages call it; errors and `tell` as in `read_waveform`.
    """
    if not content:
        raise ValueError(f"{path}: is empty, 0 bytes")
    kind = kind_of(content)
    wav = riff.read(content) if kind == WAV else None
    if wav and wav.lie:
        tell(f"{path}: {wav.lie}; the {wav.frames} samples that are there are taken")
    soundfile, advice = _soundfile()
    if soundfile is None:
        return _read_wav(path, wav, kind, wanted_rate, advice)
    try:
        return soundfile.read(io.BytesIO(wav.mended() if wav else content), dtype="float32")
    except (soundfile.SoundFileError, ValueError) as error:  # ValueError: a length that no array has
        if not kind:
            raise ValueError(f"{path}: cannot be read as sound: its bytes are of no kind that is known") from error
        why = getattr(error, "error_string", error)
        help_ = "" if kind == WAV else f"; {how_to_convert(path, wanted_rate)}"
        raise ValueError(f"{path}: cannot be read as sound: it is {kind} ({why}){help_}") from error


def _read_wav(
    path: Path, wav: riff.Wav | None, kind: str, wanted_rate: int | None, advice: str
) -> tuple[np.ndarray, int]:
    if wav and (wav.tag, wav.bits) == (riff.PCM, 16):
        return np.frombuffer(wav.data, "<i2").astype(np.int16).reshape(-1, wav.channels), wav.rate
    found = f"{wav.bits} bits" if wav else f"this is {kind or 'of no kind that is known'}"
    help_ = f"; {how_to_convert(path, wanted_rate)}" if kind else ""
    raise ValueError(f"{path}: only WAV of 16 bits is read without soundfile ({found}); {advice}{help_}")


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a .npy file with numbers, or truncated ({error})") from error


def _soundfile() -> tuple[Any, str]:
    """The package and "", or None and how to come by it: it may be missing, or there without its library."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        if getattr(error, "name", None) == "soundfile":
            return None, HOW_TO_GET_IT
        return None, f"it is installed and cannot be loaded ({brief(error)}): {HOW_TO_MEND_IT}"
    return soundfile, ""


def _needed_soundfile(path: Path) -> Any:
    soundfile, advice = _soundfile()
    if soundfile is None:
        raise ValueError(f"{path}: needs the package soundfile ({advice})")
    return soundfile
