"""Where weights come from, and the checks that they pass before anything is built on them.

`load(source)` takes `demo` (the small speech model that ships with the package), `random-small`, `random`, a folder in
upstream's layout (`config.json` and `model.safetensors`, or its parts and their index), a folder that holds one as
`speech_tokenizer/`, or a Hub id.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from ..codes import read_rows
from ..files import written_whole
from ..states import random_codes
from .config import RANDOM_CONFIGS, READ_FIELDS, CheckpointError, check_config, complete, read_config
from .decoder import CodecDecoder, code2wav_config
from .hub import CONFIG_FILE, download
from .weights import WEIGHTS_FILE, explain_file, read_weights

SUBFOLDER = "speech_tokenizer"
PREFIX = "decoder."
# Names for folders that ship with the package; they are read like any other.
BUNDLED = {"demo": Path(__file__).parents[1] / "demo"}
NAMED = (*BUNDLED, *RANDOM_CONFIGS)


@dataclass(frozen=True)
class Checkpoint:
    """A decoder and where it came from: `config` is the whole config.json, `folder` where it lay (None: random)."""

    source: str
    config: dict
    decoder: CodecDecoder
    folder: Path | None = None

    @property
    def sample_rate(self) -> int:
        """Hz of the waveform."""
        return self.config["output_sample_rate"]

    @property
    def weights(self) -> str:
        """What a figure or table made from these weights has to say about them."""
        return f"{self.source}: random weights" if self.folder is None else f"{self.source} weights"

    def check_unchanged(self) -> None:
        """Raises CheckpointError where a field of the decoder's config was changed after it was built.

        A changed window or head count moves the one-shot decoder along with every wrapper: they agree on something that
        the weights were not made for.
        """
        built = self.decoder.config
        for name in READ_FIELDS:
            found = built.rope_parameters[name] if name == "rope_theta" else getattr(built, name)
            if found != (said := self.config["decoder_config"][name]):
                raise CheckpointError(
                    f"{self.source}: the decoder's {name} was changed to {found}, its config.json says {said}"
                )

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of all decoder weights: the same text means the same weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.decoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def load(source: str | os.PathLike, seed: int = 0) -> Checkpoint:
    """Load a decoder from `source` (see the module's docstring); `seed` is for the random ones.

    Raises CheckpointError, with the file and the field or tensor that is at fault.
    """
    source = os.fspath(source)
    if source in RANDOM_CONFIGS:
        return random_checkpoint(RANDOM_CONFIGS[source], seed, source)
    folder = _find_folder(source)
    config = read_config(folder / CONFIG_FILE)
    decoder = CodecDecoder(code2wav_config(config["decoder_config"], config["output_sample_rate"]))
    decoder.load_state_dict(read_weights(folder, PREFIX, decoder.state_dict()), strict=True)
    return Checkpoint(source, config, decoder, folder)


def example_codes(checkpoint: Checkpoint, frames: int) -> np.ndarray:
    """Codes [1, frames, Q] to try a checkpoint on: the longest row in its folder's `codes/`, else seeded random ones.

    A row that is shorter is repeated. Raises CodesError, with the file, for codes that do not fit the config.
    """
    files = sorted(checkpoint.folder.glob("codes/*.npy")) if checkpoint.folder else []
    rows = [row for file in files for row in read_rows(file, checkpoint.decoder.config)]
    if rows:
        return np.resize(max(rows, key=len), (1, frames, checkpoint.decoder.config.num_quantizers))
    return random_codes(checkpoint.decoder.config, frames)


def save(checkpoint: Checkpoint, folder: str | os.PathLike) -> None:
    """Write `checkpoint` into `folder` in upstream's layout, with `decoder.*` keys."""
    folder = Path(folder)
    tensors = {PREFIX + name: tensor.contiguous() for name, tensor in checkpoint.decoder.state_dict().items()}
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
    return Checkpoint(source, config, decoder)


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
