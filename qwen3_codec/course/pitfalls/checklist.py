"""One page: what not to write, what to write, and the traps behind each line."""

CHECKLIST = (
    ("`if is_last:`", "`torch.where(is_last > 0.5, a, b)`", ("if on a tensor",)),
    (
        "`wav[:, start:end]`",
        "`wav[:, start:]`, and return `valid_samples`",
        ("the end of a slice as a Python number", "the end of a slice as a tensor"),
    ),
    (
        "a cache object in the signature",
        "one tensor of keys and one of values for each layer",
        ("DynamicCache as an input",),
    ),
    (
        "the library's `forward` with a cache or positions of your own",
        "a loop over the layers, with a mask and an `update()` of your own",
        (
            "a cache class of one's own: get_query_offset",
            "a cache class of one's own: get_mask_sizes",
            "positions that restart",
        ),
    ),
    (
        "a post-RoPE cache, positions from the trimmed length",
        "a pre-RoPE cache, rotated at places within the window",
        ("a cache rebuilt from trimmed keys", "positions that saturate"),
    ),
    (
        "`hidden_size // num_attention_heads`",
        "`config.head_dim`, `config.num_key_value_heads`",
        ("head_dim by the formula",),
    ),
    (
        "names and axes by hand",
        "both from one declaration, and count them in the graph",
        ("too few input names", "a misspelt name in dynamic_axes"),
    ),
    (
        "`dynamic_axes` for dynamo, flat `dynamic_shapes`",
        "nested `dynamic_shapes`: all of `*past` is one entry",
        (
            "dynamic_axes with *args",
            "dynamic_shapes for TorchScript",
            "dynamic_shapes, one for each tensor",
            "dynamic_shapes by input name",
        ),
    ),
    (
        "`int()` or `float()` of a size",
        "a bare `size()`, or `torch.zeros(1) + size`",
        ("int() on a length", "float() on a length"),
    ),
    (
        "`min`, `max`, `math.ceil`, `if`, `range` on a size",
        "slices with fixed ends, integer arithmetic, operations over the axis",
        (
            "min() on a length",
            "max() on a length",
            "math.ceil on a length",
            "if on a length",
            "range() on a length",
        ),
    ),
    (
        "an example of length 0 or 1 on a dynamic axis",
        "at least 2 on every axis",
        ("an example of length 1",),
    ),
    (
        "`unflatten` and `flatten` before a size",
        "`reshape`",
        ("a size after unflatten",),
    ),
    (
        "an LSTM as it is, under dynamo",
        '`symbolic_multi_out("::LSTM", ...)`, or TorchScript\'s exporter',
        ("an LSTM's length",),
    ),
    (
        "`new[..., -k:]` as the next state",
        "`cat(old, new)[..., -k:]`",
        ("left context from the new frames alone",),
    ),
    ("trim, then attend", "attend, then trim what is stored", ("keys trimmed before attention",)),
    (
        "the overlap of outputs as a state",
        "the last inputs as a state",
        ("a transposed convolution that adds its bias twice",),
    ),
    (
        "a left context that sounds right",
        "the measured receptive field, or a state for each layer",
        ("too little left context",),
    ),
    (
        "`padding='same'`, or a transposed convolution trimmed on both sides",
        "pad on the left, trim on the right",
        (
            "a convolution padded on both sides that looks causal",
            "a transposed convolution trimmed on both sides",
        ),
    ),
    (
        "a state of zeros where the padding mirrors or copies",
        "a state from the first samples",
        ("padding that mirrors the start", "a stream that begins with zeros where the padding copies the edge"),
    ),
    (
        "weight norm in the graph, or removed from a deepcopy",
        "folded once, in the module that is exported",
        (
            "weight norm left in the graph",
            "weight norm removed from a deepcopy",
            "a copy of a module with the older weight norm",
        ),
    ),
    (
        "a mask of `-inf`, one column off, or without the model's window",
        "the lowest number of the type, causal, and the window",
        ("a mask of minus infinity", "a mask one column off", "attention without the model's window"),
    ),
    (
        "a buffer that remembers; one bound buffer for a state before and after",
        "a state that goes in and comes out; two buffers that change places",
        ("state in a buffer", "one buffer bound as input and output"),
    ),
    (
        "a conversion that you only listen to",
        "a conversion that you measure, with inputs and outputs as declared",
        (
            "states in half precision",
            "float32 for a graph in half precision",
            "a mask with float32's lowest number",
            "running sums in half precision",
            "8-bit convolutions straight from the exporter",
        ),
    ),
    (
        "one position, one reset, one length for a batch",
        "one for each row; padding by -1",
        ("one position for all rows of a batch", "one stream's reset in a shared runner", "padding by code 0"),
    ),
    (
        "zeros where a state is empty; a cold state after a prompt",
        "the exact graph, whose states have one shape; the prompt pushed first",
        ("zeros where a state should be empty", "a cloned voice without its reference in the state"),
    ),
    (
        "samples by share, states by sorted name",
        "samples by frames, states as the file declares them",
        ("samples trimmed in proportion", "states paired by sorted name"),
    ),
    (
        "`kernel - 1` before a strided convolution, zeros after the audio",
        "`kernel - stride`, and `stride - 1` after each layer's own input",
        ("a strided convolution that keeps kernel - 1 samples", "zeros after the end of the audio"),
    ),
    (
        "the codebook entry with the largest product",
        "the nearest one",
        ("the codebook entry with the largest product",),
    ),
    (
        "`torch.stft`",
        "a convolution with fixed sines and cosines",
        ("torch.stft at an old opset", "torch.stft in complex numbers"),
    ),
    (
        "all that the language model wrote, as codes",
        "the frames before its first control code",
        ("a control code among the codes",),
    ),
    (
        "each chunk decoded from the start",
        "a state, and the chunk's own frames",
        ("every chunk decoded from the start of the stream",),
    ),
    (
        "a usual sample rate",
        "the model's `sample_rate`",
        ("samples played at another rate",),
    ),
    (
        "a chunk resampled on its own",
        "one resampler for the stream, flushed at its end",
        ("each chunk resampled on its own",),
    ),
    (
        "a test of one sentence, and its mean",
        "a test past the window, and its worst chunk, with reference data of the version that you mean",
        (
            "a test no longer than the window",
            "an average that hides one bad chunk",
            "a version of a library that changes the numbers",
        ),
    ),
)
