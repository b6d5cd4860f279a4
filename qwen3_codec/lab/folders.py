"""Where the notebooks keep what they make."""

import os
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def build_folder(given: str | os.PathLike = "") -> Path:
    """The folder `given`, or without one `build/` of the checkout (installed elsewhere: of the working directory).

    It is made, and tried. Raises OSError that says which variable to set, where nothing can be written there.
    """
    root = CHECKOUT if (CHECKOUT / "notebooks").is_dir() else Path.cwd()
    folder = Path(given).expanduser() if given else root / "build"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            f"{folder}: cannot be written ({error.strerror}); set BUILD, or QWEN3_CODEC_BUILD, to a folder of yours"
        ) from error
    return folder
