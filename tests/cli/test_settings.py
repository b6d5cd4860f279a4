"""Nobody notices a call: the settings of the process and the modules that others share are as before it."""

import copy
import logging
import os
import random
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from conftest import random_codes

from qwen3_codec.cli import main as cli
from qwen3_codec.course.exercises.check import EXERCISES
from qwen3_codec.course.exercises.exercise import grade
from qwen3_codec.course.pitfalls import precision as converters
from qwen3_codec.course.pitfalls.modules import CutBothSides, at_the_official_rates
from qwen3_codec.demo.training import train_encoder
from qwen3_codec.exporting.export import export
from qwen3_codec.exporting.precision.float16 import to_half
from qwen3_codec.exporting.precision.int8 import Int8StreamingWrapper
from qwen3_codec.measure import bench
from qwen3_codec.model import checkpoint, dimensions
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.model.receptive_field import attention_influence, conv_influence, conv_receptive_field, receptive_field
from qwen3_codec.runtime import CodecSession
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.session import TorchSession
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper
from qwen3_codec.verification.decoder import verify
from qwen3_codec.verification.parity import parity


def settings() -> dict:
    """What a call could set for the whole process.

    Not `sys.path`: ONNX Runtime's converters add a folder that their later imports need.
    """
    loggers = {name: each for name, each in logging.root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    return {
        "PyTorch's random numbers": torch.get_rng_state().numpy().tobytes(),
        "numpy's random numbers": repr(np.random.get_state()),
        "Python's random numbers": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "logging": (logging.root.manager.disable, logging.root.level, list(logging.root.handlers)),
        "loggers": {name: (each.level, each.disabled, each.propagate) for name, each in loggers.items()},
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "numpy's errors": np.geterr(),
        "recursion": sys.getrecursionlimit(),
    }


def of_module(module) -> dict:
    """What a call could change of a module that others use too: kinds, modes, hooks, and weights to the bit."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        "modes": [(name, part.training, len(part._forward_pre_hooks)) for name, part in module.named_modules()],
        "tensors": {name: (id(t), t.dtype, t._version, t.requires_grad) for name, t in tensors.items()},
        "weights": checkpoint.fingerprint(module),
    }


def calls(tiny, graph, folder):
    codes, wrapper, spoken = random_codes(tiny.decoder, 12), ExactStreamingWrapper(tiny.decoder), folder / "codes.npy"
    np.save(spoken, codes)
    decode = ["decode", str(graph), "--codes", str(spoken), "--output", str(folder / "x.npy")]
    new = torch.get_num_threads() + 1
    return {
        "load": lambda: checkpoint.load("demo"),
        "load the encoder": lambda: checkpoint.load("demo").encoder,
        "random": lambda: checkpoint.load("random-small"),
        "random encoder": lambda: checkpoint.load("random-small").encoder,
        "one shot": lambda: one_shot(tiny.decoder, codes),
        "wrappers": lambda: [make(tiny.decoder) for make in (ExactStreamingWrapper, StatefulCodecONNXWrapper)],
        "8 bits": lambda: Int8StreamingWrapper(tiny.decoder),
        "receptive field": lambda: receptive_field(tiny.decoder),
        "conv reach": lambda: conv_receptive_field(tiny.decoder),
        "influence": lambda: (conv_influence(tiny.decoder), attention_influence(tiny.decoder, 9)),
        "memory": lambda: dimensions.conv_memory(wrapper),
        "stream": lambda: [*TorchSession(wrapper).stream().pushes(codes)],
        "export": lambda: export(tiny, wrapper, folder / "exact.onnx"),
        "float16": lambda: to_half(onnx.load(graph)),
        "verify": lambda: verify(tiny, wrapper, codes, [[3]], CodecSession(graph)),
        "parity": lambda: parity(
            graph, lambda each: one_shot(tiny.decoder, each), random_codes(tiny.decoder, 90), [[3]]
        ),
        "bench": lambda: bench.benchmark(tiny, folder, 4, (2,), new, rounds=1, designs=["exact"]),
        "command": lambda: cli.main(decode),
        "command that fails": lambda: cli.main([*decode[:-1], "x.odd"]),
        "training an encoder": lambda: train_encoder.new_run(checkpoint.load("demo").decoder, 3, 0),
        "8 bits by the converter": lambda: converters.to_int8(graph, "settings_int8", ["MatMul"]),
        "a trap": lambda: at_the_official_rates(CutBothSides),
        "exercise": lambda: grade(
            EXERCISES["length of the left context"], EXERCISES["length of the left context"].solution
        ),
    }


def test_no_call_leaves_a_trace(tiny, tiny_exact, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "CALLS", 1)  # the times are not looked at
    monkeypatch.setattr(bench.gemm_gflops, "__defaults__", (64, 1))
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a program: with pytest's own, no library adds one
    torch.manual_seed(torch.initial_seed())
    for name, call in calls(tiny, tiny_exact, tmp_path).items():
        before, module = settings(), of_module(tiny.decoder)
        call()
        after = settings()
        after["loggers"] = {logger: after["loggers"][logger] for logger in before["loggers"]}
        assert [what for what in before if before[what] != after[what]] == [], name
        assert of_module(tiny.decoder) == module, name
    capsys.readouterr()


def test_a_call_that_fails_leaves_no_trace_either(tiny, tmp_path, monkeypatch):
    before = settings()
    monkeypatch.setattr(bench, "one_shot", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench.benchmark(tiny, tmp_path, 4, (2,), torch.get_num_threads() + 1, rounds=1, designs=["exact"])
    assert settings() == before
    wrapper = ExactStreamingWrapper(tiny.decoder)
    hooks = [len(part._forward_pre_hooks) for part in wrapper.modules()]
    monkeypatch.setattr(ExactStreamingWrapper, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dimensions.conv_memory(wrapper)
    assert [len(part._forward_pre_hooks) for part in wrapper.modules()] == hooks


@pytest.mark.parametrize(
    ("part", "make"),
    [
        ("decoder", ExactStreamingWrapper),
        ("decoder", StatefulCodecONNXWrapper),
        ("decoder", Int8StreamingWrapper),
        ("encoder", StreamEncoderWrapper),
    ],
)
def test_a_wrapper_of_a_model_that_is_being_trained_leaves_it_so(part, make):
    """The wrapper itself is in evaluation mode and keeps no graph of gradients; in that mode the model is right."""
    finished = getattr(checkpoint.load("demo"), part)
    trained = copy.deepcopy(finished).train()
    for parameter in trained.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    before = of_module(trained)
    wrapper = make(trained)
    assert of_module(trained) == before
    theirs = {*trained.modules()}
    assert not any(module.training for module in wrapper.modules() if module not in theirs)
    assert not any(buffer.requires_grad for buffer in wrapper.buffers())
    spec, rng = wrapper.spec, np.random.default_rng(0)
    frames = {"decoder": lambda: rng.integers(spec.codebook_size, size=(1, 3, spec.num_quantizers))}
    frames["encoder"] = lambda: (0.1 * rng.standard_normal((1, 3 * spec.samples_per_frame))).astype(np.float32)
    data = frames[part]()
    with pytest.raises(ValueError, match="in training mode"):
        TorchSession(wrapper)
    assert of_module(trained) == before
    trained.eval()  # as before a validation in the middle of the training
    mine, other = (TorchSession(each).stream().push(data) for each in (wrapper, make(finished)))
    np.testing.assert_array_equal(mine, other)


def test_others_decode_while_the_receptive_field_is_measured(tiny):
    """The same samples to the bit, in every call that falls into a measurement; before, nearly all of them failed."""
    codes, over, made = torch.from_numpy(random_codes(tiny.decoder, 5)), threading.Event(), []
    wanted = one_shot(tiny.decoder, codes.numpy())

    def decode():
        while not over.is_set():
            made.append(one_shot(tiny.decoder, codes.numpy()))

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(decode)
        try:
            while len(made) < 50 and not other.done():
                receptive_field(tiny.decoder)
        finally:
            over.set()
        other.result()
    for each in made:
        np.testing.assert_array_equal(each, wanted)
