"""`encode`: a waveform to codes, chunk by chunk."""

from pathlib import Path

import numpy as np

from ..console import progress
from ..files import written_whole
from ..metrics import parse_schedule
from . import options

ABOUT = "encode sound to codes with an encoder's graph, chunk by chunk (needs no torch)"
EXAMPLE = "build/encoder.onnx --audio speech.wav --chunks 3 --output codes.npy"


def add_options(parser) -> None:
    options.graph(parser)
    kinds = "one channel in a .npy, .wav, or what else soundfile reads"
    parser.add_argument("--audio", type=Path, required=True, metavar="FILE", help=kinds)
    parser.add_argument("--chunks", metavar="N,N,...", help="chunk lengths in frames; repeats (default: 12)")
    parser.add_argument("--resample", action="store_true", help="bring another rate to the graph's (needs soxr)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.npy", help="where codes [N, Q] go")


def run(args) -> int:
    if args.output.suffix != ".npy":
        raise ValueError(f"{args.output}: must end in .npy")
    schedule = parse_schedule(args.chunks) if args.chunks else None
    session = options.session(args)
    audio = options.read_audio(args.audio, session.spec, args.resample)
    codes = session.encode(audio, schedule, progress())[0]
    with written_whole(args.output) as draft, open(draft, "wb") as file:
        np.save(file, codes)
    print(f"{args.output}: {codes.shape[0]} frames of {codes.shape[1]} codes, of {len(audio)} samples")
    return 0
