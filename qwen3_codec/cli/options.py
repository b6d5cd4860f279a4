"""What several commands take: options of one meaning have one text."""

import argparse
import sys
from pathlib import Path

from ..runtime.engines import runtime_options
from ..runtime.measured_snr import INT8, LEAST_SNR_DB
from ..spec import DECODER, ENCODER, EXACT, WINDOWED, WINDOWED_FRAMES

CHECKPOINT_HELP = (
    "demo (a small speech model), random-small, random (official dimensions), a folder with config.json and "
    "model.safetensors (or one that has it as speech_tokenizer/), or a Hub id such as "
    "Qwen/Qwen3-TTS-Tokenizer-12Hz"
)

WINDOWED_FLAGS = {"--conv-history": "conv_history_frames", "--lookahead": "lookahead_frames"}


def checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="demo", help=CHECKPOINT_HELP)


def part(parser: argparse.ArgumentParser, more: tuple[str, ...] = (), about_them: str = "") -> None:
    """The option `--part`; a command may know `more` than the two."""
    what = f"codes to audio, or audio to codes{about_them}"
    parser.add_argument("--part", choices=(DECODER, ENCODER, *more), default=DECODER, help=what)


def design(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", choices=(EXACT, WINDOWED), default=EXACT, help="the design")
    windowed(parser)


def windowed(parser: argparse.ArgumentParser) -> None:
    for flag, meaning in (("--conv-history", "recomputed"), ("--lookahead", "buffered")):
        parser.add_argument(
            flag, type=int, metavar="FRAMES", help=f"windowed: frames {meaning} (default: {WINDOWED_FRAMES})"
        )


def precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=("float32", "float16", "int8"), default="float32", help="bits")
    parser.add_argument(
        "--min-snr",
        type=float,
        metavar="DB",
        help="write no file below this SNR against float32 (default: 30 for int8, 50 for float16)",
    )
    parser.add_argument(
        "--codes", type=Path, metavar="FILE", help="what the SNR is measured on (default: the checkpoint's example)"
    )


def wrapper(checkpoint, args, precision: str = "float32"):
    """The wrapper that `part`'s and `design`'s options ask for."""
    from ..exporting.precision import int8  # noqa: F401  its wrapper is one of `wrapper_of`'s
    from ..streaming.designs import wrapper_of

    if args.state == WINDOWED and args.part == ENCODER:
        raise ValueError("--part encoder has no --state windowed: the encoder's stream is exact")
    settings = windowed_settings(args)
    if settings and args.state != WINDOWED:
        flags = [flag for flag, name in WINDOWED_FLAGS.items() if name in settings]
        raise ValueError(f"--state {args.state} has no {' and no '.join(flags)}: that is the windowed design's")
    return wrapper_of(checkpoint, args.state, args.part, precision, **settings)


def windowed_settings(args) -> dict[str, int]:
    """The windowed design's settings that were given, as its wrapper takes them."""
    given = {name: getattr(args, flag[2:].replace("-", "_")) for flag, name in WINDOWED_FLAGS.items()}
    return {name: frames for name, frames in given.items() if frames is not None}


def graph(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", type=Path, metavar="FILE", help="an exported .onnx file")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads of a call; 0: one for each usable core"
    )
    parser.add_argument(
        "--provider", default="cpu", help="ONNX Runtime's execution provider: cpu, cuda, ...; --version lists them"
    )
    runtime_options(parser)


def least_snr(parser: argparse.ArgumentParser) -> None:
    least = LEAST_SNR_DB[INT8]
    held = f"what a runtime below f32 is held to, against float32 (default: {least:g})"
    parser.add_argument("--min-snr", type=float, default=least, metavar="DB", help=held)


def session(args):
    """The graph that `graph`'s options name."""
    from ..runtime import CodecSession

    made = CodecSession(args.graph, args.threads, [args.provider], runtime=args.runtime, precision=args.precision)
    if made.note:
        print_note(made.note)
    return made


def read_audio(path: Path, spec, resample: bool = False):
    """One channel of samples at the graph's rate; ValueError where the file has another and `resample` is not said."""
    from ..runtime import resampling
    from ..runtime.audio import read_waveform

    audio, rate = read_waveform(path, spec.sample_rate, print_note)
    if rate in (None, spec.sample_rate):
        return audio
    if not resample:
        raise ValueError(f"{path}: is at {rate} Hz, the encoder takes {spec.sample_rate}; encode has --resample")
    return resampling.resample(audio, rate, spec.sample_rate)


def print_note(note: str) -> None:
    """A remark on a file that was read, on standard error, so that it is not in a pipe."""
    print(note, file=sys.stderr)
