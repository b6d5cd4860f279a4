"""Traps of weight norm: left in a graph, removed from a copy, and a copy of its older kind."""

import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import remove_parametrizations

from ...runtime.metrics import max_error
from .graphs import compare, export_step, row
from .layers import KERNEL, seeded
from .trap import BOTH_EXPORTERS, Outcome, Trap, caught_by

CHANNELS = 64
NORM = {"ReduceL2", "ReduceSum", "ReduceSumSquare", "Sqrt", "Div", "Mul"}


class Normalised(nn.Module):
    """A causal convolution as it was trained, with weight norm. (Small weights dynamo's optimiser folds itself.)"""

    def __init__(self):
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.Conv1d(CHANNELS, CHANNELS, KERNEL))

    def forward(self, x):
        x = x[:, None].expand(-1, CHANNELS, -1)
        return self.conv(F.pad(x, (KERNEL - 1, 0)))[:, 0]


def as_it_was_trained():
    return seeded(Normalised)  # trap


def folded():
    module = seeded(Normalised)
    remove_parametrizations(module.conv, "weight")  # the weight is what it was, computed once
    return module


def _nodes(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@caught_by("count the graph's nodes")
@torch.no_grad()
def nodes_of_the_norm(make: Callable[[], nn.Module], exporter: str) -> Outcome:
    """The file's nodes that compute the norm, and those that are left when ONNX Runtime has optimised it.

    The numbers are the module's either way, so the nodes are a cost.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, optimised = Path(folder) / "step.onnx", Path(folder) / "optimised.onnx"
        export_step(make(), {"x": row(5)}, path, exporter)
        compared = compare(make(), path, [{"x": row(length)} for length in (5, 9)])
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(optimised), 3
        onnxruntime.InferenceSession(path, options)
        found = [[node for node in _nodes(file) if node in NORM] for file in (path, optimised)]
    # ReduceL2 alone is sure to be the norm's; the others are counted with it.
    in_file, left = (len(nodes) if any(node.startswith("Reduce") for node in nodes) else 0 for nodes in found)
    text = f"{compared.text}\nnodes of the norm in the file: {in_file}; after ONNX Runtime's own optimisation: {left}"
    first = "the file's nodes; every call, unless the runtime folds constants" if in_file else ""
    return Outcome(compared.error, text, first, costs=bool(in_file))


def unfold_in_a_copy(module: nn.Module) -> nn.Module:
    copy = deepcopy(module)
    remove_parametrizations(copy.conv, "weight")  # trap
    return copy


def unfold_in_a_new_one(module: nn.Module) -> nn.Module:
    copy = seeded(Normalised)  # as the original was made
    copy.load_state_dict(module.state_dict())
    remove_parametrizations(copy.conv, "weight")
    return copy


@caught_by("call the original once more after its copy was changed")
@torch.no_grad()
def the_original_afterwards(unfold: Callable[[nn.Module], nn.Module]) -> Outcome:
    """A copy without weight norm is made: does it give the same, and the original still?"""
    original, x = seeded(Normalised), row(8)
    before = original(x)
    error = max(max_error(before.numpy(), module(x).numpy()) for module in (unfold(original), original))
    return Outcome(error, f"the copy and the original give what the original gave: largest error {error:.1e}")


def normalised_by_a_hook(conv: nn.Conv1d) -> nn.Module:
    return nn.utils.weight_norm(conv)  # trap


def normalised_by_a_parametrization(conv: nn.Conv1d) -> nn.Module:
    return parametrizations.weight_norm(conv)


@caught_by("the copy itself")
def a_copy(normalise: Callable[[nn.Conv1d], nn.Module]) -> Outcome:
    """A convolution with weight norm is copied: does the copy give what the original gives?"""
    original, x = normalise(seeded(lambda: nn.Conv1d(1, 1, 3))), row(8)[:, None]
    error = max_error(*(module(x).detach().numpy() for module in (original, deepcopy(original))))
    return Outcome(error, f"the copy gives what the original gives: largest error {error:.1e}")


TRAPS = (
    Trap(
        name="weight norm left in the graph",
        naive=as_it_was_trained,
        fix=folded,
        demonstrate=nodes_of_the_norm,
        exporters=BOTH_EXPORTERS,
        symptoms=("slow",),
        why="The weight is `g * v / |v|`, and both exporters write that down. The numbers are right. ONNX Runtime, at "
        "its default optimisation, folds the norm when it makes the session, and a call then takes as long as without "
        "it; PyTorch, and a runtime that does not fold, compute it in every call. (Measured on this layer with 36 "
        "samples: 1.3 times as long in PyTorch, 1.5 times in ONNX Runtime without optimisation.) "
        "`remove_parametrizations` computes it once and leaves a plain weight.",
        sources=("huggingface/transformers#42064", "vllm-project/vllm-omni#6927", "Plachtaa/seed-vc#148"),
    ),
    Trap(
        name="weight norm removed from a deepcopy",
        naive=unfold_in_a_copy,
        fix=unfold_in_a_new_one,
        demonstrate=the_original_afterwards,
        symptoms=("original", "export"),
        why="A parametrized module has a class of its own with `weight` as a property. `deepcopy` copies the module "
        "and shares that class; removing the parametrization from the copy removes the property from it, so the "
        "original has no weight any more. Make a second module and load the weights, or fold the original itself.",
    ),
    Trap(
        name="a copy of a module with the older weight norm",
        naive=normalised_by_a_hook,
        fix=normalised_by_a_parametrization,
        demonstrate=a_copy,
        symptoms=("export",),
        why="`torch.nn.utils.weight_norm` keeps the weight as a tensor that was computed, and `deepcopy` copies no "
        "tensor that gradients flow through. Its successor in `torch.nn.utils.parametrizations` computes the weight "
        "when it is asked for. In a module that is not yours, fold it with `remove_weight_norm`, then copy.",
        sources=("descriptinc/descript-audio-codec#81", "pytorch/pytorch#102981", "pytorch/pytorch#28594"),
    ),
)
