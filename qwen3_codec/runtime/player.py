"""Sound on this machine's loudspeaker while it is made. Needs the package sounddevice, and nothing else here does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .versions import brief


@contextmanager
def player(rate: int) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that plays float32 samples [n] behind those before them, and waits where enough of them wait already.

    The block's end waits until all is heard; an error, Ctrl-C too, ends the sound at once. Raises ValueError where the
    package, its library or a device is missing, before anything is played, and where a device is lost.
    """
    sounddevice = _sounddevice()
    try:
        with sounddevice.OutputStream(rate, channels=1, dtype="float32") as stream:
            try:
                yield lambda samples: stream.write(np.ascontiguousarray(samples, np.float32))
            except BaseException:
                stream.abort()
                raise
    except sounddevice.PortAudioError as error:
        raise ValueError(f"no sound device here plays one channel at {rate} Hz: {brief(error)}") from error


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise ValueError("playing needs the package sounddevice (pip install sounddevice)") from error
    except OSError as error:  # it is there, its library is not
        how = "install PortAudio, in Debian apt-get install libportaudio2"
        raise ValueError(f"playing needs the package sounddevice, which cannot be loaded ({error}): {how}") from error
    return sounddevice
