"""The command line: `python -m qwen3_codec COMMAND`."""

import argparse
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from .commands import bench, card, compare, decode, describe, encode, export, inspect, page, selftest, verify
from .versions import versions

COMMANDS = {
    "inspect": inspect,
    "export": export,
    "describe": describe,
    "selftest": selftest,
    "verify": verify,
    "decode": decode,
    "encode": encode,
    "compare": compare,
    "bench": bench,
    "card": card,
    "page": page,
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0, 1 where a verification failed, 2 for anything that cannot be used, 3 where a verification measured and did not
    judge.
    """
    args = _parser().parse_args(argv)
    code, error = 2, None
    try:
        with _termination_unwinds():
            return args.run(args)
    except ModuleNotFoundError as missing:
        message, error = _how_to_get(missing), missing
    except (ValueError, OSError, RuntimeError) as unusable:
        message, error = " ".join(str(unusable).split()), unusable
    except KeyboardInterrupt as interrupt:
        message, error, code = "interrupted; no file is left half written", interrupt, 130
    # The loop that failed is still held by the traceback, and with it a progress bar. What is printed comes below it.
    traceback.clear_frames(error.__traceback__)
    print(f"qwen3_codec {args.command}: {message}", file=sys.stderr)
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


class _Help(argparse.RawDescriptionHelpFormatter):
    """Says the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told = action.default in (None, False, argparse.SUPPRESS) or "(default" in (action.help or "")
        return action.help if told else f"{action.help or ''} (default: %(default)s)"


class _Version(argparse.Action):
    """Finds the versions when it is asked for them, not before every command."""

    def __call__(self, parser, *_):
        print(versions())
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qwen3_codec",
        description="Stream the Qwen3-TTS 12 Hz codec decoder from ONNX.",
        formatter_class=_Help,
        epilog="example:\n  python -m qwen3_codec export --checkpoint random-small --output build/decoder.onnx\n"
        "  python -m qwen3_codec verify build/decoder.onnx --checkpoint random-small",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="what a bug report needs")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            help=command.ABOUT,
            description=command.ABOUT[0].upper() + command.ABOUT[1:] + ".",
            formatter_class=_Help,
            epilog=f"example:\n  python -m qwen3_codec {name} {command.EXAMPLE}",
        )
        command.add_options(added)
        added.set_defaults(run=command.run)
    return parser
