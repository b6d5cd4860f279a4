"""Make the demo from nothing: speech, codes, and the decoder that turns the codes back into that speech.

The decoder is trained on the sentences that it will be asked for, and on nothing else. An interrupted run continues
where its last state was saved; every step draws its crops from the seed and its own number, so that the result is
the same.
"""

import argparse
import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from re import fullmatch

import numpy as np
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ... import demo
from ...files import written_whole
from ...model import checkpoint
from ...model.checkpoint import Checkpoint
from ...model.checkpoint.config import OFFICIAL_CONFIG
from ...model.decoder import CodecDecoder
from .crops import Corpus
from .curve import plot_curve, write_curve
from .evaluate import scores
from .losses import SpectralLoss
from .prepare import DEBIAN_PACKAGES, prepare
from .train_encoder import add_encoder

CONFIG = {
    # The encoder comes later, by `train_encoder`.
    "architectures": ["Qwen3TTSTokenizerV2Model"],
    "encoder_valid_num_quantizers": 16,
    "encode_downsample_rate": 1920,
    "input_sample_rate": 24000,
    **OFFICIAL_CONFIG,
    "decoder_config": {
        **OFFICIAL_CONFIG["decoder_config"],
        "codebook_dim": 64,
        "codebook_size": 64,
        "decoder_dim": 96,
        "head_dim": 16,
        "hidden_size": 64,
        "intermediate_size": 128,
        "latent_dim": 64,
        "layer_scale_initial_scale": 0.1,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
}
UPSAMPLING_GAIN = 0.45  # see `new_run`
LEARNING_RATE = 4e-3
WARM_UP = 50  # steps
EMA_DECAY = 0.998
MAX_NORM = 20.0  # of the gradient: only outliers are cut
BATCH = 3  # crops per step
SAVE_EVERY, MEASURE_EVERY = 50, 250  # steps
STEPS = {"decoder": 3600, "encoder": 600}
# From this step on, utterances that measure worse are drawn more often. The passage is two thirds of all frames, and
# the voices of the short ones have little in common with it.
PRACTISE_FROM = 1500

EXAMPLE = f"""example:
  OMP_WAIT_POLICY=passive python -m qwen3_codec.demo.training.train --out build/demo --steps 3600
  python -m qwen3_codec.demo.training.train --part encoder --out build/demo

needs the extra [train] and the Debian packages {DEBIAN_PACKAGES}.
OMP_WAIT_POLICY=passive keeps threads that wait from using up the processor."""


@dataclass
class Run:
    """Everything that a training step changes. `curve` has one row per measurement."""

    decoder: CodecDecoder
    average: AveragedModel
    optimizer: AdamW
    schedule: LambdaLR
    steps: int
    step: int = 0
    best: float = 0.0  # the lowest ESTOI of any utterance, at the best measurement
    curve: list[dict] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)  # of the utterances, for the crops; none at first

    def save(self, path: Path) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("decoder", "average", "optimizer", "schedule")}
        state |= {name: getattr(self, name) for name in ("steps", "step", "best", "curve", "weights")}
        with written_whole(path) as draft:
            torch.save(state, draft)

    def restore(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        if state["steps"] != self.steps:
            raise SystemExit(f"{path} is from a run of {state['steps']} steps; continue with that or delete it")
        for name in ("decoder", "average", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("step", "best", "curve", "weights"):
            setattr(self, name, state[name])


def new_run(steps: int, seed: int) -> Run:
    """A decoder with its starting weights, and what belongs to its training."""
    decoder = checkpoint.random_checkpoint(CONFIG, seed, "demo").decoder
    for name, parameter in decoder.named_parameters():
        if name.endswith(".scale"):
            parameter.fill_(CONFIG["decoder_config"]["layer_scale_initial_scale"])
        if name.endswith("cluster_usage"):
            parameter.fill_(1.0)  # the tables are trained as they are
        # The random weights keep the size of a signal, and each residual unit adds to it. Taken down again at every
        # upsampling, it arrives small enough that the last convolution can have weights of ordinary size.
        if fullmatch(r"decoder\.\d\.block\.1\.conv\.weight", name):
            parameter.mul_(UPSAMPLING_GAIN)
        if name == "decoder.6.conv.weight":
            parameter.mul_(0.25 * UPSAMPLING_GAIN**-4)  # a quarter of the waveform's random size: speech is quieter
        # The quantizer's input side belongs to an encoder.
        parameter.requires_grad_(not name.endswith("cluster_usage") and not fullmatch(r"quantizer.*input_proj.*", name))
    optimizer = AdamW([p for p in decoder.parameters() if p.requires_grad], LEARNING_RATE, (0.8, 0.99))

    def share(step: int) -> float:
        """Of the learning rate: linear warm-up, then half a cosine down to 1 %."""
        progress = min(1.0, max(0, step - WARM_UP) / max(1, steps - WARM_UP))
        return min(1.0, (step + 1) / WARM_UP) * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)

    average = AveragedModel(decoder, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    return Run(decoder, average, optimizer, LambdaLR(optimizer, share), steps)


def set_tables(decoder: CodecDecoder, tables: np.ndarray) -> None:
    """Put the k-means codebooks [Q, entries, dim] into the quantizer, as the values to start from."""
    for layer, values in zip(quantizer_layers(decoder), tables, strict=True):
        layer._codebook.embedding_sum.data.copy_(torch.from_numpy(values))


def quantizer_layers(decoder: CodecDecoder) -> list[torch.nn.Module]:
    return [*decoder.quantizer.rvq_first.vq.layers, *decoder.quantizer.rvq_rest.vq.layers]


def train(out: Path, work: Path, steps: int, seed: int, compile_stack: bool) -> Run:
    """Train, writing the best averaged weights into `out` and the state to continue from into `work`."""
    state = work / "state.pt"
    run = new_run(steps, seed)
    if state.exists():
        run.restore(state)
    else:
        set_tables(run.decoder, prepare(out, CONFIG, seed))
        run.average.module.load_state_dict(run.decoder.state_dict())
    corpus = Corpus(out, run.decoder.samples_per_frame)
    # Compiled, the many element-wise operations of the convolutions run as few; a failure falls back to eager.
    torch._dynamo.config.suppress_errors = True
    conv_stack = torch.compile(run.decoder.decode_latent, dynamic=False, disable=not compile_stack)
    loss_function = SpectralLoss(CONFIG["output_sample_rate"])
    losses = []
    progress = tqdm(range(run.step, steps), initial=run.step, total=steps, unit="step")
    for step in progress:
        losses.append(train_step(run, corpus, conv_stack, loss_function, np.random.default_rng((seed, step))))
        progress.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
        run.step = step + 1
        if run.step % MEASURE_EVERY == 0 or run.step == steps:
            measure(run, out, float(np.mean(losses[-MEASURE_EVERY:])))
            progress.write(str(run.curve[-1]))
        if run.step % SAVE_EVERY == 0:
            run.save(state)
    plot_curve(run.curve, out)
    return run


def train_step(run: Run, corpus: Corpus, conv_stack, loss_function, random: np.random.Generator) -> float:
    crops = corpus.draw(random, BATCH, run.weights)
    output = corpus.cut(conv_stack(corpus.latents(run.decoder, crops)), crops)
    loss = loss_function(output, corpus.targets(crops), random)
    run.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.decoder.parameters(), MAX_NORM)
    run.optimizer.step()
    run.schedule.step()
    run.average.update_parameters(run.decoder)
    return loss.item()


def measure(run: Run, out: Path, loss: float) -> None:
    """Add a row to the curve, and write the averaged weights where they are the best so far."""
    decoder = run.average.module
    rows = scores(decoder, out)
    lowest = min(row.estoi for row in rows)
    row = {"step": run.step, "loss": loss, "stoi": min(row.stoi for row in rows), "estoi": lowest}
    run.curve.append({**row, "snr_db": sum(row.snr_db for row in rows) / len(rows)})
    write_curve(run.curve, out)
    if run.step >= PRACTISE_FROM:
        run.weights = [(1 - row.estoi) ** 2 for row in rows]
    if lowest > run.best:
        run.best = lowest
        write_checkpoint(decoder, out)


def write_checkpoint(decoder: CodecDecoder, out: Path) -> None:
    """Write the decoder with its codebooks as upstream stores them: sums over the code's uses, beside the counts."""
    every = np.concatenate([utterance.codes for utterance in demo.utterances(out)])
    state = decoder.state_dict()
    stored = CodecDecoder(decoder.config)
    stored.load_state_dict(state)
    for layer, used in zip(quantizer_layers(stored), every.T, strict=True):
        counts = np.bincount(used, minlength=decoder.config.codebook_size).clip(1)
        layer._codebook.cluster_usage.copy_(torch.from_numpy(counts))
        layer._codebook.embedding_sum.mul_(layer._codebook.cluster_usage[:, None])
    with tempfile.TemporaryDirectory(dir=out) as folder:
        checkpoint.save(Checkpoint("demo", CONFIG, stored), folder)
        for name in (checkpoint.CONFIG_FILE, checkpoint.WEIGHTS_FILE):
            os.replace(Path(folder, name), out / name)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m qwen3_codec.demo.training.train",
        description=__doc__.split("\n")[0],
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="where the demo goes (%(default)s)")
    parser.add_argument(
        "--work", type=Path, default=Path("build/demo-state"), help="state to continue from (%(default)s)"
    )
    parser.add_argument(
        "--part",
        choices=STEPS,
        default="decoder",
        help="encoder: add one to a demo that is there, for its recordings, codes and decoder (%(default)s)",
    )
    parser.add_argument("--steps", type=int, help=f"optimizer steps ({STEPS})")
    parser.add_argument("--seed", type=int, default=0, help="of weights, k-means and crops (%(default)s)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile (needs gcc)"
    )
    options = parser.parse_args(arguments)
    steps = options.steps or STEPS[options.part]
    if options.part == "encoder":
        add_encoder(options.out, options.work, steps, options.seed)
    else:
        train(options.out, options.work, steps, options.seed, options.compile)


if __name__ == "__main__":
    main()
