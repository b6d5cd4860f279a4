"""`card`: one page of numbers on a checkpoint."""

import sys
from pathlib import Path

from ..runtime.engines import runtime_options
from ..runtime.metrics import parse_schedule
from ..runtime.progress import progress
from . import options

ABOUT = "export in every precision, verify, time, and write one page with what was measured"
EXAMPLE = "--checkpoint demo --output build/card.md"


def add_options(parser) -> None:
    options.checkpoint(parser)
    parser.add_argument("--frames", type=int, default=48, metavar="N", help="frames to decode where times are measured")
    parser.add_argument("--chunks", default="1,4,12", metavar="N,N,...", help="chunk lengths in frames")
    parser.add_argument(
        "--exporters", default="torchscript,dynamo", metavar="NAME,...", help="the tracer; each in every precision"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of PyTorch and ONNX Runtime")
    parser.add_argument("--provider", default="cpu", help="ONNX Runtime's execution provider: cpu, cuda, ...")
    runtime_options(parser)
    options.least_snr(parser)
    parser.add_argument("--folder", type=Path, default=Path("build/card"), help="where graphs are kept")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.md", help="the page to write")


def run(args) -> int:
    from ..files import written_whole
    from ..measure.card import make, markdown
    from ..model import checkpoint
    from ..runtime.versions import versions

    loaded = checkpoint.load(args.checkpoint)
    chunks = tuple(parse_schedule(args.chunks))
    exporters = tuple(args.exporters.split(","))
    made, cost = make(
        loaded,
        args.folder,
        args.frames,
        chunks,
        args.threads,
        progress(),
        args.provider,
        exporters,
        args.runtime,
        args.precision,
        args.min_snr,
    )
    with written_whole(args.output) as draft:
        draft.write_text(markdown(loaded, made, cost, versions()), encoding="utf-8")
    print(f"{args.output}: {len(made)} exports, {len(cost.rows)} rows of times", file=sys.stderr)
    return 1 if any(row.verdict == "failed" for row in made) else 0
