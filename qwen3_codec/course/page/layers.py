"""The decoder as one line of layers, in the order of the data, read off one run: what the page draws."""

from torch import nn, no_grad, zeros

from ...model.decoder import CausalConv, CausalTransConv, CodecDecoder

FRAMES = 2  # of the run: any number does


def parts(decoder: CodecDecoder) -> list[dict]:
    """[{name, layers}]: each part of `decoder` with its layers, as JSON takes it.

    A layer is a convolution, an attention, or a run of modules between two of them that look at each step alone:
    `names` of the modules, their `kinds`, `steps` of its input for a frame, and `stride`, by which a transposed
    convolution multiplies them. What a layer keeps from call to call is the graph's affair: its spec says to which
    module each state belongs.
    """
    stages = [f"{name}." for name, _ in decoder.stages()]
    attention = set(decoder.attention_names)
    found: list[dict] = []
    steps = 1

    def note(name: str, kind: str, alone: bool, stride: int = 1) -> None:
        part = ".".join(name.split(".")[: 2 if f"{name}.".startswith(tuple(stages)) else 1])
        if not found or found[-1]["name"] != part:
            found.append({"name": part, "layers": []})
        layers = found[-1]["layers"]
        if alone and layers and layers[-1]["alone"]:
            layers[-1]["names"].append(name)
            layers[-1]["kinds"].append(kind)
        else:
            layers.append({"names": [name], "kinds": [kind], "steps": steps, "stride": stride, "alone": alone})

    def ran(name: str, module: nn.Module, output) -> None:
        nonlocal steps
        if not isinstance(module, CausalConv | CausalTransConv):
            return note(name, _plain(module), name not in attention)
        conv, after = module.conv, output.shape[-1] // FRAMES
        sizes = {"kernel": conv.kernel_size[0], "stride": conv.stride[0], "dilation": conv.dilation[0]}
        words = [f"{word} {size}" for word, size in sizes.items() if size > 1 or word == "kernel"]
        alone = isinstance(module, CausalConv) and not module.left_context
        note(name, ", ".join([type(conv).__name__, *words]), alone, after // steps)
        steps = after

    units = _units(decoder, attention | {"quantizer"})
    hooks = [
        module.register_forward_hook(lambda module, _, output, name=name: ran(name, module, output))
        for name, module in units.items()
    ]
    note("quantizer", _plain(decoder.quantizer), alone=True)  # its `decode` is called, which no hook sees
    try:
        with no_grad():
            decoder(zeros(1, FRAMES, decoder.config.num_quantizers).long())
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _units(decoder: CodecDecoder, closed: set[str]) -> dict[str, nn.Module]:
    """Modules that are drawn: convolutions, the `closed` ones, and of the rest those that hold no other module."""
    units: dict[str, nn.Module] = {}
    for name, module in decoder.named_modules():
        whole = name in closed or isinstance(module, CausalConv | CausalTransConv)
        inside = any(name.startswith(f"{unit}.") for unit in units)
        if not inside and (whole or not list(module.children())):
            units[name] = module
    return units


def _plain(module: nn.Module) -> str:
    """The module's class, without the model that transformers names it after."""
    return type(module).__name__.removeprefix("Qwen3OmniMoe").removeprefix("Code2Wav")
