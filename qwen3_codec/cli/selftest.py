"""`selftest`: does this machine's runtime compute what the exporter did?"""

from . import options

ABOUT = "replay the self-test that a graph carries (needs no torch); exit 1 where this machine computes something else"
EXAMPLE = "build/decoder.onnx --runtime openvino --precision bf16"


def add_options(parser) -> None:
    options.graph(parser)
    options.least_snr(parser)


def run(args) -> int:
    from ..runtime.self_test import replay

    session = options.session(args)
    outcome = replay(session, least_snr_db=args.min_snr)
    print(f"{session.title}\n{outcome}")
    return 0 if outcome.passed else 1
