"""The commands, a file each: what it is about, an example, its options, and `run(args)`, which gives the exit code.

A command imports what needs more than numpy and onnxruntime inside `run`, so that the others work without it.
"""
