"""Where in a wrapper's code a run is: the file, the line, and the expression that is being computed."""

import linecache
import os
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

PACKAGE = Path(__file__).parents[2]
# Folders of ours that ask for a run: a wrapper of theirs is none of the user's.
MACHINERY = tuple(str(PACKAGE / name) for name in ("runtime", "exporting", "verification", "cli"))
# Where Python keeps its own modules, and what is installed.
LIBRARY = re.compile(
    re.escape(sysconfig.get_path("stdlib")) + r"[/\\](?!site-packages)|.*[/\\](site|dist)-packages[/\\]|<"
)


@dataclass(frozen=True)
class Place:
    """A line of a file, and the expression on it that is being computed."""

    source: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{short(self.source)}:{self.line}: {self.code}"

    @classmethod
    def of(cls, frame: FrameType) -> "Place":
        source = frame.f_code.co_filename
        first, last, start, end = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        text = linecache.getline(source, frame.f_lineno)
        if first and first == last == frame.f_lineno and end:  # in bytes of UTF-8
            return cls(source, first, text.encode()[start:end].decode())
        return cls(source, frame.f_lineno, text.strip())

    @classmethod
    def outside_libraries(cls, frame: FrameType | None) -> "Place | None":
        """The nearest place, from `frame` outwards, that is no library's; None where that is who asked for the run."""
        while frame and LIBRARY.match(frame.f_code.co_filename):
            frame = frame.f_back
        return None if frame is None or is_machinery(frame.f_code.co_filename) else cls.of(frame)


def is_machinery(source: str) -> bool:
    """Whether a file is a library's, or one of ours that ask for a run."""
    return bool(LIBRARY.match(source)) or source.startswith(MACHINERY)


def short(source: str) -> str:
    """A file as a reader knows it: by its name, a library's from the library on, a notebook's cell as one."""
    if "ipykernel_" in source:
        return "cell"
    return LIBRARY.sub("", source) if LIBRARY.match(source) else os.path.basename(source)
