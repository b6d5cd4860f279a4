"""What every command does: its help, its errors as one line, its end on a signal, its progress bar. Needs no numpy."""

import argparse
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata


def alone(command, name: str, argv: list[str] | None = None) -> int:
    """`main` for a module that is a command of its own, `python -m NAME`, made as those in `commands` are."""
    prog = f"python -m {name}"
    parser = argparse.ArgumentParser(prog=prog, **described(command, prog))
    command.add_options(parser)
    return reported(command.run, parser.parse_args(argv), name)


def reported(run, args: argparse.Namespace, name: str) -> int:
    """The exit code of `run`; what it cannot use becomes one line that begins with `name`."""
    code, error = 2, None
    try:
        with _termination_unwinds():
            return run(args)
    except ModuleNotFoundError as missing:
        message, error = _how_to_get(missing), missing
    except (ValueError, OSError, RuntimeError) as unusable:
        message, error = " ".join(str(unusable).split()), unusable
    except KeyboardInterrupt as interrupt:
        message, error, code = "interrupted; no file is left half written", interrupt, 130
    # The loop that failed is still held by the traceback, and with it a progress bar. What is printed comes below it.
    traceback.clear_frames(error.__traceback__)
    print(f"{name}: {message}", file=sys.stderr)
    return code


@contextmanager
def _termination_unwinds() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, through every `finally`; signals reach the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _how_to_get(missing: ModuleNotFoundError) -> str:
    """Which extra brings a module that is not there: the package's own metadata says it."""
    for requirement in metadata.requires("qwen3-codec") or []:
        if found := re.match(rf"{missing.name}\b.*extra == .(\w+)", requirement):
            return (
                f"this needs the package {missing.name}, which the extra [{found[1]}] brings: "
                f"in a checkout of the project, pip install '.[{found[1]}]'"
            )
    raise missing


class Help(argparse.RawDescriptionHelpFormatter):
    """Says the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told = action.default in (None, False, argparse.SUPPRESS) or "(default" in (action.help or "")
        return action.help if told else f"{action.help or ''} (default: %(default)s)"


def described(command, prog: str) -> dict:
    """What argparse wants to know of a command."""
    return {
        "description": command.ABOUT[0].upper() + command.ABOUT[1:] + ".",
        "formatter_class": Help,
        "epilog": f"example:\n  {prog} {command.EXAMPLE}",
    }


def progress(label: str | None = None):
    """tqdm where it is installed; a bar is a comfort, not a need."""
    try:
        from tqdm import tqdm
    except ImportError:
        return lambda iterable, **_: iterable
    return partial(tqdm, desc=label)
