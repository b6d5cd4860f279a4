"""`export`: a checkpoint to an ONNX file."""

import argparse
import sys
from pathlib import Path

from ..runtime.codes import read_rows
from ..runtime.measured_snr import FLOAT32, measured_snr_of
from ..runtime.progress import progress
from ..spec import DECODER, ENCODER
from . import options

ABOUT = "write the stateful graph to an ONNX file, checked"
EXAMPLE = "--checkpoint random-small --output build/decoder.onnx"
BOTH = "both"


def add_options(parser) -> None:
    options.checkpoint(parser)
    options.part(parser, (BOTH,), f"; {BOTH}: the two as FOLDER/decoder.onnx and FOLDER/encoder.onnx")
    options.design(parser)
    options.precision(parser)
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript", help="the tracer")
    parser.add_argument("--opset", type=int, default=18, help="ONNX opset: 14 to 23, with dynamo 18 to 24")
    for flag, what in (("--frames", "frames in a call"), ("--batch", "rows in a call")):
        parser.add_argument(flag, type=int, metavar="N", help=f"fix the number of {what}, for compilers that want it")
    parser.add_argument(
        "--strict",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refuse a graph of which the exporter warns that it lost something",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help=f"the .onnx file, or with {BOTH} the folder"
    )


def run(args) -> int:
    from ..model import checkpoint

    loaded = checkpoint.load(args.checkpoint)
    if args.precision == FLOAT32 and (args.codes or args.min_snr is not None):
        raise ValueError(
            "--codes and --min-snr are for --precision int8 and float16; float32 is held to its own limits"
        )
    # All wrappers come first: what cannot be one is refused before anything is written.
    for part in [_part(loaded, args, name) for name in ((DECODER, ENCODER) if args.part == BOTH else (args.part,))]:
        _export(loaded, *part, args)
    return 0


def _part(loaded, args, part: str) -> tuple:
    """The wrapper of one part, its precision, and the file that it goes into."""
    from ..streaming.fixed import FixedAxes

    path, precision = args.output, args.precision
    if args.part == BOTH:
        if path.suffix == ".onnx":
            raise ValueError(f"{path}: --part {BOTH} writes two files, so --output is a folder")
        path, precision = path / f"{part}.onnx", FLOAT32 if part == ENCODER else precision  # it has no other
    wrapper = options.wrapper(loaded, argparse.Namespace(**vars(args) | {"part": part}), precision)
    if args.frames is not None or args.batch is not None:
        wrapper = FixedAxes(wrapper, args.frames, args.batch)
    return wrapper, precision, path


def _export(loaded, wrapper, precision: str, path: Path, args) -> None:
    from ..exporting.export import export
    from ..exporting.precision.export import export_in
    from ..runtime import CodecSession

    to = (loaded, wrapper, path, args.exporter, progress(), args.opset)
    print(f"exporting {loaded.weights} with {args.exporter} ...", file=sys.stderr)
    if precision == FLOAT32:
        done = export(*to, strict=args.strict)
    else:
        codes = read_rows(args.codes, loaded.decoder.config)[0][None] if args.codes else None
        done = export_in(precision, *to, codes, args.min_snr, strict=args.strict)
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    spec = wrapper.spec
    print(
        f"{done.path}: {done.bytes / 2**20:.1f} MiB, {len(spec.all_inputs)} inputs, {len(spec.all_outputs)} outputs, "
        f"{sum(done.nodes.values())} nodes; {done.validation_runs} validation runs within {done.validation_error:.1e} "
        "of the wrapper"
    )
    if measured := measured_snr_of(CodecSession(done.path).metadata):
        print(measured)
