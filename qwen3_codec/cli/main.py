"""The command line: `python -m qwen3_codec COMMAND`."""

import argparse

from ..runtime.console import Help, help_texts, run_command, unprintable_escaped
from ..runtime.versions import versions
from . import bench, card, check, compare, decode, describe, encode, export, inspect, page, selftest, triton, verify

COMMANDS = {
    "inspect": inspect,
    "export": export,
    "describe": describe,
    "selftest": selftest,
    "verify": verify,
    "check": check,
    "decode": decode,
    "encode": encode,
    "compare": compare,
    "bench": bench,
    "card": card,
    "page": page,
    "triton": triton,
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0, 1 where a verification or a check failed, 2 for anything that cannot be used, 3 where a verification measured and
    did not judge.
    """
    with unprintable_escaped():
        args = _parser().parse_args(argv)
        return run_command(args.run, args, f"qwen3_codec {args.command}")


class _Version(argparse.Action):
    """Finds the versions when it is asked for them, not before every command."""

    def __call__(self, parser, *_):
        print(versions())
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qwen3_codec",
        description="Stream the Qwen3-TTS 12 Hz codec decoder from ONNX.",
        formatter_class=Help,
        epilog="example:\n  python -m qwen3_codec export --checkpoint random-small --output build/decoder.onnx\n"
        "  python -m qwen3_codec verify build/decoder.onnx --checkpoint random-small",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="what a bug report needs")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        prog = f"python -m qwen3_codec {name}"
        added = commands.add_parser(name, help=command.ABOUT, **help_texts(command, prog))
        command.add_options(added)
        added.set_defaults(run=command.run)
    return parser
