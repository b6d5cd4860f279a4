"""What every command does: its help, its errors as one line, its end on a signal. Needs no numpy."""

import _thread
import argparse
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .versions import package_trouble


def run_module(command: Any, name: str, argv: list[str] | None = None) -> int:
    """`main` for a module that is a command of its own, `python -m NAME`, built as the commands of `cli` are."""
    prog = f"python -m {name}"
    parser = argparse.ArgumentParser(prog=prog, **help_texts(command, prog))
    command.add_options(parser)
    with unprintable_escaped():
        return run_command(command.run, parser.parse_args(argv), name)


def run_command(run: Callable[[argparse.Namespace], int], args: argparse.Namespace, name: str) -> int:
    """The exit code of `run`; what it cannot use becomes one line that begins with `name`."""
    code = 2
    error: BaseException
    try:
        with _termination_unwinds():
            return run(args)
    except Exception as failed:
        message, error = package_trouble(failed), failed
        if message is None and not isinstance(failed, (ValueError, OSError, RuntimeError)):
            raise
        message = message or " ".join(_in_words(failed).split())
    except KeyboardInterrupt as interrupt:
        message, error, code = "interrupted; no file is left half written", interrupt, 130
    # The loop that failed is still held by the traceback, and with it a progress bar. What is printed comes below it.
    traceback.clear_frames(error.__traceback__)
    print(f"{name}: {message}", file=sys.stderr)
    return code


def _in_words(error: Exception) -> str:
    """An error of the system as others are said: the file, then what it is; Python begins with a number."""
    if isinstance(error, OSError) and error.strerror and error.filename and not error.filename2:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@contextmanager
def importing(module: str) -> Iterator[None]:
    """Around a module's imports: run as `python -m`, it ends in one line where a package is missing or broken."""
    try:
        yield
    except Exception as error:
        # A package is imported before its __main__; until that is found, argv says -m.
        asked_for = module == "__main__" or (sys.argv[:1] == ["-m"] and module in sys.orig_argv)
        if not asked_for or (message := package_trouble(error)) is None:
            raise
        spec = sys.modules[module].__spec__
        name = (spec.name if spec else module).removesuffix(".__main__")
        print(f"{name}: {message}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def unprintable_escaped() -> Iterator[None]:
    """A character that standard output or error cannot encode is printed as its escape (\\u4f60), and is no error."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            with suppress(OSError, ValueError):  # the reader of a pipe may have gone
                stream.reconfigure(errors=errors)


@contextmanager
def _termination_unwinds() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, through every `finally`; signals reach the main thread alone.

    Where a signal falls into a destructor or a callback of C code, Python reports what is raised there and goes on: it
    is sent once more, so that it is not lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook, again = sys.unraisablehook, []

    def lost(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, SystemExit | KeyboardInterrupt):
            hook(unraisable)
            return
        number = signal.SIGTERM if issubclass(unraisable.exc_type, SystemExit) else signal.SIGINT
        again.append(threading.Timer(0.05, _thread.interrupt_main, [number]))  # from a thread: not in here once more
        again[-1].start()

    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.unraisablehook = lost
    try:
        yield
    finally:
        for timer in again:
            timer.cancel()
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """SIGTERM and Ctrl-C take effect after the block: for what must not be left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending = []
    before = {
        number: signal.signal(number, lambda *got: pending.append(got[0])) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in pending[:1]:
            signal.raise_signal(number)


def printable(text: str) -> str:
    """`text` for a `print` outside a command: a character that standard output cannot encode is its escape."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class Help(argparse.RawDescriptionHelpFormatter):
    """Says the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        stated = action.default in (None, False, argparse.SUPPRESS) or "(default" in (action.help or "")
        return action.help or "" if stated else f"{action.help or ''} (default: %(default)s)"


def help_texts(command: Any, prog: str) -> dict[str, Any]:
    """A command's description, example and formatter, as arguments of argparse's parser."""
    return {
        "description": command.ABOUT[0].upper() + command.ABOUT[1:] + ".",
        "formatter_class": Help,
        "epilog": f"example:\n  {prog} {command.EXAMPLE}",
    }
