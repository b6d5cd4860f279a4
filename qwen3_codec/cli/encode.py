"""`encode`: a waveform to codes, chunk by chunk."""

from pathlib import Path

from ..runtime.audio import row_paths
from ..runtime.codes import WRITTEN, write_rows
from ..runtime.metrics import parse_schedule
from ..runtime.progress import progress
from . import options

ABOUT = "encode audio to codes with an encoder's graph, chunk by chunk (needs no torch)"
EXAMPLE = "build/encoder.onnx --audio speech.wav --chunks 3 --output codes.npy"


def add_options(parser) -> None:
    options.graph(parser)
    kinds = "one channel in a .npy, .wav, or what else soundfile reads"
    parser.add_argument("--audio", type=Path, nargs="+", required=True, metavar="FILE", help=kinds)
    parser.add_argument("--chunks", metavar="N,N,...", help="chunk lengths in frames; repeats (default: 12)")
    parser.add_argument("--resample", action="store_true", help="bring another rate to the graph's (needs soxr)")
    where = ".npy with codes [N, Q], or .rvq with their bits alone; of several files each gets one, FILE_0.npy, ..."
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=where)


def run(args) -> int:
    paths = row_paths(args.output, len(args.audio), WRITTEN)
    schedule = parse_schedule(args.chunks) if args.chunks else None
    session = options.session(args)
    rows = [options.read_audio(path, session.spec, args.resample) for path in args.audio]
    labels = [path.name if rows[1:] else None for path in args.audio]
    found = [session.encode(row, schedule, progress(label))[0] for row, label in zip(rows, labels, strict=True)]
    write_rows(paths, found, session.spec)
    for path, row, codes in zip(paths, rows, found, strict=True):
        print(f"{path}: {codes.shape[0]} frames of {codes.shape[1]} codes, of {len(row)} samples")
    return 0
