"""How it is streamed: the decoder with its state as inputs and outputs, in two designs."""
