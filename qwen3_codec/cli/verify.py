"""`verify`: does a graph agree with its wrapper and with the one-shot decoder?"""

from pathlib import Path

from ..runtime.codes import read_codes
from ..runtime.measured_snr import measured_snr_of
from ..runtime.metrics import parse_schedule
from ..runtime.progress import progress
from ..spec import ENCODER, random_codes
from . import options

ABOUT = (
    "compare a graph with its wrapper and with what its design must give; exit 1 where they disagree, 3 where a file "
    "in fewer bits has no accuracy bound for these codes, so that its SNR is measured and not judged"
)
EXAMPLE = "build/decoder.onnx --checkpoint random-small --chunks 3,1,7"
LEAST_FRAMES = 120
EXIT_CODES = {"passed": 0, "failed": 1, "not judged": 3}


def add_options(parser) -> None:
    options.graph(parser)
    options.checkpoint(parser)
    parser.add_argument(
        "--codes",
        type=Path,
        metavar="FILE.npy",
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
    from ..model.checkpoint import example_audio
    from ..verification.decoder import verify, wrapper_like
    from ..verification.encoder import verify_encoder
    from ..verification.report import SCHEDULES

    session = options.session(args)
    loaded = checkpoint.load(args.checkpoint)
    fixed = session.spec.fixed_frames
    schedules = [parse_schedule(args.chunks)] if args.chunks else [[fixed]] if fixed else SCHEDULES
    wrapper = wrapper_like(loaded, session)
    # Long enough that the last call begins after all states are full.
    frames = max(LEAST_FRAMES, session.spec.frames_to_fill + max(map(max, schedules)) + 1)
    if session.spec.part == ENCODER:
        audio = options.read_audio(args.audio, session.spec) if args.audio else example_audio(loaded, frames)
        report = verify_encoder(loaded, wrapper, audio, schedules, session, progress())
    else:
        codes = read_codes(args.codes) if args.codes else _default_codes(loaded, session, frames)
        report = verify(loaded, wrapper, codes, schedules, session, progress=progress())
    print(report.to_json() if args.json else report)
    return EXIT_CODES[report.verdict]


def _default_codes(loaded, session, frames: int):
    """Random ones find a fault anywhere; a file in fewer bits has its measured SNR on the checkpoint's example."""
    from ..exporting.precision.export import EXAMPLE_FRAMES
    from ..model.checkpoint import example_codes

    return (
        example_codes(loaded, EXAMPLE_FRAMES)
        if measured_snr_of(session.metadata)
        else random_codes(session.spec, frames)
    )
