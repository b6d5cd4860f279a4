"""`triton`: a model repository for a server."""

from pathlib import Path

from ..runtime.engines import runtime_options
from ..serving import MODEL

ABOUT = "write a model repository for a Triton server, which joins many streams in one call"
EXAMPLE = "build/decoder.onnx --output build/model_repository"


def add_options(parser) -> None:
    parser.add_argument("graph", type=Path, metavar="FILE", help="an exported .onnx file, of the exact design")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="the repository; its other models stay"
    )
    parser.add_argument("--name", default=MODEL, help="the model's name on the server")
    parser.add_argument(
        "--backend",
        choices=("python", "onnxruntime"),
        default="python",
        help="python: our own streams, on every Triton that has numpy, onnxruntime and this package; onnxruntime: the "
        "server keeps the states, no code of ours",
    )
    parser.add_argument("--max-batch", type=int, default=64, metavar="ROWS", help="streams in one call at most")
    parser.add_argument(
        "--max-sequences", type=int, default=1024, metavar="N", help="streams alive in an instance at most; more wait"
    )
    parser.add_argument(
        "--idle", type=float, default=60, metavar="SECONDS", help="a stream that asks nothing for so long is ended"
    )
    parser.add_argument(
        "--wait", type=float, default=0, metavar="MS", help="how long a call waits for others to join it"
    )
    parser.add_argument(
        "--instances", type=int, default=1, metavar="N", help="copies of the model, each with its streams"
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="threads of an instance; 0: all cores")
    runtime_options(parser)
    parser.add_argument("--gpu", action="store_true", help="run on the server's GPUs, `instances` on each")


def run(args) -> int:
    from ..serving import repository

    folder = repository.write(
        args.graph,
        args.output,
        args.backend,
        args.name,
        max_batch=args.max_batch,
        max_sequences=args.max_sequences,
        idle_seconds=args.idle,
        wait_ms=args.wait,
        instances=args.instances,
        threads=args.threads,
        gpu=args.gpu,
        runtime=args.runtime,
        precision=args.precision,
    )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        print(f"{path}: {path.stat().st_size:,} bytes")
    print(f"tritonserver --model-repository {args.output}")
    return 0
