"""The command line: `python -m qwen3_codec COMMAND`."""

import argparse
import json
import sys

from . import __version__
from .commands import bench, compare, decode, export, inspect, verify

COMMANDS = {
    "inspect": inspect,
    "export": export,
    "verify": verify,
    "decode": decode,
    "compare": compare,
    "bench": bench,
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0, 1 where a verification failed, 2 for anything that cannot be used, 3 where a verification measured and did not
    judge.
    """
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError, RuntimeError) as error:
        message = " ".join(str(error).split())
        print(f"qwen3_codec {args.command}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"qwen3_codec {args.command}: interrupted, nothing was written", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qwen3_codec",
        description="Stream the Qwen3-TTS 12 Hz codec decoder from ONNX.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m qwen3_codec export --checkpoint random-small --output build/decoder.onnx\n"
        "  python -m qwen3_codec verify build/decoder.onnx --checkpoint random-small",
    )
    parser.add_argument("--version", action="version", version=versions())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            help=command.ABOUT,
            description=command.ABOUT[0].upper() + command.ABOUT[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  python -m qwen3_codec {name} {command.EXAMPLE}",
        )
        command.add_options(added)
        added.set_defaults(run=command.run)
    return parser


def versions() -> str:
    """For bug reports: this package's version and those of the packages that decide what a graph looks like."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return f"qwen3_codec {__version__} " + json.dumps(found)
