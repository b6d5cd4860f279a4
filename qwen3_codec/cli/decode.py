"""`decode`: codes to a waveform, chunk by chunk."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..runtime.audio import row_paths, write_waveforms
from ..runtime.codes import read_rows
from ..runtime.metrics import parse_schedule
from ..runtime.progress import progress
from ..runtime.resampling import check_rates, resample, resampled
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
        help=".npy, .npz or .json with codes [N, Q] or [B, N, Q]; rows that are shorter end in frames of -1",
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
        required=True,
        metavar="OUT",
        help=".npy (float32), .wav or .flac (16 bit); of several rows each gets a file, OUT_0.wav, OUT_1.wav, ...; "
        "- writes raw float32, little-endian, to standard output as it is decoded",
    )


def run(args) -> int:
    schedule = parse_schedule(args.chunks) if args.chunks else None
    session = options.session(args)
    rows = [row for path in args.codes for row in read_rows(path, session.spec)]
    graph_rate = session.spec.sample_rate
    rate = graph_rate if args.resample is None else args.resample
    if rate != graph_rate:
        check_rates(graph_rate, rate)
    if str(args.output) == STDOUT:
        return _stream_to_stdout(session, rows, schedule, rate)

    paths, lengths = row_paths(args.output, len(rows)), []

    def waveforms() -> Iterator[np.ndarray]:
        for index, row in enumerate(rows):
            waveform = session.decode(row, schedule, progress(f"row {index}" if rows[1:] else None))
            if rate != graph_rate:
                waveform = resample(waveform[0], graph_rate, rate)[None]
            lengths.append(waveform.shape[1])
            yield waveform

    write_waveforms(paths, waveforms(), rate)
    for path, samples in zip(paths, lengths, strict=True):
        print(f"{path}: 1 x {samples} samples ({samples / rate:.2f} s)")
    return 0


def _stream_to_stdout(session, rows: list[np.ndarray], schedule: list[int] | None, rate: int) -> int:
    if len(rows) > 1:
        raise ValueError(f"--output - is one stream, the codes have {len(rows)} rows")
    if sys.stdout.isatty():
        raise ValueError("--output - writes raw samples, no text: pipe them into a player or a file")
    print(f"float32, little-endian, one channel, {rate} samples a second", file=sys.stderr)
    pieces = (piece[0] for piece in session.stream().pushes(rows[0][None], schedule, progress()))
    if rate != session.spec.sample_rate:
        pieces = resampled(pieces, session.spec.sample_rate, rate)
    try:
        for samples in pieces:
            sys.stdout.buffer.write(samples.astype("<f4").tobytes())
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Who listened has heard enough. Python would complain when it flushes standard output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
