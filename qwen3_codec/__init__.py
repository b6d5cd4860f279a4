"""Stateful ONNX export of the Qwen3-TTS 12 Hz codec: 16 codes per 80 ms frame to 24 kHz audio, and back.

The rooms and wings, from the ground up; each imports only from what stands above it here, and those above the line
need no torch:

    states, metrics     a graph's inputs, outputs and states; how far two waveforms are apart, how a stream is cut
    files, console      files that appear whole or not at all; what every command does with errors and signals
    codes, riff, audio  codes read and checked; waveforms in files, and the lengths of WAVs as they are
    resampling          a waveform at another rate, whole or chunk by chunk
    diagnostics         all that a library says during a block, and what of it is only advice
    wording             what an exporter said, in a few words
    alignment, compare  a waveform against one from elsewhere: what differs, and which known cause it looks like
    stream, saved, aio  streams (`CodecStream`), their files, and their calls from a coroutine
    runtime, cores      the exported graph that they run on (`CodecSession`); how many cores are ours to use
    promise             what a file in fewer bits says of its sound
    selftest, describe  the test that a file carries; what a file is, for other clients
    --------------------------------------------------------------------------------------------------------
    model/              what is streamed: configs and their checks, `decoder` and `encoder` (one shot), `checkpoint`
                        (where weights come from; `weights`, `hub`), `inspection` (the receptive field, measured)
    streaming/          how: `kv_stack` (attention), `layers` (convolutions), the designs `windowed` and `exact`, the
                        `encoder`, `fixed` (fixed axes), `session` (a wrapper behind the client's interface)
    bits/               how a graph gets fewer bits: 8 by its wrapper's products (`int8`), 16 by a converter (`float16`)
    dimensions          what is inside, as tables
    frozen, causes      which axes of a graph do not follow; what else may explain that it is not right
    export              to ONNX, with checks
    verify, report      one shot against wrapper against graph; what was measured, in words; `verify_encoder`
    parity              the same for any graph whose states pair by name, and which of them the test does not see
    precision           export in fewer bits, with a promise on the sound in the file
    bench, card         what each design costs; all that is to be said of a checkpoint, on one page
    pitfalls/           every trap as a specimen that runs
    demo/               the speech model that ships with the package, and how it was made
    lab/                `plots`, `schematics`; `course`: the notebooks and how long they take; `experiment`: one stream
                        under chosen settings; `widget`: the interactive lab; `voice`; `site`, page/: it in a browser;
                        `given`: whether the notebooks can use a checkpoint and a recording
    exercises/          tasks of the notebooks, and a check that says what is wrong with an answer
    serving/            a model repository for a Triton server, a client, the server itself here, the load that it holds
    commands/, cli      `python -m qwen3_codec`, a file a command
"""

__version__ = "0.1.0"
