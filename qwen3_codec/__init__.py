"""Stateful ONNX export of the Qwen3-TTS 12 Hz codec decoder (16 codes per 80 ms frame in, 24 kHz audio out).

The rooms, from the ground up; each imports only rooms above it, and those above the line need no torch:

    states, metrics     a graph's inputs, outputs and states; how far two waveforms are apart, how a stream is cut
    files               files that appear whole or not at all
    runtime             an exported graph (`CodecSession`) and its streams (`CodecStream`)
    --------------------------------------------------------------------------------------------------------
    config, reference   a checkpoint's config and its checks; the one-shot decoder
    checkpoint, demo    where weights come from; the speech model that ships with the package
    inspection          dimensions and receptive field, measured
    kv_stack, windowed, exact   the attention store, and the two streaming designs
    export, verify      to ONNX, with checks; one shot against wrapper against graph
    bench               what each design costs
    pitfalls            every trap as a specimen that runs
    plots, experiment, lab      figures; one stream under chosen settings; the interactive lab
    cli                 `python -m qwen3_codec`
"""

__version__ = "0.1.0"
