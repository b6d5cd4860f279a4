"""Where weights come from, and the checks that they pass before anything is built on them.

`load(source)` takes `demo` (the small speech model that ships with the package), `random-small`, `random`, a folder in
upstream's layout (`config.json` and `model.safetensors`, or its parts and their index), a folder that holds one as
`speech_tokenizer/`, or a Hub id.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from ...files import written_whole
from ...runtime.audio import how_to_convert, read_waveform
from ...runtime.codes import WRITTEN, random_codes, read_rows
from ...spec import DECODER, ENCODER
from ..decoder import CodecDecoder
from ..encoder import CodecEncoder
from .config import RANDOM_CONFIGS, READ_FIELDS, CheckpointError, check_config, complete, read_config
from .encoder_config import ENCODER_DEFAULTS, encoder_config
from .hub import CONFIG_FILE, download
from .upstream import code2wav_config, mimi_config, upstream_name
from .weights import WEIGHTS_FILE, explain_file, read_weights

SUBFOLDER = "speech_tokenizer"
# Names for folders that ship with the package; they are read like any other.
BUNDLED = {"demo": Path(__file__).parents[2] / "demo"}
NAMED = (*BUNDLED, *RANDOM_CONFIGS)


@dataclass(frozen=True)
class Checkpoint:
    """A decoder and where it came from: `config` is the whole config.json, `folder` where it lay (None: random)."""

    source: str
    config: dict
    decoder: CodecDecoder
    folder: Path | None = None
    make_encoder: Callable[[], CodecEncoder] | None = field(default=None, repr=False, compare=False)
    audio: Path | None = None  # a recording of the user's, from which example codes and example sound are taken

    @cached_property
    def encoder(self) -> CodecEncoder:
        """The other half, loaded when it is asked for; CheckpointError where the checkpoint has a decoder alone."""
        if self.make_encoder is None:
            raise CheckpointError(f"{self.source}: has a decoder and no encoder")
        return self.make_encoder()

    def misfit(self) -> str | None:
        """Why the decoder cannot take the encoder's codes, or None."""
        encoder, decoder = self.encoder, self.decoder
        pairs = {
            "codebooks": (encoder.num_quantizers, decoder.config.num_quantizers),
            "entries in a codebook": (encoder.config.codebook_size, decoder.config.codebook_size),
            "samples for a frame": (encoder.samples_per_frame, decoder.samples_per_frame),
        }
        wrong = [f"{ours} {what}, the decoder {theirs}" for what, (ours, theirs) in pairs.items() if ours != theirs]
        return f"the encoder has {wrong[0]}: they do not fit each other" if wrong else None

    @property
    def sample_rate(self) -> int:
        """Hz of the waveform."""
        return self.config["output_sample_rate"]

    @property
    def weights(self) -> str:
        """What a figure or table made from these weights has to say about them."""
        known = self.folder is not None or "random" in self.source
        return f"{self.source} weights" if known else f"{self.source}: random weights"

    def check_unchanged(self, part: str = DECODER) -> None:
        """Raises CheckpointError where a field of `part`'s config was changed after it was built.

        A changed window or head count moves the one-shot model along with every wrapper: they agree on something that
        the weights were not made for.
        """
        for name, found, said in self._fields(part):
            if found != said:
                raise CheckpointError(
                    f"{self.source}: the {part}'s {name} was changed to {found}, its config.json says {said}"
                )

    def _fields(self, part: str) -> Iterator[tuple[str, object, object]]:
        """(name, value in the built model, value in config.json) of every field that `part` reads."""
        built = getattr(self, part)
        if part == DECODER:
            said, names = self.config["decoder_config"], READ_FIELDS
        else:
            said, names = encoder_config(self.config, self.source), (*ENCODER_DEFAULTS, "head_dim")
            name = "encoder_valid_num_quantizers"
            yield name, built.num_quantizers, said[name]
        for name in names:
            config = built.config
            found = config.rope_parameters[name] if name == "rope_theta" else getattr(config, name)
            yield name, found, said[name]

    def fingerprint(self, part: str = DECODER) -> str:
        """SHA-256 over the names and bytes of all weights of `part`: the same text means the same weights."""
        return fingerprint(getattr(self, part))


@dataclass(frozen=True)
class OtherModel:
    """A codec that this package does not know, in a `Checkpoint`'s place for `export` and `verify`.

    They ask five things: `source`, the name in reports; `weights`, what a figure says of them; `config`, what JSON can
    hold, which goes into the file; `check_unchanged` and `fingerprint` of the weights of `module`. All else comes from
    the wrapper: its `spec`, and a `forward` that takes `spec.all_inputs` and gives `spec.all_outputs` in order.
    `verify` then needs a `reference`, since it knows no one-shot decoder.
    """

    source: str
    module: nn.Module
    config: dict

    @property
    def weights(self) -> str:
        return f"{self.source} weights"

    def check_unchanged(self, part: str = DECODER) -> None:
        """What its config should be, nobody here knows."""

    def fingerprint(self, part: str = DECODER) -> str:
        return fingerprint(self.module)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names and bytes of all weights of `module`: what a graph carries as `weights_sha256`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def load(source: str | os.PathLike, seed: int = 0, audio: str | os.PathLike = "") -> Checkpoint:
    """Load a checkpoint from `source` (see the module's docstring); `seed` is for the random ones.

    `audio` is a recording of the user's, one channel at the encoder's rate, to take examples from.

    Raises CheckpointError, with the file and the field or tensor that is at fault.
    """
    source = os.fspath(source)
    if audio:
        return replace(load(source, seed), audio=Path(audio).expanduser())
    if source in RANDOM_CONFIGS:
        return random_checkpoint(RANDOM_CONFIGS[source], seed, source)
    folder = _find_folder(source)
    config = read_config(folder / CONFIG_FILE)
    decoder = CodecDecoder(code2wav_config(config["decoder_config"], config["output_sample_rate"]))
    decoder.load_state_dict(read_weights(folder, f"{DECODER}.", decoder.state_dict()), strict=True)
    return Checkpoint(source, config, decoder, folder, partial(_load_encoder, folder, config))


def _load_encoder(folder: Path, config: dict) -> CodecEncoder:
    fields = encoder_config(config, str(folder / CONFIG_FILE))
    encoder = CodecEncoder(mimi_config(fields), fields["encoder_valid_num_quantizers"])
    expected = {upstream_name(name): tensor for name, tensor in encoder.state_dict().items()}
    found = read_weights(folder, f"{ENCODER}.", expected)
    encoder.load_state_dict({name: found[upstream_name(name)] for name in encoder.state_dict()}, strict=True)
    return encoder


def example_codes(checkpoint: Checkpoint, frames: int) -> np.ndarray:
    """Codes [1, frames, Q] to try a checkpoint on: of the user's recording where there is one, else the longest row in
    its folder's `codes/`, else seeded random ones.

    A row that is shorter is repeated. Raises CodesError, with the file, for codes that do not fit the config.
    """
    files = sorted(checkpoint.folder.glob("codes/*")) if checkpoint.folder and not checkpoint.audio else []
    files = [file for file in files if file.suffix in WRITTEN]
    rows = [row for file in files for row in read_rows(file, checkpoint.decoder.config)]
    if checkpoint.audio:
        rows = [_encoded(checkpoint)]
    if rows:
        return np.resize(max(rows, key=len), (1, frames, checkpoint.decoder.config.num_quantizers))
    return random_codes(checkpoint.decoder.config, frames)


def example_audio(checkpoint: Checkpoint, frames: int) -> np.ndarray:
    """Sound [M] of `frames` frames to try an encoder on: the user's recording, the largest file of the folder's
    `recordings/`, or noise.

    A shorter recording is repeated. Raises CheckpointError for a recording at another rate.
    """
    rate, samples = checkpoint.encoder.config.sampling_rate, frames * checkpoint.encoder.samples_per_frame
    files = sorted(checkpoint.folder.glob("recordings/*")) if checkpoint.folder else []
    if not files and not checkpoint.audio:
        return (0.1 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)
    file = checkpoint.audio or max(files, key=lambda each: each.stat().st_size)
    return np.resize(_recording(file, rate), samples)


def _recording(file: Path, rate: int) -> np.ndarray:
    audio, found = read_waveform(file, rate)
    if found not in (None, rate):
        raise CheckpointError(f"{file}: is at {found} Hz, the encoder takes {rate}; {how_to_convert(file, rate)}")
    return audio


def _encoded(checkpoint: Checkpoint) -> np.ndarray:
    """The user's recording as codes [N, Q] that the decoder takes."""
    encoder, config = checkpoint.encoder, checkpoint.decoder.config
    if (problem := checkpoint.misfit()) is not None:
        raise CheckpointError(f"{checkpoint.source}: {problem}")
    audio = _recording(checkpoint.audio, encoder.config.sampling_rate)
    return encoder(torch.from_numpy(audio)[None])[0, :, : config.num_quantizers].numpy()


def save(checkpoint: Checkpoint, folder: str | os.PathLike) -> None:
    """Write `checkpoint` into `folder` in upstream's layout and under its names, the encoder where there is one."""
    folder = Path(folder)
    tensors = {f"{DECODER}.{name}": tensor for name, tensor in checkpoint.decoder.state_dict().items()}
    if checkpoint.make_encoder:
        encoder = checkpoint.encoder.state_dict()
        tensors |= {f"{ENCODER}.{upstream_name(name)}": tensor for name, tensor in encoder.items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with written_whole(folder / WEIGHTS_FILE) as draft:
        save_file(tensors, draft, metadata={"format": "pt"})
    with written_whole(folder / CONFIG_FILE) as draft:
        draft.write_text(json.dumps(checkpoint.config, indent=2) + "\n")


def random_checkpoint(config: dict, seed: int = 0, source: str = "random") -> Checkpoint:
    """A decoder of any config with seeded random weights that neither clip nor vanish.

    Weights are scaled by fan-in so that each layer keeps the size of its input; the last convolution is then set so
    that the waveform of random codes has a standard deviation of 0.2. The layer scales are set far above a
    checkpoint's initial 0.01, so that an error in attention is loud in the waveform.
    """
    config = complete(config, f"the config of {source}")
    check_config(config, f"the config of {source}")
    generator = torch.Generator().manual_seed(seed)
    decoder = CodecDecoder(code2wav_config(config["decoder_config"], config["output_sample_rate"]))
    for name, tensor in decoder.state_dict().items():
        _fill(name, tensor, generator)
    codes = torch.randint(decoder.config.codebook_size, (1, 24, decoder.config.num_quantizers), generator=generator)
    last = decoder.decoder[-1].conv
    last.weight.mul_(1e-3)  # so small that nothing is clipped while the size is measured
    last.weight.mul_(0.2 / decoder(codes).std())
    return Checkpoint(source, config, decoder, make_encoder=partial(random_encoder, config, seed, source))


def random_encoder(config: dict, seed: int = 0, source: str = "random") -> CodecEncoder:
    """An encoder of any config with seeded random weights, whose codes differ from frame to frame.

    PyTorch's own initial values; what is quantised is then scaled to a standard deviation of 1 on noise, and each
    codebook to what those before it leave over. Raises CheckpointError naming the field.
    """
    fields = encoder_config(config, f"the config of {source}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = CodecEncoder(mimi_config(fields), fields["encoder_valid_num_quantizers"])
    for name, tensor in encoder.state_dict().items():
        if "layer_scale" in name:  # far above the initial 0.01, so that an error in attention shows in the latents
            tensor.fill_(0.3)
    audio = 0.1 * torch.randn(1, 24 * encoder.samples_per_frame, generator=generator)
    encoder.model.downsample.conv.weight.div_(encoder.latents(audio).std())
    quantizer, latents = encoder.quantizer, encoder.latents(audio)
    for part in (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer):
        part.input_proj.weight.div_(part.input_proj(latents).std())
        residual = part.input_proj(latents)
        for layer in part.layers:
            table = torch.randn(layer.codebook.embed_sum.shape, generator=generator)
            layer.codebook.embed_sum.copy_(residual.std() * table)
            layer.codebook.cluster_usage.fill_(1.0)
            residual = residual - layer.decode(layer.encode(residual))
    return encoder


def _fill(name: str, tensor: torch.Tensor, generator: torch.Generator) -> None:
    """Random values for one parameter, by what its name says it is."""
    if name.endswith("cluster_usage"):
        tensor.uniform_(0.5, 2.0, generator=generator)
    elif name.endswith(("layernorm.weight", "norm.weight")):
        tensor.fill_(1.0)
    elif name.endswith((".scale", "gamma")):
        tensor.fill_(0.3)
    elif name.endswith((".alpha", ".beta")):
        tensor.uniform_(-0.5, 0.5, generator=generator)
    elif name.endswith(".bias"):
        tensor.uniform_(-0.05, 0.05, generator=generator)
    elif "embedding_sum" in name:
        tensor.normal_(generator=generator)
    else:
        # A residual branch is made smaller than its trunk, or the sum would grow with every unit.
        gain = 0.3 if "conv2" in name else 1.0
        tensor.normal_(std=gain * _fan_in(name, tensor) ** -0.5, generator=generator)


def _fan_in(name: str, weight: torch.Tensor) -> int:
    """How many products make one output value."""
    transposed = weight.ndim == 3 and (".block.1.conv" in name or (name.startswith("upsample") and ".0.conv" in name))
    if not transposed:
        return prod(weight.shape[1:])
    # A transposed conv of kernel 2s and stride s adds two taps to each output sample, one of kernel s adds one.
    return weight.shape[0] * (2 if ".block.1.conv" in name else 1)


def _find_folder(source: str) -> Path:
    path = BUNDLED.get(source, Path(source).expanduser())
    # A whole Qwen3-TTS model has a config.json of its own beside speech_tokenizer/, so the subfolder comes first.
    for folder in (path / SUBFOLDER, path):
        if (folder / CONFIG_FILE).is_file():
            return folder
    if path.is_dir():
        raise CheckpointError(f"{source}: no {CONFIG_FILE} in it or in its {SUBFOLDER}/")
    if path.exists():
        what = "the weights alone" if path.suffix == ".safetensors" else explain_file(path)
        raise CheckpointError(
            f"{source}: this is {what}; a checkpoint is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    if source.count("/") == 1 and not source.startswith((".", "/", "~")):
        others = f"Give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or one of {', '.join(NAMED)}, instead."
        return download(source, (SUBFOLDER, None), others)
    raise CheckpointError(f"{source}: no such folder; a checkpoint is {', '.join(NAMED)}, a folder, or a Hub id")
