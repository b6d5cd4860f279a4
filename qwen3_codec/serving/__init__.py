"""Many streams on one server: a model repository for NVIDIA Triton, a client, and what a server holds."""

MODEL = "qwen3_codec"  # the model's name on the server, by default
