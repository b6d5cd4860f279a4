"""Stateful ONNX export of the Qwen3-TTS 12 Hz codec decoder (16 codes per 80 ms frame in, 24 kHz audio out).

The rooms and wings, from the ground up; each imports only from what stands above it here, and those above the line
need no torch:

    states, metrics     a graph's inputs, outputs and states; how far two waveforms are apart, how a stream is cut
    files               files that appear whole or not at all
    codes, audio        codes read and checked; waveforms in files
    alignment, compare  a waveform against one from elsewhere: what differs, and which known cause it looks like
    runtime             an exported graph (`CodecSession`) and its streams (`CodecStream`)
    --------------------------------------------------------------------------------------------------------
    model/              what is streamed: `config` and its checks, `decoder` (one shot), `checkpoint` (where weights
                        come from), `inspection` (dimensions and receptive field, measured)
    streaming/          how: `kv_stack` (attention), `layers` (convolutions), and the designs `windowed` and `exact`
    export, verify      to ONNX, with checks; one shot against wrapper against graph
    bench               what each design costs
    pitfalls/           every trap as a specimen that runs
    demo/               the speech model that ships with the package, and how it was made
    lab/                `plots`; `experiment`: one stream under chosen settings; `widget`: the interactive lab
    commands/, cli      `python -m qwen3_codec`, a file a command
"""

__version__ = "0.1.0"
