"""A checkpoint's files from the Hugging Face Hub or from its cache on this machine."""

from pathlib import Path

from ...runtime.versions import brief, package_trouble
from .config import CheckpointError, read_config
from .weights import INDEX_FILE, WEIGHTS_FILE, part_names

CONFIG_FILE = "config.json"


def download(repo_id: str, subfolders: tuple[str | None, ...], others: str) -> Path:
    """The folder with the config and weights of `repo_id`, from the first of `subfolders` that has a config.

    Where the Hub gives no sign of life, what is in the cache serves. Raises CheckpointError; `others` says what else
    can be given. The Hub's own variables hold: HF_ENDPOINT, HF_HUB_OFFLINE, and HF_HUB_ETAG_TIMEOUT, the seconds (10)
    that an answer may take.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    except Exception as error:  # missing, too old, or broken
        reason = package_trouble(error) or brief(error)
        raise CheckpointError(f"{repo_id}: for a Hub id, {reason}. {others}") from error
    silence = _silence()
    online, failures = not silence, []

    def fetch(name: str, subfolder: str | None) -> Path | None:
        try:
            return Path(hf_hub_download(repo_id, name, subfolder=subfolder, local_files_only=not online))
        except (
            LocalEntryNotFoundError
        ) as error:  # not in the cache; online, the Hub did not say that it has no such file
            failures.extend([error] if online else [])
        except EntryNotFoundError:
            pass
        return None

    try:
        for subfolder in subfolders:
            if config := fetch(CONFIG_FILE, subfolder):
                read_config(config)  # another model is told before its gigabytes are fetched
                failures.clear()
                if not fetch(WEIGHTS_FILE, subfolder) and (index := fetch(INDEX_FILE, subfolder)):
                    failures.clear()
                    for name in part_names(index):
                        fetch(name, subfolder)
                if not failures:
                    return config.parent
                break
        if failures:
            raise failures[-1]
    except CheckpointError:
        raise
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = brief(error.__cause__ or error)
        raise CheckpointError(f"{repo_id}: could not be fetched from the Hub ({reason}). {others}") from error
    if online:
        places = " nor in ".join(f"{folder}/" if folder else "its root" for folder in subfolders)
        raise CheckpointError(f"{repo_id}: the Hub has no {CONFIG_FILE} in {places}. {others}")
    raise CheckpointError(f"{repo_id}: no folder of that name, not in the Hub's cache, and {silence}. {others}")


def _silence() -> str:
    """Why nothing is asked of the Hub, or "" where it answers. One request: its library would try five times a file."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.is_offline_mode():
        return "the Hub is not asked (HF_HUB_OFFLINE is set)"
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # of whichever HTTP library that version of the package uses
        waited = f"; an answer may take {constants.HF_HUB_ETAG_TIMEOUT} s, HF_HUB_ETAG_TIMEOUT"
        what = f"{type(error).__name__}: {brief(error)}" + waited * ("timeout" in type(error).__name__.lower())
        return f"the Hub cannot be reached ({constants.ENDPOINT}: {what})"
    return ""
