"""The demo's encoder, `demo.train --part encoder`: the shipped recordings in, the shipped codes out.

The codes come from k-means over features (`features`), which no encoder of upstream's classes computes. So this one
learns, for the recordings that ship, a vector whose residual quantisation gives those codes. Its codebooks start as the
decoder's and are trained along: the decoder's own, moved by its training, no longer lead to all the codes from any
vector.

Everything is one batch, and every step is the whole of it: the six short recordings padded to one length (what comes
after the end of a causal encoder's input changes nothing before it), and the passage.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ... import demo
from ...files import written_whole
from ...model import checkpoint
from ...model.checkpoint import Checkpoint
from ...model.checkpoint.encoder_config import encoder_config
from ...model.checkpoint.upstream import mimi_config
from ...model.decoder import CodecDecoder
from ...model.encoder import CodecEncoder

# Mimi's layers at small widths. 0.42 million parameters.
ENCODER_CONFIG = {
    "_frame_rate": 12.5,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "audio_channels": 1,
    "codebook_dim": 32,
    "codebook_size": 64,
    "compress": 2,
    "dilation_growth_rate": 2,
    "head_dim": 16,
    "hidden_act": "gelu",
    "hidden_size": 96,
    "intermediate_size": 192,
    "kernel_size": 7,
    "last_kernel_size": 3,
    "layer_scale_initial_scale": 0.1,
    "max_position_embeddings": 8000,
    "norm_eps": 1e-5,
    "num_attention_heads": 4,
    "num_filters": 8,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "num_quantizers": 16,
    "num_residual_layers": 1,
    "num_semantic_quantizers": 1,
    "pad_mode": "constant",
    "residual_kernel_size": 3,
    "rope_theta": 10000.0,
    "sampling_rate": 24000,
    "sliding_window": 250,
    "trim_right_ratio": 1.0,
    "upsample_groups": 96,
    "upsampling_ratios": [8, 6, 5, 4],
    "use_causal_conv": True,
    "use_conv_shortcut": False,
    "vector_quantization_hidden_dimension": 32,
}
LEARNING_RATE = 3e-3
WARM_UP = 50  # steps
MAX_NORM = 5.0  # of the gradient
SIZE = 0.6  # standard deviation of what is quantised, at the start: that of the decoder's largest codebook
SHARPNESS = 4.5  # of the choice between entries, at the start; trained along
SAVE_EVERY = 50  # steps
NO_CODE = -100  # what `cross_entropy` leaves out


@dataclass
class EncoderRun:
    """Everything that a training step changes."""

    encoder: CodecEncoder
    tables: nn.ParameterList  # the codebooks as they are used, [codebook_size, codebook_dim] each
    sharpness: nn.Parameter
    optimizer: torch.optim.AdamW
    schedule: torch.optim.lr_scheduler.LambdaLR
    steps: int
    step: int = 0
    curve: list[dict] = field(default_factory=list)

    PARTS = "encoder", "tables", "optimizer", "schedule"

    def save(self, path: Path) -> None:
        state = {name: getattr(self, name).state_dict() for name in self.PARTS}
        state |= {"steps": self.steps, "step": self.step, "curve": self.curve, "sharpness": self.sharpness.data}
        with written_whole(path) as draft:
            torch.save(state, draft)

    def restore(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        if state["steps"] != self.steps:
            raise SystemExit(f"{path} is from a run of {state['steps']} steps; continue with that or delete it")
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.sharpness.data.copy_(state["sharpness"])
        self.step, self.curve = state["step"], state["curve"]


def new_run(decoder: CodecDecoder, steps: int, seed: int) -> EncoderRun:
    fields = encoder_config({"encoder_config": ENCODER_CONFIG}, "ENCODER_CONFIG")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = CodecEncoder(mimi_config(fields), decoder.config.num_quantizers)
    tables = nn.ParameterList(
        nn.Parameter(table.clone())
        for part in (decoder.quantizer.rvq_first, decoder.quantizer.rvq_rest)
        for table in part.tables()
    )
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("output_proj" not in name)  # the decoder's half of the pair
    sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
    trained = [p for p in encoder.parameters() if p.requires_grad] + [*tables, sharpness]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, (0.9, 0.99), weight_decay=1e-4)

    def share(step: int) -> float:
        """Of the learning rate: linear warm-up times half a cosine down to 1 %."""
        return min(1.0, (step + 1) / WARM_UP) * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2)

    return EncoderRun(encoder, tables, sharpness, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share), steps)


def batches(folder: Path, samples_per_frame: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(waveforms [B, M], codes [B, N, Q] with NO_CODE behind the end): the short utterances, and the passage."""
    records = demo.utterances(folder)

    def padded(chosen):
        frames = max(len(record.codes) for record in chosen)
        waveforms = [demo.recording(record.name, folder)[0] for record in chosen]
        audio = [np.pad(samples, (0, frames * samples_per_frame - len(samples))) for samples in waveforms]
        codes = [np.pad(r.codes, ((0, frames - len(r.codes)), (0, 0)), constant_values=NO_CODE) for r in chosen]
        return torch.from_numpy(np.stack(audio)), torch.from_numpy(np.stack(codes))

    return [padded(records[:-1]), padded(records[-1:])]


def normalise(encoder: CodecEncoder, audio: torch.Tensor) -> None:
    """Scale the last two projections so that what is quantised starts as large as the codebooks."""
    with torch.no_grad():
        encoder.model.downsample.conv.weight.div_(encoder.latents(audio).std())
        for part, _ in encoder.groups():
            part.input_proj.weight.mul_(SIZE / part.input_proj(encoder.latents(audio)).std())


def choices(run: EncoderRun, latents: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of every codebook's choice, and whether it is right [frames, Q].

    Each codebook gets what the *right* codes before it leave over, so that one mistake is not counted again.
    """
    loss, right, tables = torch.zeros(()), [], iter(zip(run.tables, codes.flatten(0, 1).T, strict=True))
    for part, used in run.encoder.groups():
        residual = part.input_proj(latents).transpose(1, 2).flatten(0, 1)
        for _ in used:
            table, wanted = next(tables)
            nearness = run.sharpness.exp() * (residual @ table.T - table.square().sum(dim=1) / 2)
            loss = loss + F.cross_entropy(nearness, wanted, ignore_index=NO_CODE, reduction="sum")
            right.append((nearness.argmax(dim=1) == wanted)[wanted != NO_CODE])
            residual = residual - table[wanted.clamp(min=0)]
    return loss, torch.stack(right, dim=1)


def train_encoder(folder: Path, decoder: CodecDecoder, work: Path, steps: int, seed: int) -> CodecEncoder:
    """Train on the recordings and codes in `folder`; the state to continue from is kept in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    run, state = new_run(decoder, steps, seed), work / "encoder-state.pt"
    data = batches(folder, run.encoder.samples_per_frame)
    if state.exists():
        run.restore(state)
    else:
        normalise(run.encoder, data[0][0])
    progress = tqdm(range(run.step, steps), initial=run.step, total=steps, unit="step")
    for _ in progress:
        row = train_step(run, data)
        progress.set_postfix({name: f"{value:.3f}" for name, value in row.items()})
        run.curve.append(row)
        run.step += 1
        if run.step % SAVE_EVERY == 0:
            run.save(state)
    store_tables(run, np.concatenate([record.codes for record in demo.utterances(folder)]))
    return run.encoder.requires_grad_(False).eval()


def add_encoder(folder: Path, work: Path, steps: int, seed: int) -> None:
    """Train an encoder for the decoder, recordings and codes in `folder`, and write both halves there."""
    loaded = checkpoint.load(folder)
    encoder = train_encoder(folder, loaded.decoder, work, steps, seed)
    config = {**loaded.config, "encoder_config": ENCODER_CONFIG}
    checkpoint.save(Checkpoint("demo", config, loaded.decoder, make_encoder=lambda: encoder), folder)


def train_step(run: EncoderRun, data: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """One step over all of `data`: the loss for a code, and the shares of right codes, in the first and in all."""
    count, loss_sum, rights = sum(int((codes >= 0).sum()) for _, codes in data), 0.0, []
    run.optimizer.zero_grad()
    for audio, codes in data:
        loss, right = choices(run, run.encoder.latents(audio), codes)
        (loss * run.encoder.num_quantizers / count).backward()
        loss_sum += loss.item()
        rights.append(right)
    nn.utils.clip_grad_norm_(run.encoder.parameters(), MAX_NORM)
    run.optimizer.step()
    run.schedule.step()
    right = torch.cat(rights).float()
    return {"loss": loss_sum / count, "first": right[:, 0].mean().item(), "all": right.mean().item()}


def store_tables(run: EncoderRun, codes: np.ndarray) -> None:
    """Put the codebooks into the quantizer as upstream stores them: sums over the code's uses, beside the counts."""
    layers = [layer for part, used in run.encoder.groups() for layer in part.layers[: len(used)]]
    for layer, table, used in zip(layers, run.tables, codes.T, strict=True):
        counts = np.bincount(used, minlength=len(table)).clip(1)
        layer.codebook.cluster_usage.copy_(torch.from_numpy(counts))
        layer.codebook.embed_sum.copy_(table.data * layer.codebook.cluster_usage[:, None])
        layer.codebook._embed = None  # transformers keeps the quotient
