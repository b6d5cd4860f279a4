"""Files and folders that appear whole or not at all, and where the notebooks keep what they make."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A name to write to, which becomes `path` when the block ends and is removed when it fails.

    A link stays a link: what it points to is replaced. A file keeps its permissions, and one that nobody may write is
    refused (PermissionError). A device or a pipe is not replaced but written to, once all is there. Missing folders are
    made. An OSError names `path`, not the draft.
    """
    path = Path(os.path.realpath(path))
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        with tempfile.TemporaryDirectory() as folder:
            yield (draft := Path(folder, path.name))
            with open(draft, "rb") as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
        return
    if mode is not None and not (mode & 0o222 and os.access(path, os.W_OK)):
        raise PermissionError(13, "the file is there and read-only", os.fspath(path))
    # In the same folder, so that the rename is one step.
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        if mode is not None:
            os.chmod(draft, stat.S_IMODE(mode))
        os.replace(draft, path)
    except OSError as error:
        if error.filename == os.fspath(draft):
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """An empty folder to fill, which becomes `path` when the block ends and is removed when it fails.

    A folder that was there is replaced: it stays as it was until the new one is whole. Missing parents are made.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that each rename is one step.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".part") as work:
        draft, before = Path(work, "new"), Path(work, "before")
        draft.mkdir()
        yield draft
        if path.exists():
            os.replace(path, before)
        try:
            os.replace(draft, path)
        except BaseException:
            if before.exists():
                os.replace(before, path)
            raise


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
