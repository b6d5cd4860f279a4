"""Whether the notebooks can use a checkpoint and a recording, asked before the first of them is executed.

python -m qwen3_codec.course.given --checkpoint Qwen/Qwen3-TTS-Tokenizer-12Hz --audio my.wav

Without options it looks at what the notebooks read, QWEN3_CODEC_CHECKPOINT and QWEN3_CODEC_AUDIO: make sets them.
"""

import os
import sys

from ..runtime.console import run_module

ABOUT = "say in one line what is wrong with a checkpoint or a recording that is meant for the notebooks"
EXAMPLE = "--checkpoint demo --audio my.wav"


def add_options(parser) -> None:
    checkpoint, audio = os.environ.get("QWEN3_CODEC_CHECKPOINT", "demo"), os.environ.get("QWEN3_CODEC_AUDIO", "")
    parser.add_argument("--checkpoint", default=checkpoint, help="as in `python -m qwen3_codec inspect`")
    parser.add_argument("--audio", default=audio, metavar="FILE", help="one channel at the encoder's rate")


def run(args) -> int:
    from ..model import checkpoint

    loaded = checkpoint.load(args.checkpoint, audio=args.audio)
    checkpoint.example_codes(loaded, 1)  # of the recording, where there is one
    print(f"the pages use {loaded.weights}" + (f" and {args.audio}" if args.audio else ""))
    return 0


if __name__ == "__main__":
    sys.exit(run_module(sys.modules[__name__], "qwen3_codec.course.given"))
