"""What is streamed: a checkpoint and the one-shot decoder made from it."""
