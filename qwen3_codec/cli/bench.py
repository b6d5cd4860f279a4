"""`bench`: what each design costs."""

from pathlib import Path

from ..files import written_whole
from ..runtime.engines import runtime_options
from ..runtime.metrics import parse_schedule
from ..runtime.progress import progress
from . import options

ABOUT = "time all designs and precisions, each alone, on the same codes"
EXAMPLE = "--checkpoint random --chunks 1,4,12 --designs exact,exact_int8,exact_openvino_bf16 --markdown"


def add_options(parser) -> None:
    options.checkpoint(parser)
    parser.add_argument("--frames", type=int, default=48, metavar="N", help="frames to decode")
    parser.add_argument("--chunks", default="1,3,4,12", metavar="N,N,...", help="chunk lengths in frames")
    parser.add_argument("--designs", metavar="NAME,...", help="measure these alone; a wrong name prints what there is")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of PyTorch and ONNX Runtime")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where graphs are kept")
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="times that each design is loaded and called"
    )
    parser.add_argument("--provider", default="cpu", help="ONNX Runtime's execution provider: cpu, cuda, ...")
    runtime_options(parser)
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw cost against sound (needs matplotlib)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print one row a design, as a table in Markdown")
    form.add_argument("--json", action="store_true", help="print every number, each call's time too, as JSON")


def run(args) -> int:
    from ..measure.bench import DESIGNS, benchmark
    from ..model import checkpoint

    if args.figure:  # before the measurement, which would be lost
        from ..course.lab import plots

    chunks = tuple(parse_schedule(args.chunks))
    loaded = checkpoint.load(args.checkpoint)
    designs = args.designs.split(",") if args.designs else DESIGNS
    result = benchmark(
        loaded,
        args.folder,
        args.frames,
        chunks,
        args.threads,
        progress(),
        args.provider,
        args.rounds,
        designs,
        runtime=args.runtime,
        precision=args.precision,
    )
    print(result.to_json() if args.json else result.to_markdown() if args.markdown else result)
    if args.figure:
        figure = plots.cost_against_sound(result.chunked, f"Cost against sound ({result.weights})")
        with written_whole(args.figure) as draft:
            figure.savefig(draft, format="png", dpi=110)
    return 0
