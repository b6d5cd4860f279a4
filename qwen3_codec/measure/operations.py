"""How many operations a frame takes, and how many this machine can do."""

import time

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ..model.checkpoint.upstream import code2wav_config
from ..model.decoder import CodecDecoder
from ..spec import StateSpec
from ..streaming.exact import ExactStreamingWrapper

GEMM_SIZE = 1536


def gemm_gflops(size: int = GEMM_SIZE, repeats: int = 10) -> float:
    """Best rate of a float32 matrix product in PyTorch, in GFLOP/s: what this machine can do at most."""
    a, b = torch.randn(2, size, size, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


def cost_of(config: dict) -> tuple[float, StateSpec]:
    """GFLOP a frame and the interface of the exact design for a checkpoint's `config`. Shapes say both: no weights."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        decoder = CodecDecoder(code2wav_config(config["decoder_config"], config["output_sample_rate"]))
        wrapper = ExactStreamingWrapper(decoder)
        return gflop_per_frame(wrapper), wrapper.spec


def gflop_per_frame(wrapper: ExactStreamingWrapper, frames: int = 12) -> float:
    """Operations of matrix products and convolutions for one frame (PyTorch's own counter), in GFLOP."""
    state = [torch.from_numpy(array) for array in wrapper.spec.zero_state().values()]
    codes = torch.zeros(1, frames, wrapper.spec.num_quantizers, dtype=torch.int64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        wrapper(codes, *state)
    return counter.get_total_flops() / frames / 1e9
