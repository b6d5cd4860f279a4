"""`compare`: a waveform against one from elsewhere."""

import json
from pathlib import Path

from ..model.checkpoint.config import OFFICIAL_CONFIG
from ..runtime.audio import read_waveform
from ..runtime.graph_file import read_graph
from ..runtime.metrics import parse_schedule
from ..runtime.progress import progress
from ..verification.compare import compare
from . import options

ABOUT = "say how a waveform from elsewhere differs and which known cause it looks like; measures, judges nothing"
EXAMPLE = "mine.npy theirs.wav --graph build/decoder.onnx"


def add_options(parser) -> None:
    kinds = "a .npy with [samples] or [1, samples], .wav, or what else soundfile reads"
    parser.add_argument("mine", type=Path, metavar="MINE", help=kinds)
    parser.add_argument("theirs", type=Path, metavar="THEIRS", help="the same")
    parser.add_argument(
        "--graph",
        type=Path,
        metavar="FILE",
        help="the .onnx file that made MINE, for its rates (default: the official)",
    )
    parser.add_argument("--chunks", default="12", metavar="N,N,...", help="chunk lengths in frames; repeats")
    parser.add_argument("--json", action="store_true", help="print every number, each chunk's too, as JSON")


def run(args) -> int:
    config = _config(args.graph) if args.graph else OFFICIAL_CONFIG
    schedule = parse_schedule(args.chunks)
    rate = config["output_sample_rate"]
    mine, my_rate = read_waveform(args.mine, rate, options.print_note)
    theirs, their_rate = read_waveform(args.theirs, rate, options.print_note)
    if my_rate not in (None, rate):
        raise ValueError(f"{args.mine}: is at {my_rate} Hz, the decoder's rate is {rate}")
    result = compare(mine, theirs, config, schedule, their_rate, progress())
    print(result.to_json() if args.json else result)
    return 0


def _config(graph: Path) -> dict:
    metadata, _ = read_graph(graph)
    return json.loads(metadata["config"])
