"""Cache objects that the exporters do not take, caches that drift, positions that are misread, and `head_dim`.

All on the transformer alone, with random weights at small dimensions: hidden frames [1, N, latent_dim] in and out.
"""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeCode2WavTransformerModel as Library

from ...model.checkpoint import random_checkpoint
from ...model.checkpoint.config import small_config
from ...runtime.metrics import max_error
from ...streaming.kv_stack import keep_last, sliding_window_mask, stream_transformer
from .graphs import raw_session
from .trap import BOTH_EXPORTERS, Outcome, Trap, caught_by

FRAMES, CHUNK = 150, 3


@cache
def transformer():
    """`pre_transformer` of a random decoder: one layer, the official window, `head_dim` unlike hidden / heads."""
    config = small_config(num_hidden_layers=1, upsample_rates=[5], upsampling_ratios=[2])
    return random_checkpoint(config, source="one layer").decoder.pre_transformer


def library_forward(hidden, **options):
    """transformers' own forward between the codec's two projections, as upstream calls it."""
    ours = transformer()
    output = Library.forward(ours, inputs_embeds=ours.input_proj(hidden), **options)
    return ours.output_proj(output.last_hidden_state)


def hidden_frames(frames: int = FRAMES) -> torch.Tensor:
    """Normal values in place of what `pre_conv` gives, [1, frames, latent_dim]."""
    shape = 1, frames, transformer().config.latent_dim
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def no_past(head_dim: int | None = None, frames: int = 0) -> list[torch.Tensor]:
    """Zeros for the keys and values of every layer, [1, num_key_value_heads, frames, head_dim] each."""
    config = transformer().config
    shape = 1, config.num_key_value_heads, frames, head_dim or config.head_dim
    return [torch.zeros(shape) for _ in range(2 * config.num_hidden_layers)]


# --- A cache object as an input of the graph


class CacheAsInput(nn.Module):
    def forward(self, hidden, past_cache):
        return library_forward(hidden, cache=past_cache, use_cache=True)  # trap


class TensorsAsInputs(nn.Module):
    def forward(self, hidden, *past):
        layers = len(past) // 2
        ours = transformer()
        hidden, keys, values = stream_transformer(
            ours, hidden, past[:layers], past[layers:], keep=ours.config.sliding_window
        )
        return hidden, *keys, *values


class RebuiltCache(nn.Module):
    def forward(self, hidden, *past):
        layers, window = len(past) // 2, transformer().config.sliding_window
        rebuilt = DynamicCache()
        for i in range(layers):
            rebuilt.update(past[i], past[layers + i], i)
        hidden = library_forward(hidden, cache=rebuilt, use_cache=True)
        keys = [keep_last(layer.keys, window, dim=2) for layer in rebuilt.layers]  # trap
        values = [keep_last(layer.values, window, dim=2) for layer in rebuilt.layers]
        return hidden, *keys, *values


@caught_by("parity past the window: the graph in chunks against all frames at once")
def exported_and_streamed(step: type[nn.Module], exporter: str) -> Outcome:
    """A demonstration: export the step, then stream frames through the graph and compare with all frames at once."""
    past = [DynamicCache()] if step is CacheAsInput else no_past(frames=5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step.onnx"
        _export(step().eval(), hidden_frames(CHUNK), past, path, exporter)
        session = raw_session(path)
    hidden, state, pieces = hidden_frames(), [tensor.numpy() for tensor in no_past()], []
    names = [tensor.name for tensor in session.get_inputs()]
    for chunk in hidden.split(CHUNK, dim=1):
        piece, *state = session.run(None, dict(zip(names, [chunk.numpy(), *state], strict=True)))
        pieces.append(piece)
    return against_all_at_once(hidden, np.concatenate(pieces, axis=1))


def _export(step: nn.Module, hidden: torch.Tensor, past: list, path: Path, exporter: str) -> None:
    names = ["hidden", *(f"past_{i}" for i in range(len(past)))]
    if exporter == "torchscript":
        axes = {name: {1 if name == "hidden" else 2: f"{name}_length"} for name in names}
        options = {"dynamo": False, "dynamic_axes": axes}
    else:
        length = torch.export.Dim("past_length")
        tensors = tuple({2: length} for tensor in past if isinstance(tensor, torch.Tensor))
        shapes = {1: torch.export.Dim("frames")}, tensors or None
        options = {"dynamo": True, "dynamic_shapes": shapes, "external_data": False, "verbose": False}
    torch.onnx.export(step, (hidden, *past), path, input_names=names, opset_version=18, **options)


def against_all_at_once(hidden: torch.Tensor, found: np.ndarray) -> Outcome:
    """Frame by frame against the transformer that sees all of `hidden` at once."""
    with torch.no_grad():
        wanted = transformer()(hidden).numpy()
    by_frame = np.abs(wanted - found).max(axis=(0, 2))
    wrong = np.flatnonzero(~(by_frame <= 1e-4))  # so written, NaN is wrong
    words = f"wrong from frame {wrong[0]} on" if wrong.size else f"right for all {len(by_frame)} frames"
    error = max_error(wanted, found)
    text = f"{words}; largest error {error:.1e} (values up to {np.abs(wanted).max():.1f})"
    return Outcome(error, text, f"frame {wrong[0]}" if wrong.size else "")


# --- A home-made cache for the library's forward


class MinimalCache:  # trap
    def __init__(self):
        self.keys, self.values = {}, {}

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        for store, new in ((self.keys, key_states), (self.values, value_states)):
            store[layer_idx] = torch.cat([store[layer_idx], new], dim=2) if layer_idx in store else new
        return self.keys[layer_idx], self.values[layer_idx]


class MinimalCacheWithOffset(MinimalCache):  # trap
    def get_query_offset(self, layer_idx=0):
        return self.keys[layer_idx].shape[2] if layer_idx in self.keys else 0


def home_made(cache_type: type) -> Callable[[], np.ndarray]:
    """Frames in chunks through the library's forward with a cache of `cache_type`."""

    def stream() -> np.ndarray:
        store, pieces = cache_type(), []
        for start, chunk in enumerate(hidden_frames(30).split(CHUNK, dim=1)):
            positions = torch.arange(CHUNK)[None] + start * CHUNK
            pieces.append(library_forward(chunk, cache=store, position_ids=positions, use_cache=True))
        return torch.cat(pieces, dim=1).numpy()

    return stream


def our_own_stack() -> np.ndarray:
    """The same with `stream_transformer`, which walks the layers itself and asks the cache for nothing but `update`."""
    state, pieces, step = no_past(), [], TensorsAsInputs()
    for chunk in hidden_frames(30).split(CHUNK, dim=1):
        piece, *state = step(chunk, *state)
        pieces.append(piece)
    return torch.cat(pieces, dim=1).numpy()


@caught_by("the first call in PyTorch")
@torch.no_grad()
def in_pytorch(stream: Callable[[], np.ndarray]) -> Outcome:
    """A demonstration without any export: 30 frames as `stream` gives them, against all at once."""
    found = stream()
    return against_all_at_once(hidden_frames(30), found)


# --- Positions that restart


def restarting_positions() -> np.ndarray:
    """30 frames in one call, with positions that begin again at the 15th: 0..14, 0..14."""
    positions = (torch.arange(30) % 15)[None]  # trap
    return library_forward(hidden_frames(30), position_ids=positions, use_cache=False).numpy()


def positions_that_go_on() -> np.ndarray:
    """The same with positions 0..29, and a mask of our own, in the form in which the library takes a finished one."""
    config, frames = transformer().config, torch.arange(30)
    mask = sliding_window_mask(frames, 0, config.sliding_window, torch.float32)
    masks = dict.fromkeys(("full_attention", "sliding_attention"), mask)
    options = {"position_ids": frames[None], "attention_mask": masks, "use_cache": False}
    return library_forward(hidden_frames(30), **options).numpy()


@caught_by("parity with all frames at once, in one call whose positions restart")
@torch.no_grad()
def beside_the_second_half_alone(run: Callable[[], np.ndarray]) -> Outcome:
    """As `in_pytorch`, and how far frames 15 to 29 are from those of a decode that never saw the first 15."""
    found, alone = run(), transformer()(hidden_frames(30)[:, 15:]).numpy()
    outcome = against_all_at_once(hidden_frames(30), found)
    words = f"frames 15 to 29 differ by {max_error(alone, found[:, 15:]):.1e} from a decode that never saw the others"
    return Outcome(outcome.error, f"{outcome.text}\n{words}", outcome.first)


# --- head_dim


def head_dim_by_formula() -> int:
    config = transformer().config
    return config.hidden_size // config.num_attention_heads  # trap


def head_dim_from_config() -> int:
    return transformer().config.head_dim


@caught_by("the first call with an example past")
@torch.no_grad()
def with_dummy_past(head_dim: Callable[[], int]) -> Outcome:
    """One call with an example past of that head_dim, as an export needs one; the error is against the same past."""
    example, step = no_past(head_dim(), frames=5), TensorsAsInputs()
    found, wanted = step(hidden_frames(CHUNK), *example)[0], step(hidden_frames(CHUNK), *no_past(frames=5))[0]
    return Outcome(max_error(wanted, found), f"head_dim {head_dim()}: the example goes through")


TRAPS = (
    Trap(
        name="DynamicCache as an input",
        notes="2",
        naive=CacheAsInput,
        fix=TensorsAsInputs,
        demonstrate=exported_and_streamed,
        exporters=BOTH_EXPORTERS,
        symptoms=("export",),
        why="A graph's inputs are tensors. TorchScript's exporter takes apart tuples and lists, `torch.export` dicts "
        "too, and neither this class. Hand the keys and values over as tensors, one for each layer, and walk the "
        "layers yourself.",
        sources=("pytorch/pytorch#155862", "pytorch/pytorch#42391"),
    ),
    Trap(
        name="a cache class of one's own: get_query_offset",
        notes="2",
        naive=home_made(MinimalCache),
        fix=our_own_stack,
        demonstrate=in_pytorch,
        symptoms=("export", "update"),
        why="The library's mask functions ask the cache about its length, by methods that change between releases "
        "(transformers 5.24 asks for this one). Code that walks the layers itself needs `update()` only.",
        code=(MinimalCache, our_own_stack),
    ),
    Trap(
        name="a cache class of one's own: get_mask_sizes",
        notes="2",
        naive=home_made(MinimalCacheWithOffset),
        fix=our_own_stack,
        demonstrate=in_pytorch,
        symptoms=("export", "update"),
        why="Give it the method that it asked for, and it asks for the next. Going on like this rewrites "
        "the library's own cache, for one release of it.",
        code=(MinimalCacheWithOffset, our_own_stack),
    ),
    Trap(
        name="a cache rebuilt from trimmed keys",
        notes="2",
        naive=RebuiltCache,
        fix=TensorsAsInputs,
        demonstrate=exported_and_streamed,
        exporters=BOTH_EXPORTERS,
        symptoms=("window",),
        why="The stored keys are post-RoPE, and the library takes a frame's position from the cache's length, which "
        "stops growing at the window. From there on every distance is wrong. TorchScript's exporter warns of lines of "
        "the library, none of which is this. `TraceableKVStack` stores pre-RoPE keys and rotates them at places "
        "within the window.",
    ),
    Trap(
        name="positions that restart",
        notes="2",
        naive=restarting_positions,
        fix=positions_that_go_on,
        demonstrate=beside_the_second_half_alone,
        symptoms=("chunking", "borders"),
        why="When positions jump, the library believes that several sequences were packed into one row, and lets none "
        "see another: the second half comes out as if the first had never been. Let positions go on (attention looks "
        "at distances alone), and make the mask yourself.",
        sources=("huggingface/transformers#39194",),
    ),
    Trap(
        name="head_dim by the formula",
        notes="3",
        naive=head_dim_by_formula,
        fix=head_dim_from_config,
        demonstrate=with_dummy_past,
        symptoms=("export",),
        why="`hidden_size / num_attention_heads` is a habit, not a rule: the codec's config sets `head_dim` itself "
        "(16 here, where the formula gives 8; officially 64 and 32). Read the config.",
    ),
)
