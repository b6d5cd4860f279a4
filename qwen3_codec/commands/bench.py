"""`bench`: what each design costs."""

from pathlib import Path

from ..metrics import parse_schedule
from . import options

ABOUT = "time all designs side by side on the same codes"
EXAMPLE = "--checkpoint random --threads 2 --chunks 1,3,12"


def add_options(parser) -> None:
    options.checkpoint(parser)
    parser.add_argument("--frames", type=int, default=48, metavar="N", help="frames to decode")
    parser.add_argument("--chunks", default="1,3,4,12", metavar="N,N,...", help="chunk lengths in frames")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of PyTorch and ONNX Runtime")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where graphs are kept")
    parser.add_argument("--json", action="store_true", help="print every number, each call's time too, as JSON")


def run(args) -> int:
    from ..bench import benchmark
    from ..model import checkpoint

    chunks = tuple(parse_schedule(args.chunks))
    loaded = checkpoint.load(args.checkpoint)
    result = benchmark(loaded, args.folder, args.frames, chunks, args.threads, options.progress())
    print(result.to_json() if args.json else result)
    return 0
