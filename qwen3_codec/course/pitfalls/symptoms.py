"""What someone notices, in their words: where the catalogue's index begins. A trap names those that it gives."""

SYMPTOMS = {
    # in the audio
    "borders": "The audio clicks or pops at chunk borders.",
    "window": "The audio is right at first and wrong after some seconds, once the attention window is full.",
    "start": "The beginning of every stream is wrong, or its first chunk.",
    "end": "The end of the audio is wrong, cut off or missing.",
    "length": "Samples are missing or repeated; the audio is shorter than frames × samples_per_frame, or runs away.",
    "chunking": "The audio depends on the chunk length: streamed is not the same as decoded in one piece.",
    "neighbour": "In a batch one stream disturbs another, or is wrong when it joins later.",
    "voice": "A cloned voice starts with other sound than the reference would lead to.",
    "quality": "The audio is noisier or distorted after a conversion to float16 or int8.",
    "rate": "The audio is too fast and too high, or too slow and too deep.",
    "codes": "The encoder's codes differ from the reference's.",
    # in the numbers
    "nan": "The output is NaN.",
    "factor": "Shapes are right and values are off at other lengths than the example's.",
    "lengths": "The graph runs at the example's length alone; at others ONNX Runtime stops (shape mismatch, invalid "
    "dimensions, cannot broadcast) or gives the wrong shape.",
    "input": "An input is missing in the graph, has another name, or ONNX Runtime does not know it.",
    "bounds": "Indices are out of bounds: a code is larger than its codebook.",
    "memory": "The graph forgets between two calls: the second call gives what the first gave.",
    "order": "Results change from run to run, or with bound buffers (io_binding).",
    "slow": "The graph is larger or slower than it needs to be.",
    "grows": "The time of a call, its latency or its memory, grows with every chunk.",
    # around it
    "export": "The export, a conversion or the first call stops with an error.",
    "passes": "All tests pass and the stream is wrong.",
    "update": "The numbers changed after an update of a library.",
    "original": "The original model no longer works after a copy of it was changed.",
}
