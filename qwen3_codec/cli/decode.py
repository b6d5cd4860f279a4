"""`decode`: codes to a waveform, chunk by chunk."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from ..runtime.audio import row_paths, write_waveforms
from ..runtime.codes import KINDS, read_rows
from ..runtime.metrics import parse_schedule
from ..runtime.player import player
from ..runtime.progress import progress
from ..runtime.resampling import check_rates, resampled
from . import options

ABOUT = "decode codes with a graph, chunk by chunk (needs no torch)"
EXAMPLE = "build/decoder.onnx --codes codes.npy --chunks 3 --output speech.wav"
STDOUT = "-"


def add_options(parser) -> None:
    options.graph(parser)
    parser.add_argument(
        "--codes",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help=f"{KINDS} with codes [N, Q] or [B, N, Q]; rows that are shorter end in frames of -1",
    )
    parser.add_argument(
        "--chunks",
        metavar="N,N,...",
        help="chunk lengths in frames; repeats (default: 12, or what the graph is fixed at)",
    )
    parser.add_argument(
        "--resample",
        type=int,
        metavar="RATE",
        help="samples a second of the output, by one resampler for each stream (needs soxr; default: the graph's)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help=".npy (float32), .wav or .flac (16 bit); of several rows each gets a file, OUT_0.wav, OUT_1.wav, ...; "
        "- writes raw float32, little-endian, to standard output as it is decoded",
    )
    play = "hear it as it is decoded, several rows in turn (needs sounddevice); with --output it is written too"
    parser.add_argument("--play", action="store_true", help=play)


def run(args) -> int:
    to_stdout = str(args.output) == STDOUT
    if to_stdout if args.play else not args.output:
        raise ValueError("say where the sound goes: --output OUT, --output -, --play, or a file and --play")
    schedule = parse_schedule(args.chunks) if args.chunks else None
    session = options.session(args)
    rows = [row for path in args.codes for row in read_rows(path, session.spec)]
    graph_rate = session.spec.sample_rate
    rate = graph_rate if args.resample is None else args.resample
    if rate != graph_rate:
        check_rates(graph_rate, rate)
    paths = row_paths(args.output, len(rows)) if args.output and not to_stdout else []

    def pieces(index: int) -> Iterator[np.ndarray]:
        label = f"row {index}" if rows[1:] else None
        decoded = (piece[0] for piece in session.stream().pushes(rows[index][None], schedule, progress(label)))
        return decoded if rate == graph_rate else resampled(decoded, graph_rate, rate)

    if to_stdout:
        return _to_stdout([pieces(index) for index in range(len(rows))], rate)
    lengths = []
    with player(rate) if args.play else nullcontext(lambda samples: None) as play:

        def waveforms() -> Iterator[np.ndarray]:
            for index in range(len(rows)):
                waveform = np.concatenate([*_played(pieces(index), play)])[None]
                lengths.append(waveform.shape[1])
                yield waveform

        if paths:
            write_waveforms(paths, waveforms(), rate)
        else:
            deque(waveforms(), maxlen=0)
    for place, samples in zip(paths or ["played"] * len(rows), lengths, strict=True):
        print(f"{place}: 1 x {samples} samples ({samples / rate:.2f} s)")
    return 0


def _played(pieces: Iterator[np.ndarray], play: Callable[[np.ndarray], None]) -> Iterator[np.ndarray]:
    for piece in pieces:
        play(piece)
        yield piece


def _to_stdout(sounds: list[Iterator[np.ndarray]], rate: int) -> int:
    if len(sounds) > 1:
        raise ValueError(f"--output - is one stream, the codes have {len(sounds)} rows")
    if sys.stdout.isatty():
        raise ValueError("--output - writes raw samples, no text: pipe them into a player or a file")
    print(f"float32, little-endian, one channel, {rate} samples a second", file=sys.stderr)
    try:
        for samples in sounds[0]:
            sys.stdout.buffer.write(samples.astype("<f4").tobytes())
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Who listened has heard enough. Python would complain when it flushes standard output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
