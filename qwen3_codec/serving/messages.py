"""What a WebSocket carries between `serving.websocket` and a client: options, requests, answers, close codes.

The server greets with a JSON object: the graph's dimensions, and what the options of this stream are. A request is
codes [N, Q] (binary: int16, little-endian, frame after frame; or JSON, a list of frames), or a JSON object with one of
`prime` (codes that come first and nobody hears), `save` (a name for the state as it is, which others may fork) and
`finish`. Each gets one answer, in their order: codes and `finish` get samples, the others {"done": ..., "frames": ...}.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from ..runtime.audio import FULL_SCALE, pcm16
from ..runtime.codes import CodesError, check_codes
from ..runtime.resampling import check_rates
from ..spec import StateSpec

PUSH, PRIME, SAVE, FINISH = "push", "prime", "save", "finish"
CODES = np.dtype("<i2")
# How samples are sent: the type of a number, and what makes it of float32 and back.
PCM: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "float32": ("<f4", np.asarray, np.asarray),
    "int16": ("<i2", pcm16, lambda numbers: numbers / np.float32(FULL_SCALE)),
}
RATES = (4_000, 192_000)  # of samples; what lies outside is no wish of a listener, and costs much
JSON_BYTES = 8  # a code in JSON at most, with its comma and blanks
LONGEST_REASON = 120  # bytes; a close frame holds 123


class Close(IntEnum):
    """Why the server closes a stream. 1001, 1002, 1007 and 1009 come from the WebSocket library, as does 1011."""

    FINISHED = 1000
    FAILED = 1011
    FULL = 1013
    NOT_UNDERSTOOD = 4400
    UNKNOWN_NAME = 4404
    IDLE = 4408
    NAME_TAKEN = 4409
    BAD_CODES = 4422
    TOO_MANY_FRAMES = 4429


class Refused(Exception):
    """What ends a stream: the code, and why in words."""

    def __init__(self, code: Close, why: str):
        super().__init__(why)
        self.code, self.why = code, why

    @property
    def reason(self) -> str:
        """As much of why as a close frame holds."""
        return self.why.encode()[:LONGEST_REASON].decode(errors="ignore")


@dataclass(frozen=True)
class Options:
    """What a client asks for in its URL: ?pcm=int16&rate=48000&fork=NAME."""

    pcm: str
    rate: int
    fork: str | None


@dataclass(frozen=True)
class Request:
    """One message: a verb with its codes, int64 [1, N, Q], or its name."""

    verb: str
    codes: np.ndarray | None = None
    name: str = ""

    @property
    def frames(self) -> int:
        """What it counts for among the frames that wait; a request without codes counts for one."""
        return 1 if self.codes is None else self.codes.shape[1]


def read_options(target: str, sample_rate: int) -> Options:
    """The options in a URL's query; Refused for one that is unknown or cannot be."""
    try:
        given = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        pcm, rate, fork = given.pop("pcm", "float32"), int(given.pop("rate", sample_rate)), given.pop("fork", None)
        if given:
            raise ValueError(f"there is no option {', '.join(given)}; there are pcm, rate and fork")
        if pcm not in PCM:
            raise ValueError(f"pcm is {pcm!r}, must be {' or '.join(PCM)}")
        if rate != sample_rate:
            if not RATES[0] <= rate <= RATES[1]:
                raise ValueError(f"rate is {rate}, must be in {RATES[0]}..{RATES[1]}")
            check_rates(sample_rate, rate)
    except ValueError as error:
        raise Refused(Close.NOT_UNDERSTOOD, str(error)) from error
    return Options(pcm, rate, fork)


def largest_message(spec: StateSpec, frames: int) -> int:
    """Bytes of a message of `frames` frames, however it is written."""
    return 1024 + frames * (spec.num_quantizers + 1) * JSON_BYTES


def read_request(message: str | bytes, spec: StateSpec) -> Request:
    """A client's message; Refused where it is none, or where its codes are not for this graph."""
    if isinstance(message, bytes):
        frame = spec.num_quantizers * CODES.itemsize
        if len(message) % frame:
            raise Refused(Close.NOT_UNDERSTOOD, f"{len(message)} bytes are no whole frames of {frame}")
        return Request(PUSH, _codes(np.frombuffer(message, CODES).reshape(-1, spec.num_quantizers), spec))
    try:
        found = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise Refused(Close.NOT_UNDERSTOOD, f"not JSON ({error})") from error
    match found:
        case list():
            return Request(PUSH, _codes(found, spec))
        case {"prime": list() as codes, **others} if not others:
            return Request(PRIME, _codes(codes, spec))
        case {"save": str() as name, **others} if name and not others:
            return Request(SAVE, name=name)
        case {"finish": True, **others} if not others:
            return Request(FINISH)
    wanted = 'a list of frames, {"prime": [...]}, {"save": "NAME"} or {"finish": true}'
    raise Refused(Close.NOT_UNDERSTOOD, f"the message is not {wanted}")


def _codes(codes: Any, spec: StateSpec) -> np.ndarray:
    try:
        return check_codes(codes, spec, batch=1)
    except CodesError as error:
        raise Refused(Close.BAD_CODES, str(error)) from error
