"""The command line: `python -m qwen3_codec inspect|export|verify|decode|bench`."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from . import __version__
from .files import written_whole
from .metrics import parse_schedule
from .runtime import CodecSession, check_codes
from .states import random_codes

DEFAULT_CHECKPOINT = "demo"
CHECKPOINT_HELP = (
    "demo (a small speech model), random-small, random (official dimensions), a folder with config.json and "
    "model.safetensors (or one that has it as speech_tokenizer/), or a Hub id such as "
    "Qwen/Qwen3-TTS-Tokenizer-12Hz (default: %(default)s)"
)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 where a verification failed, 2 for anything that cannot be used."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError, RuntimeError) as error:
        message = " ".join(str(error).split())
        print(f"qwen3_codec {args.command}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"qwen3_codec {args.command}: interrupted, nothing was written", file=sys.stderr)
        return 130


def _inspect(args) -> int:
    from .model import checkpoint, inspection

    loaded = checkpoint.load(args.checkpoint)
    decoder = loaded.decoder
    print(f"checkpoint: {loaded.weights}; {decoder.samples_per_frame} samples per frame at {loaded.sample_rate} Hz\n")
    print(f"{'dimension':22} {'config':>8} {'weights':>8} {'formula':>8}")
    for row in inspection.dimensions(decoder):
        note = f"   <- not {row.formula_text}" if row.trap else ""
        print(f"{row.name:22} {row.config:8} {row.weights:8} {row.formula if row.formula is not None else '':>8}{note}")
    print(f"\n{'stage':18} {'channels':>8} {'per frame':>10} {'rate Hz':>9}")
    for stage in inspection.stages(decoder):
        print(f"{stage.name:18} {stage.channels:8} {stage.samples_per_frame:10} {stage.rate:9.1f}")
    wrapper = _wrapper(decoder, args)
    print(f"\n{'state':14} {'shape':28} {'bytes':>9}")
    for name, shape, size in inspection.state_table(wrapper.spec):
        print(f"{name:14} {shape:28} {size:9}")
    print(f"{'one stream':43} {wrapper.spec.bytes_per_stream():9}")
    field = inspection.receptive_field(decoder)
    print(
        f"\nmeasured receptive field: conv stack {field.conv_frames} earlier frames ({field.conv_samples} samples), "
        f"attention {field.attention_frames} earlier frames; first sample that moves: {field.first_sample}"
    )
    return 0


def _export(args) -> int:
    from tqdm import tqdm

    from .export import export
    from .model import checkpoint

    loaded = checkpoint.load(args.checkpoint)
    wrapper = _wrapper(loaded.decoder, args)
    print(f"exporting {loaded.weights} with {args.exporter} ...", file=sys.stderr)
    done = export(loaded, wrapper, args.output, args.exporter, progress=tqdm)
    spec = wrapper.spec
    print(
        f"{done.path}: {done.bytes / 2**20:.1f} MiB, {len(spec.all_inputs)} inputs, {len(spec.all_outputs)} outputs, "
        f"{sum(done.nodes.values())} nodes; {done.probes} probe runs within {done.probe_error:.1e} of the wrapper"
    )
    return 0


def _verify(args) -> int:
    from tqdm import tqdm

    from .model import checkpoint
    from .verify import verify, wrapper_like

    session = CodecSession(args.graph, args.threads)
    loaded = checkpoint.load(args.checkpoint)
    codes = _read_codes(args.codes) if args.codes else random_codes(session.spec, frames=120)
    schedules = [parse_schedule(args.chunks)] if args.chunks else [[3], [1], [12], [7, 1, 2]]
    report = verify(loaded, wrapper_like(loaded, session), codes, schedules, session, progress=tqdm)
    print(report.to_json() if args.json else report)
    return 0 if report.passed else 1


def _decode(args) -> int:
    from tqdm import tqdm

    if args.output.suffix not in (".npy", ".wav"):
        raise ValueError(f"--output is {args.output}, must end in .npy or .wav")
    session = CodecSession(args.graph, args.threads)
    codes = check_codes(_read_codes(args.codes), session.spec)
    if args.output.suffix == ".wav" and codes.shape[0] > 1:
        raise ValueError(f"a .wav file holds one stream, the codes have {codes.shape[0]} rows; use .npy")
    waveform = session.decode(codes, parse_schedule(args.chunks), progress=tqdm)
    _write_waveform(args.output, waveform, session.spec.sample_rate)
    seconds = waveform.shape[1] / session.spec.sample_rate
    print(f"{args.output}: {waveform.shape[0]} x {waveform.shape[1]} samples ({seconds:.2f} s)")
    return 0


def _bench(args) -> int:
    from tqdm import tqdm

    from .bench import benchmark
    from .model import checkpoint

    chunks = tuple(parse_schedule(args.chunks))
    loaded = checkpoint.load(args.checkpoint)
    result = benchmark(loaded, args.folder, args.frames, chunks, args.threads, progress=tqdm)
    print(result.to_json() if args.json else result)
    return 0


def _wrapper(decoder, args):
    from .streaming.exact import ExactStreamingWrapper
    from .streaming.windowed import StatefulCodecONNXWrapper

    if args.state == "exact":
        return ExactStreamingWrapper(decoder)
    return StatefulCodecONNXWrapper(decoder, args.conv_history, args.lookahead)


def _read_codes(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a .npy file with numbers, or truncated ({error})") from error


def _write_waveform(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """A .npy file keeps float32, a .wav file holds 16 bits; the file appears whole or not at all."""
    with written_whole(path) as draft, open(draft, "wb") as file:
        if path.suffix == ".npy":
            np.save(file, waveform)
        else:
            import soundfile

            soundfile.write(file, waveform[0], sample_rate, format="WAV", subtype="PCM_16")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qwen3_codec",
        description="Stream the Qwen3-TTS 12 Hz codec decoder from ONNX.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m qwen3_codec export --checkpoint random-small --output build/decoder.onnx\n"
        "  python -m qwen3_codec verify build/decoder.onnx --checkpoint random-small",
    )
    parser.add_argument("--version", action="version", version=versions())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, run, about, example):
        added = commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  python -m qwen3_codec {name} {example}",
        )
        added.set_defaults(run=run)
        return added

    inspect = command(
        "inspect", _inspect, "print dimensions, stages, states and receptive field", "--checkpoint random"
    )
    export = command(
        "export",
        _export,
        "write the stateful graph to an ONNX file, checked",
        "--checkpoint random-small --conv-history 10 --lookahead 0 --output build/decoder.onnx",
    )
    verify = command(
        "verify",
        _verify,
        "compare a graph with its wrapper and with the one-shot decoder; exit 1 where they disagree",
        "build/decoder.onnx --checkpoint random-small --chunks 3,1,7",
    )
    decode = command(
        "decode",
        _decode,
        "decode codes with a graph, chunk by chunk (needs no torch)",
        "build/decoder.onnx --codes codes.npy --chunks 3 --output speech.wav",
    )
    bench = command(
        "bench",
        _bench,
        "time all designs side by side on the same codes",
        "--checkpoint random --threads 2 --chunks 1,3,12",
    )
    bench.add_argument("--frames", type=int, default=48, help="frames to decode (default: %(default)s)")
    bench.add_argument("--chunks", default="1,3,4,12", metavar="N,N,...", help="chunk lengths (default: %(default)s)")
    bench.add_argument("--threads", type=int, default=2, help="threads of PyTorch and ONNX Runtime (default: 2)")
    bench.add_argument(
        "--folder", type=Path, default=Path("build/bench"), help="where graphs are kept (default: %(default)s)"
    )
    bench.add_argument("--json", action="store_true", help="print every number, each call's time too, as JSON")
    for added in (inspect, export, verify, bench):
        added.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help=CHECKPOINT_HELP)
    for added in (inspect, export):
        added.add_argument("--state", choices=("windowed", "exact"), default="windowed", help="the design")
        added.add_argument(
            "--conv-history", type=int, default=4, metavar="FRAMES", help="windowed: frames decoded again (default: 4)"
        )
        added.add_argument(
            "--lookahead", type=int, default=4, metavar="FRAMES", help="windowed: frames held back (default: 4)"
        )
    export.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript")
    export.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .onnx file to write")
    for added in (verify, decode):
        added.add_argument("graph", type=Path, metavar="FILE", help="an exported .onnx file")
        added.add_argument("--threads", type=int, default=0, help="ONNX Runtime threads (default: one for each core)")
    verify.add_argument(
        "--codes", type=Path, metavar="FILE.npy", help="codes [N, Q] or [B, N, Q] (default: 120 random frames)"
    )
    verify.add_argument("--chunks", metavar="N,N,...", help="chunk lengths in frames; repeats to the end")
    verify.add_argument("--json", action="store_true", help="print the report as JSON")
    decode.add_argument("--codes", type=Path, required=True, metavar="FILE.npy", help="codes [N, Q] or [B, N, Q]")
    decode.add_argument(
        "--chunks", default="12", metavar="N,N,...", help="chunk lengths in frames; repeats (default: 12)"
    )
    decode.add_argument("--output", type=Path, required=True, metavar="OUT", help=".npy (float32) or .wav (16 bit)")
    return parser


def versions() -> str:
    """For bug reports: this package's version and those of the packages that decide what a graph looks like."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return f"qwen3_codec {__version__} " + json.dumps(found)
