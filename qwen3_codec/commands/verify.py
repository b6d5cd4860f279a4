"""`verify`: does a graph agree with its wrapper and with the one-shot decoder?"""

from pathlib import Path

from ..codes import read_codes
from ..metrics import parse_schedule
from ..states import random_codes
from . import options

ABOUT = (
    "compare a graph with its wrapper and with the one-shot decoder; exit 1 where they disagree, 3 where the design is "
    "approximate and the comparison with one-shot was measured but not judged"
)
EXAMPLE = "build/decoder.onnx --checkpoint random-small --chunks 3,1,7"
EXIT_CODES = {"passed": 0, "failed": 1, "not judged": 3}


def add_options(parser) -> None:
    options.graph(parser)
    options.checkpoint(parser)
    parser.add_argument(
        "--codes", type=Path, metavar="FILE.npy", help="codes [N, Q] or [B, N, Q] (default: 120 random frames)"
    )
    parser.add_argument(
        "--chunks", metavar="N,N,...", help="chunk lengths in frames; repeats (default: 3, then 1, then 12, then 7,1,2)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args) -> int:
    from ..model import checkpoint
    from ..verify import verify, wrapper_like

    session = options.session(args)
    loaded = checkpoint.load(args.checkpoint)
    codes = read_codes(args.codes) if args.codes else random_codes(session.spec, frames=120)
    if args.chunks or session.spec.fixed_frames:
        schedules = [parse_schedule(args.chunks) if args.chunks else [session.spec.fixed_frames]]
    else:
        schedules = [[3], [1], [12], [7, 1, 2]]
    report = verify(loaded, wrapper_like(loaded, session), codes, schedules, session, progress=options.progress())
    print(report.to_json() if args.json else report)
    return EXIT_CODES[report.verdict]
