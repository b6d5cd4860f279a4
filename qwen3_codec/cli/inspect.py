"""`inspect`: what a checkpoint is made of."""

from . import options

ABOUT = "print both halves' dimensions, and the stages, states and receptive field"
EXAMPLE = "--checkpoint random"


def add_options(parser) -> None:
    options.checkpoint(parser)
    options.part(parser)
    options.design(parser)


def run(args) -> int:
    from ..model import checkpoint, dimensions
    from ..model import receptive_field as inspection
    from ..model.checkpoint.config import CheckpointError

    loaded = checkpoint.load(args.checkpoint)
    decoder = loaded.decoder
    print(f"checkpoint: {loaded.weights}; {decoder.samples_per_frame} samples per frame at {loaded.sample_rate} Hz\n")
    _print_dimensions("decoder", dimensions.dimensions(decoder))
    try:
        _print_dimensions("encoder", dimensions.encoder_dimensions(loaded.encoder))
    except CheckpointError as error:
        if args.part == "encoder":
            raise
        print(f"encoder: none to be used ({error})\n")
    print(f"{'stage':18} {'channels':>8} {'per frame':>10} {'rate Hz':>9}")
    for stage in dimensions.stages(decoder):
        print(f"{stage.name:18} {stage.channels:8} {stage.samples_per_frame:10} {stage.rate:9.1f}")
    wrapper = options.wrapper(loaded, args)
    print(f"\n{'state':14} {'shape':28} {'bytes':>9}")
    for name, shape, size in dimensions.state_table(wrapper.spec):
        print(f"{name:14} {shape:28} {size:9}")
    print(f"{'one stream':43} {wrapper.spec.bytes_per_stream():9}")
    field = inspection.receptive_field(decoder)
    print(
        f"\nmeasured receptive field: convolutional decoder {field.conv_frames} earlier frames "
        f"({field.conv_samples} samples), attention {field.attention_frames} earlier frames; "
        f"first sample that moves: {field.first_sample}"
    )
    return 0


def _print_dimensions(part: str, rows) -> None:
    print(f"{part:22} {'config':>8} {'weights':>8} {'formula':>8}")
    for row in rows:
        note = f"   <- not {row.formula_text}" if row.trap else ""
        print(f"{row.name:22} {row.config:8} {row.weights:8} {row.formula if row.formula is not None else '':>8}{note}")
    print()
