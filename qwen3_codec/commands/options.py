"""What several commands take: options of one meaning have one text."""

import argparse
from functools import partial
from pathlib import Path

CHECKPOINT_HELP = (
    "demo (a small speech model), random-small, random (official dimensions), a folder with config.json and "
    "model.safetensors (or one that has it as speech_tokenizer/), or a Hub id such as "
    "Qwen/Qwen3-TTS-Tokenizer-12Hz (default: %(default)s)"
)


def checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="demo", help=CHECKPOINT_HELP)


def design(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", choices=("windowed", "exact"), default="windowed", help="the design")
    parser.add_argument(
        "--conv-history", type=int, default=4, metavar="FRAMES", help="windowed: frames decoded again (default: 4)"
    )
    parser.add_argument(
        "--lookahead", type=int, default=4, metavar="FRAMES", help="windowed: frames held back (default: 4)"
    )


def wrapper(decoder, args):
    """The wrapper that `design`'s options ask for."""
    from ..streaming.exact import ExactStreamingWrapper
    from ..streaming.windowed import StatefulCodecONNXWrapper

    if args.state == "exact":
        return ExactStreamingWrapper(decoder)
    return StatefulCodecONNXWrapper(decoder, args.conv_history, args.lookahead)


def graph(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", type=Path, metavar="FILE", help="an exported .onnx file")
    parser.add_argument("--threads", type=int, default=0, help="ONNX Runtime threads (default: one for each core)")


def progress(label: str | None = None):
    """tqdm where it is installed; a bar is a comfort, not a need."""
    try:
        from tqdm import tqdm
    except ImportError:
        return lambda iterable, **_: iterable
    return partial(tqdm, desc=label)
