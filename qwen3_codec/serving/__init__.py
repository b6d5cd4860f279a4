"""Many streams on one server: a model repository for NVIDIA Triton, a client, and what a server holds."""
