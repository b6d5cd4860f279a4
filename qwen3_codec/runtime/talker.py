"""Codes, and sound, while upstream's talker writes them: `codes_of`, `speak`. Needs numpy alone; the model is given.

Written for qwen-tts 0.1.1, https://pypi.org/project/qwen-tts/0.1.1/. Its `generate` returns when all is written; but
its talker's `forward`, which runs once a frame, returns that frame's codes beside the hidden states, so that a forward
hook sees each frame as soon as it is there.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice, repeat
from queue import SimpleQueue
from threading import Event, Thread, current_thread
from typing import Any

import numpy as np

from .codes import PADDING
from .stream import CodecStream
from .tokenizer import SpeechTokenizer, array_of

# The method of upstream's `Qwen3TTSModel` for each kind of checkpoint, by its `tts_model_type`.
METHODS = {
    "custom_voice": "generate_custom_voice",
    "voice_design": "generate_voice_design",
    "base": "generate_voice_clone",
}


@contextmanager
def codes_of(tts: Any, method: str = "", **arguments: Any) -> Iterator[Iterator[np.ndarray]]:
    """The frames of `tts` while it writes them: `with codes_of(tts, text=..., speaker=...) as frames`.

    `tts` is upstream's `Qwen3TTSModel`, or the model inside it. Its `method` (default: the one for this kind of
    checkpoint, such as generate_custom_voice) runs in a thread with `arguments`, as it is; its own decoding at the end
    alone is left out. `frames` is an iterator of int64 [B, Q], the next frame of each of B texts, with -1 in the rows
    that have ended. A row ends before the frame with its stop code, as in what upstream returns; stacked over axis 1
    the frames are a batch that `SpeechTokenizer.decode` takes.

    An error in the method is raised where the next frame is asked for. At the end of the block, and after an error in
    it, the hook is gone and the thread has ended: who leaves early stops the talker at its next frame. One generation
    at a time runs on a model, as upstream has it.
    """
    model = getattr(tts, "model", tts)
    generate = getattr(_without_decoding(tts), method or _method(tts))
    stop_code = model.talker.config.codec_eos_token_id
    written: SimpleQueue[np.ndarray | BaseException | None] = SimpleQueue()
    left, ended = Event(), np.zeros(0, bool)

    def run() -> None:
        try:
            generate(**arguments)
        except BaseException as error:  # raised where the next frame is asked for
            written.put(error)
        else:
            written.put(None)

    def heard(module: Any, inputs: Any, output: Any) -> None:
        nonlocal ended
        if current_thread() is not thread:
            return
        if left.is_set():
            raise _Left
        codes = output.hidden_states[-1]
        if codes is None:  # the prompt, before the first frame
            return
        codes = array_of(codes)
        ended = (codes[:, 0] == stop_code) | (ended if ended.size else False)
        if not ended.all():
            written.put(np.where(ended[:, None], PADDING, codes))

    thread = Thread(target=run, name="talker", daemon=True)
    hook = model.talker.register_forward_hook(heard)
    try:
        thread.start()
        yield _until_the_end(written)
    finally:
        left.set()
        try:
            thread.join()
        finally:
            hook.remove()


def speak(
    tts: Any, tokenizer: SpeechTokenizer, text: str | list[str], frames: int = 4, method: str = "", **arguments: Any
) -> Iterator[Any]:
    """The sound of `text` while `tts` speaks it, chunk by chunk: float32 [samples] at the tokenizer's output rate.

    Of a list of texts each chunk is a list, an array for each, which is empty once its text has ended. The first chunk
    is one frame, those after it are `frames` long. Joined, the chunks are what decoding the whole codes gives. With a
    voice prompt (`voice_clone_prompt`, or `ref_audio` and `ref_text`) that has codes, the sound starts warm, from the
    end of the prompt, which nobody hears, as in upstream's own decoding.

    `method` and the other `arguments` are those of `codes_of`, as are the errors; ValueError for less than one frame.
    Who stops listening stops the talker.
    """
    if frames < 1:
        raise ValueError(f"frames is {frames}, must be at least 1")
    texts = text if isinstance(text, list) else [text]
    if "ref_audio" in arguments:
        given = {
            name: arguments.pop(name) for name in ("ref_audio", "ref_text", "x_vector_only_mode") if name in arguments
        }
        arguments["voice_clone_prompt"] = tts.create_voice_clone_prompt(**given)
    with codes_of(tts, method, text=text, **arguments) as written:
        voices = _voices(tokenizer, arguments.get("voice_clone_prompt"), len(texts))
        for chunk in _chunks(written, frames):
            sound = [_pushed(voice, row[row[:, 0] != PADDING]) for voice, row in zip(voices, chunk, strict=True)]
            yield sound if isinstance(text, list) else sound[0]
        rest = [voice.finish()[0] for voice in voices]  # what a graph with look-ahead still buffers
        if any(samples.size for samples in rest):
            yield rest if isinstance(text, list) else rest[0]


def _method(tts: Any) -> str:
    if not hasattr(tts, "model"):
        return "generate"  # of the model inside
    kind = tts.model.tts_model_type
    if kind not in METHODS:
        raise ValueError(f"a model of the kind {kind!r} is none of {', '.join(METHODS)}: name its method=...")
    return METHODS[kind]


class _Left(Exception):
    """Ends a generation that nobody listens to any more."""


class _Instead:
    """Stands for `of`, but for what it is given another of."""

    def __init__(self, of: Any, **others: Any):
        vars(self).update(others, _of=of)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


def _without_decoding(tts: Any) -> Any:
    """`tts` as it is, but that it decodes nothing at the end. The given one is not changed."""
    if not hasattr(tts, "model"):
        return tts  # the model inside decodes nothing
    other = copy.copy(tts)
    tokenizer = _Instead(tts.model.speech_tokenizer, decode=lambda encoded: ([], 0))
    other.model = _Instead(tts.model, speech_tokenizer=tokenizer)
    return other


def _until_the_end(written: "SimpleQueue[np.ndarray | BaseException | None]") -> Iterator[np.ndarray]:
    while (frame := written.get()) is not None:
        if isinstance(frame, BaseException):
            raise frame
        yield frame


def _chunks(frames: Iterator[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Frames [B, Q] as chunks [B, n, Q]: the first one alone, so that it is heard at once, then `length` together."""
    for most in chain([1], repeat(length)):
        if not (chunk := [*islice(frames, most)]):
            return
        yield np.stack(chunk, axis=1)


def _voices(tokenizer: SpeechTokenizer, prompt: Any, texts: int) -> list[CodecStream]:
    """A stream for each text, warmed up with its prompt's codes: [N, Q] in items for each text, or one for all."""
    codes = prompt.get("ref_code") if isinstance(prompt, Mapping) else prompt and [item.ref_code for item in prompt]
    voices = []
    for reference in codes or [None]:
        voices.append(voice := tokenizer.stream())
        if reference is not None:
            voice.prime(array_of(reference))
    return voices if len(voices) == texts else [voices[0].fork() for _ in range(texts)]


def _pushed(voice: CodecStream, codes: np.ndarray) -> np.ndarray:
    return voice.push(codes)[0] if len(codes) else np.zeros(0, np.float32)
