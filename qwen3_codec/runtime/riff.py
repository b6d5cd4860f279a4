"""The samples of a WAV file as they are there, whatever its header says about their length.

A program that streams a WAV cannot go back to write the length (ffmpeg into a pipe leaves 2^32 - 1, others 0), one that
was stopped leaves an old one, and a download breaks off.
RIFF: Multimedia Programming Interface and Data Specifications 1.0, 1991. RF64 and BW64: EBU Tech 3306, ITU-R BS.2088.
"""

import re
import struct
from dataclasses import dataclass

PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
UNKNOWN = 2**32 - 1  # a length that stands elsewhere, or nowhere


@dataclass(frozen=True)
class Wav:
    """The payload of the `fmt ` chunk, whole frames of samples, and how the header is wrong about lengths, or ""."""

    fmt: bytes
    data: bytes
    lie: str

    @property
    def tag(self) -> int:
        """The format's number; of an extensible one, that of its subformat."""
        tag = _number(self.fmt[:2])
        return _number(self.fmt[24:26]) if tag == EXTENSIBLE else tag

    @property
    def channels(self) -> int:
        return _number(self.fmt[2:4])

    @property
    def rate(self) -> int:
        return _number(self.fmt[4:8])

    @property
    def bits(self) -> int:
        return _number(self.fmt[14:16])

    @property
    def frames(self) -> int:
        return len(self.data) // _number(self.fmt[12:14])

    def mended(self) -> bytes:
        """The same samples under a header that is right: `fmt ` and `data` alone."""
        chunks = b"".join(_chunk(name, part) for name, part in ((b"fmt ", self.fmt), (b"data", self.data)))
        return _chunk(b"RIFF", b"WAVE" + chunks)


def read(content: bytes) -> Wav | None:
    """The WAV in a file's bytes; None without `fmt ` and `data` chunks, and for samples compressed in blocks."""
    fmt, long, place = b"", b"", 12
    while True:
        name, length, start = content[place : place + 4], _number(content[place + 4 : place + 8]), place + 8
        if start > len(content):
            return None
        if name == b"data":
            break
        place = start + length
        fmt = content[start:place] if name == b"fmt " else fmt
        long = content[start:place] if name == b"ds64" else long
        # An odd chunk is followed by a zero, which some programs leave out. No name begins with one.
        place += length % 2 and content[place : place + 1] == b"\0"

    block = _number(fmt[12:14])
    if not block or _number(fmt[:2]) not in (PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE):
        return None
    whole = _number(content[4:8])
    if long and whole == UNKNOWN:
        whole = _number(long[:8])
    if long and length == UNKNOWN:
        length = _number(long[8:16])
    there = _length_there(content, start, length, block)
    lie = ""
    if there != length:
        lie = f"its header says {length} bytes of samples, there are {there}"
    elif there % block:
        lie = f"its {there} bytes of samples are no multiple of {block}"
    elif abs(whole + 8 - len(content)) > 1:  # 1: the last chunk's zero
        lie = f"its header says that the file has {whole + 8} bytes, it has {len(content)}"
    return Wav(fmt, content[start : start + there - there % block], lie)


def _length_there(content: bytes, start: int, length: int, block: int) -> int:
    """`length` where the file ends there, or goes on with chunks; else all that is left of the file is samples.

    But for a text at its end: who could not go back to write the length may have written that behind them.
    """
    place = start + length + length % 2
    if place < len(content):
        believed = _are_chunks(content, place)
    else:
        believed = place - len(content) <= length % 2 and length % block == 0
    if believed:
        return length
    texts = (found.start() for found in re.compile(b"LIST|id3 ").finditer(content, start))
    return next((place for place in texts if _are_chunks(content, place)), len(content)) - start


def _are_chunks(content: bytes, place: int) -> bool:
    """Whether the file is chunks from there to its end."""
    while place + 8 <= len(content) and _is_name(content[place : place + 4]):
        size = _number(content[place + 4 : place + 8])
        place += 8 + size + size % 2
    return len(content) <= place <= len(content) + 1


def _is_name(four: bytes) -> bool:
    return four.isascii() and four.decode("ascii").isprintable()


def _number(little_endian: bytes) -> int:
    return int.from_bytes(little_endian, "little")


def _chunk(name: bytes, part: bytes) -> bytes:
    return name + struct.pack("<I", min(len(part), UNKNOWN)) + part + bytes(len(part) % 2)
