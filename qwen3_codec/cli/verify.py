"""`verify`: does a graph agree with its wrapper and with the one-shot decoder?"""

from functools import partial
from pathlib import Path

from ..runtime.codes import read_codes
from ..runtime.metrics import parse_schedule
from ..runtime.progress import progress
from ..spec import DECODER, ENCODER
from . import options

ABOUT = (
    "compare a graph with its wrapper and with what its design must give; exit 1 if they disagree, 3 if a "
    "quantized file has no accuracy bound for these codes, so that its SNR is measured and not judged"
)
EXAMPLE = "build/decoder.onnx --checkpoint random-small --chunks 3,1,7"
EXIT_CODES = {"passed": 0, "failed": 1, "not judged": 3}


def add_options(parser) -> None:
    options.graph(parser)
    options.checkpoint(parser)
    options.least_snr(parser)
    parser.add_argument(
        "--codes",
        type=Path,
        metavar="FILE",
        help="codes [N, Q] or [B, N, Q] (default: random ones that go past the window, at least 120 frames; in fewer "
        "bits the checkpoint's example)",
    )
    audio = "of an encoder's graph: audio to encode (default: a recording or noise, as long as the codes)"
    parser.add_argument("--audio", type=Path, metavar="FILE", help=audio)
    parser.add_argument(
        "--chunks", metavar="N,N,...", help="chunk lengths in frames; repeats (default: 3, then 1, then 12, then 7,1,2)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args) -> int:
    from ..model import checkpoint
    from ..verification.graph import verify_graph
    from ..verification.report import SCHEDULES

    session = options.session(args)
    spec, given = session.spec, args.audio if session.spec.part == ENCODER else args.codes
    read = {ENCODER: partial(options.read_audio, spec=spec), DECODER: partial(read_codes, dims=spec)}[spec.part]
    schedules = (
        [parse_schedule(args.chunks)] if args.chunks else [[spec.fixed_frames]] if spec.fixed_frames else SCHEDULES
    )
    report = verify_graph(
        checkpoint.load(args.checkpoint), session, schedules, read(given) if given else None, progress(), args.min_snr
    )
    print(report.to_json() if args.json else report)
    return EXIT_CODES[report.verdict]
