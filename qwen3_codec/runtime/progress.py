"""Progress bars: what a caller may hand in as `progress`, and the default, which shows nothing."""

from functools import partial


def no_progress(iterable, **_):
    """In place of tqdm: no bar."""
    return iterable


def progress(label: str | None = None):
    """tqdm where it is installed; a bar is a comfort, not a need."""
    try:
        from tqdm import tqdm
    except Exception:  # not there, or there and broken
        return no_progress
    return partial(tqdm, desc=label)
