"""Progress bars: what a caller may hand in as `progress`, and the default, which shows nothing."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Wraps a loop, as tqdm does."""

    def __call__(self, iterable: Iterable[T], **options: Any) -> Iterable[T]: ...


def no_progress(iterable: Iterable[T], **_: Any) -> Iterable[T]:
    """In place of tqdm: no bar."""
    return iterable


def progress(label: str | None = None) -> Progress:
    """tqdm where it is installed; a bar is a comfort, not a need."""
    try:
        from tqdm import tqdm
    except Exception:  # not there, or there and broken
        return no_progress
    return partial(tqdm, desc=label)
