"""`describe`: what a graph is, and how to call it."""

import json

from . import options

ABOUT = "print a graph's inputs, outputs, states, origin and a worked first call"
EXAMPLE = "build/decoder.onnx --json"


def add_options(parser) -> None:
    options.graph(parser)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON, for clients in other languages")


def run(args) -> int:
    from ..runtime.describe import description, text

    about = description(options.session(args))
    print(json.dumps(about, indent=2) if args.json else text(about))
    return 0
