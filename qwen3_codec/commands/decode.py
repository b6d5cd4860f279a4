"""`decode`: codes to a waveform, chunk by chunk."""

from pathlib import Path

from ..audio import write_waveform
from ..codes import check_codes, read_codes
from ..metrics import parse_schedule
from ..runtime import CodecSession
from . import options

ABOUT = "decode codes with a graph, chunk by chunk (needs no torch)"
EXAMPLE = "build/decoder.onnx --codes codes.npy --chunks 3 --output speech.wav"


def add_options(parser) -> None:
    options.graph(parser)
    parser.add_argument("--codes", type=Path, required=True, metavar="FILE.npy", help="codes [N, Q] or [B, N, Q]")
    parser.add_argument(
        "--chunks", default="12", metavar="N,N,...", help="chunk lengths in frames; repeats (default: 12)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help=".npy (float32) or .wav (16 bit)")


def run(args) -> int:
    from tqdm import tqdm

    if args.output.suffix not in (".npy", ".wav"):
        raise ValueError(f"--output is {args.output}, must end in .npy or .wav")
    session = CodecSession(args.graph, args.threads)
    codes = check_codes(read_codes(args.codes), session.spec)
    if args.output.suffix == ".wav" and codes.shape[0] > 1:
        raise ValueError(f"a .wav file holds one stream, the codes have {codes.shape[0]} rows; use .npy")
    waveform = session.decode(codes, parse_schedule(args.chunks), progress=tqdm)
    write_waveform(args.output, waveform, session.spec.sample_rate)
    seconds = waveform.shape[1] / session.spec.sample_rate
    print(f"{args.output}: {waveform.shape[0]} x {waveform.shape[1]} samples ({seconds:.2f} s)")
    return 0
